"""What tests of several formats use: the check that an annotation can be asked and learnt from."""

from collections.abc import Callable
from itertools import chain

import pytest

from open_florence.locations import BINS
from open_florence.schema import Annotation, Sample
from open_florence.tasks import TASKS


def points(annotation: Annotation) -> list[float]:
    """All coordinates, in order."""
    return [v for region in annotation.regions for part in region.parts for v in chain.from_iterable(part)]


def check(sample: Sample, spans: bool = True) -> None:
    """The task's grammar writes every annotation of a sample and reads it back, to the width of a bin."""
    for annotation in sample.annotations:
        task = TASKS[annotation.task]
        assert task.question(annotation.query, sample.size)
        text = task.grammar.serialize(annotation, sample.size)
        found = task.grammar.parse(text, sample.size, annotation.query)
        assert (found.text, found.query, found.complete) == (annotation.text, annotation.query, True)
        assert [(r.kind, r.label) for r in found.regions] == [(r.kind, r.label) for r in annotation.regions]
        if spans:
            assert [region.span for region in found.regions] == [region.span for region in annotation.regions]
        assert points(found) == pytest.approx(points(annotation), abs=0.51 * max(sample.size) / BINS)


@pytest.fixture
def check_targets() -> Callable[..., None]:
    """Asserts that every annotation of a sample survives its task's grammar."""
    return check
