"""Annotations drawn on an image: boxes, quads and masks through `supervision`, labels and texts through Pillow.

Small images are enlarged first and lines and letters grow with large ones, so that a scene of 160 pixels and a photo
of 12 megapixels can both be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import clip, rasterize
from open_florence.report.caption_strip import add_captions
from open_florence.report.colours import Palette, ink
from open_florence.report.fonts import font_for, printable
from open_florence.report.labels import place_labels, region_title, shorten
from open_florence.report.marks import Mark, labels_of, marks_of
from open_florence.schema import Annotation

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST = 480
"""Pixels of the longer side below which an image is enlarged before it is drawn on."""

MOST_LABELS = 80
"""Above so many regions only the boxes are drawn: labels would hide the image."""

_SHARED = Palette()


def draw(image: Image.Image, annotations: Sequence[Annotation], palette: Palette | None = None) -> Image.Image:
    """A new RGB picture: the image with all regions of the annotations, and their texts in a strip underneath.

    Regions are in pixels of `image`. Polygons become translucent masks with an outline, the parts of one region
    united; a region that was asked about is drawn as four corners with its answer. A grounded phrase has the same
    colour in the text and on the image. The same label has the same colour in every picture of one `palette` (default:
    one palette for the process). Raises OpenFlorenceError when the extra `draw` is not installed.
    """
    labels = (label for annotation in annotations for label in labels_of(annotation))
    palette = (_SHARED if palette is None else palette).within(labels)
    scale = max(1.0, SMALLEST / max(image.size))
    width, height = (max(round(side * scale), 1) for side in image.size)
    picture = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    marks = [mark for turn, annotation in enumerate(annotations) for mark in marks_of(annotation, palette, turn)]
    marks = [mark for mark in marks if mark.drawable]
    if marks:
        factors = np.array([width / image.width, height / image.height])
        picture = _draw_regions(picture, marks, factors)
        if len(marks) <= MOST_LABELS:
            _draw_labels(picture, marks, factors)
    return add_captions(picture, annotations, palette, text_size(picture))


def text_size(picture: Image.Image) -> int:
    """Pixels of a letter that is readable when the whole picture is looked at."""
    return max(14, round(min(picture.size) / 45))


def _draw_regions(picture: Image.Image, marks: Sequence[Mark], factors: NDArray[np.float64]) -> Image.Image:
    """The picture with its marks, large ones first, so that what lies within them stays visible."""
    sv = _supervision()
    thickness = max(2, round(min(picture.size) / 250))
    scene = np.array(picture)[:, :, ::-1].copy()  # (H, W, 3), blue first as OpenCV has it
    limit = np.array(picture.size) - 1.0
    for mark in sorted(marks, key=lambda mark: -mark.area):
        parts = [clip(np.array(part) * factors, limit.tolist()).round() for part in mark.region.parts if part]
        corners = np.concatenate(parts)  # (P, 2)
        # Only the surroundings are worked on: a large photo has many regions.
        left, top = np.maximum(corners.min(axis=0) - 2 * thickness, 0).astype(int)
        right, bottom = np.minimum(corners.max(axis=0) + 2 * thickness, limit).astype(int) + 1
        around = scene[top:bottom, left:right].copy()
        around = _draw_mark(sv, around, mark, [part - (left, top) for part in parts], thickness)
        scene[top:bottom, left:right] = around
    return Image.fromarray(scene[:, :, ::-1].copy())


def _draw_mark(sv: Any, scene: Any, mark: Mark, parts: list[NDArray[np.float64]], thickness: int) -> Any:
    """One mark on a scene (H, W, 3), its parts in pixels of the scene."""
    color = sv.Color.from_hex(mark.colour)
    corners = np.concatenate(parts)  # (P, 2)
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])[None]  # (1, 4)
    found = sv.Detections(xyxy=box, class_id=np.zeros(1, dtype=int))
    if mark.asked:
        length = max(4, int(min(box[0, 2:] - box[0, :2]) // 4))
        return sv.BoxCornerAnnotator(color, 2 * thickness, length).annotate(scene, found)
    if mark.region.kind == "box":
        return sv.BoxAnnotator(color, thickness).annotate(scene, found)
    if mark.region.kind == "quad":
        found.data[sv.config.ORIENTED_BOX_COORDINATES] = np.stack(parts)  # (1, 4, 2)
        return sv.OrientedBoxAnnotator(color, thickness).annotate(scene, found)
    found.mask = rasterize(parts, (scene.shape[1], scene.shape[0]))[None]  # (1, H, W)
    scene = sv.MaskAnnotator(color, opacity=0.4).annotate(scene, found)
    return sv.PolygonAnnotator(color, thickness).annotate(scene, found)


def _draw_labels(picture: Image.Image, marks: Sequence[Mark], factors: NDArray[np.float64]) -> None:
    """Writes each mark's label and score beside it, on a patch of its colour."""
    titles = [printable(shorten(region_title(mark.label, mark.score), 40)).strip() for mark in marks]
    shown = [(mark, title) for mark, title in zip(marks, titles, strict=True) if title]
    size = text_size(picture)
    font = font_for([title for _, title in shown], size)
    brush = ImageDraw.Draw(picture)
    margin, height = round(size * 0.35), round(size * 1.45)
    sizes = [(brush.textlength(title, font=font) + 2 * margin, float(height)) for _, title in shown]
    x, y = factors.tolist()
    boxes = [(b[0] * x, b[1] * y, b[2] * x, b[3] * y) for b in (mark.box for mark, _ in shown)]
    places = place_labels(boxes, sizes, (float(picture.width), float(picture.height)))
    for (mark, title), (left, top, right, bottom) in zip(shown, places, strict=True):
        brush.rounded_rectangle((left, top, right, bottom), radius=size // 4, fill=mark.colour)
        brush.text((left + margin, (top + bottom) / 2), title, font=font, fill=ink(mark.colour), anchor="lm")


def _supervision() -> Any:
    try:
        import supervision
    except ImportError as error:
        raise OpenFlorenceError("drawing needs the extra `draw`: pip install 'open-florence[draw]'") from error
    return supervision
