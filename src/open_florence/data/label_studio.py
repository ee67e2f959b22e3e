"""Label Studio's JSON export: tasks with the annotations of people and the predictions of models.

| in the file | becomes |
|---|---|
| a rectangle with a label | a box of <OD>; a turned one, the box around it |
| a polygon with a label | <REGION_TO_SEGMENTATION> of the box around it, and that box in <OD> |
| polygons within a labelled rectangle (`parentID`) | <REGION_TO_SEGMENTATION> of that rectangle |
| a rectangle or polygon with a transcription | a quad of <OCR_WITH_REGION>, its text in <OCR> |
| one without, where others have one | `IGNORED` for <OCR_WITH_REGION>: text nobody can read |
| a text about the whole image | <CAPTION>, or the task its control is called after: detailed_caption, ocr, ... |
| a choice | <CLASSIFICATION> among all that were ever chosen with that control |

An image without a region, in a file where others have some, has an empty <OD>, or nothing to read. Places are in
percent of the image in the file and in pixels here. What else can be drawn (brushes and their RLE, ellipses, key
points) is reported and left out. The format is that of Label Studio's documentation, "Label Studio JSON format of
annotated tasks".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from open_florence.data.icdar import TASK as OCR_TASK
from open_florence.data.icdar import quad_region, text_annotations
from open_florence.data.ignored import ignored_annotation
from open_florence.data.json_items import json_items
from open_florence.data.label_studio_regions import Drawn, draw, is_number
from open_florence.data.records import find_image, identify
from open_florence.geometry import box_to_polygon
from open_florence.schema import Annotation, Region, Sample, Size

IMAGE_KEYS = ("image", "img", "ocr", "captioning", "image_url", "url")
"""What the image is called in a task's data, most usual first."""
TEXT_TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<OCR>")
HEAD = 1 << 16
"""Characters of a file that are looked at to tell whether it is Label Studio's."""

Report = Callable[[str], object]


@dataclass
class Survey:
    """What only the whole file tells: what its controls are for."""

    choices: dict[str, dict[str, None]] = field(default_factory=dict)
    """Control of choices -> what was ever chosen with it, in that order."""
    read: set[str] = field(default_factory=lambda: {"ocr_with_region"})
    """Controls whose regions carry a transcription; one called after the task is for nothing else."""
    drawn: set[str] = field(default_factory=set)
    """Controls with which anything was drawn."""

    @property
    def detects(self) -> bool:
        """Whether things are drawn for their label, so that an image without any is one with nothing to find."""
        return bool(self.drawn - self.read)

    @property
    def transcribes(self) -> bool:
        """Whether text is drawn, so that an image without any is one with nothing to read."""
        return bool(self.drawn & self.read)


@dataclass(frozen=True)
class Answer:
    """What one person, or one model, said about an image."""

    source: str
    score: float | None
    items: list[dict[str, Any]]


def read_label_studio(path: Path, on_error: Report) -> Iterator[Sample]:
    """One sample per task of an export in the format "JSON", read twice: first to see what its controls are for.

    `Annotation.source` is "human:" and who it was (their email, or else number) for annotations, skipped ones left out,
    and the model version for predictions, with their scores. An image in Label Studio's own store or on this machine is
    looked for beside the file; any other reference, such as an http or s3 address, is `Sample.path` as it is. The
    sample's id is the hash of the image, or without it "sample_id" of the task's data, or else the reference.
    `on_error` is told of tasks and regions that are left out.
    """
    survey = _survey(path)
    for number, task in json_items(path, None, on_error):
        known = task.get("id") if isinstance(task, dict) else None
        place = f"{path}, " + (f"record {number}" if known is None else f"task {known}")

        def report(what: str, place: str = place) -> None:
            on_error(f"{place}, {what}")

        try:
            yield _sample(task, path.parent, survey, report)
        except (OSError, ValueError) as error:
            report(f"is left out: {error}")


