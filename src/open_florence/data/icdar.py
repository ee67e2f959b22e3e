"""Text and where it stands, as ICDAR 2015 and SROIE write it: a file an image, a line a text.

    377,117,463,117,465,130,378,130,Genaxis Theatre
    493,115,519,115,519,131,493,131,###

Eight numbers, the corners of a quad in pixels clockwise from the top-left of the text, then everything up to the end of
the line, commas included (Karatzas et al., ICDAR 2015, Incidental Scene Text; Huang et al., ICDAR 2019, SROIE). "###"
marks text nobody can read; it becomes `IGNORED`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from open_florence.data.ignored import ignored_annotation, ignored_regions
from open_florence.data.jsonl import write_whole
from open_florence.data.records import identify
from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_to_polygon, clip, polygon_area, polygon_to_box, region_box
from open_florence.schema import Annotation, Region, Sample, Size

TASK = "<OCR_WITH_REGION>"
ILLEGIBLE = "###"
IMAGE_FOLDERS = (".", "img", "images", "../img", "../images", "../ch4_training_images", "../ch4_test_images")
"""Where the image of a file is looked for, from the folder of that file."""


def read_icdar(path: Path, on_error: Callable[[str], object]) -> Iterator[Sample]:
    """One sample per .txt or .csv file below `path` (or for the one file `path`), in the order of their names.

    Its image has the same name, without "gt_" before it. Two annotations by "human": <OCR_WITH_REGION>, the quads in
    reading order, and <OCR>, their texts as `reading_text` puts them together; a third, `IGNORED`, where there is text
    nobody can read. Quads are cut at the image's edge. `on_error` is told of files without an image or without a line
    of this form, and of lines that are not.
    """
    files = [path] if path.is_file() else sorted(file for end in ("txt", "csv") for file in path.glob(f"**/*.{end}"))
    images = _Images()
    for file in files:
        try:
            yield _read_file(file, images, on_error)
        except (OSError, ValueError) as error:
            on_error(f"{file} is left out: {error}")


def write_icdar(path: Path, samples: Iterable[Sample]) -> None:
    """Writes gt_NAME.txt per sample into the folder `path`: the quads of its first <OCR_WITH_REGION>, and `IGNORED`.

    Corners are rounded to whole pixels, which is all that ICDAR's own evaluation reads; boxes become quads. Raises
    OpenFlorenceError for a sample without that annotation, for polygons, for texts that a line cannot hold, and for two
    images of one name.
    """
    written: dict[str, str] = {}
    for sample in samples:
        stem = Path(sample.path).stem
        if stem in written:
            raise OpenFlorenceError(
                f"ICDAR names its files by image, and {written[stem]} and {sample.path} are both {stem}"
            )
        written[stem] = sample.path
        write_whole(path / f"gt_{stem}.txt", [line.encode() for line in _lines(sample)])


def looks_like_icdar(path: Path) -> bool:
    """Whether one of a few .txt and .csv files of a folder, or the file `path` itself, begins with such a line."""
    for end in ("txt", "csv"):
        files = path.glob(f"**/*.{end}") if path.is_dir() else [path] * (path.suffix == f".{end}")
        if any(map(_begins_so, islice(files, 5))):
            return True
    return False


def parse_line(line: str) -> tuple[list[float], str]:
    """The eight numbers and the text of a line. Raises ValueError saying what it lacks."""
    pieces = line.split(",", 8)
    try:
        numbers = [float(piece) for piece in pieces[:8]]
    except ValueError:
        numbers = []
    if len(numbers) < 8 or not all(map(math.isfinite, numbers)):
        raise ValueError(f"it does not begin with eight numbers: {line.strip()[:80]!r}")
    text = pieces[8].strip() if len(pieces) > 8 else ""
    if not text:
        raise ValueError("it has no text after its eight numbers")
    return numbers, text


def quad_region(points: Sequence[Sequence[float]], label: str, size: Size) -> Region:
    """A quad (4, 2) cut at the edge of the image, its points clockwise from the first, which stays the first.

    In whatever order a file lists corners, around or crosswise, they are put in the order of their angle about the
    middle. Raises ValueError where nothing of it is in the image.
    """
    corners = clip(points, size)  # (4, 2)
    away = corners - corners.mean(axis=0)
    angles = np.arctan2(away[:, 1], away[:, 0])  # y grows downward, so growing angles go clockwise
    order = np.argsort((angles - angles[0]) % (2 * math.pi), kind="stable")
    if polygon_area(corners[order]) <= 0:
        shown = ", ".join(f"{value:g}" for point in points for value in point)
        raise ValueError(f"the quad of {label!r}, ({shown}), has no area in the image")
    return Region("quad", (tuple((x, y) for x, y in corners[order].tolist()),), label)


def reading_order(regions: Iterable[Region]) -> list[list[Region]]:
    """Regions as rows from top to bottom, each from left to right: how upright text in one column is read.

    A region stands in the row of a higher one when their middles are less than half the lower of their heights apart.
    The result depends on the places alone, not on the order given.
    """
    boxes = [(region_box(region.parts).tolist(), region) for region in regions]
    boxes.sort(key=lambda pair: (pair[0][1] + pair[0][3], pair[0][0], pair[1].label))
    rows: list[list[tuple[list[float], Region]]] = []
    for box, region in boxes:
        if rows:
            top = rows[-1][0][0]
            height = min(box[3] - box[1], top[3] - top[1])
            if box[1] + box[3] - top[1] - top[3] < height:
                rows[-1].append((box, region))
                continue
        rows.append([(box, region)])
    return [[region for _, region in sorted(row, key=lambda pair: pair[0][0])] for row in rows]


def reading_text(regions: Iterable[Region]) -> str:
    """The text of an image, the answer to <OCR>: a line for each row of `reading_order`, its texts a space apart."""
    return "\n".join(" ".join(region.label for region in row) for row in reading_order(regions))


def text_annotations(regions: Iterable[Region], source: str = "human") -> tuple[Annotation, Annotation]:
    """<OCR_WITH_REGION> and <OCR> from quads with their texts, both in reading order."""
    quads = tuple(region for row in reading_order(regions) for region in row)
    return Annotation(TASK, regions=quads, source=source), Annotation("<OCR>", reading_text(quads), source=source)


class _Images:
    """The images of folders by their name without suffix; a folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}

    def of(self, file: Path) -> Path:
        """The image a file is about. Raises ValueError when there is none."""
        names = (file.stem.removeprefix("gt_"), file.stem)
        for folder in IMAGE_FOLDERS:
            there = self._in((file.parent / folder).resolve())
            for name in names:
                if name in there:
                    return there[name]
        raise ValueError(f"there is no image {names[0]} beside it")

    def _in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._folders:
            suffixes = Image.registered_extensions()
            found = sorted(folder.iterdir()) if folder.is_dir() else []
            self._folders[folder] = {file.stem: file for file in found if file.suffix.lower() in suffixes}
        return self._folders[folder]


