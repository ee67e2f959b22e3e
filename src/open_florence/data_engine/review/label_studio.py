"""A review queue in Label Studio instead of on our page: claims out as predictions, what people made of them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from open_florence.data.jsonl import write_whole
from open_florence.data.label_studio import TEXT_TASKS, read_label_studio
from open_florence.data.label_studio_tasks import write_label_studio
from open_florence.data_engine.review.item import ReviewItem
from open_florence.data_engine.review.verdicts import Verdict
from open_florence.geometry import iou, region_box
from open_florence.schema import Annotation, Region, Sample

REGION_TASKS = ("<OD>", "<OCR_WITH_REGION>")
"""Tasks whose regions Label Studio can hold; of texts, its reader's `TEXT_TASKS`."""
MODEL = "open-florence review"
"""The model version of the predictions."""
OVERLAP = 0.5
"""The least IoU of a region of a claim with the region a person left of it."""


def write_label_studio_review(path: Path, queue: Sequence[ReviewItem]) -> list[ReviewItem]:
    """Writes the claims as tasks with predictions to import (and the labelling configuration beside them, as .xml).

    Each region has its score, and under "meta" why it is in the queue; a task's data say so of its texts too. Returns
    the items that Label Studio cannot hold: those of other tasks than `REGION_TASKS` and `TEXT_TASKS`, and regions
    without a label. Raises OpenFlorenceError where the file cannot be written.
    """
    held = [item for item in queue if _is_held(item)]
    by_image: dict[str, list[ReviewItem]] = {}
    for item in held:
        by_image.setdefault(item.image, []).append(item)
    write_label_studio(path, [_sample(items) for items in by_image.values()])
    tasks = json.loads(path.read_text("utf-8"))
    for task, items in zip(tasks, by_image.values(), strict=True):
        _add_reasons(task, items)
    write_whole(path, [json.dumps(tasks, ensure_ascii=False, indent=1).encode(), b"\n"])
    return [item for item in queue if not _is_held(item)]


def read_label_studio_review(
    path: Path, queue: Sequence[ReviewItem], on_error: Callable[[str], object]
) -> list[Verdict]:
    """The verdicts in an export (format "JSON") of tasks that `write_label_studio_review` wrote.

    Images are known by their id or path. Of each image that somebody submitted, a claim whose region is still there (by
    IoU, one to one) is accepted, or fixed where its label or place is another; one that is gone is rejected; regions
    besides, unless they are labels outside the queue, are missing objects; and the image is complete. Of several
    people the last counts. `on_error` is told of tasks that are not in the queue and of what cannot be read.
    """
    images = {name: item.image for item in queue for name in (item.path, item.image)}
    held: dict[str, list[ReviewItem]] = {}
    for item in queue:
        if _is_held(item):
            held.setdefault(item.image, []).append(item)
    found: dict[str, tuple[Annotation, ...]] = {}
    for sample in read_label_studio(path, on_error):
        image = images.get(sample.id) or images.get(sample.path)
        if image is None:
            on_error(f"{path}, the image {sample.path} is left out: it is not in this review queue")
            continue
        people = [a for a in sample.annotations if a.source.startswith("human")]
        if people:
            found[image] = tuple(a for a in people if a.source == people[-1].source)
    return [verdict for image, said in found.items() for verdict in _verdicts(held.get(image, []), said)]


def _is_held(item: ReviewItem) -> bool:
    task = item.annotation.task
    return task in TEXT_TASKS or (task in REGION_TASKS and (item.says_nothing or bool(item.label.strip())))


def _sample(items: Sequence[ReviewItem]) -> Sample:
    annotations = []
    for task in dict.fromkeys(item.annotation.task for item in items):
        of_task = [item for item in items if item.annotation.task == task]
        regions = tuple(replace(item.region, score=item.score) for item in of_task if item.region is not None)
        if regions or of_task[0].says_nothing:
            annotations.append(Annotation(task, regions=regions, source=MODEL))
        else:
            annotations += [Annotation(task, item.label, source=MODEL, score=item.score) for item in of_task]
    return Sample(items[0].image, items[0].path, items[0].size, tuple(annotations))


