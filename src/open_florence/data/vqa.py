"""VQAv2: questions about COCO's images, ten people's answers to each (Goyal et al., CVPR 2017; visualqa.org).

    v2_OpenEnded_mscoco_val2014_questions.json    {"questions": [{"image_id", "question_id", "question"}, ...], ...}
    v2_mscoco_val2014_annotations.json            {"annotations": [{"question_id", "multiple_choice_answer",
                                                   "answers": [{"answer", ...}, ten of them]}, ...], ...}

The first VQA and OK-VQA come in the same form. How sure the people were of their answers is not kept: the official
score does not ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from open_florence.data.json_items import json_items
from open_florence.data.records import find_image, identify
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample

IMAGE_FOLDERS = tuple(
    f"{above}{folder}"
    for above in ("", "images/", "../", "../images/")
    for folder in ("train2014", "val2014", "test2015", "train2017", "val2017", ".")
)
"""Where images are looked for, from the folder of the questions."""

IMAGE_NAMES = ("COCO_train2014_{:012}.jpg", "COCO_val2014_{:012}.jpg", "COCO_test2015_{:012}.jpg", "{:012}.jpg")
"""What COCO calls the image of a number; no two images have the same number."""

ENDING = "_questions.json"
"""How a file of questions is called."""

Answered = tuple[int, tuple[Annotation, ...]]
"""An image's number and the answers to one question about it."""


def read_vqa(path: Path, on_error: Callable[[str], object], part: str = "") -> Iterator[Sample]:
    """One sample per image: a <VQA> annotation for each of the ten answers to each of its questions.

    `path` is a file of questions, or a folder: then all its files of questions that have answers are read, of a part
    ("val", "train2014") those with it in their name. All answers are kept, blank ones too, several annotations of one
    query, as the official score needs; `multiple_choice_answer`, the most frequent, comes first, for training that
    takes one.

    Questions and answers are read side by side and matched by number. The published files have one order, images one
    after the other, so memory does not grow; what is out of order waits for its other half. An image whose questions
    stand apart becomes several samples. `on_error` is told of images that are missing (these files do not know their
    size), of records that are wrong, and how many questions have no answers. Raises OpenFlorenceError when there are no
    questions or no answers.
    """
    for questions in _question_files(path, part):
        answers = _answer_file(questions)
        if not answers.is_file():
            problem = f"{questions} has no answers: there is no {answers.name} beside it"
            if path.is_file():
                raise OpenFlorenceError(problem)
            on_error(f"{problem}, so it is left out")
            continue
        folders = [folder for folder in (questions.parent / name for name in IMAGE_FOLDERS) if folder.is_dir()]
        for number, group in groupby(_answered(questions, answers, on_error), key=lambda found: found[0]):
            annotations = tuple(annotation for _, found in group for annotation in found)
            image_path = find_image(folders, *(name.format(number) for name in IMAGE_NAMES))
            try:
                identity, size = identify(image_path, None, str(number))
            except ValueError as error:
                on_error(f"{questions}, image {number}, is left out: {error}")
                continue
            yield Sample(identity, str(image_path), size, annotations)


def looks_like_vqa(path: Path) -> bool:
    """Whether it is a file of questions, or a folder that holds one or whose folders do."""
    files = [path] if path.is_file() else [*path.glob(f"*{ENDING}"), *path.glob(f"*/*{ENDING}")]
    return any(file.name.endswith(ENDING) for file in files)


def _question_files(path: Path, part: str) -> list[Path]:
    within = sorted(path.glob(f"*{ENDING}")) or sorted(path.glob(f"*/*{ENDING}"))
    files = [path] if path.is_file() else within
    chosen = [file for file in files if file.name.endswith(ENDING) and (not part or f"_{part}" in file.name)]
    if not chosen:
        raise OpenFlorenceError(f"there are no questions{' of ' * bool(part)}{part} in {path}: no *{ENDING}")
    return chosen


def _answer_file(questions: Path) -> Path:
    """The file of answers, beside the questions or in the folder "Annotations" beside theirs."""
    name = questions.name.replace("OpenEnded_", "").replace(ENDING, "_annotations.json")
    elsewhere = questions.parent.parent / "Annotations" / name
    return elsewhere if elsewhere.is_file() else questions.with_name(name)


def _answered(questions: Path, answers: Path, on_error: Callable[[str], object]) -> Iterator[Answered]:
    """Each question with its answers, as soon as both have been read."""
    asked: dict[int, tuple[int, str]] = {}  # question -> image and words
    given: dict[int, list[str]] = {}
    both = zip_longest(
        _checked(questions, "questions", _question, on_error), _checked(answers, "annotations", _answers, on_error)
    )
    for question, answer in both:
        for number in dict.fromkeys(found[0] for found in (question, answer) if found is not None):
            if question is not None and question[0] == number:
                asked[number] = question[1]
            if answer is not None and answer[0] == number:
                given[number] = answer[1]
            if number in asked and number in given:
                image, words = asked.pop(number)
                texts = given.pop(number)
                yield image, tuple(Annotation("<VQA>", text, query=words, source="human") for text in texts)
    if asked:
        on_error(f"{questions}: {len(asked)} questions, {min(asked)} the first, are left out: they have no answers")
    if given:
        on_error(
            f"{answers}: the answers to {len(given)} questions, {min(given)} the first, are left out: nobody asked them"
        )


def _checked(
    file: Path, key: str, read: Callable[[Any], tuple[int, Any]], on_error: Callable[[str], object]
) -> Iterator[tuple[int, Any]]:
    for number, record in json_items(file, key, on_error):
        try:
            found = read(record)
        except KeyError as error:
            on_error(f"{file}, {key} {number}, is left out: it lacks {error}")
        except (AttributeError, TypeError, ValueError) as error:
            reason = error if isinstance(error, ValueError) else f"it is no object of {key}"
            on_error(f"{file}, {key} {number}, is left out: {reason}")
        else:
            yield found


def _question(record: dict[str, Any]) -> tuple[int, tuple[int, str]]:
    words = str(record["question"]).strip()
    if not words:
        raise ValueError("its question has no words")
    return _number(record, "question_id"), (_number(record, "image_id"), words)


def _answers(record: dict[str, Any]) -> tuple[int, list[str]]:
    texts = [answer["answer"].strip() for answer in record["answers"]]
    if not any(texts):
        raise ValueError("it has no answers")
    usual = record.get("multiple_choice_answer")
    return _number(record, "question_id"), sorted(texts, key=lambda text: text != usual)


def _number(record: dict[str, Any], name: str) -> int:
    if type(record[name]) is not int:
        raise ValueError(f"its {name} is {record[name]!r:.40}, not a number")
    return int(record[name])
