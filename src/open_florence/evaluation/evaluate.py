"""`evaluate(predictor, data)`: ask the questions of a data set, judge the answers, give one table.

Data are scenes ("scenes:heldout", "scenes:validation"), anything that `open_florence.read` reads, or samples in memory.
Each annotation of a known task is a question, with its own query; the annotation itself is the truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

from rich.progress import track

from open_florence.data import read
from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.metrics import METRICS, Answers, Metric, class_rows
from open_florence.evaluation.report import Report
from open_florence.inference.request import GenerationConfig
from open_florence.schema import Annotation, Sample, Size
from open_florence.tasks import find_task

if TYPE_CHECKING:
    from open_florence.scenes import Scene

Data = str | PathLike[str] | Sequence[Sample]

SCENE_TOKENS = 128
"""Where answers about scenes are cut (the longest true one has about 95), lest an untrained model babbles on."""


class Answering(Protocol):
    """What is evaluated: a `Predictor`, or anything that answers like one."""

    def predict_each(
        self, requests: Sequence[tuple[Any, Any]], *, generation: GenerationConfig | None = None
    ) -> list[list[Annotation]]:
        """Answers to (image, [(task, query), ...]) by (image, [...])."""


@dataclass(frozen=True)
class Item:
    """One image and what is asked about it."""

    image: Any
    """A path, or an array (H, W, 3)."""
    size: Size
    questions: list[Annotation]
    """At most one of each task and query."""
    scene: Scene | None = None


@dataclass(frozen=True)
class Source:
    """Data made ready: items one by one, and the table they are judged by."""

    name: str
    count: int
    items: Iterator[Item]
    metrics: dict[str, Metric]
    per_class: bool
    generation: GenerationConfig | None = None


def evaluate(
    predictor: Answering,
    data: Data,
    limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    tasks: Sequence[str] | None = None,
    generation: GenerationConfig | None = None,
) -> Report:
    """Answer the questions of `data` and judge them: `print(report)`-able with rich, `report.metrics` as numbers.

    `data` is "scenes:heldout" (300 scenes never trained on), "scenes:validation", a path that `open_florence.read`
    reads, or a list of samples; `limit` takes the first so many images. `tasks` keeps only some tasks, in any spelling.
    `generation` is how answers are written, the predictor's own way unless given (on scenes cut at `SCENE_TOKENS`).
    The result is the same for the same weights, whatever `batch_size`. Raises OpenFlorenceError when there is nothing
    to ask, a task is unknown, or an image cannot be read.
    """
    started = time.monotonic()
    problems: list[str] = []
    source = _source(data, limit, problems)
    settings = generation or source.generation
    wanted = source.metrics.keys() if tasks is None else {find_task(task).token for task in tasks}
    answers: dict[str, Answers] = {}
    names: set[str] = set()
    batches: Iterable[list[Item]] = _batches(source.items, batch_size)
    if progress:
        batches = track(batches, "evaluating", total=-(-source.count // batch_size), transient=True)
    images = 0
    for batch in batches:
        asked = [[q for q in item.questions if q.task in source.metrics and q.task in wanted] for item in batch]
        requests = [
            (item.image, [(q.task, q.query) for q in questions]) for item, questions in zip(batch, asked, strict=True)
        ]
        answered = predictor.predict_each(requests, generation=settings)
        for item, questions, found in zip(batch, asked, answered, strict=True):
            for truth, answer in zip(questions, found, strict=True):
                names.add(answer.source)
                answers.setdefault(truth.task, Answers()).add(truth, answer, images, item.size, item.scene)
            images += 1
    if not answers:
        raise OpenFlorenceError(f"there is nothing to evaluate in {source.name}: no annotation of a task in METRICS")
    return Report(
        data=source.name,
        model=", ".join(sorted(names - {""})),
        images=images,
        seconds=time.monotonic() - started,
        rows=tuple(row for task, judge in source.metrics.items() if task in answers for row in judge(answers[task])),
        classes=class_rows(answers["<OD>"]) if "<OD>" in answers else (),
        per_class=source.per_class,
        problems=tuple(problems),
    )


def _source(data: Data, limit: int | None, problems: list[str]) -> Source:
    """The data as items. Sentences about records that cannot be read are added to `problems` as they come up."""
    if isinstance(data, str) and data.startswith("scenes:"):
        from open_florence.evaluation.scenes import SCENE_METRICS, questions, scenes

        made = scenes(data.removeprefix("scenes:"), limit)
        items = (_scene_item(make(), questions) for make in made)
        cut = GenerationConfig(max_new_tokens=SCENE_TOKENS)
        return Source(data, len(made), items, SCENE_METRICS, per_class=False, generation=cut)
    if isinstance(data, str | PathLike):
        name = str(data)
        samples = list(islice(read(data, on_error=problems.append), limit))
    else:
        name = "samples"
        samples = list(data[:limit])
    items = (Item(sample.path, sample.size, _distinct(sample.annotations)) for sample in samples)
    return Source(name, len(samples), items, METRICS, per_class=True)


def _scene_item(scene: Scene, questions: Callable[[Scene], Iterable[Annotation]]) -> Item:
    return Item(scene.image, scene.sample.size, _distinct(questions(scene)), scene)


def _distinct(annotations: Iterable[Annotation]) -> list[Annotation]:
    """The first annotation of each task and query: of several sources, or several captions, the first is the truth."""
    first: dict[tuple[str, object], Annotation] = {}
    for annotation in annotations:
        first.setdefault((annotation.task, annotation.query), annotation)
    return list(first.values())


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