def _add_reasons(task: dict[str, Any], items: Sequence[ReviewItem]) -> None:
    """Adds to every drawn result why it is asked about: results of a task come in the order of its regions."""
    task["data"]["review"] = " ".join(dict.fromkeys(item.why for item in items))
    for prediction in task.get("predictions", []):
        for name, kind in (("<OD>", "rectanglelabels"), ("<OCR_WITH_REGION>", "polygonlabels")):
            asked = [item for item in items if item.annotation.task == name and item.region is not None]
            drawn = [result for result in prediction["result"] if result["type"] == kind]
            for result, item in zip(drawn, asked, strict=True):
                result["meta"] = {"text": [item.why]}
        scores = [item.score for item in items if item.score is not None]
        if scores:
            prediction["score"] = min(scores)


def _verdicts(items: Sequence[ReviewItem], said: Sequence[Annotation]) -> Iterator[Verdict]:
    for task in dict.fromkeys(item.annotation.task for item in items):
        asked = [item for item in items if item.annotation.task == task]
        answers = [annotation for annotation in said if annotation.task == task]
        if task in TEXT_TASKS:
            yield from _of_texts(asked, [answer.text for answer in answers])
        else:
            yield from _of_regions(task, asked, [region for answer in answers for region in answer.regions])


def _of_texts(asked: Sequence[ReviewItem], texts: Sequence[str]) -> Iterator[Verdict]:
    """A text that is still there word for word is accepted; of the others, the first that is new replaces it."""
    new = [text for text in texts if text not in {item.label.strip() for item in asked}]
    for item in asked:
        if item.label.strip() in texts:
            yield Verdict("accept", item.id)
        elif new:
            yield Verdict("fix", item.id, new.pop(0))
        else:
            yield Verdict("reject", item.id)


def _of_regions(task: str, asked: Sequence[ReviewItem], regions: Sequence[Region]) -> Iterator[Verdict]:
    claimed = [item for item in asked if item.region is not None]
    partner = _matched([item.region for item in claimed if item.region], regions)
    for number, item in enumerate(claimed):
        if number not in partner:
            yield Verdict("reject", item.id)
            continue
        region = regions[partner[number]]
        label = "" if region.label == item.label.strip() else region.label
        moved = None if _same_place(item.region, region) else replace(region, score=None)
        yield Verdict("fix", item.id, label, region=moved) if label or moved else Verdict("accept", item.id)
    for item in asked:
        if item.region is None:
            yield Verdict("reject" if regions else "accept", item.id)
    image = asked[0].image
    besides = [region for number, region in enumerate(regions) if number not in partner.values()]
    known = _matched(asked[0].context, besides).values()
    for number, region in enumerate(besides):
        if number not in known:
            yield Verdict("missing", image=image, task=task, region=replace(region, score=None))
    yield Verdict("complete", image=image, task=task)


def _matched(claimed: Sequence[Region], regions: Sequence[Region]) -> dict[int, int]:
    """Claim -> region, one to one, largest IoU first; of equals one with the same label."""
    if not claimed or not regions:
        return {}
    overlaps = iou([region_box(r.parts) for r in claimed], [region_box(r.parts) for r in regions])  # (C, R)
    pairs = [(row, column) for row, column in zip(*np.nonzero(overlaps >= OVERLAP), strict=True)]
    pairs.sort(key=lambda p: (-round(float(overlaps[p]), 6), claimed[p[0]].label != regions[p[1]].label, p))
    partner: dict[int, int] = {}
    for row, column in pairs:
        if row not in partner and column not in partner.values():
            partner[int(row)] = int(column)
    return partner


def _same_place(before: Region | None, after: Region) -> bool:
    """Whether a person left the region where it was, to a hundredth of a pixel: percentages round."""
    if before is None:
        return False
    return bool(np.allclose(region_box(before.parts), region_box(after.parts), rtol=0, atol=0.01))
