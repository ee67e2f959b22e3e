"""Places where nobody is judged, because nobody knows what is there: text no one can read, a crowd no one counted.

Data sets mark them ("###" in ICDAR, `ignore` in MMOCR). They stay out of the annotation they belong to, and so out of
training, and stand in one of their own: its task is `IGNORED`, its query the token of the task they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from open_florence.geometry import box_area, region_box
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


def judged_regions(found: Iterable[Region], ignored: Iterable[Region], share: float = 0.5) -> tuple[Region, ...]:
    """The found regions that are to be judged: those with at most `share` of their box in the box of an ignored region.

    The rule of ICDAR's end-to-end evaluation (Karatzas et al., ICDAR 2015) and of COCO's crowds: the overlap over the
    area of what was found, whatever the size of the ignored region.
    """
    places = [region_box(region.parts) for region in ignored]
    kept = []
    for region in found:
        box = region_box(region.parts)  # (2D,)
        half = len(box) // 2
        inside = [np.concatenate([np.maximum(box[:half], p[:half]), np.minimum(box[half:], p[half:])]) for p in places]
        if not any(box_area(part) > share * box_area(box) for part in inside):
            kept.append(region)
    return tuple(kept)
