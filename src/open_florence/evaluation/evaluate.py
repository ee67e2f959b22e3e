"""`evaluate(predictor, data)`: ask the questions of a data set, judge the answers, give one table.

Data are scenes ("scenes:heldout", "scenes:validation"), anything that `open_florence.read` reads, or samples in memory.
The annotations of a known task and one query are a question and its true answers: five captions, ten people's answers.
Places have one truth, the first; words may have several.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rich.progress import track

from open_florence.data import read
from open_florence.data.ignored import ignored_regions
from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.metrics import MANY, METRICS, Answers, Metric, class_rows
from open_florence.evaluation.report import Report
from open_florence.generation import GenerationConfig
from open_florence.schema import Annotation, Region, Sample, Size
from open_florence.tasks import find_task

if TYPE_CHECKING:
    from open_florence.scenes import Scene

Data = str | PathLike[str] | Sequence[Sample]

SCENE_TOKENS = 128
"""Where answers about scenes are cut (the longest true one has about 95), lest an untrained model babbles on."""


RANKED_FROM = MANY + 1
"""With so many labels to choose from all are ranked, for top-k; with fewer only the first is asked for."""


class Answering(Protocol):
    """What is evaluated: a `Predictor`, or anything that answers like one."""

    def predict_each(
        self, requests: Sequence[tuple[Any, Any]], *, generation: GenerationConfig | None = None
    ) -> list[list[Annotation]]:
        """Answers to (image, [(task, query), ...]) by (image, [...])."""


@runtime_checkable
class Ranking(Protocol):
    """What can also rank the labels of a question, as a `Predictor` can."""

    source: str

    def classify(self, image: Any, labels: str) -> dict[str, float]:
        """The probability of each label of "cat<and>dog", the likeliest first."""


@dataclass(frozen=True)
class Question:
    """One task and query about an image."""

    task: str
    query: str | Region | None
    truths: tuple[Annotation, ...]
    """The true answers, one or more, as they come in the data: of several people, of several sources."""
    ignored: tuple[Region, ...] = ()
    """Where the answer is not judged."""

    @property
    def wants_ranking(self) -> bool:
        """Whether it chooses from so many labels that top-k can be asked."""
        return self.task == "<CLASSIFICATION>" and str(self.query).count("<and>") + 1 >= RANKED_FROM


@dataclass(frozen=True)
class Item:
    """One image and what is asked about it."""

    name: str
    image: Any
    """A path, or an array (H, W, 3)."""
    size: Size
    questions: list[Question]
    """One of each task and query."""
    scene: Scene | None = None


Answer = tuple[Annotation, Sequence[str]]
"""What was answered, and the labels ranked for it."""


@dataclass(frozen=True)
class Source:
    """Data made ready: items one by one, and the table they are judged by."""

    name: str
    count: int | None
    """How many images there are, where that is known before they are read."""
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
    The result is the same for the same weights, whatever `batch_size`. Data are read as they are asked about: what is
    kept of an image is what was asked and answered. An image that cannot be read or asked about is left out, with a
    sentence in `Report.problems`. Raises OpenFlorenceError when there is nothing to ask or a task is unknown.
    """
    started = time.monotonic()
    asked = ask(predictor, data, limit, batch_size, progress, tasks, generation)
    answers, source = asked.answers, asked.source
    return Report(
        data=source.name,
        model=", ".join(sorted({found.source for entry in answers.values() for found in entry.found} - {""})),
        images=asked.images,
        seconds=time.monotonic() - started,
        rows=tuple(row for task, judge in source.metrics.items() if task in answers for row in judge(answers[task])),
        classes=class_rows(answers["<OD>"]) if "<OD>" in answers else (),
        per_class=source.per_class,
        problems=tuple(asked.problems),
    )


@dataclass(frozen=True)
class Asked:
    """The questions of a data set, answered."""

    source: Source
    answers: dict[str, Answers]
    """By task."""
    images: int
    problems: list[str]
    """What could not be read or asked, a sentence each."""


