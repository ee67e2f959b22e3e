"""The durable run: killed at any moment, given broken files and failing models, over ten thousand images."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from open_florence.annotate import SYNC_EVERY, Tally, annotate
from open_florence.data import read
from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.images import image_id
from open_florence.inference.batches import Answered
from open_florence.schema import Annotation, Region

TASKS = ["<OD>", "<CAPTION>"]


class ColourReader:
    """Says the colour of the first pixel and boxes the whole image: an answer that depends on the image alone."""

    source = "colour-reader"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def predict_batch(
        self, images: Sequence[Image.Image], tasks: Sequence[Any], *, generation: Any = None
    ) -> list[list[Annotation]]:
        if self.seconds:
            time.sleep(self.seconds)
        return [[self._answer(image, task) for task in tasks] for image in images]

    def _answer(self, image: Image.Image, ask: Any) -> Annotation:
        task, query = ask if isinstance(ask, tuple) else (ask, None)
        colour = "#{:02x}{:02x}{:02x}".format(*image.getpixel((0, 0)))
        box = Region.box(0, 0, *image.size, label=colour, score=0.5)
        return Annotation(task, colour, (box,), query=query, source=self.source)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten small images of different colours, in two folders, with a text file among them."""
    (tmp_path / "in" / "more").mkdir(parents=True)
    for number in range(10):
        place = tmp_path / "in" / ("more" if number % 2 else "") / f"img{number}.png"
        Image.new("RGB", (8 + number, 6), (number, 20, 200)).save(place)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    return tmp_path / "in"


def paths(out: Path) -> list[str]:
    """The paths of annotations.jsonl, as written."""
    return [json.loads(line)["path"] for line in (out / "annotations.jsonl").read_bytes().splitlines()]


def failures(out: Path) -> dict[str, str]:
    """Path to reason."""
    return {r["path"]: r["reason"] for r in map(json.loads, (out / "failed.jsonl").read_bytes().splitlines())}


