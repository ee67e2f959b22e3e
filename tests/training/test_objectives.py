import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from open_florence.inference.pretrained import build
from open_florence.model.checkpoint import read_weights
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation
from open_florence.training.batches import IGNORE, Batch, Chunk, Example, collate
from open_florence.training.config import TrainConfig
from open_florence.training.dense import DenseHeads
from open_florence.training.grounding import WordHeads
from open_florence.training.objectives import DenseObjective, SequenceObjective

CONFIG = TrainConfig(steps=10, dense_weight=0, dense_weight_end=0)


@pytest.fixture
def batch(processor: Processor, square: Callable[[random.Random], Example]) -> Batch:
    rng = random.Random(0)
    examples = [square(rng) for _ in range(4)]
    weights = {"<CAPTION>": 1.0, "<OD>": 1.0}
    return collate(examples, processor, weights, targets_per_image=2, max_target=60, rng=rng)


@pytest.fixture
def objective(model: Florence, processor: Processor) -> SequenceObjective:
    locations = (processor.tokenizer.location_start, processor.tokenizer.location_count)
    return SequenceObjective(model.eval(), locations, DenseHeads({"object": ("binary", 1)}, 32))


def test_the_loss_of_a_batch_is_cross_entropy_over_all_its_tokens(objective: SequenceObjective, batch: Batch) -> None:
    loss, figures = objective.losses(batch, 0, CONFIG)
    total, count = torch.zeros(()), 0
    for chunk in batch.chunks:
        for row in range(len(chunk.tasks)):
            labels = chunk.labels[row : row + 1, : int((chunk.labels[row] >= 0).sum())]
            length = int(chunk.attention_mask[row].sum())
            logits = objective.model(
                batch.pixel_values[chunk.image_index[row]][None],
                chunk.input_ids[row : row + 1, :length],
                chunk.attention_mask[row : row + 1, :length],
                labels,
            )
            total = total - logits[0].log_softmax(-1)[range(labels.shape[1]), labels[0]].sum()
            count += labels.shape[1]
    assert figures["loss"] == pytest.approx(total.item() / count, rel=1e-5)
    assert loss.item() == pytest.approx(figures["loss"], rel=1e-6), "the dense losses have no weight here"
    assert objective.weight(batch) == count


def test_the_targets_are_shifted_once(objective: SequenceObjective, batch: Batch) -> None:
    seen: list[torch.Tensor] = []
    decode = objective.model.decode
    objective.model.decode = lambda ids, memory: (seen.append(ids), decode(ids, memory))[1]  # type: ignore[method-assign,assign]
    objective.losses(batch, 0, CONFIG)
    for ids, chunk in zip(seen, batch.chunks, strict=True):
        for given, labels in zip(ids.tolist(), chunk.labels.tolist(), strict=True):
            length = sum(label != IGNORE for label in labels)
            assert given[:length] == [objective.model.config.text.decoder_start, *labels[: length - 1]]


def test_the_loss_is_transformers_own(
    objective: SequenceObjective, batch: Batch, processor: Processor, tmp_path: Path
) -> None:
    """With their random weights, read by our converter; they want the image's tokens as placeholders in the prompt."""
    transformers = pytest.importorskip("transformers")
    config = objective.model.config
    image = config.text.vocab_size
    config = config.with_vocabulary(image + 1, image_token_id=image)
    settings = transformers.Florence2Config(**config.to_json("native"))
    torch.manual_seed(0)
    theirs = transformers.Florence2ForConditionalGeneration._from_config(settings, attn_implementation="eager").eval()
    with torch.no_grad():  # their first values are so small that a mistake could vanish
        for name, parameter in theirs.named_parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.0 if "embed" in name or "shared" in name else parameter.shape[1] ** -0.5)
    theirs.save_pretrained(tmp_path)
    ours = SequenceObjective(build(*read_weights(tmp_path), torch.float32).eval(), objective.locations)
    tokens = ours.model.encode_image(batch.pixel_values).shape[1]
    for chunk in batch.chunks:
        placeholders = torch.full((len(chunk.tasks), tokens), image)
        reference = theirs(
            input_ids=torch.cat([placeholders, chunk.input_ids], 1),
            attention_mask=torch.cat([torch.ones_like(placeholders), chunk.attention_mask], 1),
            pixel_values=batch.pixel_values[chunk.image_index],
            labels=chunk.labels,
        ).loss
        loss, _ = ours.losses(replace(batch, chunks=(chunk,)), 0, CONFIG)
        assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    assert any((chunk.labels == IGNORE).any() for chunk in batch.chunks), "padding takes part in the comparison"
    assert any((chunk.attention_mask == 0).any() for chunk in batch.chunks)


