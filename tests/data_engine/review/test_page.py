"""The review page: whole in its folder, harmless whatever the labels say, small; and its logic, run in node."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.review import page as review_page
from open_florence.data_engine.review.item import ReviewItem, read_queue
from open_florence.data_engine.review.page import write_review
from open_florence.data_engine.review.queue import review_queue
from open_florence.data_engine.review.verdicts import read_verdicts
from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.schema import Annotation, Region, Sample

HOSTILE = """</script><script>alert(1)</script><img src=x onerror="alert(2)">'"--> {{ script }} ]]>"""


def queue_of(path: Path, size: tuple[float, ...], *annotations: Annotation, name: str = "x") -> list[ReviewItem]:
    rows = [Candidate(f"{name}/{number}", annotation) for number, annotation in enumerate(annotations)]
    return review_queue([(Sample(name, str(path), size), rows)], 999)


def noise(path: Path, width: int, height: int) -> Path:
    """An image that JPEG cannot make small."""
    pixels = np.random.default_rng(0).integers(0, 256, (height // 2, width // 2, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height)).save(path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    Image.new("RGB", (160, 120), (200, 90, 40)).save(path)
    return path


def data_of(page: Path) -> dict[str, Any]:
    """What the page knows."""
    found = re.search(r'<script type="application/json" id="queue">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_page_knows_every_claim(tmp_path: Path, image: Path) -> None:
    polygon = Region("polygon", (((1.04, 1.0), (9.0, 1.0), (5.0, 9.0)),), score=0.7)
    box = Region.box(10, 20, 30, 40, label="star", score=0.91)
    queue = queue_of(
        image,
        (160.0, 120.0),
        Annotation("<OD>", regions=(box, Region.box(1, 2, 3, 4, label="moon", score=0.5)), source="a@1"),
        Annotation("<CAPTION>", "a star", source="b@1"),
        Annotation("<REGION_TO_SEGMENTATION>", regions=(polygon,), query=box),
        Annotation("<REGION_PROPOSAL>", source="c@1"),
    )
    page = write_review(tmp_path / "review", queue, ["star", "moon"], "Round 3")
    data = data_of(page)
    items = {item["id"]: item for item in data["items"]}
    assert items["x/0#0"] == {
        "id": "x/0#0",
        "image": 0,
        "task": "<OD>",
        "label": "star",
        "nothing": False,
        "classed": True,
        "boxes": True,
        "score": 0.91,
        "sources": ["a@1"],
        "why": items["x/0#0"]["why"],
        "region": {"kind": "box", "parts": [[[10, 20], [30, 40]]], "label": "star"},
        "asked": None,
        "query": None,
        "grounds": "",
        "context": [],
        "siblings": 2,
        "crop": None,
    }
    assert items["x/1"]["label"] == "a star"
    assert items["x/1"]["region"] is None
    assert items["x/2#0"]["region"]["parts"] == [[[1.0, 1.0], [9.0, 1.0], [5.0, 9.0]]]
    assert items["x/2#0"]["asked"]["parts"] == [[[10, 20], [30, 40]]]
    assert items["x/3"]["nothing"]
    assert data["classes"] == ["star", "moon"]
    assert data["images"][0]["size"] == [160.0, 120.0]
    assert open_image(page.parent / data["images"][0]["src"]).size == (160, 120)
    assert "<title>Round 3</title>" in page.read_text()
    assert read_queue(page.parent / "queue.jsonl") == queue


def test_hostile_words_stay_words(tmp_path: Path, image: Path) -> None:
    region = Region.box(1, 2, 30, 40, label=HOSTILE, score=0.5)
    annotation = Annotation("<OD>", regions=(region,), source=HOSTILE)
    queue = queue_of(image, (160.0, 120.0), annotation, Annotation(HOSTILE, HOSTILE, query=HOSTILE), name=HOSTILE)
    page = write_review(tmp_path / "review", queue, [HOSTILE], HOSTILE)
    text = page.read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text.replace(HOSTILE, "")
    assert {item["label"] for item in data_of(page)["items"]} == {HOSTILE}
    assert data_of(page)["images"][0]["id"] == HOSTILE


def test_the_page_runs_its_own_script_alone_and_needs_no_network(tmp_path: Path, image: Path) -> None:
    queue = queue_of(image, (160.0, 120.0), Annotation("<CAPTION>", "a star", source="b@1"))
    html = write_review(tmp_path / "review", queue).read_text()
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        in html
    )
    assert set(re.findall(r"https?://[^\"' ]+", html)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"@import|url\(|<link|fetch\(|{{", html)


def test_a_small_region_of_a_large_image_has_a_crop_of_its_own(tmp_path: Path) -> None:
    path = noise(tmp_path / "large.bmp", 2600, 1300)
    small, large = Region.box(2000, 1000, 2040, 1030, label="a"), Region.box(0, 0, 2000, 1300, label="b")
    queue = queue_of(path, (2600.0, 1300.0), Annotation("<OD>", regions=(small, large)))
    page = write_review(tmp_path / "review", queue)
    data = data_of(page)
    crops = {item["label"]: item["crop"] for item in data["items"]}
    assert crops["b"] is None
    x, y, width, height = crops["a"]["at"]
    assert (x, y) == (1988, 988)
    assert open_image(page.parent / crops["a"]["src"]).size == (width, height) == (65, 55)
    shown = open_image(page.parent / data["images"][0]["src"])
    assert max(shown.size) == 1280


def test_a_folder_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_page, "BYTES", 100_000)
    path = noise(tmp_path / "large.bmp", 800, 600)
    regions = tuple(Region.box(25 * n, 5, 25 * n + 10, 15, label="a") for n in range(30))
    queue = [
        item
        for n in range(4)
        for item in queue_of(path, (800.0, 600.0), Annotation("<OD>", regions=regions), name=f"{n}")
    ]
    page = write_review(tmp_path / "review", queue)
    images = list((page.parent / "images").iterdir())
    assert sum(file.stat().st_size for file in images) <= 100_000
    assert len(images) > 4


def test_an_image_that_is_gone_leaves_a_sentence(tmp_path: Path) -> None:
    queue = queue_of(tmp_path / "gone.png", (160.0, 120.0), Annotation("<CAPTION>", "a star"))
    (shown,) = data_of(write_review(tmp_path / "review", queue))["images"]
    assert shown["src"] == ""
    assert "The image cannot be shown: there is no file" in shown["missing"]


def test_mistakes_are_one_sentence(tmp_path: Path, image: Path) -> None:
    series = queue_of(tmp_path / "a.csv", (60.0,), Annotation("<OD>", regions=(Region.box(1, 2, label="x"),)))
    with pytest.raises(OpenFlorenceError, match="is a series"):
        write_review(tmp_path / "review", series)
    (tmp_path / "file").write_text("")
    with pytest.raises(OpenFlorenceError, match="cannot be written"):
        write_review(tmp_path / "file", queue_of(image, (160.0, 120.0), Annotation("<CAPTION>", "a")))


def test_an_empty_queue_has_a_page(tmp_path: Path) -> None:
    assert data_of(write_review(tmp_path / "review", []))["items"] == []


STATE = Path(review_page.__file__).with_name("state.js")


def node(script: str) -> Any:
    """What a script of the page's logic returns."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("there is no node to run the page's script")
    code = f"const page = require({json.dumps(str(STATE))}); console.log(JSON.stringify((() => {{ {script} }})()))"
    done = subprocess.run([program, "-e", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_the_page_saves_is_what_stands_and_can_be_read(tmp_path: Path) -> None:
    """A later verdict takes the place of an earlier one; what was removed, or confirmed and taken back, is gone."""
    text = node(
        """
        const added = (label) => ({verdict: "missing", image: "x", task: "<OD>",
            region: {kind: "box", parts: [[[1, 2], [3, 4]]], label}});
        return page.linesOf([
            {item: "a", verdict: "accept"}, {item: "b", verdict: "reject"}, {item: "a", verdict: "fix", label: "dog"},
            added("cat"), added("hat"), {verdict: "remove", number: 0},
            {verdict: "complete", image: "x", task: "<OD>"}, {verdict: "complete", image: "y", task: "<OD>"},
            {verdict: "complete", image: "y", task: "<OD>"},
        ]);
        """
    )
    (tmp_path / "verdicts.jsonl").write_text(text)
    verdicts = read_verdicts(tmp_path / "verdicts.jsonl")
    assert [(v.verdict, v.item, v.label, v.image) for v in verdicts] == [
        ("fix", "a", "dog", ""),
        ("reject", "b", "", ""),
        ("missing", "", "", "x"),
        ("complete", "", "", "x"),
    ]
    assert verdicts[2].region == Region.box(1, 2, 3, 4, label="hat")


def test_the_page_opens_what_it_saved_and_nothing_else() -> None:
    found = node(
        """
        const items = [{id: "a", image: "x"}];
        const lines = ['{"item":"a","verdict":"accept"}', "", '{"verdict":"complete","image":"x","task":"t"}', ""];
        const log = page.readLines(lines.join("\\n"), items);
        const refused = ['{"item":"b","verdict":"accept"}', "nothing", '{"verdict":"maybe"}', "null"].map((line) => {
            try { page.readLines("\\n" + line, items); return ""; } catch (error) { return error.message; }
        });
        return [log.length, refused];
        """
    )
    assert found == [2, ["Line 2 is no verdict about this queue"] * 4]


def test_the_page_goes_on_to_what_is_open_and_knows_when_an_image_is_done() -> None:
    found = node(
        """
        const items = ["a", "b", "c"].map((id) => ({id, image: id === "c" ? 1 : 0, task: "t", siblings: 2}));
        const state = page.fold([{item: "b", verdict: "accept"}]);
        const all = page.fold(items.map((item) => ({item: item.id, verdict: "accept"})));
        return [0, 1, 2].map((at) => page.nextOpen(items, state, at)).concat([page.nextOpen(items, all, 1)], [
            page.standing(items, state, items[0]), page.standing(items, all, items[0]),
            page.standing(items, all, items[2]),
        ].map((now) => [now.judged, now.shown, now.whole, now.done]));
        """
    )
    assert found == [2, 2, 0, 1, [1, 2, True, False], [2, 2, True, True], [1, 1, False, False]]


def test_boxes_and_crops_of_the_page_stay_in_the_image() -> None:
    found = node(
        """
        return [
            page.boxBetween({x: 50, y: -3}, {x: 10.26, y: 400}, [100, 80]),
            page.boxBetween({x: 5, y: 5}, {x: 6, y: 60}, [100, 80]),
            page.viewAround([0, 0, 40, 20], [100, 80]),
            page.viewAround([90, 70, 92, 72], [100, 80]),
            page.boxAround([[[3, 9], [5, 1]], [[0, 4]]]),
        ];
        """
    )
    assert found == [[10.3, 0, 50, 80], None, [0, 0, 50, 30], [79, 59, 21, 21], [0, 1, 5, 9]]


def test_keys_of_the_page() -> None:
    found = node(
        """
        const keys = ["a", "R", "7", "0", "u", "c", "m", "ArrowLeft", "Enter", "Escape", "q", "F5"];
        return [keys.map((key) => page.commandOf(key, false)), keys.map((key) => page.commandOf(key, true))];
        """
    )
    outside = [
        "accept",
        "reject",
        ["class", 6],
        None,
        "undo",
        "complete",
        "missing",
        "back",
        "fix",
        "leave",
        None,
        None,
    ]
    assert found[0] == outside
    assert found[1] == [None] * 8 + ["enter", "leave", None, None]


def test_a_missing_object_belongs_to_the_task_that_is_judged_where_that_finds_things() -> None:
    found = node(
        """
        const of = (more) => page.missingTask({task: "<X>", query: null, grounds: "", boxes: true, ...more});
        return [of({}), of({query: "cat"}), of({grounds: "a cat"}), of({boxes: false})];
        """
    )
    assert found == ["<X>", "<OD>", "<OD>", "<OD>"]
