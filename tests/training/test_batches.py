import random
from collections.abc import Callable

import pytest
import torch

from open_florence.processor import Processor
from open_florence.schema import Annotation
from open_florence.training.batches import IGNORE, Example, collate, draw_annotations

MakeExample = Callable[[random.Random], Example]
MIXTURE = {"<CAPTION>": 1.0, "<OD>": 1.0}


def test_draws_different_tasks_before_the_same_task_twice() -> None:
    annotations = [Annotation("<OCR>", text=str(i)) for i in range(5)] + [Annotation("<CAPTION>"), Annotation("<VQA>")]
    weights = {"<OCR>": 1.0, "<CAPTION>": 1.0}
    for seed in range(20):
        drawn = draw_annotations(annotations, weights, 4, random.Random(seed))
        assert [a.task for a in drawn].count("<CAPTION>") == 1
        assert {a.task for a in drawn} == {"<OCR>", "<CAPTION>"}, "a task of weight zero is never drawn"
        assert len(set(map(id, drawn))) == len(drawn) == 4


def test_tasks_are_drawn_by_weight() -> None:
    annotations = [Annotation("<OD>"), Annotation("<CAPTION>")]
    rng = random.Random(0)
    first = [draw_annotations(annotations, {"<OD>": 3.0, "<CAPTION>": 1.0}, 1, rng)[0].task for _ in range(2000)]
    assert first.count("<OD>") / 2000 == pytest.approx(0.75, abs=0.04)


def test_rows_hold_question_and_target_and_know_their_image(processor: Processor, square: MakeExample) -> None:
    rng = random.Random(3)
    examples = [square(rng) for _ in range(4)]
    batch = collate(examples, processor, MIXTURE, targets_per_image=2, max_target=50, rng=rng)
    assert batch.pixel_values.shape == (4, 3, 32, 32)
    assert sum(len(chunk.tasks) for chunk in batch.chunks) == 8
    for chunk in batch.chunks:
        for row, task in enumerate(chunk.tasks):
            example = examples[int(chunk.image_index[row])]
            annotation = next(a for a in example.annotations if a.task == task)
            labels = chunk.labels[row]
            assert labels[labels != IGNORE].tolist() == processor.target(annotation, example.size)
    lengths = [int((labels != IGNORE).sum()) for chunk in batch.chunks for labels in chunk.labels]
    assert lengths == sorted(lengths)


def test_a_target_that_is_too_long_is_dropped_and_counted(processor: Processor, square: MakeExample) -> None:
    batch = collate(
        [square(random.Random(0))], processor, MIXTURE, targets_per_image=2, max_target=6, rng=random.Random(0)
    )
    kept = [task for chunk in batch.chunks for task in chunk.tasks]
    assert batch.dropped + len(kept) == 2
    assert batch.dropped >= 1


def test_the_same_generator_gives_the_same_batch(processor: Processor, square: MakeExample) -> None:
    def make() -> list[torch.Tensor]:
        rng = random.Random(11)
        batch = collate(
            [square(rng) for _ in range(3)], processor, MIXTURE, targets_per_image=2, max_target=50, rng=rng
        )
        return [batch.pixel_values, *(chunk.labels for chunk in batch.chunks)]

    assert all(torch.equal(a, b) for a, b in zip(make(), make(), strict=True))