def test_every_image_gets_its_record(folder: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "out", []
    tally = annotate(folder, TASKS, out, ColourReader(), batch_size=4, on_progress=seen.append)
    assert tally == Tally(total=10, before=0, done=10) == seen[-1]
    assert [t.done for t in seen] == [0, 4, 8, 10]
    samples = list(read(out))
    assert paths(out) == [str(folder / f"img{n}.png") for n in range(0, 10, 2)] + [
        str(folder / "more" / f"img{n}.png") for n in range(1, 10, 2)
    ]
    assert samples[1].size == (10.0, 6.0)
    assert samples[1].id == image_id(folder / "img2.png")
    assert [a.task for a in samples[1].annotations] == TASKS
    assert samples[1].annotations[0].regions == (Region.box(0, 0, 10, 6, label="#0214c8", score=0.5),)
    assert failures(out) == {}
    run = json.loads((out / "run.json").read_text())
    assert (run["model"], run["tasks"]) == ("colour-reader", [{"task": "<OD>"}, {"task": "<CAPTION>"}])


def test_run_json_is_there_before_the_first_answer(folder: Path, tmp_path: Path) -> None:
    class Watching(ColourReader):
        def predict_batch(self, *arguments: Any, **settings: Any) -> list[list[Annotation]]:
            assert json.loads((tmp_path / "out" / "run.json").read_text())["model"] == self.source
            return super().predict_batch(*arguments, **settings)

    assert annotate(folder, TASKS, tmp_path / "out", Watching()).done == 10


def test_a_second_run_does_only_what_is_new(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    annotate(folder, TASKS, out, ColourReader())
    before = (out / "annotations.jsonl").read_bytes()
    monkeypatch.chdir(folder)  # the same images by another name
    assert annotate(".", TASKS, os.path.relpath(out), ColourReader()) == Tally(total=10, before=10)
    assert (out / "annotations.jsonl").read_bytes() == before
    Image.new("RGB", (5, 5)).save(folder / "new.png")
    assert annotate(folder, TASKS, out, ColourReader()) == Tally(total=11, before=10, done=1)
    assert (out / "annotations.jsonl").read_bytes().startswith(before)


def test_equal_pictures_under_two_paths_have_two_records(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (5, 5)).save(tmp_path / f"{name}.png")
    tally = annotate([tmp_path, tmp_path / "a.png"], TASKS, tmp_path / "out", ColourReader())
    assert tally.done == 2  # the file that was named twice counts once
    first, second = read(tmp_path / "out")
    assert first.id == second.id
    assert first.path != second.path


def test_out_inside_the_folder_does_not_feed_itself(folder: Path) -> None:
    annotate(folder, TASKS, folder, ColourReader())
    (folder / "report" / "images").mkdir(parents=True)
    Image.new("RGB", (5, 5)).save(folder / "report" / "images" / "thumbnail.jpg")
    assert annotate(folder, TASKS, folder, ColourReader()) == Tally(total=10, before=10)


def test_broken_images_are_set_apart_and_tried_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = (folder / "img4.png").read_bytes()
    (folder / "img4.png").write_bytes(whole[:40])
    (folder / "img6.png").write_bytes(b"")
    (folder / "img8.png").unlink()
    (folder / "img8.png").symlink_to("nowhere")
    assert annotate(folder, TASKS, out, ColourReader(), batch_size=3) == Tally(total=10, before=0, done=7, failed=3)
    reasons = failures(out)
    assert reasons.keys() == {str(folder / f"img{n}.png") for n in (4, 6, 8)}
    assert all(f"img{n}.png" in reasons[str(folder / f"img{n}.png")] for n in (4, 6, 8))
    (folder / "img4.png").write_bytes(whole)
    assert annotate(folder, TASKS, out, ColourReader()) == Tally(total=10, before=7, done=1, failed=2)
    assert failures(out).keys() == {str(folder / f"img{n}.png") for n in (6, 8)}
    assert len(set(paths(out))) == len(paths(out)) == 8


def test_failures_of_other_images_stay(folder: Path, tmp_path: Path) -> None:
    (folder / "img0.png").write_bytes(b"")
    (folder / "more" / "img1.png").write_bytes(b"")
    annotate(folder, TASKS, tmp_path / "out", ColourReader())
    with (tmp_path / "out" / "failed.jsonl").open("ab") as file:
        file.write(b'{"path": "torn')
    annotate(folder / "more", TASKS, tmp_path / "out", ColourReader())
    assert failures(tmp_path / "out").keys() == {str(folder / "img0.png"), str(folder / "more" / "img1.png")}


class Choosy(ColourReader):
    """Fails whenever an image 12 pixels wide is among its batch."""

    def predict_batch(self, images: Sequence[Image.Image], *rest: Any, **settings: Any) -> list[list[Annotation]]:
        if any(image.width == 12 for image in images):
            raise RuntimeError("index out of range in self")
        return super().predict_batch(images, *rest, **settings)


def test_an_image_the_model_fails_on_costs_only_itself(folder: Path, tmp_path: Path) -> None:
    tally = annotate(folder, TASKS, tmp_path / "out", Choosy(), batch_size=5)
    assert (tally.done, tally.failed) == (9, 1)
    assert failures(tmp_path / "out") == {
        str(folder / "img4.png"): "the model failed: RuntimeError: index out of range in self"
    }


def test_a_question_the_model_refuses_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    class Refusing(ColourReader):
        def predict_batch(self, images: Sequence[Any], *_: Any, **__: Any) -> list[list[Annotation]]:
            raise OpenFlorenceError("the question is 2000 tokens long")

    class RefusingOne(Choosy):
        def predict_batch(self, images: Sequence[Image.Image], *rest: Any, **settings: Any) -> list[list[Annotation]]:
            try:
                return super().predict_batch(images, *rest, **settings)
            except RuntimeError:
                raise OpenFlorenceError("of this image the question is too long") from None

    (folder / "img0.png").write_bytes(b"")  # an unreadable image before it must not hide it
    with pytest.raises(OpenFlorenceError, match="2000 tokens"):
        annotate(folder, TASKS, tmp_path / "out", Refusing(), batch_size=3)
    assert annotate(folder, TASKS, tmp_path / "out", RefusingOne(), batch_size=5).done == 8
    assert failures(tmp_path / "out")[str(folder / "img4.png")] == "of this image the question is too long"


def test_ctrl_c_leaves_a_folder_that_goes_on(folder: Path, tmp_path: Path) -> None:
    class Interrupted(ColourReader):
        calls = 0

        def predict_batch(self, *arguments: Any, **settings: Any) -> list[list[Annotation]]:
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().predict_batch(*arguments, **settings)

    with pytest.raises(KeyboardInterrupt):
        annotate(folder, TASKS, tmp_path / "out", Interrupted(), batch_size=2)
    assert not [thread for thread in threading.enumerate() if thread.name == "open images"]
    assert len(paths(tmp_path / "out")) == 4
    assert annotate(folder, TASKS, tmp_path / "out", ColourReader()).done == 6


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_result_does_not_depend_on_the_batch(folder: Path, tmp_path: Path, batch_size: int) -> None:
    annotate(folder, TASKS, tmp_path / "one", ColourReader())
    annotate(folder, TASKS, tmp_path / "two", ColourReader(), batch_size)
    one, two = ((tmp_path / name / "annotations.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_torn_last_line_is_cut_off_at_every_place(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    annotate(folder, TASKS, out, ColourReader())
    whole = (out / "annotations.jsonl").read_bytes()
    last = whole[:-1].rindex(b"\n") + 1
    for cut in [last, last + 1, last + 30, len(whole) - 2, len(whole) - 1]:
        (out / "annotations.jsonl").write_bytes(whole[:cut])
        assert annotate(folder, TASKS, out, ColourReader()).done == 1
        assert (out / "annotations.jsonl").read_bytes() == whole


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL four times, then to the end: one record an image, byte for byte those of an undisturbed run."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(120):
        Image.new("RGB", (9, 6), (number, 2 * number, 255)).save(folder / f"{number}.png")
    (folder / "30.png").write_bytes(b"broken")
    script = [sys.executable, __file__, str(folder), str(out)]
    dice, counts = random.Random(0), [0]
    for _ in range(4):
        process = subprocess.Popen([*script, "0.03"])
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:  # until it has begun to write
            if (out / "annotations.jsonl").exists() and len(_lines(out)) > counts[-1]:
                break
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        counts.append(len(_lines(out)))
    assert counts == sorted(set(counts)), "every run went on from where the last was killed"
    assert counts[-1] < 119, "the last kill came before the end"
    subprocess.run([*script, "0"], check=True)
    annotate(folder, TASKS, tmp_path / "uninterrupted", ColourReader(), batch_size=3)
    assert sorted(paths(out)) == sorted(str(folder / f"{n}.png") for n in range(120) if n != 30)
    whole, pieces = ((place / "annotations.jsonl").read_bytes() for place in (tmp_path / "uninterrupted", out))
    assert pieces == whole
    assert failures(out).keys() == {str(folder / "30.png")}


def _lines(out: Path) -> list[bytes]:
    return [line for line in (out / "annotations.jsonl").read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]


def test_memory_is_flat_over_ten_thousand_images(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in" / "0.png")
    for number in range(1, 10_000):
        os.link(tmp_path / "in" / "0.png", tmp_path / "in" / f"{number}.png")
    resident: dict[int, int] = {}

    def look(tally: Tally) -> None:
        if tally.done in (2_000, 10_000):
            resident[tally.done] = _resident_bytes()
        if tally.done == 9_000:
            tracemalloc.start()  # exact, but slow: only for the last thousand

    try:
        tally = annotate(tmp_path / "in", ["<OD>"], tmp_path / "out", ColourReader(), 50, on_progress=look)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tally.done == 10_000
    assert held < 150_000  # of a thousand records alone there are 300 kB, of their pixels 12 MB
    assert peak < 4_000_000  # two batches
    assert resident[10_000] - resident[2_000] < 20_000_000  # the pixels have 98 MB
    assert len(set(paths(tmp_path / "out"))) == 10_000


class Streaming(ColourReader):
    """Answers a stream, and remembers how it was asked."""

    def __init__(self, refused: int = 0, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.refused, self.asked = refused, {}

    def predict_many(self, requests: Iterable[tuple[Path, Any]], **settings: Any) -> Iterator[Answered]:
        self.asked = settings
        for index, (path, tasks) in enumerate(requests):
            if index < self.refused:
                yield Answered(index, reason="the question is too long", is_refused=True)
                continue
            with Image.open(path) as image:
                answers = self.predict_batch([image], tasks)[0]
                yield Answered(index, answers, (float(image.width), float(image.height)), image_id(path))


def test_a_predictor_of_streams_is_asked_for_one(folder: Path, tmp_path: Path) -> None:
    streaming = Streaming()
    tally = annotate(folder, TASKS, tmp_path / "many", streaming, 4, workers=3)
    assert tally == annotate(folder, TASKS, tmp_path / "batches", ColourReader(), 4)
    assert streaming.asked == {"generation": None, "workers": 3, "max_images": 4, "with_id": True}
    many, batches = ((tmp_path / name / "annotations.jsonl").read_bytes() for name in ("many", "batches"))
    assert many == batches


def test_a_question_refused_of_the_first_images_ends_a_stream(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="too long"):
        annotate(folder, TASKS, tmp_path / "out", Streaming(refused=4), 4)
    assert annotate(folder, TASKS, tmp_path / "out", Streaming(refused=3), 4) == Tally(10, 0, 7, 3)


def test_slow_answers_are_written_every_second(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock on which every look takes 0.4 of `SYNC_EVERY`: not once for each image, nor all at the end."""
    ticks = itertools.count()
    monkeypatch.setattr("open_florence.annotate.time.monotonic", lambda: 0.4 * SYNC_EVERY * next(ticks))
    seen: list[Tally] = []
    annotate(folder, TASKS, tmp_path / "out", Streaming(refused=4), 100, on_progress=seen.append)
    assert [tally.done + tally.failed for tally in seen] == [0, 5, 8, 10]


def test_the_engine_annotates_as_predict_does(folder: Path, tmp_path: Path) -> None:
    from open_florence.inference.predictor import Predictor  # here, so that the runs that are killed begin fast

    predictor = Predictor.from_pretrained("tiny")
    (folder / "img6.png").write_bytes(b"broken")
    settings = GenerationConfig(max_new_tokens=12)
    tally = annotate(folder, TASKS, tmp_path / "out", predictor, 3, workers=1, generation=settings)
    assert (tally.done, tally.failed) == (9, 1)
    for sample in read(tmp_path / "out"):
        expected = predictor.predict(sample.path, TASKS, generation=settings)
        assert sample.id == image_id(sample.path)
        assert [(a.task, a.text, a.complete) for a in sample.annotations] == [
            (a.task, a.text, a.complete) for a in expected
        ]


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not on Linux: what tracemalloc says has to do
        return 0


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("tasks", {"tasks": ["<OD>"]}),
    ("tasks", {"tasks": ["<OD>", ("<VQA>", "what?")]}),
    ("checkpoint", {"checkpoint": "runs/b"}),
    ("generation", {"generation": GenerationConfig.published()}),
]


@pytest.mark.parametrize(("name", "changed"), SETTINGS)
def test_other_settings_are_refused(folder: Path, tmp_path: Path, name: str, changed: dict[str, Any]) -> None:
    def run(**settings: Any) -> Tally:
        return annotate(folder, settings.pop("tasks", TASKS), tmp_path / "out", ColourReader(), **settings)

    run()
    before = (tmp_path / "out" / "annotations.jsonl").read_bytes()
    with pytest.raises(OpenFlorenceError, match=f"was annotated with another {name}.*restart"):
        run(**changed)
    assert (tmp_path / "out" / "annotations.jsonl").read_bytes() == before
    assert run(**changed, restart=True).done == 10
    assert run(**changed).before == 10


def test_another_model_or_version_is_refused(folder: Path, tmp_path: Path) -> None:
    class Other(ColourReader):
        source = "other"

    annotate(folder, TASKS, tmp_path / "out", ColourReader())
    with pytest.raises(OpenFlorenceError, match=r"another model \(colour-reader, now other\)"):
        annotate(folder, TASKS, tmp_path / "out", Other())
    path = tmp_path / "out" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "0.0.1"}))
    with pytest.raises(OpenFlorenceError, match="another version"):
        annotate(folder, TASKS, tmp_path / "out", ColourReader())


@pytest.mark.parametrize(
    "query", ["a, b", ["a", "b"], (1, 2, 3, 4), np.array([1, 2, 3, 4], np.float32), Region.box(1, 2, 3, 4)]
)
def test_queries_of_every_kind_are_remembered(folder: Path, tmp_path: Path, query: Any) -> None:
    words = isinstance(query, str) or isinstance(query[0] if isinstance(query, list) else None, str)
    task = ("<OPEN_VOCABULARY_DETECTION>" if words else "<REGION_TO_CATEGORY>", query)

    class Asked(ColourReader):
        def predict_batch(self, images: Sequence[Any], tasks: Sequence[Any], *, generation: Any) -> Any:
            assert tasks[0] is task
            return [[Annotation(task[0])] for _ in images]

    assert annotate(folder, [task], tmp_path / "out", Asked()).done == 10
    assert annotate(folder, [task], tmp_path / "out", Asked()).before == 10


def test_mistakes_are_told_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    mistakes: list[tuple[str, Any, Any, str]] = [
        (r"there is no task '<ODD>'; did you mean <OD>\?", folder, ["<ODD>"], "out"),
        ("<VQA> needs words as its query", folder, ["<VQA>"], "out"),
        ("<OD> takes no query", folder, [("<OD>", "a cat")], "out"),
        ("there is no task to annotate with", folder, [], "out"),
        ("there is no image in .*empty", tmp_path / "empty", TASKS, "out"),
        ("there is no folder .*nowhere", tmp_path / "nowhere", TASKS, "out"),
        ("the folder .*file cannot be written", folder, TASKS, "file"),
    ]
    for said, source, tasks, out in mistakes:
        with pytest.raises(OpenFlorenceError, match=said):
            annotate(source, tasks, tmp_path / out, ColourReader())
        assert not (tmp_path / "out").exists()


def test_annotations_nobody_knows_the_origin_of_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations.jsonl").write_text('{"id": "a", "path": "a.jpg", "size": [4, 3]}\n')
    with pytest.raises(OpenFlorenceError, match=r"holds annotations but no run\.json"):
        annotate(folder, TASKS, tmp_path, ColourReader())
    (tmp_path / "run.json").write_text("[")
    with pytest.raises(OpenFlorenceError, match=r"run\.json is damaged"):
        annotate(folder, TASKS, tmp_path, ColourReader())


def test_two_runs_at_once_are_refused(folder: Path, tmp_path: Path) -> None:
    class Nested(ColourReader):
        def predict_batch(self, *arguments: Any, **settings: Any) -> list[list[Annotation]]:
            with pytest.raises(OpenFlorenceError, match="another run is writing to"):
                annotate(folder, TASKS, tmp_path / "out", ColourReader())
            return super().predict_batch(*arguments, **settings)

    assert annotate(folder, TASKS, tmp_path / "out", Nested()).done == 10
    assert len(paths(tmp_path / "out")) == 10


if __name__ == "__main__":  # a run that can be killed: FOLDER OUT SECONDS
    annotate(sys.argv[1], TASKS, sys.argv[2], ColourReader(float(sys.argv[3])), batch_size=3)
