"""Large images in tiles against one resized pass: scenes of 2,000 x 2,000 px, mostly of small objects and words.

    python benchmarks/tiling.py [--model tiny] [--count 20] [--tile 160] [--overlap 0.2] [--draw folder]

A scene holds 120 objects of 24 to 80 px, as large as `tiny` was taught them in images of 160 px, 4 of 300 to 700 px,
and 12 lines of one or two words in capitals of 9 to 15 px, all plain and apart. Seeds are `SEEDS`: nothing was trained
on them, and none is held-out. Intervals are 95 %, bootstrapped over images.
"""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from open_florence.evaluation import detection_ap
from open_florence.evaluation.detection import boxes_of
from open_florence.evaluation.intervals import Tally
from open_florence.evaluation.localization import greedy_matches, mask_miou, mask_overlaps
from open_florence.evaluation.ocr import ocr_end_to_end, ocr_recall
from open_florence.geometry import iou
from open_florence.inference.predictor import Predictor
from open_florence.inference.tiling import TilePredictor
from open_florence.report import draw
from open_florence.scenes.contents import Background
from open_florence.scenes.layout import PLATE_MARGIN, Box, Draft, Plan, overlap
from open_florence.scenes.lettering import Stamp, draw_word, glyphs, stamp
from open_florence.scenes.render import render, settle
from open_florence.scenes.shapes import pose
from open_florence.scenes.vocabulary import BACKGROUNDS, COLOURS, SHAPES, TEXTURES
from open_florence.schema import Annotation, Region

SIDE = 2000
SMALL, LARGE = (12.0, 40.0), (150.0, 350.0)
"""Half of an object's longer side, in pixels."""
OBJECTS, LINES = 120, 12
EVERYWHERE: Box = (0, 0, SIDE, SIDE)
SEEDS = range(2**41, 2**41 + 1000)
ZIPF = 0.7
"""Exponent of the long tail of shapes, as in the scenes of training."""


@dataclass(frozen=True)
class Picture:
    """A large scene and what is true of it, in pixels."""

    image: NDArray[np.uint8]
    """(2000, 2000, 3) RGB."""
    objects: tuple[Region, ...]
    """Boxes with the names of shapes."""
    words: tuple[Region, ...]
    """Quads with their texts."""
    masks: tuple[Region, Region]
    """A small and a large object as polygons, whose labels describe them alone."""


def make_picture(seed: int) -> Picture:
    """The large scene of a seed."""
    rng = random.Random(seed)
    background = Background(rng.choice(BACKGROUNDS), rng.choice(tuple(COLOURS)))
    taken: list[Box] = []
    looks = {(name, background.colour) for name in SHAPES}  # nothing else looks like these
    drafts: list[Draft] = []
    half = SIDE // 2
    for x, y in ((0, 0), (half, 0), (0, half), (half, half)):  # one a quarter, so that all find room
        drafts.append(_draft(rng, looks, LARGE, "large", taken, (x, y, x + half, y + half)))
        looks.add((drafts[-1].name, drafts[-1].colour))
    prints = [word for _ in range(LINES) for word in _line(rng, taken)]
    drafts += [_draft(rng, looks, SMALL, "small", taken) for _ in range(OBJECTS)]
    plan = Plan(background, tuple(drafts), tuple(prints), grey=False)
    layers, ids = settle(plan, SIDE, SIDE, min_visible=0.9)
    objects, described = [], []
    for number, layer in enumerate(layers):
        rows, columns = np.nonzero(layer.window(ids) == number)
        x, y = layer.x + columns, layer.y + rows
        draft = layer.draft
        objects.append(Region.box(x.min(), y.min(), x.max() + 1, y.max() + 1, label=draft.name))
        assert draft.vertices is not None
        corners = tuple((float(a) + draft.x, float(b) + draft.y) for a, b in draft.vertices)
        described.append((draft.size, Region("polygon", (corners,), f"the {draft.colour} {draft.name}")))
    names = [region.label for _, region in described]
    masks = [
        rng.choice([region for kind, region in described if kind == size and names.count(region.label) == 1])
        for size in ("small", "large")
    ]
    image = render(plan, layers, ids, rng, photometric=0.0)
    quads = (Region("quad", (tuple(map(tuple, (s.quad + np.array((x, y))).tolist())),), s.text) for s, x, y in prints)
    return Picture(image, tuple(objects), tuple(quads), (masks[0], masks[1]))


