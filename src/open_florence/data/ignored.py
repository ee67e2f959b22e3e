"""Places where nobody is judged, because nobody knows what is there: text no one can read, a crowd no one counted.

Data sets mark them ("###" in ICDAR, `ignore` in MMOCR). They stay out of the annotation they belong to, and so out of
training, and stand in one of their own: its task is `IGNORED`, its query the token of the task they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable

from open_florence.schema import Annotation, Region

IGNORED = "<IGNORED>"
"""The task of an annotation of places that are not judged. It is none of the model's tasks, so nobody is asked it."""


def ignored_annotation(task: str, regions: Iterable[Region], source: str = "human") -> tuple[Annotation, ...]:
    """The annotation that says where `task` is not judged; none where there are no such regions."""
    kept = tuple(regions)
    return (Annotation(IGNORED, regions=kept, query=task, source=source),) if kept else ()


def ignored_regions(annotations: Iterable[Annotation], task: str) -> tuple[Region, ...]:
    """Where answers to `task` are not judged."""
    return tuple(r for a in annotations if a.task == IGNORED and a.query == task for r in a.regions)