def test_sharing_an_image_between_targets_changes_no_gradient(objective: SequenceObjective, batch: Batch) -> None:
    def gradients(batch: Batch) -> dict[str, torch.Tensor]:
        objective.zero_grad()
        objective.losses(batch, 0, CONFIG)[0].backward()
        return {name: p.grad.clone() for name, p in objective.model.named_parameters() if p.grad is not None}

    rows = torch.cat([chunk.image_index for chunk in batch.chunks])  # an image for every row
    starts = torch.tensor([0, *(len(chunk.tasks) for chunk in batch.chunks)]).cumsum(0)
    chunks = tuple(
        replace(chunk, image_index=torch.arange(len(chunk.tasks)) + start)
        for chunk, start in zip(batch.chunks, starts.tolist(), strict=False)
    )
    dense = {name: label[rows] for name, label in batch.dense.items()}
    shared, alone = gradients(batch), gradients(Batch(batch.pixel_values[rows], chunks, dense))
    assert len(rows) == 2 * len(batch.pixel_values)
    assert shared.keys() == alone.keys() == dict(objective.model.named_parameters()).keys()
    for name, gradient in shared.items():
        assert torch.allclose(gradient, alone[name], rtol=1e-4, atol=1e-6), name


def test_an_empty_chunk_changes_nothing(objective: SequenceObjective, batch: Batch) -> None:
    one = torch.zeros(1, 1, dtype=torch.long)
    padded = replace(batch, chunks=(*batch.chunks, Chunk((), one, one + 1, one + IGNORE, one[0])))
    (loss, figures), (same_loss, same_figures) = (objective.losses(b, 0, CONFIG) for b in (batch, padded))
    assert same_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert same_figures == pytest.approx(figures)
    assert objective.weight(padded) == objective.weight(batch)


def test_losses_are_told_by_task(objective: SequenceObjective, batch: Batch) -> None:
    _, figures = objective.losses(batch, 0, CONFIG)
    assert figures.keys() == {"loss", "<CAPTION>", "<OD>", "dense"}
    lengths = {"<CAPTION>": 5, "<OD>": 8}
    mean = sum(figures[task] * length for task, length in lengths.items()) / sum(lengths.values())
    assert figures["loss"] == pytest.approx(mean, rel=1e-5), "each image has one target of each task"


def test_a_frozen_tower_has_no_gradient(objective: SequenceObjective, batch: Batch) -> None:
    config = replace(CONFIG, freeze_tower=3)
    for step, frozen in ((2, True), (3, False)):
        objective.zero_grad()
        objective.losses(batch, step, config)[0].backward()
        assert all((p.grad is None) == frozen for p in objective.model.vision_tower.parameters())
        assert all(p.grad is not None for p in objective.model.projector.parameters())
    assert all(p.requires_grad for p in objective.parameters())


def test_every_word_head_has_a_gradient_whatever_the_labels(objective: SequenceObjective, batch: Batch) -> None:
    words = WordHeads([("shape", [5, 6])], objective.locations, 32)
    nothing = {"shape": torch.full((4, 4, 4), IGNORE), "box": torch.full((4, 4, 4, 4), float("nan"))}
    aided = SequenceObjective(objective.model, objective.locations, words=words)
    aided.losses(replace(batch, dense=nothing), 0, CONFIG)[0].backward()
    assert all(p.grad is not None and not p.grad.any() for p in words.parameters())


def test_the_dense_loss_weighs_batches_by_their_images(model: Florence, batch: Batch) -> None:
    objective = DenseObjective(model.vision_tower, DenseHeads({"object": ("binary", 1)}, 32))
    loss, figures = objective(batch, 0, CONFIG)
    assert loss.item() == pytest.approx(figures["object"])
    assert objective.weight(batch) == 4


def test_what_is_too_long_is_not_in_the_loss(
    objective: SequenceObjective, processor: Processor, square: Callable[[random.Random], Example]
) -> None:
    example = square(random.Random(0))
    long = replace(example, annotations=(*example.annotations, Annotation("<DETAILED_CAPTION>", text="red " * 99)))
    mixture = {"<CAPTION>": 1.0, "<DETAILED_CAPTION>": 1.0}
    kept = collate([long], processor, mixture, targets_per_image=2, max_target=20, rng=random.Random(0))
    assert kept.dropped == 1
    assert objective.losses(kept, 0, CONFIG)[1].keys() == {"loss", "<CAPTION>", "dense"}
