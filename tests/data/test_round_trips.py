"""What is written is read back the same, as far as the format holds it: a row of `HOLDS` for each row of `WRITERS`."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.data import WRITERS, read, write
from open_florence.data.icdar import text_annotations
from open_florence.data.ignored import ignored_annotation
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

WIDTH, HEIGHT = 64, 48
calm = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

scores = st.none() | st.floats(0, 1)
labels = (
    st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda text: text not in ("", "###"))
)


def spans(length: int, least: float = 0.5) -> st.SearchStrategy[tuple[float, float]]:
    """From where to where, `least` pixels long at least."""
    ends = st.tuples(st.floats(0, length), st.floats(0, length)).map(sorted)
    return ends.filter(lambda pair: pair[1] - pair[0] >= least).map(lambda pair: (pair[0], pair[1]))


@st.composite
def objects(draw: st.DrawFn) -> tuple[Annotation, ...]:
    """Boxes with labels, with or without scores."""
    regions = []
    for _ in range(draw(st.integers(1, 4))):
        (x1, x2), (y1, y2) = draw(spans(WIDTH)), draw(spans(HEIGHT))
        region = Region.box(x1, y1, x2, y2, label=draw(labels), score=draw(scores))
        regions.append(replace(region, label_score=draw(scores)))
    return (Annotation("<OD>", regions=tuple(regions), source="human"),)


@st.composite
def masked_objects(draw: st.DrawFn) -> tuple[Annotation, ...]:
    """Boxes, one of which has a mask in two parts."""
    (detection,) = draw(objects())
    first = replace(detection.regions[0], score=None, label_score=None)
    detection = replace(detection, regions=(first, *(r for r in detection.regions[1:] if r.parts != first.parts)))
    (x1, y1), (x2, y2) = first.parts[0]
    low, high = ((x1, y1), (x2, y1), (x1, y2)), ((x2, y2), (x2, (y1 + y2) / 2), ((x1 + x2) / 2, y2))
    mask = Region("polygon", (low, high), first.label)
    asked = Annotation("<REGION_TO_SEGMENTATION>", regions=(mask,), query=Region("box", first.parts), source="human")
    return (detection, asked)


@st.composite
def texts(draw: st.DrawFn, least: int = 0) -> tuple[Annotation, ...]:
    """Quads with text, each askew in its own way, and one that nobody can read."""
    quads = []
    for row in range(draw(st.integers(least, 3))):
        left, right = draw(spans(WIDTH, least=6))
        top = 12 * row + draw(st.floats(0, 1))
        slope = draw(st.floats(-1, 1))
        corners = ((left, top + 1), (right, top + 1 + slope), (right, top + 8 + slope), (left, top + 8))
        quads.append(Region("quad", (corners,), draw(labels)))
    nobody = Region("quad", (((2.0, 38.0), (20.0, 38.0), (20.0, 46.0), (2.0, 46.0)),))
    return (*text_annotations(quads), *ignored_annotation("<OCR_WITH_REGION>", [nobody] * draw(st.integers(0, 1))))


def unscored(annotation: Annotation) -> Annotation:
    """Without scores."""
    return replace(annotation, regions=tuple(replace(r, score=None, label_score=None) for r in annotation.regions))


def without_label_scores(annotation: Annotation) -> Annotation:
    """With the score of the place alone."""
    return replace(annotation, regions=tuple(replace(r, label_score=None) for r in annotation.regions))


def one_score(annotation: Annotation) -> Annotation:
    """Place and label in one score, after which it is not said who said it."""

    def joined(region: Region) -> Region:
        told = [score for score in (region.score, region.label_score) if score is not None]
        score = told[0] * told[1] if len(told) == 2 else told[0] if told else None
        return replace(region, score=score, label_score=None)

    regions = tuple(joined(region) for region in annotation.regions)
    human = all(region.score is None for region in regions)
    return replace(annotation, regions=regions, source="human" if human else "")


@dataclass(frozen=True)
class Holds:
    """What a format can hold."""

    name: str
    """What to write to, in a new folder."""
    annotations: Sequence[st.SearchStrategy[tuple[Annotation, ...]]] = (objects(),)
    pixels: float = 0.0
    """By how much a coordinate may differ."""
    kept: Callable[[Annotation], Annotation] = lambda annotation: annotation
    """What is left of an annotation."""


HOLDS = {
    "jsonl": Holds("a.jsonl", (objects(), masked_objects(), texts())),
    "voc": Holds("", kept=unscored),
    "coco": Holds("a.json", (objects(), masked_objects()), 1e-9, one_score),
    "yolo": Holds("out", pixels=1e-6, kept=unscored),
    "icdar": Holds("", (texts(),), 0.5),
    "label_studio": Holds("a.json", (objects(), masked_objects(), texts(least=1)), 1e-6, without_label_scores),
}


def test_every_writer_is_tried() -> None:
    assert WRITERS.keys() <= HOLDS.keys()


@pytest.mark.parametrize("format", WRITERS)
@calm
@given(data=st.data())
def test_what_is_written_is_read(format: str, data: st.DataObject) -> None:
    holds = HOLDS[format]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = []
        kind = data.draw(st.sampled_from(holds.annotations))  # one for the whole file: to be without is to hold none
        for number in range(data.draw(st.integers(1, 2))):
            path = folder / f"{number}.png"
            Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(path)
            annotations = data.draw(kind)
            samples.append(Sample(image_id(path), str(path), (float(WIDTH), float(HEIGHT)), annotations))
        write(folder / holds.name, samples, format)
        problems: list[str] = []
        found = list(read(folder / holds.name, format, on_error=problems.append))
    assert problems == []
    assert [(sample.id, sample.size) for sample in found] == [(sample.id, sample.size) for sample in samples]
    if format != "yolo":  # which has images of its own
        assert [sample.path for sample in found] == [sample.path for sample in samples]
    for sample, back in zip(samples, found, strict=True):
        same(tuple(map(holds.kept, sample.annotations)), back.annotations, holds.pixels)


def same(expected: tuple[Annotation, ...], found: tuple[Annotation, ...], pixels: float) -> None:
    """Asserts that annotations are the same but for coordinates, which differ by `pixels` at most."""
    assert [without_places(annotation) for annotation in found] == [without_places(a) for a in expected]
    for before, after in zip(expected, found, strict=True):
        queries = [a.query for a in (before, after) if isinstance(a.query, Region)]
        pairs = [*zip(before.regions, after.regions, strict=True), *([tuple(queries)] if queries else [])]
        for one, other in pairs:
            assert [len(part) for part in other.parts] == [len(part) for part in one.parts]
            assert flat(other) == pytest.approx(flat(one), rel=0, abs=pixels)


def without_places(annotation: Annotation) -> Annotation:
    """An annotation of which all but the places is left."""
    query = replace(annotation.query, parts=NOWHERE) if isinstance(annotation.query, Region) else annotation.query
    regions = tuple(replace(region, kind="box", parts=NOWHERE) for region in annotation.regions)
    return replace(annotation, regions=regions, query=query)


NOWHERE = (((0.0, 0.0), (0.0, 0.0)),)


def flat(region: Region) -> list[float]:
    """All the coordinates of a region."""
    return [number for part in region.parts for point in part for number in point]