def _read_file(file: Path, images: _Images, on_error: Callable[[str], object]) -> Sample:
    lines, problems = [], []
    for number, raw in enumerate(file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            lines.append((number, *parse_line(raw.decode())))
        except UnicodeDecodeError:
            problems.append((number, "it is not UTF-8"))
        except ValueError as error:
            problems.append((number, str(error)))
    if problems and not lines:
        raise ValueError(f"none of its lines is eight numbers and a text (line {problems[0][0]}: {problems[0][1]})")
    image_path = images.of(file)
    identity, size = identify(image_path, None, image_path.stem)
    legible, illegible = [], []
    for number, values, text in lines:
        corners = list(zip(values[::2], values[1::2], strict=True))
        try:
            if text == ILLEGIBLE:
                illegible.append(quad_region(corners, "", size))
            else:
                legible.append(quad_region(corners, text, size))
        except ValueError as error:
            problems.append((number, str(error)))
    for number, problem in sorted(problems):
        on_error(f"{file}, line {number}, is left out: {problem}")
    annotations = (*text_annotations(legible), *ignored_annotation(TASK, illegible))
    return Sample(identity, str(image_path), size, annotations)


def _begins_so(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.readline(10_000).decode("utf-8-sig", "replace")
    try:
        return bool(parse_line(head))
    except ValueError:
        return False


def _lines(sample: Sample) -> Iterator[str]:
    found = next((annotation for annotation in sample.annotations if annotation.task == TASK), None)
    if found is None:
        raise OpenFlorenceError(f"{sample.path} has no {TASK} annotation to write as ICDAR")
    illegible = [(region, ILLEGIBLE) for region in ignored_regions(sample.annotations, TASK)]
    for region, text in [*((region, region.label.strip()) for region in found.regions), *illegible]:
        if region.kind == "polygon":
            raise OpenFlorenceError(f"{sample.path} has a polygon in its {TASK} annotation, ICDAR holds quads only")
        if not text or "\n" in text or "\r" in text or (text == ILLEGIBLE and region.label):
            raise OpenFlorenceError(f"{sample.path} has the text {region.label!r}, which a line of ICDAR cannot hold")
        points = region.parts[0] if region.kind == "quad" else box_to_polygon(polygon_to_box(region.parts[0])).tolist()
        yield ",".join([*(str(round(value)) for point in points for value in point), text]) + "\n"
