import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.inference.predictor import Predictor
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region, Sample
from open_florence.training.augment import Augmentation
from open_florence.training.batches import Example
from open_florence.training.finetune import FinetuneConfig, Lessons, finetune, tasks_from_boxes
from open_florence.training.lora import LoraConfig, merge_lora


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
    tuned, _ = finetune(model, processor, samples, tmp_path / "run", config, evaluate)
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
    with pytest.raises(OpenFlorenceError, match="none of the 1 images has a box"):
        finetune(model, processor, [empty], tmp_path, FinetuneConfig(steps=1))
    with pytest.raises(OpenFlorenceError, match="none of the images has a <CAPTION> annotation"):
        finetune(model, processor, [empty], tmp_path, FinetuneConfig(tasks=("<OD>", "<CAPTION>"), steps=1))


def test_an_image_is_treated_as_its_annotations_allow(samples: list[Sample], processor: Processor) -> None:
    caption = Annotation("<CAPTION>", text="a square on the left")
    both = [replace(sample, annotations=(*sample.annotations, caption)) for sample in samples]
    config = FinetuneConfig(tasks=("<OD>", "<CAPTION>"), augmentation=Augmentation(crop=(1.0, 1.0)))
    lessons = Lessons(both, config, ["square"], 32, (4, 4))
    kinds = set()
    for seed in range(30):
        example = lessons.example(random.Random(seed))
        tasks = frozenset(a.task for a in example.annotations)
        kinds.add(tasks)
        assert "<CAPTION>" not in tasks or np.isnan(example.dense["object"]).all()
    assert kinds == {
        frozenset({"<CAPTION>"}),
        frozenset({"<OD>", "<REGION_PROPOSAL>", "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_CATEGORY>"}),
    }


def test_the_replay_gets_its_share_of_a_batch(
    samples: list[Sample], processor: Processor, square: Callable[[random.Random], Example]
) -> None:
    config = FinetuneConfig(replay=0.25, batch_size=6, targets_per_image=1)
    lessons = Lessons(samples, config, ["square"], 32, (4, 4), square)
    first, again = lessons.batch(processor, 3), lessons.batch(processor, 3)
    assert len(first.pixel_values) == 8
    assert torch.equal(first.pixel_values, again.pixel_values)
    assert {len(label) for label in first.dense.values()} == {8}


def test_adapters_alone_are_trained(
    model: Florence, processor: Processor, samples: list[Sample], tmp_path: Path
) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = FinetuneConfig(steps=3, batch_size=2, targets_per_image=1, lora=LoraConfig(rank=2))
    tuned, _ = finetune(model, processor, samples, tmp_path / "run", config)
    merge_lora(tuned)
    moved = {name for name, p in tuned.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("attn" in name or "fc" in name for name in moved)


def test_samples_are_drawn_by_their_weights(samples: list[Sample]) -> None:
    samples = [replace(s, annotations=(replace(s.annotations[0], source=s.id),)) for s in samples]
    weights = [0.0] * len(samples)
    weights[3] = 1.0
    lessons = Lessons(samples, FinetuneConfig(), ["square"], 64, (8, 8), weights=weights)
    drawn = [lessons.example(random.Random(seed)) for seed in range(8)]
    assert {a.source for example in drawn for a in example.annotations} == {"3"}
