"""Scenes as evaluation data: a share of each scene's questions, and the rows of the table that need the scene's truth.

`SCENE_METRICS` is the table by which the shipped checkpoint is judged: attribute words in captions, the background,
printed words of the lexicon and random strings, the worst shape, the rarest class.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.detection import boxes_of
from open_florence.evaluation.intervals import Tally
from open_florence.evaluation.localization import mask_miou
from open_florence.evaluation.metrics import METRICS, Answers, Metric, detection, exact
from open_florence.evaluation.report import Row
from open_florence.evaluation.text import attribute_f1, normalize, word_recall
from open_florence.geometry import iou
from open_florence.scenes import HELDOUT_SEEDS, VALIDATION_SEEDS, Scene, make_scene
from open_florence.scenes.vocabulary import BACKGROUNDS, COLOURS, NUMBERS, SHAPES, TEXTURES
from open_florence.schema import Annotation

PARTS = {"heldout": HELDOUT_SEEDS, "validation": VALIDATION_SEEDS[:300]}
"""What may follow "scenes:", and its seeds."""

MOST_QUESTIONS = 2
"""Questions of one task about one scene; of open-vocabulary detection so many, and one about an absent name."""

FEWEST = 5
"""A shape with fewer questions is not called the worst."""

ATTRIBUTES = tuple(dict.fromkeys((*SHAPES, *COLOURS, *TEXTURES, *BACKGROUNDS, *NUMBERS)))


def scenes(name: str, limit: int | None = None) -> list[Callable[[], Scene]]:
    """The scenes of a part, each made when called. Raises OpenFlorenceError for a part that does not exist."""
    if name not in PARTS:
        raise OpenFlorenceError(f"there are no scenes called {name!r}; there are scenes:{' and scenes:'.join(PARTS)}")
    return [lambda seed=seed: make_scene(seed) for seed in PARTS[name][:limit]]  # type: ignore[misc]


def questions(scene: Scene) -> Iterator[Annotation]:
    """The annotations that a scene is asked about, the same in every run: at most a few of each task."""
    by_task: dict[str, list[Annotation]] = {}
    for annotation in scene.sample.annotations:
        by_task.setdefault(annotation.task, []).append(annotation)
    for task, asked in by_task.items():
        if task == "<OPEN_VOCABULARY_DETECTION>":
            yield from _some([a for a in asked if a.regions], scene.seed, MOST_QUESTIONS)
            yield from _some([a for a in asked if not a.regions], scene.seed, 1)
        else:
            yield from _some(asked, scene.seed, MOST_QUESTIONS)


def _some(annotations: list[Annotation], seed: int, most: int) -> list[Annotation]:
    """At most `most` of the annotations, drawn by seed, in their own order."""
    picked = sorted(random.Random(seed).sample(range(len(annotations)), min(most, len(annotations))))
    return [annotations[index] for index in picked]


def scene_detection(answers: Answers) -> list[Row]:
    """Detection of all classes, and AP50 of the rarest: the last of `SHAPES`, whose order is that of the long tail."""
    rarest = SHAPES[-1]
    found = answers.detections[True].get(rarest)
    rows = detection(answers)
    if found is not None:
        name = f"detection AP50, rarest class ({rarest})"
        rows.append(Row("od_rarest_ap50", name, found.values["AP50"], found.count, found.intervals.get("AP50")))
    return rows


def scene_masks(answers: Answers) -> list[Row]:
    """mIoU and oIoU of referring segmentation, and the mIoU of the shape that comes out worst."""
    rows = METRICS["<REFERRING_EXPRESSION_SEGMENTATION>"](answers)
    by_shape: dict[str, list[int]] = {}
    for index, (scene, annotation) in enumerate(zip(answers.scenes, answers.truth, strict=True)):
        if scene is not None and annotation.regions:
            by_shape.setdefault(_shape(scene, annotation), []).append(index)
    tallies = {
        shape: mask_miou(answers.overlaps[picked]) for shape, picked in by_shape.items() if len(picked) >= FEWEST
    }
    if not tallies:
        return rows
    worst = min(tallies, key=lambda shape: tallies[shape].value)
    name = f"referring segmentation mIoU, worst shape ({worst})"
    return [*rows, answers.pick(by_shape[worst]).row("res_worst_shape", name, tallies[worst])]


def _shape(scene: Scene, annotation: Annotation) -> str:
    """The class of the object that an annotation's region is about."""
    boxes = np.array([thing.box for thing in scene.objects])
    return scene.objects[int(iou(boxes_of(annotation.regions[:1]), boxes).argmax())].name


def caption(key: str, name: str) -> Metric:
    """F1 of the attribute words: shapes, colours, textures, backgrounds, numbers."""
    return lambda answers: [answers.row(key, name, attribute_f1(*answers.texts, ATTRIBUTES))]


def detailed_caption(answers: Answers) -> list[Row]:
    """Attribute F1, and whether the background's kind and colour are named rightly."""
    said = [_background(text) for text in answers.texts[1]]
    true = [("", "") if scene is None else (scene.background.kind, scene.background.colour) for scene in answers.scenes]
    kind = Tally.of([(float(s[0] == t[0]), 1.0) for s, t in zip(said, true, strict=True)])
    colour = Tally.of([(float(s[1] == t[1]), 1.0) for s, t in zip(said, true, strict=True)])
    return [
        *caption("detailed_f1", "detailed caption, attribute F1")(answers),
        answers.row("background_kind", "background kind", kind, "read from the detailed caption"),
        answers.row("background_colour", "background colour", colour, "read from the detailed caption"),
    ]


def _background(text: str) -> tuple[str, str]:
    """(kind, colour) that a caption gives the background: the two words before "background"; "" where it does not."""
    found = re.search(r"(?:(\w+) )?(\w+) background", normalize(text))
    kind, colour = found.groups(default="") if found else ("", "")
    return kind if kind in BACKGROUNDS else "", colour if colour in COLOURS else ""


def printed_words(key: str, name: str) -> Metric:
    """Recall of the printed words in a text, those of the lexicon and the random strings apart."""

    def judge(answers: Answers) -> list[Row]:
        true, found = answers.texts
        rows = []
        for kind, lexicon in (("lexicon", True), ("random", False)):
            wanted = [
                [word for word in text.split() if scene is not None and (word in _lexicon(scene)) == lexicon]
                for text, scene in zip(true, answers.scenes, strict=True)
            ]
            title = f"{name}, {'lexicon words' if lexicon else 'random strings'}"
            rows.append(answers.row(f"{key}_{kind}", title, word_recall(wanted, found)))
        return rows

    return judge


def _lexicon(scene: Scene) -> set[str]:
    return {word.text for word in scene.words if word.lexicon}


SCENE_METRICS: dict[str, Metric] = {
    **METRICS,
    "<OD>": scene_detection,
    "<REFERRING_EXPRESSION_SEGMENTATION>": scene_masks,
    "<REGION_TO_DESCRIPTION>": exact("region_description", "region to description, exact"),
    "<CAPTION>": caption("caption_f1", "caption, attribute F1"),
    "<DETAILED_CAPTION>": detailed_caption,
    "<MORE_DETAILED_CAPTION>": caption("more_detailed_f1", "more detailed caption, attribute F1"),
    "<OCR>": printed_words("ocr", "OCR, word recall"),
    "<REGION_TO_OCR>": printed_words("region_ocr", "region to OCR"),
    "<VQA>": exact("vqa", "question answering, exact"),
}
"""Task -> its rows of the scenes' table: `METRICS`, with the rows that only a scene can judge."""
