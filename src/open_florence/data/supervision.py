"""Annotations as `supervision`'s Detections, the arrays that its annotators, trackers and metrics take, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_to_polygon, clip, rasterize, region_box
from open_florence.masks import polygons
from open_florence.schema import Annotation, Kind, Region, Size

if TYPE_CHECKING:
    import supervision as sv


def to_detections(
    annotation: Annotation, classes: Sequence[str] | None = None, size: Size | None = None
) -> sv.Detections:
    """The regions of an annotation: N rows, in their order.

    `xyxy` (N, 4) is the box of each in pixels; `data["class_name"]` its label; `class_id` the label's place in
    `classes`, or without them in the order they come; `confidence` score x label score, one that is missing counted as
    1, None where no region has either. Where all are quads their corners are in `data["xyxyxyxy"]` (N, 4, 2); where any
    is a polygon, `mask` (N, H, W) holds the pixels of each, for which the image's `size` (width, height) is needed.
    Raises OpenFlorenceError without it, or for a label that is not among `classes`.
    """
    library = _library()
    regions = annotation.regions
    names = list(dict.fromkeys(region.label for region in regions)) if classes is None else list(classes)
    numbers = {name: number for number, name in enumerate(names)}
    for region in regions:
        if region.label not in numbers:
            raise OpenFlorenceError(f"the label {region.label!r} is not among the classes {', '.join(names)}")
    data: dict[str, Any] = {"class_name": np.array([region.label for region in regions], dtype=np.str_)}
    if regions and all(region.kind == "quad" for region in regions):
        data["xyxyxyxy"] = np.array([region.parts[0] for region in regions], dtype=np.float64)  # (N, 4, 2)
    scored = any(region.score is not None or region.label_score is not None for region in regions)
    found: sv.Detections = library.Detections(
        xyxy=np.array([region_box(region.parts) for region in regions], dtype=np.float64).reshape(-1, 4),
        mask=_masks(regions, size) if any(region.kind == "polygon" for region in regions) else None,
        confidence=np.array([_confidence(region) for region in regions]) if scored else None,
        class_id=np.array([numbers[region.label] for region in regions], dtype=int),
        data=data,
    )
    return found


def from_detections(
    detections: sv.Detections,
    size: Size,
    classes: Sequence[str] | None = None,
    task: str = "<OD>",
    source: str = "",
) -> Annotation:
    """An annotation with a region for each detection, in their order, cut at the edge of an image of `size`.

    A region is a quad where there are corners in `data["xyxyxyxy"]`, else the polygons around its mask where there are
    masks (true to about a pixel; empty ones are left out), else a box. Its label is `data["class_name"]`, or that of
    its `class_id` in `classes`, its score the confidence. Raises OpenFlorenceError where nothing names the classes.
    """
    library = _library()
    labels = _labels(detections, classes)
    corners = detections.data.get(library.config.ORIENTED_BOX_COORDINATES)
    regions = []
    for i, label in enumerate(labels):
        kind: Kind = "box"
        outlines: Sequence[Any] = [np.asarray(detections.xyxy[i]).reshape(2, 2)]
        if corners is not None:
            kind, outlines = "quad", [np.asarray(corners[i]).reshape(4, 2)]
        elif detections.mask is not None:
            kind, outlines = "polygon", polygons(np.asarray(detections.mask[i], dtype=bool))
        parts = tuple(tuple((x, y) for x, y in clip(outline, size).tolist()) for outline in outlines)
        score = None if detections.confidence is None else float(detections.confidence[i])
        if parts:
            regions.append(Region(kind, parts, label, score))
    return Annotation(task, regions=tuple(regions), source=source)


def _library() -> Any:
    try:
        import supervision
    except ImportError as error:
        raise OpenFlorenceError("Detections need the extra `draw`: pip install 'open-florence[draw]'") from error
    return supervision


def _masks(regions: Sequence[Region], size: Size | None) -> Any:
    if size is None:
        raise OpenFlorenceError("polygons become masks, for which the image's size is needed")
    frame = (round(size[0]), round(size[1]))
    shapes = (
        [box_to_polygon(region_box(region.parts))] if region.kind == "box" else region.parts for region in regions
    )
    return np.stack([rasterize([np.asarray(part) for part in parts], frame) for parts in shapes])  # (N, H, W)


def _confidence(region: Region) -> float:
    place = 1.0 if region.score is None else region.score
    return place * (1.0 if region.label_score is None else region.label_score)


def _labels(detections: Any, classes: Sequence[str] | None) -> list[str]:
    if (names := detections.data.get("class_name")) is not None:
        return [str(name) for name in names]
    if not len(detections):
        return []
    if classes is None or detections.class_id is None:
        raise OpenFlorenceError("the detections name no classes, and none were given")
    if not all(0 <= number < len(classes) for number in detections.class_id):
        raise OpenFlorenceError(f"the detections have a class that is not one of the {len(classes)} given")
    return [classes[number] for number in detections.class_id]
