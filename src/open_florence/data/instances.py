"""Objects as detection data sets have them, box and mask in one record, from the annotations of a sample and back.

Here they are two answers: <OD> holds the boxes, and <REGION_TO_SEGMENTATION>, asked about a box, the polygons in it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from open_florence.data.ignored import ignored_regions
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import region_box
from open_florence.schema import Annotation, Point, Region, Sample

Parts = tuple[tuple[Point, ...], ...]


@dataclass(frozen=True)
class Instance:
    """One object."""

    box: Region
    """With its label and scores, in pixels."""
    parts: Parts = ()
    """The polygons of its mask; empty when only the box is known."""
    crowd: bool = False
    """Whether it stands for things that nobody counted, which are not judged."""

    @property
    def score(self) -> float | None:
        """How sure the source is, place and label together; None when it did not say."""
        scores = [score for score in (self.box.score, self.box.label_score) if score is not None]
        return (scores[0] * scores[1] if len(scores) == 2 else scores[0]) if scores else None


def mask_annotation(box: Region, parts: Parts) -> Annotation:
    """The polygons of an object as the answer about its box: by "human", unless the box has a score."""
    source = "human" if box.score is None else ""
    region = Region("polygon", parts, box.label)
    return Annotation("<REGION_TO_SEGMENTATION>", regions=(region,), query=Region("box", box.parts), source=source)


def detection_annotation(boxes: list[Region]) -> Annotation:
    """The boxes of an image: by "human", unless one has a score."""
    source = "human" if all(box.score is None for box in boxes) else ""
    return Annotation("<OD>", regions=tuple(boxes), source=source)


def instances(sample: Sample) -> list[Instance] | None:
    """The objects of a sample; None when it says nothing about objects, which is not the same as that there are none.

    They are the regions of its first <OD>, each with the polygons that answered about its box; then masks with a label
    that no box belongs to, and crowds. Raises OpenFlorenceError for an object without a label.
    """
    masks: dict[Parts, list[Region]] = defaultdict(list)
    for annotation in sample.annotations:
        if annotation.task == "<REGION_TO_SEGMENTATION>" and isinstance(annotation.query, Region):
            masks[annotation.query.parts] += annotation.regions[:1]
    found = []
    detection = next((annotation for annotation in sample.annotations if annotation.task == "<OD>"), None)
    for region in detection.regions if detection else ():
        mask = masks[region.parts].pop(0).parts if masks.get(region.parts) else ()
        parts = region.parts if region.kind != "box" else mask
        found.append(Instance(_box_of(region), parts))
    found += [Instance(_box_of(mask), mask.parts) for rest in masks.values() for mask in rest if mask.label.strip()]
    if detection is None and not found:
        return None
    found += [Instance(_box_of(region), crowd=True) for region in ignored_regions(sample.annotations, "<OD>")]
    if any(not instance.box.label.strip() for instance in found):
        raise OpenFlorenceError(f"{sample.path} has an object without a label, which only our own format can hold")
    return found


def _box_of(region: Region) -> Region:
    if region.kind == "box":
        return region
    x1, y1, x2, y2 = region_box(region.parts).tolist()
    return Region("box", (((x1, y1), (x2, y2)),), region.label, region.score, region.label_score)