def _free(
    rng: random.Random, width: float, height: float, taken: list[Box], room: Box = EVERYWHERE
) -> tuple[float, float]:
    """A corner (x, y) in the room where a box of this size meets no other; it is taken from then on."""
    while True:
        x, y = rng.uniform(room[0], room[2] - width), rng.uniform(room[1], room[3] - height)
        box = (x, y, x + width, y + height)
        if all(overlap(box, other) == 0 for other in taken):
            taken.append(box)
            return x, y


def _draft(
    rng: random.Random,
    looks: set[tuple[str, str]],
    radii: tuple[float, float],
    size: str,
    taken: list[Box],
    room: Box = EVERYWHERE,
) -> Draft:
    """An object somewhere, whose shape and colour are none of `looks`."""
    weights = [(k + 1) ** -ZIPF for k in range(len(SHAPES))]
    name = colour = ""
    while not name or (name, colour) in looks:
        name, colour = rng.choices(SHAPES, weights)[0], rng.choice(tuple(COLOURS))
    p = pose(name, rng.uniform(*radii), rng)
    x, y = _free(rng, 2 * p.half_width + 6, 2 * p.half_height + 6, taken, room)
    x, y = x + p.half_width + 3, y + p.half_height + 3
    return Draft(name, colour, TEXTURES[0], size, x, y, p.half_width, p.half_height, p.outline, p.vertices, p.hole)


def _line(rng: random.Random, taken: list[Box]) -> list[tuple[Stamp, int, int]]:
    """One or two words of the lexicon beside each other, each with the corner of its stamp."""
    font = glyphs(None, round(9 * rng.choice((1.0, 1.1, 1.25, 1.45, 1.7))))
    words = []
    for _ in range(rng.randint(1, 2)):
        text, known = draw_word(rng)
        while not known:
            text, known = draw_word(rng)
        words.append(stamp(text, known, font, 0.0, 0.0))
    gap = 2 * PLATE_MARGIN + 2
    width = sum(word.mask.shape[1] + gap for word in words)
    height = max(word.mask.shape[0] for word in words) + gap
    x, y = (round(value) for value in _free(rng, width, height, taken))
    found = []
    for word in words:
        found.append((word, x + PLATE_MARGIN, y + PLATE_MARGIN))
        x += word.mask.shape[1] + gap
    return found


@dataclass
class Result:
    """Everything one way of reading answered, and the seconds it took."""

    objects: list[tuple[Region, ...]]
    words: list[tuple[Region, ...]]
    masks: list[list[tuple[Region, ...]]]
    """Of the small objects, then of the large ones."""
    seconds: float


def ask(predictor: Any, pictures: list[Picture]) -> Result:
    """Objects and words of every picture, timed; then two masks in each."""
    start, answers = time.perf_counter(), []
    for picture in pictures:
        answers += predictor.predict_batch([picture.image], ["<OD>", "<OCR_WITH_REGION>"])
    seconds = time.perf_counter() - start
    masks = []
    for size in range(2):
        queries = [("<REFERRING_EXPRESSION_SEGMENTATION>", picture.masks[size].label) for picture in pictures]
        asked = [(picture.image, [query]) for picture, query in zip(pictures, queries, strict=True)]
        masks.append([answers[0].regions for answers in predictor.predict_each(asked)])
    return Result([od.regions for od, _ in answers], [ocr.regions for _, ocr in answers], masks, seconds)


