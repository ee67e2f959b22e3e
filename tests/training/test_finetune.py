import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.inference.predictor import Predictor
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region, Sample
from open_florence.training.augment import Augmentation
from open_florence.training.batches import Example
from open_florence.training.finetune import FinetuneConfig, finetune_detection, tasks_from_boxes


@pytest.fixture
def samples(tmp_path: Path, square: Callable[[random.Random], Example]) -> list[Sample]:
    rng = random.Random(0)
    samples = []
    for i in range(16):
        example = square(rng)
        path = tmp_path / f"{i}.png"
        Image.fromarray(example.image).save(path)
        detection = next(a for a in example.annotations if a.task == "<OD>")
        samples.append(Sample(str(i), str(path), example.size, (detection,)))
    return samples


def test_tasks_that_follow_from_boxes() -> None:
    boxes = (Region.box(0, 0, 4, 4, label="cat"), Region.box(5, 5, 9, 9, label="dog"))
    detection = Annotation("<OD>", regions=boxes, source="human")
    for seed in range(20):
        derived = {a.task: a for a in tasks_from_boxes(detection, ["cat", "dog", "cow"], random.Random(seed))}
        assert derived["<OD>"] is detection
        assert [r.label for r in derived["<REGION_PROPOSAL>"].regions] == ["", ""]
        asked = derived["<OPEN_VOCABULARY_DETECTION>"]
        assert asked.regions == tuple(r for r in boxes if r.label == asked.query)
        answer = derived["<REGION_TO_CATEGORY>"]
        assert isinstance(answer.query, Region)
        assert (answer.query.parts, answer.text) in [(r.parts, r.label) for r in boxes]
    assert len(tasks_from_boxes(Annotation("<OD>"), ["cat"], random.Random(0))) == 3, "no box, no region to ask about"


def test_it_learns_from_images_on_disk_and_leaves_a_plain_model(
    model: Florence, processor: Processor, samples: list[Sample], tmp_path: Path
) -> None:
    seen: list[int] = []

    def evaluate(model: Florence, processor: Processor) -> dict[str, float]:
        assert not model.training
        seen.append(1)
        return {"figure": 1.0}

    config = FinetuneConfig(
        steps=100,
        learning_rate=3e-3,
        batch_size=6,
        targets_per_image=2,
        augmentation=Augmentation(crop=(1.0, 1.0)),
        evaluate_every=50,
    )
    tuned, _ = finetune_detection(model, processor, samples, tmp_path / "run", config, evaluate)
    assert len(seen) == 2
    assert not any("parametrizations" in name for name, _ in tuned.named_parameters())
    found = Predictor(tuned, processor).predict(samples[0].path, "<OD>")
    assert isinstance(found, Annotation)
    assert {r.label for r in found.regions} == {"square"}
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["<OD>"] for line in log if "<OD>" in line]
    assert losses[-1] < 0.6 * losses[0]


def test_nothing_to_learn_from_is_one_sentence(model: Florence, processor: Processor, tmp_path: Path) -> None:
    empty = Sample("0", "a.png", (32.0, 32.0), (Annotation("<OD>"),))
    with pytest.raises(OpenFlorenceError, match="none of the 1 samples has a box"):
        finetune_detection(model, processor, [empty], tmp_path, FinetuneConfig(steps=1))
    other = Sample("0", "a.png", (32.0, 32.0), (Annotation("<CAPTION>", text="a cat"),))
    with pytest.raises(OpenFlorenceError, match=r"a.png has no <OD> annotation"):
        finetune_detection(model, processor, [other], tmp_path, FinetuneConfig(steps=1))
