"""A checkpoint of ours, or a published Florence-2: any of the model's tasks, with scores.

A task that asks about something is asked about what others found in the sample: a region task about each box of <OD>,
grounding about each caption, a referring expression for each label that names one box alone; detection by name and
classification about the classes given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from open_florence.errors import OpenFlorenceError
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import TOKENIZER, find_folder
from open_florence.inference.views import ViewPredictor
from open_florence.questions import SEPARATOR, Ask
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import Selection
from open_florence.specialists.inputs import boxes_of
from open_florence.specialists.versions import hash_of_files, with_options
from open_florence.tasks import Task, find_task

DEFAULT_TASKS = ("<OD>", "<CAPTION>", "<DENSE_REGION_CAPTION>", "<OCR_WITH_REGION>")
CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
FILES = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "calibration.json", *TOKENIZER)
"""What the version of a checkpoint is a hash of."""

Asker = Callable[[Sample], list[Ask]]


class Florence:
    """Answers `tasks` by a model in a folder, by name ("tiny"), or by its name on the hub."""

    def __init__(
        self,
        model: str | Path = "tiny",
        tasks: Sequence[str] = DEFAULT_TASKS,
        *,
        classes: Sequence[str] = (),
        views: int = 1,
        threshold: float = 0.0,
        nms: float | None = None,
        device: str | None = None,
        dtype: str | None = None,
        name: str = "florence",
        version: str = "",
    ) -> None:
        """`classes` are what <OPEN_VOCABULARY_DETECTION> and <CLASSIFICATION> ask for; `views`, 1, 2 or 8, how many
        views boxes have to agree in; `threshold` and `nms` which regions are kept (`Selection`). `name` and `version`
        replace "florence" and the hash of the checkpoint with its options, for a student of a round.

        Raises OpenFlorenceError for a model, a task, a device there is not, a task that asks what nobody here knows,
        and numbers out of range.
        """
        self._selection = Selection(threshold, nms)
        rows = [find_task(task) for task in tasks]
        if not rows:
            raise OpenFlorenceError("florence: there is no task to answer")
        self._askers = [_asker(task, tuple(classes)) for task in rows]
        predictor = Predictor.from_pretrained(model, dtype=dtype, device=device)
        self._predictor: Predictor | ViewPredictor = predictor if views == 1 else ViewPredictor(predictor, views)
        self.name = name
        self.tasks = tuple(task.token for task in rows)
        self.needs = tuple(dict.fromkeys(need for task in rows for need in _needs(task)))
        if not version:
            options = {"classes": list(classes), "views": views, "threshold": threshold, "nms": nms, "dtype": dtype}
            version = with_options(hash_of_files(find_folder(model), *FILES), tasks=self.tasks, **options)
        self.version = version

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """The answers to each sample's questions; the images are encoded together, each once."""
        requests: list[tuple[Any, list[Ask]]] = [
            (sample.path, [ask for asker in self._askers for ask in asker(sample)]) for sample in samples
        ]
        asked = [k for k, (_, asks) in enumerate(requests) if asks]
        answers: list[list[Annotation]] = [[] for _ in samples]
        for k, found in zip(asked, self._predictor.predict_each([requests[k] for k in asked]), strict=True):
            answers[k] = self._selection.apply_all(found)[0]
        return answers


def _asker(task: Task, classes: tuple[str, ...]) -> Asker:
    """What makes a task's questions about a sample. Raises OpenFlorenceError where nobody says what they are about."""
    token = task.token
    if task.query == "none":
        return lambda sample: [token]
    if task.query == "region":
        return lambda sample: [(token, box) for box in boxes_of(sample.annotations)]
    if token == "<CAPTION_TO_PHRASE_GROUNDING>":
        return lambda sample: [(token, caption) for caption in captions_of(sample.annotations)]
    if token == "<REFERRING_EXPRESSION_SEGMENTATION>":
        return lambda sample: [(token, label) for label in single_labels(boxes_of(sample.annotations))]
    if token not in ("<OPEN_VOCABULARY_DETECTION>", "<CLASSIFICATION>"):
        raise OpenFlorenceError(f"florence: nobody says what {token} shall ask; give the question itself as a task")
    if not classes:
        raise OpenFlorenceError(f"florence: {token} needs the option classes, the names to ask for")
    queries = (SEPARATOR.join(classes),) if token == "<CLASSIFICATION>" else classes
    return lambda sample: [(token, query) for query in queries]


def _needs(task: Task) -> tuple[str, ...]:
    """The tasks whose answers a task asks about."""
    if task.query == "region" or task.token == "<REFERRING_EXPRESSION_SEGMENTATION>":
        return ("<OD>",)
    return CAPTIONS if task.token == "<CAPTION_TO_PHRASE_GROUNDING>" else ()


def captions_of(annotations: Sequence[Annotation]) -> list[str]:
    """The captions of an image, each once."""
    return list(dict.fromkeys(a.text for a in annotations if a.task in CAPTIONS and a.text.strip()))


def single_labels(regions: Sequence[Region]) -> list[str]:
    """The labels that name one region alone, in the order of the regions."""
    return [label for label, count in Counter(region.label for region in regions).items() if label and count == 1]
