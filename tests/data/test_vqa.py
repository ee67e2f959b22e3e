"""VQAv2: questions and answers in two files, joined as they are read; all ten answers survive."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.data import read
from open_florence.data.vqa import _answered
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation

QUESTIONS, ANSWERS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
TEN = ["net", "net", "net", "netting", "net", "net", "mesh", "net", "net", "net"]


def question(number: int, words: str = "What is this?", image: int = 7) -> dict[str, Any]:
    """A record of the questions."""
    return {"image_id": image, "question": words, "question_id": number}


def answers(number: int, texts: list[str] = TEN, usual: str = "net", image: int = 7) -> dict[str, Any]:
    """A record of the annotations."""
    return {
        "question_type": "what is this", "multiple_choice_answer": usual, "image_id": image, "answer_type": "other",
        "question_id": number,
        "answers": [
            {"answer": text, "answer_confidence": "yes", "answer_id": i} for i, text in enumerate(texts, start=1)
        ],
    }  # fmt: skip


def folder(path: Path, asked: list[Any], given: list[Any] | None, images: tuple[int, ...] = (7, 8)) -> Path:
    """The two files with the head that the published ones have, and pictures."""
    head = {
        "info": {"year": 2017, "version": "2.0"}, "data_type": "mscoco", "license": {"url": "x", "name": "y"},
        "data_subtype": "val2014",
    }  # fmt: skip
    (path / QUESTIONS).write_text(json.dumps({**head, "task_type": "Open-Ended", "questions": asked}))
    if given is not None:
        (path / ANSWERS).write_text(json.dumps({**head, "annotations": given}))
    (path / "val2014").mkdir(exist_ok=True)
    for number in images:
        Image.new("RGB", (40, 30), (number, 0, 0)).save(path / "val2014" / f"COCO_val2014_{number:012}.jpg")
    return path


def test_all_ten_answers_of_each_question(tmp_path: Path, check_targets: Callable[..., None]) -> None:
    texts = ["", "yes", *["no"] * 8]
    folder(tmp_path, [question(70), question(71, "Is it ?")], [answers(70), answers(71, texts, "no")])
    (sample,) = read(tmp_path)
    picture = tmp_path / "val2014" / "COCO_val2014_000000000007.jpg"
    assert (sample.id, sample.path, sample.size) == (image_id(picture), str(picture), (40.0, 30.0))
    expected = [("What is this?", text) for text in ["net"] * 8 + ["netting", "mesh"]]
    expected += [("Is it ?", text) for text in ["no"] * 8 + ["", "yes"]]
    assert sample.annotations == tuple(Annotation("<VQA>", text, query=q, source="human") for q, text in expected)
    check_targets(sample)


def test_questions_about_one_image_are_one_sample(tmp_path: Path) -> None:
    asked = [question(70), question(71, "b"), question(80, "c", image=8)]
    given = [answers(70), answers(71), answers(80, image=8)]
    samples = list(read(folder(tmp_path, asked, given)))
    assert [list(dict.fromkeys(a.query for a in sample.annotations)) for sample in samples] == [
        ["What is this?", "b"],
        ["c"],
    ]


@settings(max_examples=30)
@given(st.permutations(range(6)), st.permutations(range(6)), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_files_in_any_order_are_matched(
    tmp_path_factory: pytest.TempPathFactory, first: list[int], second: list[int], unasked: set[int], silent: set[int]
) -> None:
    path = tmp_path_factory.mktemp("vqa")
    asked = [question(n, f"q{n}") for n in first if n not in unasked]
    given = [answers(n, [f"a{n}"], f"a{n}") for n in second if n not in silent]
    folder(path, asked, given, images=())
    problems: list[str] = []
    found = list(_answered(path / QUESTIONS, path / ANSWERS, problems.append))
    both = set(range(6)) - unasked - silent
    assert sorted((a.query, a.text) for _, group in found for a in group) == [(f"q{n}", f"a{n}") for n in sorted(both)]
    lonely = (bool(silent - unasked), bool(unasked - silent))
    assert [any(words in p for p in problems) for words in ("have no answers", "nobody asked")] == list(lonely)


def test_parts_and_files(tmp_path: Path) -> None:
    folder(tmp_path, [question(70)], [answers(70)])
    for name in (QUESTIONS, ANSWERS):
        text = (tmp_path / name).read_text().replace("What is this?", "Train?")
        (tmp_path / name.replace("val2014", "train2014")).write_text(text)
    queries = {
        source: [sample.annotations[0].query for sample in read(source)]
        for source in (f"{tmp_path}", f"{tmp_path}#val", f"{tmp_path}#train2014", str(tmp_path / QUESTIONS))
    }
    assert list(queries.values()) == [["Train?", "What is this?"], ["What is this?"], ["Train?"], ["What is this?"]]
    with pytest.raises(OpenFlorenceError, match=r"there are no questions of test in .*: no \*_questions\.json"):
        list(read(f"{tmp_path}#test"))


def test_the_folders_of_the_published_downloads(tmp_path: Path) -> None:
    folder(tmp_path, [question(70)], [answers(70)])
    for name, place in ((QUESTIONS, "Questions"), (ANSWERS, "Annotations")):
        (tmp_path / place).mkdir()
        (tmp_path / name).rename(tmp_path / place / name)
    (sample,) = read(tmp_path)
    assert len(sample.annotations) == 10


def test_questions_without_answers(tmp_path: Path) -> None:
    folder(tmp_path, [question(70)], None)
    problems: list[str] = []
    assert list(read(tmp_path, on_error=problems.append)) == []
    assert problems == [f"{tmp_path / QUESTIONS} has no answers: there is no {ANSWERS} beside it, so it is left out"]
    with pytest.raises(OpenFlorenceError, match="has no answers: there is no v2_mscoco_val2014_annotations"):
        list(read(tmp_path / QUESTIONS))
    folder(tmp_path, [question(70)], [answers(70)])
    with pytest.raises(OpenFlorenceError, match="there are no questions in"):
        list(read(tmp_path / ANSWERS, "vqa"))


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    asked, given = [question(90, image=9), question(70)], [answers(90, image=9), answers(70)]
    problems: list[str] = []
    assert len(list(read(folder(tmp_path, asked, given), on_error=problems.append))) == 1
    assert len(problems) == 1
    assert f"{QUESTIONS}, image 9, is left out: it says no image size, and its image is not there" in problems[0]


LEFT_OUT = [
    (5, answers(1), "questions 1, is left out: it is no object of questions"),
    ({"question_id": 1, "image_id": 7}, answers(1), "questions 1, is left out: it lacks 'question'"),
    (question(1, "  "), answers(1), "its question has no words"),
    ({**question(1), "image_id": "7"}, answers(1), "its image_id is '7', not a number"),
    (question(1), None, "annotations 1, is left out: it is no object of annotations"),
    (question(1), {"question_id": 1}, "annotations 1, is left out: it lacks 'answers'"),
    (question(1), answers(1, []), "it has no answers"),
    (question(1), answers(1, ["", " "]), "it has no answers"),
    (question(1), {"question_id": 1, "answers": ["yes"]}, "it is no object of annotations"),
    (question(1), {"question_id": 1, "answers": [{"answer": None}]}, "it is no object of annotations"),
    (question(1), answers(2), "1 questions, 1 the first, are left out: they have no answers"),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "given_", "said"), LEFT_OUT)
def test_records_that_are_wrong_are_named(tmp_path: Path, asked: Any, given_: Any, said: str) -> None:
    folder(tmp_path, [asked, question(70)], [given_, answers(70)])
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    assert len(sample.annotations) == 10
    assert said in problems[0]
    assert str(tmp_path) in problems[0]


@pytest.mark.parametrize("name", [QUESTIONS, ANSWERS])
def test_a_file_cut_off_in_the_middle(tmp_path: Path, name: str) -> None:
    folder(tmp_path, [question(70), question(80, image=8)], [answers(70), answers(80, image=8)])
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text[:-12])
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    assert len(sample.annotations) == 10
    assert f"{name} is left out after record 1: " in problems[0]
    assert "1 questions, 80 the first" in problems[1]


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    count = 2_000
    asked = [question(n, "lorem ipsum " * 500, image=n // 3) for n in range(count)]
    folder(tmp_path, asked, [answers(n, ["yes"]) for n in range(count)], images=())
    assert (tmp_path / QUESTIONS).stat().st_size > 12_000_000
    del asked
    tracemalloc.start()
    try:
        assert sum(1 for _ in _answered(tmp_path / QUESTIONS, tmp_path / ANSWERS, print)) == count
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
