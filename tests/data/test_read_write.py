"""`read` and `write`: the formats, our JSONL above all, and what happens to records that are wrong."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data import READERS, SIGNS, WRITERS, read, write
from open_florence.data.jsonl import line_of
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample


def sample(number: int = 0, label: str = "cat") -> Sample:
    """A sample that uses every field."""
    box = Region("box", (((1.5, 2.0), (30.0, 40.25)),), label, score=0.5, label_score=0.25, span=(0, 3))
    mask = Region("polygon", (((0.0, 0.0), (4.0, 0.0), (4.0, 4.0)), ((5.0, 5.0), (6.0, 5.0), (6.0, 6.0))))
    annotations = (
        Annotation("<CAPTION_TO_PHRASE_GROUNDING>", "cat", (box,), "cat", "human", 2, 0.5, False, 3),
        Annotation("<REGION_TO_SEGMENTATION>", regions=(mask,), query=Region.box(0, 0, 6, 6)),
    )
    return Sample(f"id-{number}", f"photos/{number}.jpg", (640.0, 480.0), annotations)


def test_jsonl_round_trip(tmp_path: Path) -> None:
    samples = [sample(number, label) for number, label in enumerate(["cat", "猫", "a\u2028b", "größe", ""])]
    write(tmp_path / "deep" / "a.jsonl", samples)
    assert list(read(tmp_path / "deep" / "a.jsonl")) == samples
    assert "猫" in (tmp_path / "deep" / "a.jsonl").read_text(encoding="utf-8")


@given(st.text(), st.text())
def test_a_line_is_one_line_whatever_the_words(path: str, label: str) -> None:
    written = Sample("", path, (1.0, 1.0), (Annotation("<OD>", regions=(Region.box(0, 0, 1, 1, label=label),)),))
    line = line_of(written.to_json())
    assert len(line.decode("utf-8").splitlines()) == 1
    assert Sample.from_json(json.loads(line)) == written


def test_a_folder_with_annotations_is_read_and_its_images_are_found_beside_them(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(b"")
    beside, elsewhere = Sample("1", "images/1.png", (1.0, 1.0)), Sample("2", "images/2.png", (1.0, 1.0))
    write(tmp_path / "annotations.jsonl", [beside, elsewhere])
    assert [found.path for found in read(tmp_path)] == [str(tmp_path / "images" / "1.png"), "images/2.png"]


GOOD = '{"id": "a", "path": "a.jpg", "size": [4, 3]}'
BAD_LINES = [
    ("{", "line 2"),  # not JSON
    ("[1, 2]", "JSON object"),
    ('{"id": "a", "size": [4, 3]}', "'path'"),  # a field is missing
    ('{"id": "a", "path": "b", "size": [4, 3], "sise": 1}', "'sise'"),  # a field too many
    ('{"id": "a", "path": "b", "size": 4}', "'size'"),  # a number for a list
    ('{"id": "a", "path": 7, "size": [4, 3]}', "'path'"),
    ('{"id": "a", "path": "b", "size": [4, 3], "annotations": [{"task": "<OD>", "regions": [5]}]}', "Region"),
    ('{"id": "a", "path": "b", "size": [4, 3], "annotations": [{"task": "<OD>", "regions": [{"kind": "ball", '
     '"parts": []}]}]}', "'ball'"),
    ('{"id": "a", "path": "b", "size": [4, 3], "annotations": [{"task": "<OD>", "regions": [{"kind": "box", '
     '"parts": [7]}]}]}', "'parts'"),
    ("\x00\x00", "line 2"),  # what a power cut leaves
]  # fmt: skip


@pytest.mark.parametrize(("bad", "said"), BAD_LINES)
def test_a_bad_line_is_left_out_and_named(tmp_path: Path, bad: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{GOOD}\n{bad}\n\n{GOOD}\n", encoding="utf-8")
    problems: list[str] = []
    assert len(list(read(path, on_error=problems.append))) == 2
    assert len(problems) == 1
    assert f"{path}, line 2, is left out: " in problems[0]
    assert said in problems[0]
    assert "\n" not in problems[0]


def test_by_default_a_bad_line_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"nonsense\n{GOOD}\n")
    with pytest.warns(UserWarning, match="line 1, is left out"):
        assert len(list(read(path))) == 1


def test_a_last_line_torn_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, [sample(0), sample(1, "猫")])
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for cut in {*range(second, len(whole), 7), len(whole) - 2, len(whole) - 1}:
        path.write_bytes(whole[:cut])
        count = len(list(read(path)))  # a warning would be an error here
        assert count == (2 if cut == len(whole) - 1 else 1)  # only the newline is missing: nothing is lost


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, [sample(0)])

    def breaks():
        yield sample(1)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write(path, breaks())
    assert list(read(path)) == [sample(0)]
    assert os.listdir(tmp_path) == ["a.jsonl"]


KILLED = """
import os, signal, sys
from open_florence.data import read, write

def samples():
    old, = read(sys.argv[1])
    for _ in range(1000):
        yield old
    os.kill(os.getpid(), signal.SIGKILL)

write(sys.argv[1], samples())
"""


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "annotations.jsonl"
    write(path, [sample(0)])
    assert subprocess.run([sys.executable, "-c", KILLED, path], check=False).returncode == -signal.SIGKILL
    assert list(read(tmp_path)) == [sample(0)]
    write(path, [sample(1)])
    assert list(read(tmp_path)) == [sample(1)]


def test_reading_holds_one_sample_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, (sample(number) for number in range(10_000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(path)) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000  # the file has 6 MB
    finally:
        tracemalloc.stop()


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OpenFlorenceError, match=r"there is no file or folder .*nowhere"):
        read(tmp_path / "nowhere")
    with pytest.raises(OpenFlorenceError, match="looks like none of the formats jsonl, "):
        read(tmp_path)
    with pytest.raises(OpenFlorenceError, match="there is no format 'klingon'; there are jsonl, "):
        read(tmp_path, "klingon")
    with pytest.raises(OpenFlorenceError, match="cannot be written: "):
        write(tmp_path / "file" / "a.jsonl", [])


def test_a_format_of_ones_own_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "mine", lambda path, on_error: iter([sample(7)]))
    assert list(read(tmp_path, "mine")) == [sample(7)]


def test_what_is_written_is_read_and_recognised_too() -> None:
    assert WRITERS.keys() <= READERS.keys()
    assert WRITERS.keys() <= SIGNS.keys()
