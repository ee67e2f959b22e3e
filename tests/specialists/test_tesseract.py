"""Tesseract: its table is read rightly, quads lie where the words were written, and what is missing is said."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import iou, region_box
from open_florence.images import image_id
from open_florence.schema import Sample
from open_florence.specialists import load_specialist, tesseract
from open_florence.specialists.tesseract import parse_words, program_version

HEAD = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"


@pytest.fixture(scope="module", autouse=True)
def _program() -> None:
    try:
        program_version()
    except OpenFlorenceError as error:
        pytest.skip(str(error))


@pytest.fixture
def page(tmp_path: Path) -> tuple[Sample, dict[str, list[float]]]:
    """Two lines of words, and the boxes in which they were written."""
    image = Image.new("RGB", (500, 200), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(28)
    places = {}
    for x, y, word in ((20, 30, "TOTAL"), (160, 30, "AMOUNT"), (20, 110, "Coffee"), (160, 110, "12.50")):
        draw.text((x, y), word, "black", font)
        places[word] = list(draw.textbbox((x, y), word, font))
    path = tmp_path / "page.png"
    image.save(path)
    return Sample(image_id(image), str(path), (500.0, 200.0)), places


def test_words_where_they_were_written(page):
    sample, places = page
    for least_side in (0, 640):
        quads, text = load_specialist("tesseract", least_side=least_side).annotate([sample])[0]
        assert (quads.task, text.task) == ("<OCR_WITH_REGION>", "<OCR>")
        assert text.text == "TOTAL AMOUNT\nCoffee 12.50"
        assert [region.label for region in quads.regions] == list(places)
        for region in quads.regions:
            assert region.kind == "quad"
            assert region.score is not None
            assert 0.5 < region.score <= 1
            assert iou([region_box(region.parts)], [places[region.label]])[0, 0] > 0.5  # some take in white
            (left, top), _, (right, bottom), (x, y) = region.parts[0]
            assert (x, y) == (left, bottom)
            assert left < right
            assert top < bottom


def test_batches_threads_and_blank_images(page, tmp_path):
    blank = tmp_path / "blank.png"
    Image.new("RGB", (300, 100), "white").save(blank)
    empty = Sample("0", str(blank), (300.0, 100.0))
    answers = load_specialist("tesseract", workers=2).annotate([empty, page[0], empty])
    alone = load_specialist("tesseract").annotate([page[0]])
    assert answers[1] == alone[0]
    assert answers[0] == answers[2]
    assert [(a.text, a.regions) for a in answers[0]] == [("", ()), ("", ())]
    assert load_specialist("tesseract").annotate([]) == []


def test_unsure_words_are_left_out(page):
    reader = load_specialist("tesseract", min_confidence=1.0)
    quads, text = reader.annotate([page[0]])[0]
    assert quads.regions == ()
    assert text.text == ""


def test_the_table():
    table = (
        HEAD
        + "1\t1\t0\t0\t0\t0\t0\t0\t90\t90\t-1\t\n"
        + '5\t1\t1\t1\t1\t1\t10\t20\t30\t5\t96.5\t"quoted\n'
        + "5\t1\t1\t1\t1\t2\t50\t20\t30\t5\t0\t \n"
        + "5\t1\t1\t1\t2\t1\t10\t40\t3\t5\t-1\tä\n"
    )
    first, second = parse_words(table)
    assert (first.text, first.box, first.confidence) == ('"quoted', (10, 20, 40, 25), 0.965)
    assert (second.text, second.confidence) == ("ä", 0)
    assert first.line != second.line
    assert parse_words(HEAD) == []


def test_the_version_names_the_options_that_matter():
    plain = load_specialist("tesseract")
    assert plain.version.startswith(program_version())
    assert load_specialist("tesseract", psm=6).version != plain.version
    assert load_specialist("tesseract", workers=3).version == plain.version


def test_mistakes(tmp_path, monkeypatch):
    with pytest.raises(OpenFlorenceError, match="has not learnt 'klingon'"):
        load_specialist("tesseract", lang="eng+klingon")
    with pytest.raises(OpenFlorenceError, match="psm lies between 0 and 13"):
        load_specialist("tesseract", psm=14)
    with pytest.raises(OpenFlorenceError, match="there is no file"):
        load_specialist("tesseract").annotate([Sample("0", str(tmp_path / "absent.png"), (1.0, 1.0))])
    monkeypatch.setattr(tesseract, "PROGRAM", "tesseract-that-is-not-there")
    with pytest.raises(OpenFlorenceError, match="there is no program tesseract-that-is-not-there here: install it"):
        load_specialist("tesseract")


def test_a_program_that_fails(tmp_path, monkeypatch, page):
    reader = load_specialist("tesseract")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no memory >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(tesseract, "PROGRAM", os.fspath(broken))
    with pytest.raises(OpenFlorenceError, match="Tesseract failed: no memory"):
        reader.annotate([page[0]])


def test_real_receipts(data_folder: Path):
    image = sorted((data_folder / "sroie_receipts" / "img").iterdir())[0]
    quads, text = load_specialist("tesseract").annotate([Sample("0", str(image), (463.0, 1013.0))])[0]
    assert len(text.text.split()) > 40
    boxes = np.array([region_box(region.parts) for region in quads.regions])
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= (463, 1013)).all()