def looks_like_label_studio(path: Path) -> bool:
    """Whether a .json file begins as a list of tasks with annotations or predictions."""
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.read(HEAD)
    return re.match(r"\s*\[\s*\{", head) is not None and re.search(r'"(annotations|predictions)"\s*:', head) is not None


def locate(reference: str, folder: Path) -> tuple[Path | None, str]:
    """(the image file a reference speaks of, what to call it): None where it is not beside the file, in `folder`.

    Uploaded files are known by their name, with or without the eight characters Label Studio puts before it, also in
    images/ as exports have it; local files (/data/local-files/?d=...) by their path from the folder or the root.
    """
    parts = urlsplit(reference)
    if parts.scheme and len(parts.scheme) > 1:  # one letter is a drive
        return None, reference
    if parts.path.startswith("/data/local-files"):
        name = parse_qs(parts.query).get("d", [""])[0]
        return find_image([folder, Path("/")], name), name
    if parts.path.startswith("/data/upload/"):
        name = parts.path.rpartition("/")[2]
        plain = re.sub(r"^[0-9a-f]{8}-", "", name)
        inner = parts.path.removeprefix("/data/")
        return find_image([folder, folder / "images"], inner, name, plain), reference
    return find_image([folder], reference), reference


def _survey(path: Path) -> Survey:
    survey = Survey()
    for _, task in json_items(path, None, lambda _: None):
        try:
            answers = list(_answers(task))
        except ValueError:
            continue  # reported when it is read
        for items in (answer.items for answer in answers):
            written = {str(item.get("id")) for item in items if item.get("type") == "textarea"}
            for item in items:
                control, value = str(item.get("from_name")), item.get("value")
                if item.get("type") == "choices" and isinstance(value, dict):
                    survey.choices.setdefault(control, {}).update(dict.fromkeys(_texts(value.get("choices"))))
                elif item.get("type") in Drawn.TYPES:
                    survey.drawn.add(control)
                    survey.read.update({control} if str(item.get("id")) in written else ())
    return survey


def _sample(task: Any, folder: Path, survey: Survey, report: Report) -> Sample:
    answers = list(_answers(task))
    data = task["data"]
    reference = _image_reference(data)
    image, name = locate(reference, folder)
    told = data.get("sample_id")
    identity, size = identify(image, _stated_size(answers), told if isinstance(told, str) else name)
    annotations = chain.from_iterable(_annotations(answer, size, survey, report) for answer in answers)
    return Sample(identity, str(image or name), size, tuple(annotations))


def _answers(task: Any) -> Iterator[Answer]:
    """The annotations of people, then the predictions of models. Raises ValueError for what is no task."""
    if not isinstance(task, dict):
        raise ValueError(f"it is {task!r:.80}, not a task")
    if not isinstance(task.get("data"), dict):
        minimal = "; export as JSON, not JSON-MIN" if "annotation_id" in task or "annotator" in task else ""
        raise ValueError(f"it has no 'data'{minimal}")
    for key in ("annotations", "predictions"):
        given = task.get(key) or []
        if not isinstance(given, list) or not all(isinstance(answer, dict) for answer in given):
            raise ValueError(f"its {key} are {given!r:.80}, not a list of objects")
        for answer in given:
            items = answer.get("result") or []
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise ValueError(f"a 'result' in its {key} is not a list of objects")
            if key == "predictions":
                yield Answer(str(answer.get("model_version") or "model"), _score(answer), items)
            elif not answer.get("was_cancelled"):
                yield Answer(_who(answer.get("completed_by")), None, items)


def _who(completed_by: Any) -> str:
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return "human" if completed_by is None else f"human:{completed_by}"


def _score(record: dict[str, Any]) -> float | None:
    score = record.get("score")
    return float(score) if is_number(score) and 0 <= score <= 1 else None


