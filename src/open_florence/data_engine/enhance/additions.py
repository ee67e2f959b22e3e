"""What an enhancer adds to the kept labels of an image: annotations derived from them, each naming what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.schema import Annotation, Region, Sample

Enhancer = Callable[[Sample, Sequence[Candidate]], list[Decision]]
"""From an image and its kept labels to what can be added; nothing that was kept is changed."""


def addition(
    task: str,
    source: str,
    parents: Iterable[str],
    *,
    text: str = "",
    regions: Sequence[Region] = (),
    query: str | Region | None = None,
    score: float | None = None,
    reason: str = "",
) -> Decision:
    """A kept annotation made from the rows `parents`, each named once."""
    annotation = Annotation(task, text, tuple(regions), query, source, score=score)
    return Decision(annotation, "kept", reason, tuple(dict.fromkeys(parents)))