def ask(
    predictor: Answering,
    data: Data,
    limit: int | None = None,
    batch_size: int = 16,
    progress: bool = True,
    tasks: Sequence[str] | None = None,
    generation: GenerationConfig | None = None,
) -> Asked:
    """The questions of `data` answered and not yet judged. Arguments and errors as those of `evaluate`."""
    problems: list[str] = []
    source = _source(data, limit, problems)
    settings = generation or source.generation
    wanted = source.metrics.keys() if tasks is None else {find_task(task).token for task in tasks}
    answers: dict[str, Answers] = {}
    batches: Iterable[list[Item]] = _batches(_asked(source.items, source.metrics.keys() & wanted), batch_size)
    if progress:
        total = None if source.count is None else -(-source.count // batch_size)
        batches = track(batches, "evaluating", total=total, transient=True)
    images = 0
    for batch in batches:
        for item, answered in _answers(predictor, batch, settings, problems):
            for question, (found, ranked) in zip(item.questions, answered, strict=True):
                truth, *others = question.truths
                entry = answers.setdefault(question.task, Answers())
                entry.add(truth, found, images, item.size, item.scene, others, ranked, question.ignored)
            images += 1
    if not answers:
        raise OpenFlorenceError(_nothing(source.name, problems))
    return Asked(source, answers, images, problems)


def _nothing(name: str, problems: list[str]) -> str:
    """What is said when no question could be asked."""
    said = f"there is nothing to evaluate in {name}: no annotation of a task in METRICS"
    if not problems:
        return said
    count = "1 record was" if len(problems) == 1 else f"{len(problems)} records were"
    return f"{said}; {count} left out, the first because: {problems[0]}"


def _answers(
    predictor: Answering, batch: list[Item], settings: GenerationConfig | None, problems: list[str]
) -> list[tuple[Item, list[Answer]]]:
    """The answers to a batch of images; where it fails each image is asked alone, and only those that fail left out."""
    try:
        return list(zip(batch, _answer_batch(predictor, batch, settings), strict=True))
    except OpenFlorenceError as error:
        if len(batch) > 1:
            return [answer for item in batch for answer in _answers(predictor, [item], settings, problems)]
        problems.append(f"{batch[0].name} is left out: {error}")
        return []


def _answer_batch(predictor: Answering, batch: list[Item], settings: GenerationConfig | None) -> Iterator[list[Answer]]:
    """For each image the answers to its questions, in their order."""
    ranker = predictor if isinstance(predictor, Ranking) else None
    written = [[q for q in item.questions if ranker is None or not q.wants_ranking] for item in batch]
    requests = [(item.image, [(q.task, q.query) for q in asked]) for item, asked in zip(batch, written, strict=True)]
    found = iter(predictor.predict_each([request for request in requests if request[1]], generation=settings))
    for item, asked in zip(batch, written, strict=True):
        answers = iter(next(found) if asked else ())
        yield [
            _rank(ranker, item, question) if ranker is not None and question.wants_ranking else (next(answers), ())
            for question in item.questions
        ]


def _rank(predictor: Ranking, item: Item, question: Question) -> Answer:
    labels = list(predictor.classify(item.image, str(question.query)).items())
    best, score = labels[0]
    found = Annotation(question.task, best, query=question.query, source=predictor.source, score=score)
    return found, [label for label, _ in labels]


def _source(data: Data, limit: int | None, problems: list[str]) -> Source:
    """The data as items. Sentences about records that cannot be read are added to `problems` as they come up."""
    if isinstance(data, str) and data.startswith("scenes:"):
        from open_florence.evaluation.scenes import SCENE_METRICS, questions, scenes

        made = scenes(data.removeprefix("scenes:"), limit)
        items = (_scene_item(make(), questions) for make in made)
        cut = GenerationConfig(max_new_tokens=SCENE_TOKENS)
        return Source(data, len(made), items, SCENE_METRICS, per_class=False, generation=cut)
    if isinstance(data, str | PathLike):
        name, count = str(data), limit
        samples = islice(read(data, on_error=problems.append), limit)
    else:
        name, count = "samples", len(data[:limit])
        samples = islice(data, limit)
    items = (Item(s.path, s.path, s.size, _questions(s.annotations)) for s in samples)
    return Source(name, count, items, METRICS, per_class=True)


def _scene_item(scene: Scene, questions: Callable[[Scene], Iterable[Annotation]]) -> Item:
    return Item(f"scene {scene.seed}", scene.image, scene.sample.size, _questions(questions(scene)), scene)


def _questions(annotations: Iterable[Annotation]) -> list[Question]:
    """One question for each task and query, in the order of their first annotation, with all that answer it."""
    annotations = list(annotations)
    truths: dict[tuple[str, str | Region | None], list[Annotation]] = {}
    for annotation in annotations:
        truths.setdefault((annotation.task, annotation.query), []).append(annotation)
    return [
        Question(task, query, tuple(found), ignored_regions(annotations, task))
        for (task, query), found in truths.items()
    ]


def _asked(items: Iterable[Item], tasks: Collection[str]) -> Iterator[Item]:
    """Only the questions of some tasks, and only the images that have one."""
    for item in items:
        if questions := [question for question in item.questions if question.task in tasks]:
            yield replace(item, questions=questions)


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