def recall(truth: list[tuple[Region, ...]], found: list[tuple[Region, ...]], large: bool) -> Tally:
    """The part of the small, or of the large, objects that a box of the right name covers at IoU .5."""
    pairs = []
    for true, regions in zip(truth, found, strict=True):
        overlaps = iou(boxes_of(true), boxes_of(regions))  # (N, M)
        names = np.array([[t.label == f.label for f in regions] for t in true], bool).reshape(overlaps.shape)
        hits = {row for row, _ in greedy_matches(np.where(names, overlaps, -1.0))}
        sides = (boxes_of(true)[:, 2:] - boxes_of(true)[:, :2]).max(axis=1)
        wanted = {k for k, side in enumerate(sides) if (side > 2 * SMALL[1] + 2) == large}
        pairs.append((float(len(hits & wanted)), float(len(wanted))))
    return Tally.of(pairs)


def rows(pictures: list[Picture], result: Result) -> dict[str, str]:
    """Name of a row of the table -> its cell."""

    def cell(tally: Tally) -> str:
        low, high = tally.interval() or (float("nan"), float("nan"))
        return f"{tally.value:.3f} ({low:.3f} to {high:.3f})"

    objects, words = [p.objects for p in pictures], [p.words for p in pictures]
    whole = detection_ap(objects, result.objects)[""]
    low, high = whole.intervals["AP50"] or (float("nan"), float("nan"))
    sizes = [(SIDE, SIDE)] * len(pictures)
    masks = [mask_overlaps([(p.masks[k],) for p in pictures], result.masks[k], sizes) for k in range(2)]
    return {
        "AP50": f"{whole.values['AP50']:.3f} ({low:.3f} to {high:.3f})",
        "AP": f"{whole.values['AP']:.3f}",
        "recall, 24 to 80 px": cell(recall(objects, result.objects, large=False)),
        "recall, 300 to 700 px": cell(recall(objects, result.objects, large=True)),
        "boxes an image (124 are true)": f"{sum(map(len, result.objects)) / len(pictures):.1f}",
        "words found": cell(ocr_recall(words, result.words)),
        "words read, F1": cell(ocr_end_to_end(words, result.words)),
        "mask of a small object, mIoU": cell(mask_miou(masks[0])),
        "mask of a large object, mIoU": cell(mask_miou(masks[1])),
        "seconds an image (objects and words)": f"{result.seconds / len(pictures):.2f}",
    }


def main(
    model: str = "tiny",
    count: int = 20,
    first: int = 0,
    tile: Annotated[list[int], typer.Option()] = [160],  # noqa: B006
    overlap: Annotated[list[float], typer.Option()] = [0.2],  # noqa: B006
    draw_to: Annotated[Path | None, typer.Option("--draw", help="A folder for the first picture, drawn on.")] = None,
) -> None:
    """Print a table, a column a way of reading."""
    predictor = Predictor.from_pretrained(model)
    pictures = [make_picture(seed) for seed in SEEDS[first : first + count]]
    ways: dict[str, Any] = {"resized once": predictor}
    ways |= {f"tiles of {t} px, {o:.0%} shared": TilePredictor(predictor, t, o) for t in tile for o in overlap}
    columns = {}
    for name, way in ways.items():
        result = ask(way, pictures)
        columns[name] = rows(pictures, result)
        if draw_to is not None:
            draw_to.mkdir(parents=True, exist_ok=True)
            said = [
                Annotation("<OD>", regions=result.objects[0]),
                Annotation("<OCR_WITH_REGION>", regions=result.words[0]),
            ]
            draw(Image.fromarray(pictures[0].image), said).save(draw_to / f"{name.replace(' ', '_')}.png")
    print(f"{count} images of {SIDE} x {SIDE} px\n")
    print(f"| | {' | '.join(columns)} |")
    print(f"|---|{'---:|' * len(columns)}")
    for row in next(iter(columns.values())):
        print(f"| {row} | {' | '.join(column[row] for column in columns.values())} |")


if __name__ == "__main__":
    typer.run(main)
