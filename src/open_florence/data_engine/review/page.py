"""The review page: a queue of claims as a folder that any browser opens, without a network or a server.

    FOLDER/index.html     one item at a time, judged with the keyboard; the verdicts are saved as a file
    FOLDER/images/        the images, made small enough that the folder can be sent to somebody
    FOLDER/queue.jsonl    the queue, which the verdicts are about

Labels and file names are somebody else's words: they are on the page as data, and it runs no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from open_florence.data.jsonl import write_whole
from open_florence.data_engine.review.item import ReviewItem, write_queue
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import region_box
from open_florence.images import open_image
from open_florence.schema import Region

SCRIPTS = ("state.js", "picture.js", "view.js")
BYTES = 15_000_000
"""What all images of a folder may take; each has an equal part of it."""
ENCODINGS = ((1280, 88), (1024, 85), (800, 80), (640, 75), (480, 70), (320, 60), (200, 45))
"""(pixels of the longer side, JPEG quality), best first; the first that is small enough is taken."""
SMALL = 160
"""A region with fewer pixels than this on the shrunken image gets a crop of its own from the original."""
CROP = 320
"""Pixels of the longer side of a crop, at most."""


def write_review(
    folder: str | Path, queue: Sequence[ReviewItem], classes: Sequence[str] = (), title: str = "Review"
) -> Path:
    """Writes the folder and returns the path of its index.html.

    `classes` are offered when a name is typed, the first nine on the keys 1 to 9. An image that cannot be read is
    replaced by a sentence; the claims about it can still be judged. Raises OpenFlorenceError for a queue about inputs
    that are not images, or where the folder cannot be written.
    """
    folder = Path(folder)
    for item in queue:
        if len(item.size) != 2:
            raise OpenFlorenceError(f"{item.path} is a series: only images can be reviewed on a page")
    by_image: dict[str, list[ReviewItem]] = {}
    for item in queue:
        by_image.setdefault(item.image, []).append(item)
    images: list[dict[str, Any]] = []
    crops: dict[str, Any] = {}
    for number, items in enumerate(by_image.values()):
        shown, cut = _write_image(folder, number, items, BYTES // len(by_image))
        images.append(shown)
        crops |= cut
    numbers = {image: number for number, image in enumerate(by_image)}
    write_queue(folder / "queue.jsonl", queue)
    names = "\n".join(item.id for item in queue)
    data = {
        "key": "open-florence review " + hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        "classes": list(classes),
        "images": images,
        "items": [_item(item, numbers[item.image], crops.get(item.id)) for item in queue],
    }
    page = folder / "index.html"
    write_whole(page, [_page(data, title).encode("utf-8", "replace")])
    return page


def _page(data: dict[str, Any], title: str) -> str:
    here = Path(__file__).parent
    script = "".join((here / name).read_text("utf-8") for name in SCRIPTS)
    parts = {
        "title": html.escape(title),
        "count": str(max(1, len(data["items"]))),
        "script_hash": _hash(script),
        "script": script,
        "queue": json.dumps(data).replace("<", "\\u003c"),  # no word of it can end the element
    }
    pieces = (here / "review.html").read_text("utf-8").split("{{ ")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split(" }}", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def _hash(script: str) -> str:
    """The script's name in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _item(item: ReviewItem, image: int, crop: dict[str, Any] | None) -> dict[str, Any]:
    """What the page knows of an item."""
    asked = item.annotation.query
    return {
        "id": item.id,
        "image": image,
        "task": item.annotation.task,
        "label": item.label,
        "nothing": item.says_nothing,
        "classed": bool(item.class_name),
        "boxes": item.says_nothing or item.region is not None,
        "score": item.score,
        "sources": list(item.sources),
        "why": item.why,
        "region": _place(item.region),
        "asked": _place(asked) if isinstance(asked, Region) else None,
        "query": None if asked is None else asked if isinstance(asked, str) else "",
        "grounds": item.annotation.text if item.region is not None else "",
        "context": [_place(region) for region in item.context],
        "siblings": item.siblings,
        "crop": crop,
    }


def _place(region: Region | None) -> dict[str, Any] | None:
    if region is None:
        return None
    parts = [[[round(value, 1) for value in point] for point in part] for part in region.parts]
    return {"kind": region.kind, "parts": parts, "label": region.label}


def _write_image(
    folder: Path, number: int, items: Sequence[ReviewItem], most: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page knows of an image, and item -> crop for its small regions; together within `most` bytes."""
    first = items[0]
    shown = {"id": first.image, "path": first.path, "size": list(first.size), "src": "", "missing": ""}
    shown["name"] = first.path.replace("\\", "/").rsplit("/", 1)[-1]
    try:
        image = open_image(first.path)
    except OpenFlorenceError as error:
        return shown | {"missing": f"The image cannot be shown: {error}."}, {}
    crops: dict[str, bytes] = {}
    places: dict[str, list[int]] = {}
    small, data = _encoded(image, most * 3 // 4)
    left = most - len(data)
    for item in items:
        place = _crop_box(item, image.size)
        if place is None or max(place[2] - place[0], place[3] - place[1]) * small >= SMALL or small == 1:
            continue
        part = image.crop((place[0], place[1], place[2], place[3]))
        part.thumbnail((CROP, CROP), Image.Resampling.LANCZOS)
        cut = _jpeg(part, 80)
        if len(cut) <= left:
            left -= len(cut)
            crops[item.id], places[item.id] = cut, place
    shown["src"] = f"images/{number:05d}.jpg"
    write_whole(folder / "images" / f"{number:05d}.jpg", [data])
    cuts = {}
    for turn, (name, cut) in enumerate(crops.items()):
        address = f"images/{number:05d}-{turn:03d}.jpg"
        write_whole(folder / address, [cut])
        x1, y1, x2, y2 = places[name]
        cuts[name] = {"src": address, "at": _scaled((x1, y1, x2 - x1, y2 - y1), image.size, first.size)}
    return shown, cuts


def _encoded(image: Image.Image, most: int) -> tuple[float, bytes]:
    """How much the image was scaled, and its JPEG: the best of `ENCODINGS` within `most` bytes, else the smallest."""
    data, scale = b"", 1.0
    for side, quality in ENCODINGS:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        data, scale = _jpeg(small, quality), max(small.size) / max(image.size)
        if len(data) <= most:
            break
    return scale, data


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _crop_box(item: ReviewItem, pixels: tuple[int, int]) -> list[int] | None:
    """[x1, y1, x2, y2] in whole pixels of the image: the region with what is around it; None without a region."""
    asked = item.annotation.query
    region = item.region or (asked if isinstance(asked, Region) else None)
    if region is None:
        return None
    x1, y1, x2, y2 = _scaled(region_box(region.parts).tolist(), item.size, pixels)
    margin = max(0.25 * max(x2 - x1, y2 - y1), 12)
    box = [max(0, int(x1 - margin)), max(0, int(y1 - margin))]
    box += [min(pixels[0], int(x2 + margin) + 1), min(pixels[1], int(y2 + margin) + 1)]
    return box if box[0] < box[2] and box[1] < box[3] else None


def _scaled(box: Sequence[float], before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Coordinates x, y, x, y in an image of another size."""
    return [value * after[axis % 2] / before[axis % 2] for axis, value in enumerate(box)]