def _image_reference(data: dict[str, Any]) -> str:
    """The image of a task: under a usual name, or else the first that looks like one."""
    named = (data[key] for key in IMAGE_KEYS if isinstance(data.get(key), str))
    looks = re.compile(r"(?i)\.(jpe?g|png|webp|bmp|gif|tiff?)(\?|$)|^/data/(upload|local-files)")
    others = (value for value in data.values() if isinstance(value, str) and looks.search(value))
    found: str | None = next(chain(named, others), None)
    if not found:
        raise ValueError(f"its data name no image: {data!r:.80}")
    return found


def _stated_size(answers: list[Answer]) -> Size | None:
    for item in chain.from_iterable(answer.items for answer in answers):
        width, height = item.get("original_width"), item.get("original_height")
        if is_number(width) and is_number(height) and width > 0 and height > 0:
            return float(width), float(height)
    return None


def _annotations(answer: Answer, size: Size, survey: Survey, report: Report) -> Iterator[Annotation]:
    drawn, rest = draw(answer.items, size, report)
    boxes: list[Region] = []
    masks: dict[tuple[str, str], tuple[Region, Region]] = {}  # (id of the box, label) -> box, mask
    quads: list[Region] = []
    illegible: list[Region] = []
    for thing in drawn.values():
        try:
            if thing.text or thing.control in survey.read:
                (quads if thing.text else illegible).append(_quad(thing, size))
                continue
            if not thing.labels:
                raise ValueError("it has neither a label nor a text")
            parent = drawn.get(thing.parent or "")
            owner = parent if parent and parent.is_rectangle and parent.labels and not thing.is_rectangle else thing
            for label in thing.labels:
                box = owner.box(label, size)
                if not thing.is_rectangle:
                    mask = thing.polygon(label, size)
                    _, known = masks.get((owner.id, label), (box, replace(mask, parts=())))
                    masks[owner.id, label] = box, replace(known, parts=known.parts + mask.parts)
                if owner is thing:
                    boxes.append(box)
        except ValueError as error:
            report(f"region {thing.id}, is left out: {error}")
    found: list[Annotation] = []
    if boxes or survey.detects:
        found.append(Annotation("<OD>", regions=tuple(boxes)))
    for box, mask in masks.values():
        found.append(Annotation("<REGION_TO_SEGMENTATION>", regions=(mask,), query=Region("box", box.parts)))
    texts = list(_whole_image(rest, survey, report))
    if quads or survey.transcribes:
        places, text = text_annotations(quads)
        found += [places] if any(said.task == "<OCR>" for said in texts) else [places, text]
        found += ignored_annotation(OCR_TASK, illegible)
    for said in (*found, *texts):
        yield replace(said, source=answer.source, score=answer.score)


def _quad(thing: Drawn, size: Size) -> Region:
    """The quad of a text; the box around it where it was drawn with more or fewer corners than four."""
    corners = thing.points if len(thing.points) == 4 else box_to_polygon(thing.bounds).tolist()
    return replace(quad_region(corners, thing.text, size), score=thing.score)


def _whole_image(items: list[dict[str, Any]], survey: Survey, report: Report) -> Iterator[Annotation]:
    """What is said about the whole image: texts and choices."""
    for item in items:
        kind, control, value = item.get("type"), str(item.get("from_name")), item.get("value")
        said = _texts(value.get("choices" if kind == "choices" else "text") if isinstance(value, dict) else None)
        if kind == "textarea":
            task = f"<{control.upper()}>" if f"<{control.upper()}>" in TEXT_TASKS else "<CAPTION>"
            for text in ["\n".join(said)] if task == "<OCR>" else said:
                yield Annotation(task, text)
        elif kind == "choices" and len(said) == 1:
            yield Annotation("<CLASSIFICATION>", said[0], query="<and>".join(survey.choices[control]))
        elif kind == "choices":
            report(f"the choice of {control}, is left out: it is {len(said)} at once, a class is one")
        elif kind != "relation":
            report(f"result {item.get('id')}, is left out: a {kind} is not read")


def _texts(value: Any) -> list[str]:
    """One text or a list of them, without blank ones."""
    texts = value if isinstance(value, list) else [value]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]
