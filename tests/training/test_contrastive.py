import json
import math
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from open_florence.errors import OpenFlorenceError
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.embedding import LARGEST_SCALE, DualEncoder
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region
from open_florence.training.batches import Example
from open_florence.training.config import TrainConfig
from open_florence.training.contrastive import (
    ContrastiveBatch,
    ContrastiveObjective,
    contrastive_batch,
    draw_text,
    init_from,
    label_of,
    unicl_loss,
)
from open_florence.training.trainer import Trainer

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def units(rows: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_with_all_labels_different_it_is_clips_loss() -> None:
    images, texts, diagonal = units(6, 0), units(6, 1), torch.arange(6)
    logits = 14.0 * images @ texts.T  # as in the pseudo-code of arXiv 2103.00020, figure 3
    clip = (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2
    labels = torch.tensor([9, 2, 7, 0, 5, 3])
    assert unicl_loss(images, texts, labels, 14.0).item() == pytest.approx(clip.item(), rel=1e-6)


def test_a_small_case_by_hand() -> None:
    x, y = [1.0, 0.0], [0.0, 1.0]
    images, texts, labels = torch.tensor([x, x, y]), torch.tensor([x, y, y]), torch.tensor([5, 5, 3])
    # cosines times two: rows (2 0 0), (2 0 0), (0 2 2); the first two rows and columns belong together
    one, two = math.log(math.e**2 + 2), math.log(2 * math.e**2 + 1)
    to_text = ((one - 1) + (one - 1) + (two - 2)) / 3
    to_image = ((two - 2) + one + (one - 2)) / 3
    assert unicl_loss(images, texts, labels, 2.0).item() == pytest.approx((to_text + to_image) / 2, rel=1e-6)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_it_is_least_when_a_labels_rows_are_alike_and_apart_from_all_others(labels: list[int], seed: int) -> None:
    numbers = torch.tensor(labels)
    least = sum(math.log(labels.count(label)) for label in labels) / len(labels)
    perfect = torch.eye(4)[numbers]
    assert unicl_loss(perfect, perfect, numbers, 100.0).item() == pytest.approx(least, abs=1e-4)
    images, texts = units(len(labels), seed), units(len(labels), seed + 100)
    loss = unicl_loss(images, texts, numbers, 10.0)
    assert loss.item() >= least - 1e-5
    order = torch.randperm(len(labels))
    assert unicl_loss(images[order], texts[order], numbers[order], 10.0).item() == pytest.approx(loss.item(), rel=1e-4)


def test_texts_of_one_class_in_other_words_have_one_label() -> None:
    rng = random.Random(0)
    drawn = {
        draw_text([Annotation("<CLASSIFICATION>", "orange cat")], {"<CLASSIFICATION>": 1.0}, rng) for _ in range(40)
    }
    assert ("a photo of an orange cat", "orange cat") in drawn
    assert len(drawn) == 4
    assert {said for _, said in drawn if said} == {"orange cat"}
    assert label_of("orange cat") == label_of(" Orange CAT") != label_of("orange bat")
    assert 0 <= label_of("orange cat") < 2**63


def test_a_text_is_a_caption_or_names_one_region() -> None:
    boxes = tuple(Region.box(0, 0, 1, 1, label=label) for label in ("star", "", "ring"))
    annotations = [
        Annotation("<CAPTION>", "two things"),
        Annotation("<OD>", regions=boxes),
        Annotation("<OCR>", "STOP"),
    ]
    rng = random.Random(0)
    weights = {"<CAPTION>": 1.0, "<OD>": 1.0, "<REGION_PROPOSAL>": 1.0}
    drawn = [draw_text(annotations, weights, rng) for _ in range(60)]
    assert {said for _, said in drawn if said} == {"two things", "star", "ring"}  # type: ignore[misc]
    assert draw_text([Annotation("<OD>")], weights, rng) is None
    assert draw_text([Annotation("<OCR>", "STOP")], weights, rng) is None


def coloured(rng: random.Random) -> Example:
    name = rng.choice(list(COLOURS))
    image = np.zeros((32, 32, 3), np.uint8)
    x, y = rng.randrange(3) * 8, rng.randrange(3) * 8
    image[y : y + 16, x : x + 16] = COLOURS[name]
    return Example(image, (Annotation("<CLASSIFICATION>", name),))


def batch_of(processor: Processor, seed: int, count: int = 16) -> ContrastiveBatch:
    rng = random.Random(seed)
    examples = [coloured(rng) for _ in range(count)]
    return contrastive_batch(examples, processor, {"<CLASSIFICATION>": 1.0}, max_text=30, rng=rng)


def test_a_batch_holds_a_text_for_each_image(processor: Processor) -> None:
    batch = batch_of(processor, 3)
    assert batch.pixel_values.shape == (16, 3, 32, 32)
    assert batch.input_ids.shape == batch.attention_mask.shape
    texts = [
        processor.tokenizer.decode(row[mask.bool()].tolist()) for row, mask in zip(*batch_text(batch), strict=True)
    ]
    said = [text.removeprefix("<s>").removesuffix("</s>").split()[-1] for text in texts]
    assert batch.labels.tolist() == [label_of(word) for word in said]


def batch_text(batch: ContrastiveBatch) -> tuple[torch.Tensor, torch.Tensor]:
    return batch.input_ids, batch.attention_mask


def test_a_text_that_is_too_long_is_left_out_with_its_image_and_counted(processor: Processor) -> None:
    short = Example(np.zeros((32, 32, 3), np.uint8), (Annotation("<CAPTION>", "a red square"),))
    long = Example(np.full((32, 32, 3), 255, np.uint8), (Annotation("<CAPTION>", "a red square " * 20),))
    rng = random.Random(0)
    batch = contrastive_batch([long, short, long], processor, {"<CAPTION>": 1.0}, max_text=10, rng=rng)
    assert (len(batch.pixel_values), batch.dropped) == (1, 2)
    assert torch.equal(batch.pixel_values, torch.from_numpy(processor.pixels([_picture(short)])))
    with pytest.raises(OpenFlorenceError, match="none of the 1 images has a text of <CAPTION> with at most 10 tokens"):
        contrastive_batch([long], processor, {"<CAPTION>": 1.0}, max_text=10, rng=rng)


def _picture(example: Example):  # type: ignore[no-untyped-def]
    from PIL import Image

    return Image.fromarray(example.image)


@pytest.fixture
def encoder(model: Florence) -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(model.config, 16)


def test_it_learns_which_name_belongs_to_which_colour(
    encoder: DualEncoder, processor: Processor, tmp_path: Path
) -> None:
    config = TrainConfig(steps=40, learning_rate=3e-3, warmup=5, decay=20, ema=0.9)
    Trainer(ContrastiveObjective(encoder), config, lambda step: batch_of(processor, step), tmp_path).run()
    encoder.eval()
    batch = batch_of(processor, 10_000, 40)
    with torch.no_grad():
        cosines = encoder.encode_image(batch.pixel_values) @ encoder.encode_text(*batch_text(batch)).T
    assert (batch.labels[cosines.argmax(1)] == batch.labels).float().mean() > 0.95
    figures = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert {"loss", "matched", "scale", "dropped"} <= figures.keys()


def test_the_scale_comes_back_from_beyond_its_limit(encoder: DualEncoder, processor: Processor) -> None:
    with torch.no_grad():
        encoder.logit_scale.fill_(9.0)
    loss, figures = ContrastiveObjective(encoder).losses(batch_of(processor, 0), 0, TrainConfig(steps=1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert figures["scale"] == pytest.approx(LARGEST_SCALE)
    assert encoder.logit_scale.item() == pytest.approx(math.log(LARGEST_SCALE))
    assert encoder.logit_scale.grad is not None
    assert encoder.logit_scale.grad.item() != 0


TWO = """
import os
import sys
from pathlib import Path
import torch
import torch.distributed as dist
sys.path.insert(0, sys.argv[2])
import conftest
import test_contrastive as cases
from open_florence.training.config import TrainConfig
from open_florence.training.trainer import Trainer

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
processor = conftest.processor.__wrapped__()
shape = conftest.model.__wrapped__(processor).config
objective = cases.fresh_objective(shape)
mine = cases.part(cases.batch_of(processor, 0, 10), rank)
loss, figures = objective.losses(mine, 0, TrainConfig(steps=1))
loss.backward()
gradients = {}
for name, parameter in objective.named_parameters():
    dist.all_reduce(parameter.grad)
    gradients[name] = parameter.grad / 2
torch.save({"loss": loss.item(), "figures": figures, "gradients": gradients}, Path(sys.argv[1]) / f"rank{rank}.pt")
for strategy in ("ddp", "fsdp"):
    objective = cases.fresh_objective(shape)
    config = TrainConfig(steps=2, log_every=1, precision="float32", strategy=strategy)
    folder = Path(sys.argv[1]) / strategy
    Trainer(objective, config, lambda step: cases.part(cases.batch_of(processor, step, 10), rank), folder).run()
dist.barrier()
os._exit(0)  # gloo's threads that are still at work now and then abort a process that ends in the ordinary way
"""


def fresh_objective(config: FlorenceConfig) -> ContrastiveObjective:
    """The same weights in every process, and no dropout, which would differ."""
    torch.manual_seed(0)
    text = replace(config.text, activation_dropout=0.0)
    return ContrastiveObjective(DualEncoder(replace(config, text=text), 16))


def part(batch: ContrastiveBatch, rank: int) -> ContrastiveBatch:
    """What one of two processes has of a batch of ten: seven images, or three, without the padding they do not need."""
    rows = slice(7) if rank == 0 else slice(7, None)
    length = int(batch.attention_mask[rows].sum(1).max())
    return ContrastiveBatch(
        batch.pixel_values[rows],
        batch.input_ids[rows, :length],
        batch.attention_mask[rows, :length],
        batch.labels[rows],
    )


def test_two_processes_have_the_loss_and_the_gradient_of_their_joined_batch(
    model: Florence, processor: Processor, tmp_path: Path
) -> None:
    (tmp_path / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += [str(tmp_path / "two.py"), str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    objective = fresh_objective(model.config)
    loss, figures = objective.losses(batch_of(processor, 0, 10), 0, TrainConfig(steps=1))
    loss.backward()  # type: ignore[no-untyped-call]
    expected = {name: parameter.grad for name, parameter in objective.named_parameters()}
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert found["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert found["figures"]["matched"] == pytest.approx(figures["matched"])
        for name, gradient in found["gradients"].items():
            assert torch.allclose(gradient, expected[name], atol=1e-5, rtol=1e-3), name
    objective = fresh_objective(model.config)
    config = TrainConfig(steps=2, log_every=1, precision="float32")
    Trainer(objective, config, lambda step: batch_of(processor, step, 10), tmp_path / "one").run()
    alone = logged(tmp_path / "one")
    for strategy in ("ddp", "fsdp"):
        for one, two in zip(alone, logged(tmp_path / strategy), strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
            assert two["gradient norm"] == pytest.approx(one["gradient norm"], rel=1e-3)


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_florence_starts_from_the_trained_tower_and_keeps_the_rest(model: Florence) -> None:
    torch.manual_seed(7)
    encoder = DualEncoder(model.config, 16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    init_from(model, encoder)
    pixels = torch.randn(1, 3, 32, 32)
    assert torch.equal(model.eval().vision_tower(pixels), encoder.eval().vision_tower(pixels))
    for name, tensor in model.state_dict().items():
        same = torch.equal(tensor, before[name])
        assert same or name.startswith("vision_tower."), name
    with torch.no_grad():
        next(encoder.parameters()).zero_()
    assert not torch.equal(next(model.parameters()), next(encoder.parameters())), "it is a copy"


def test_towers_of_other_shapes_are_refused(model: Florence) -> None:
    vision = VisionConfig((8, 16), (1, 1), (1, 2), (1, 2), 32, 4, (7, 3), (4, 2), (3, 1), (False, True))
    text = TextConfig(20, 32, 1, 1, 2, 2, 64, 64)
    with pytest.raises(OpenFlorenceError, match=r"differ in shape \(\(8, 16\) and \(16, 32\) channels\)"):
        init_from(model, DualEncoder(FlorenceConfig(vision, text), 16))
