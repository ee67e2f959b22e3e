"""How good embeddings are: image-text retrieval, and classification by the names of the classes alone.

Both read nothing but vectors, so anything with the three methods of an `Embedder` can be judged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from open_florence.data import read
from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.evaluate import Data
from open_florence.evaluation.report import Report, Row
from open_florence.evaluation.retrieval import retrieval_recall
from open_florence.evaluation.text import top_k_accuracy
from open_florence.schema import Annotation
from open_florence.tasks import find_task
from open_florence.tasks.templates import TEMPLATES

RANKS = (1, 5, 10)
CLASS_RANKS = (1, 5)
"""The k of R@k, and of top-k accuracy."""

Vectors = NDArray[np.float32]


class Embedding(Protocol):
    """What is judged: an `Embedder`, or anything that embeds like one."""

    source: str

    def images(self, images: Iterable[Any]) -> Vectors:
        """Unit vectors (I, E) of images."""

    def texts(self, texts: Iterable[str]) -> Vectors:
        """Unit vectors (T, E) of texts."""

    def classes(self, names: Sequence[str], templates: Sequence[str]) -> Vectors:
        """Unit vectors (C, E) of classes."""


def evaluate_retrieval(
    embedder: Embedding, data: Data, limit: int | None = None, task: str = "<CAPTION>", ks: Sequence[int] = RANKS
) -> Report:
    """R@k both ways: an image's own texts among all texts, a text's own image among all images.

    `data` as for `evaluate`; every annotation of `task` is a text of its image. An image finds its text when any of its
    own is among the k nearest, as is usual on COCO and Flickr30k; a text that two images share is right for only one.
    Raises OpenFlorenceError when there is no such annotation or the embedder has no texts.
    """
    started = time.monotonic()
    problems: list[str] = []
    token = find_task(task).token
    own: list[list[str]] = []

    def captioned() -> Iterator[Any]:
        for image, said in _images(data, limit, problems):
            texts = [annotation.text for annotation in said if annotation.task == token and annotation.text]
            if texts:
                own.append(texts)
                yield image

    images = embedder.images(captioned())  # (I, E)
    if not own:
        raise OpenFlorenceError(f"there is nothing to retrieve: no image has a text of {token}")
    texts = embedder.texts(text for texts in own for text in texts)  # (T, E)
    owner = np.repeat(np.arange(len(own)), [len(texts) for texts in own])  # (T,)
    rows = retrieval_recall(images, texts, owner, tuple(ks))
    return _report(data, embedder, len(own), started, rows, problems)


def evaluate_zero_shot(
    embedder: Embedding,
    data: Data,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> Report:
    """Top-1 and top-5 accuracy of the nearest class name, on images whose <CLASSIFICATION> annotation is their class.

    `data` as for `evaluate`; the classes are those of the data unless given. Raises OpenFlorenceError when no image has
    a class or one is not among `classes`.
    """
    started = time.monotonic()
    problems: list[str] = []
    truth: list[str] = []

    def classed() -> Iterator[Any]:
        for image, said in _images(data, limit, problems):
            names = [annotation.text for annotation in said if annotation.task == "<CLASSIFICATION>"]
            if names:
                truth.append(names[0])
                yield image

    images = embedder.images(classed())  # (I, E)
    if not truth:
        raise OpenFlorenceError("there is nothing to classify: no image has a <CLASSIFICATION> annotation")
    names = list(classes) if classes is not None else sorted(set(truth))
    rows = zero_shot_rows(images, truth, embedder.classes(names, templates), names)
    return _report(data, embedder, len(truth), started, rows, problems)


def zero_shot_rows(
    image_embeddings: Vectors,
    truth: Sequence[str],
    class_embeddings: Vectors,
    classes: Sequence[str],
    key: str = "zero_shot",
    name: str = "zero-shot classification",
) -> list[Row]:
    """Rows of top-1 and top-5 accuracy: whether an image's class is among the k whose vectors are nearest.

    image_embeddings (I, E), truth (I,) names out of `classes` (C,), class_embeddings (C, E). A rank that takes in every
    class has no row. Raises OpenFlorenceError for a true class that is not among them.
    """
    if unknown := set(truth) - set(classes):
        raise OpenFlorenceError(f"the class {min(unknown)!r} of the data is not among those to choose from")
    nearest = (-image_embeddings @ class_embeddings.T).argsort(axis=1, kind="stable")  # (I, C)
    ranked = [[classes[index] for index in order] for order in nearest]
    rows = []
    for k in CLASS_RANKS:
        if k < len(classes):
            tally = top_k_accuracy(truth, ranked, k)
            note = f"of {len(classes)} classes, chance {k / len(classes):.3f}"
            rows.append(Row(f"{key}_top{k}", f"{name}, top {k}", tally.value, tally.count, tally.interval(), note))
    return rows


def _images(data: Data, limit: int | None, problems: list[str]) -> Iterator[tuple[Any, Sequence[Annotation]]]:
    """The images of the data, a path or an array each, and what is said about them."""
    if isinstance(data, str) and data.startswith("scenes:"):
        from open_florence.evaluation.scenes import scenes

        for make in scenes(data.removeprefix("scenes:"), limit):
            scene = make()
            yield scene.image, scene.annotations
        return
    samples = read(data, on_error=problems.append) if isinstance(data, str | PathLike) else data
    for sample in islice(samples, limit):
        yield sample.path, sample.annotations


def _report(
    data: Data, embedder: Embedding, images: int, started: float, rows: Sequence[Row], problems: Sequence[str]
) -> Report:
    name = str(data) if isinstance(data, str | PathLike) else "samples"
    return Report(name, embedder.source, images, time.monotonic() - started, tuple(rows), problems=tuple(problems))
