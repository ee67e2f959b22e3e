"""The report: everything that was annotated can be seen, nothing in it can do harm, however large it is."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from open_florence.data import write
from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.report import page, write_report
from open_florence.report.cards import make_card
from open_florence.report.colours import Palette
from open_florence.schema import Annotation, Region, Sample

HOSTILE = """<script>alert(1)</script><img src=x onerror="alert(2)">'"--></style></svg>{{ 7 * 7 }}"""


class Page(HTMLParser):
    """The elements of a page, as (name, attributes), and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and all(a.get(k.strip("_")) == v for k, v in wanted.items())]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "one.png"
    path.parent.mkdir()
    Image.new("RGB", (160, 120), (200, 90, 40)).save(path)
    return path


def folder_of(tmp_path: Path, *samples: Sample) -> Path:
    folder = tmp_path / "out"
    folder.mkdir(exist_ok=True)
    write(folder / "annotations.jsonl", samples)
    return folder


def page_of(tmp_path: Path, *samples: Sample) -> Page:
    return Page(write_report(folder_of(tmp_path, *samples)).read_text(encoding="utf-8"))


def test_every_kind_of_answer_is_on_the_page(tmp_path: Path, image: Path) -> None:
    caption = "a red star beside a blue circle"
    polygon = Region("polygon", (((1.0, 1.0), (9.0, 1.0), (5.0, 9.0)),), score=0.7)
    sample = Sample(
        "0123abcd",
        str(image),
        (160.0, 120.0),
        (
            Annotation("<CAPTION>", caption, score=0.83),
            Annotation("<VQA>", "two", query="How many are there?"),
            Annotation("<OD>", regions=(Region.box(10, 20, 30, 40, label="star", score=0.91),)),
            Annotation(
                "<CAPTION_TO_PHRASE_GROUNDING>",
                caption,
                (Region("box", (((1.0, 2.0), (3.0, 4.0)),), "a red star", span=(0, 10)),),
                caption,
            ),
            Annotation("<REGION_TO_CATEGORY>", "hexagon", query=Region.box(50, 60, 70, 80)),
            Annotation("<REFERRING_EXPRESSION_SEGMENTATION>", regions=(polygon,), query="the large star"),
            Annotation("<OPEN_VOCABULARY_DETECTION>", query="unicorn<and>dragon"),
            Annotation("<OCR>", "cut of", complete=False, dropped=2),
        ),
    )
    shown = page_of(tmp_path, sample)
    for words in (
        caption,
        "0.83",
        "How many are there?",
        "two",
        "star 0.91",
        "hexagon",
        "the large star",
        "place 0.70",
    ):
        assert words in shown.text
    assert "Not found: unicorn, dragon" in shown.text
    assert "incomplete, 2 location tokens dropped" in shown.text
    assert shown.all("path", class_="box")[0]["d"] == "M10.0 20.0L30.0 20.0L30.0 40.0L10.0 40.0Z"
    assert len(shown.all("path", class_="polygon")) == len(shown.all("path", class_="asked")) == 1
    (mark,) = shown.all("mark")
    box = next(p for p in shown.all("path", class_="box") if p["d"] and p["d"].startswith("M1.0 2.0"))
    assert (mark["style"], mark["data-k"]) == (box["style"], box["data-k"])
    (thumbnail,) = {a["src"] for a in shown.all("img")}
    assert thumbnail == "images/01/0123abcd.jpg"
    assert open_image(tmp_path / "out" / "report" / thumbnail).size == (160, 120)


def test_the_head_says_what_was_run(tmp_path: Path, image: Path) -> None:
    folder = folder_of(tmp_path, Sample("0123", str(image), (160.0, 120.0), (Annotation("<OD>"),)))
    run = {"model": "open-florence-tiny", "date": "2026-11-21T08:00:00+00:00", "tasks": [{"task": "<OD>"}]}
    (folder / "run.json").write_text(json.dumps(run))
    failure = {"path": "broken.jpg", "reason": "it is cut off"}
    (folder / "failed.jsonl").write_text(json.dumps(failure) + "\nno json\n\n")
    with (folder / "annotations.jsonl").open("a") as file:
        file.write("{}\n")
    text = Page(write_report(folder).read_text()).text
    assert "Annotated by open-florence-tiny · 21 November 2026" in text
    assert "1image" in text
    assert "2 files could not be annotated" in text
    assert "broken.jpg" in text
    assert "it is cut off" in text
    assert "1 line of annotations.jsonl could not be read" in text


@pytest.mark.parametrize("run", ["", "[1]", "{", '{"model": null, "date": "yesterday", "tasks": 5}'])
def test_a_damaged_run_file_does_no_harm(tmp_path: Path, image: Path, run: str) -> None:
    folder = folder_of(tmp_path, Sample("0123", str(image), (160.0, 120.0), (Annotation("<OD>", source="a model"),)))
    (folder / "run.json").write_text(run)
    assert "Annotated by a model" in write_report(folder).read_text()


def test_hostile_words_stay_words(tmp_path: Path, image: Path) -> None:
    region = Region("box", (((1.0, 2.0), (30.0, 40.0)),), HOSTILE, span=(0, 40), score=0.5)
    sample = Sample(
        "../../" + HOSTILE,
        str(image.parent / HOSTILE.replace("/", "")),
        (160.0, 120.0),
        (
            Annotation(HOSTILE, HOSTILE, (region,), HOSTILE, source=HOSTILE),
            Annotation("<OCR>", HOSTILE, query=HOSTILE),
            Annotation("<REGION_TO_OCR>", HOSTILE, query=Region.box(1, 2, 3, 4, label=HOSTILE)),
            Annotation("<OD>", query=HOSTILE, complete=False),
        ),
    )
    folder = folder_of(tmp_path, sample)
    (folder / "run.json").write_text(json.dumps({"model": HOSTILE, "date": HOSTILE}))
    (folder / "failed.jsonl").write_text(json.dumps({"path": HOSTILE, "reason": HOSTILE}))
    html = write_report(folder).read_text()
    shown = Page(html)
    assert len(shown.all("script")) == 1
    assert not shown.all("img")
    assert not [a for _, a in shown.elements if any(name.startswith("on") for name in a)]
    assert "{{ 7 * 7 }}" in shown.text
    assert not (tmp_path.parent / "images").exists()


def test_only_the_pages_own_script_is_allowed(tmp_path: Path) -> None:
    html = write_report(folder_of(tmp_path)).read_text()
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = Page(html).all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_a_page_needs_no_network(tmp_path: Path, image: Path) -> None:
    html = write_report(
        folder_of(tmp_path, Sample("0123", str(image), (160.0, 120.0), (Annotation("<OD>"),)))
    ).read_text()
    assert not re.search(r"https?://|@import|url\(|<link", html)


def test_a_moved_image_leaves_a_sentence_and_its_regions(tmp_path: Path) -> None:
    regions = (Region.box(10, 20, 30, 40, label="star"),)
    shown = page_of(tmp_path, Sample("0123", "gone/one.png", (160.0, 120.0), (Annotation("<OD>", regions=regions),)))
    assert "The image is no longer at gone/one.png." in shown.text
    assert len(shown.all("path")) == 1


def test_a_damaged_image_leaves_a_sentence(tmp_path: Path, image: Path) -> None:
    image.write_bytes(image.read_bytes()[:60])
    shown = page_of(tmp_path, Sample("0123", str(image), (160.0, 120.0), (Annotation("<OD>"),)))
    assert "The image cannot be read any more" in shown.text


def test_a_series_is_listed(tmp_path: Path) -> None:
    interval = Annotation("<OD>", regions=(Region.box(1, 2, label="anomaly", score=0.4),))
    shown = page_of(tmp_path, Sample("0123", "series.csv", (60.0,), (interval, Annotation("<CAPTION>", "quiet"))))
    for words in ("anomaly", "0.40", "quiet"):
        assert words in shown.text
    assert not shown.all("svg")
    assert "Nothing found" not in shown.text


def test_pages_are_turned_and_left_over_ones_removed(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "PAGE", 3)
    samples = [Sample(f"{n:08x}", str(image), (160.0, 120.0), (Annotation("<CAPTION>", f"№{n}."),)) for n in range(8)]
    report = write_report(folder_of(tmp_path, *samples)).parent
    names = ["index.html", "page-2.html", "page-3.html"]
    assert sorted(path.name for path in report.glob("*.html")) == names
    pages = [Page((report / name).read_text()) for name in names]
    for number, shown in enumerate(pages):
        assert [n for n in range(8) if f"№{n}." in shown.text] == list(range(8))[3 * number : 3 * number + 3]
        assert "8images" in shown.text
    assert pages[1].all("a", rel="prev")[0]["href"] == "index.html"
    assert pages[1].all("a", rel="next")[0]["href"] == "page-3.html"
    write_report(folder_of(tmp_path, *samples[:4]))
    assert sorted(path.name for path in report.glob("*.html")) == names[:2]


def test_thumbnails_are_small_upright_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    Image.new("RGB", (3000, 2000)).save(path, exif=exif)
    folder = folder_of(tmp_path, Sample("0123abcd", str(path), (2000.0, 3000.0), (Annotation("<OD>"),)))
    thumbnail = write_report(folder).parent / "images" / "01" / "0123abcd.jpg"
    assert open_image(thumbnail).size == (640, 960)
    before = thumbnail.stat().st_mtime_ns
    write_report(folder)
    assert thumbnail.stat().st_mtime_ns == before


def test_an_empty_folder_of_annotations_has_a_page(tmp_path: Path) -> None:
    assert "No image has been annotated yet." in page_of(tmp_path).text


def test_a_folder_without_annotations_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match=r"there is no annotations\.jsonl in"):
        write_report(tmp_path)


def test_where_it_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "report").write_text("a file where the folder should be")
    with pytest.raises(OpenFlorenceError, match="cannot be written"):
        write_report(folder)


def test_answers_about_several_regions_share_one_picture() -> None:
    asked = tuple(
        Annotation("<REGION_TO_CATEGORY>", f"shape {n}", query=Region.box(n, n, n + 9, n + 9)) for n in range(3)
    )
    mask = Region("polygon", (((1.0, 1.0), (9.0, 1.0), (5.0, 9.0)),))
    found = Annotation("<REGION_TO_SEGMENTATION>", regions=(mask,), query=Region.box(1, 1, 9, 9), score=0.5)
    card = make_card(Sample("0", "one.png", (99.0, 99.0), (*asked, found)), None, "", Palette())
    assert [tile.task for tile in card.tiles] == ["<REGION_TO_CATEGORY>", "<REGION_TO_SEGMENTATION>"]
    assert [label.text for label in card.tiles[0].labels] == ["shape 0", "shape 1", "shape 2"]
    assert [shape.kind for shape in card.tiles[1].shapes] == ["asked", "polygon"]
    assert not card.tiles[1].labels
    assert len({shape.colour for shape in card.tiles[1].shapes}) == 1


def test_answers_of_two_sources_are_told_apart(tmp_path: Path) -> None:
    human = Annotation("<OD>", regions=(Region.box(1, 2, 3, 4, label="cat"),), source="human")
    model = replace(human, source="detector", round=2)
    shown = page_of(tmp_path, Sample("0123", "one.png", (16.0, 12.0), (human, model)))
    assert len(shown.all("figure")) == 2
    assert "human" in shown.text
    assert "detector, round 2" in shown.text


@pytest.mark.parametrize("span", [(-5, 3), (2, 400), (5, 5), (9, 2), (400, 500)])
def test_any_span_is_shown(span: tuple[int, int]) -> None:
    region = Region("box", (((1.0, 2.0), (3.0, 4.0)),), "cat", span=span)
    annotation = Annotation("<X>", "a cat sits", (region,))
    card = make_card(Sample("0", "one.png", (99.0, 99.0), (annotation,)), None, "", Palette())
    assert "".join(run.text for run, _ in card.tiles[0].answers[0].runs) == "a cat sits"


def test_of_phrases_within_each_other_the_shorter_is_marked() -> None:
    text = "the dog on the mat"
    outer = Region("box", (((0.0, 0.0), (9.0, 9.0)),), "the dog on the mat", span=(0, 18))
    inner = Region("box", (((1.0, 2.0), (3.0, 4.0)),), "the mat", span=(11, 18))
    card = make_card(Sample("0", "x", (9.0, 9.0), (Annotation("<X>", text, (outer, inner)),)), None, "", Palette())
    assert [(run.text, run.label) for run, _ in card.tiles[0].answers[0].runs] == [
        ("the dog on ", "the dog on the mat"),
        ("the mat", "the mat"),
    ]


def test_the_label_carries_its_own_score_and_pointing_shows_both() -> None:
    both = Region("box", (((1.0, 2.0), (3.0, 4.0)),), "cat", score=0.1, label_score=0.98)
    only_place = Region("box", (((5.0, 2.0), (6.0, 3.0)),), "", score=0.2, label_score=0.5)
    card = make_card(
        Sample("0", "x", (9.0, 9.0), (Annotation("<OD>", regions=(both, only_place)),)), None, "", Palette()
    )
    (tile,) = card.tiles
    assert [label.text for label in tile.labels] == ["cat 0.98"]
    assert [(chip.text, chip.score) for chip in tile.chips] == [("cat", "0.98"), ("1 region", "place 0.20")]
    assert [shape.title for shape in tile.shapes] == ["cat 0.980, place 0.100", "place 0.200"]


def test_a_crowded_picture_keeps_its_labels_for_pointing() -> None:
    regions = tuple(Region.box(n, n, n + 9, n + 9, label=f"label {n}") for n in range(60))
    card = make_card(Sample("0", "x", (99.0, 99.0), (Annotation("<OD>", regions=regions),)), None, "", Palette())
    (tile,) = card.tiles
    assert tile.crowded
    assert len(tile.labels) == 60
    assert (len(tile.chips), tile.more) == (40, 20)
