"""Image-text retrieval: how often the right text is among the k nearest to an image, and the right image to a text.

Recall at k as on Flickr30k and COCO (Karpathy and Fei-Fei 2015, arXiv 1412.2306, section 4.1), on vectors of any model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.intervals import Array, Tally
from open_florence.evaluation.report import Row

CHUNK = 512
"""Rows of the table of cosines held at a time."""


def retrieval_recall(
    image_embeddings: ArrayLike, text_embeddings: ArrayLike, owner: ArrayLike, ks: Sequence[int] = (1, 5, 10)
) -> list[Row]:
    """R@k of both directions: rows "image_to_text_r1", ..., "text_to_image_r1", ..., each with its interval.

    image_embeddings (I, d), text_embeddings (T, d), of any length: cosines are compared. owner (T,) says which image
    each text is about, counted from 0. An image is right when any of its own texts is among the k nearest; one without
    a text asks nothing but is there to be found. Of equal cosines the wrong ones come first, so vectors that are all
    the same find nothing. The 95 % intervals draw images with replacement, as questions; what is searched stays whole.
    Raises OpenFlorenceError for shapes that do not fit, vectors that are not finite, and owners that are no image.
    """
    images, texts = _unit(image_embeddings, "image"), _unit(text_embeddings, "text")
    owners = np.asarray(owner).reshape(-1)  # (T,)
    if images.shape[1] != texts.shape[1]:
        raise OpenFlorenceError(f"images have vectors of {images.shape[1]} numbers but texts of {texts.shape[1]}")
    if len(owners) != len(texts) or not np.issubdtype(owners.dtype, np.integer):
        raise OpenFlorenceError(f"owner is one whole number for each of the {len(texts)} texts")
    if len(texts) == 0 or owners.min() < 0 or owners.max() >= len(images):
        raise OpenFlorenceError(f"retrieval needs texts, each about one of the {len(images)} images")
    asking = np.unique(owners)  # images that have a text
    wrong_texts = np.empty(len(asking), dtype=np.intp)  # as near as the right one, or nearer
    wrong_images = np.empty(len(texts), dtype=np.intp)
    for start in range(0, len(asking), CHUNK):
        some = asking[start : start + CHUNK]
        cosines = images[some] @ texts.T  # (C, T)
        mine = owners[None] == some[:, None]
        best = np.where(mine, cosines, -np.inf).max(axis=1)
        wrong_texts[start : start + CHUNK] = (~mine & (cosines >= best[:, None])).sum(axis=1)
    for start in range(0, len(texts), CHUNK):
        cosines = texts[start : start + CHUNK] @ images.T  # (C, I)
        right = np.take_along_axis(cosines, owners[start : start + CHUNK, None], axis=1)
        wrong_images[start : start + CHUNK] = (cosines >= right).sum(axis=1) - 1
    return [
        *_rows("image_to_text", wrong_texts, asking, ks),
        *_rows("text_to_image", wrong_images, owners, ks),
    ]


def _unit(embeddings: ArrayLike, what: str) -> Array:
    """Vectors (N, d) of length one. Raises OpenFlorenceError for another shape and for numbers that are not finite."""
    array = np.asarray(embeddings, dtype=np.float64)
    if array.ndim != 2:
        raise OpenFlorenceError(f"the {what} embeddings have the shape {array.shape} instead of (N, d)")
    if not np.isfinite(array).all():
        raise OpenFlorenceError(f"the {what} embeddings hold numbers that are not finite")
    unit: Array = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return unit


def _rows(key: str, ahead: NDArray[np.intp], images: NDArray[np.intp], ks: Sequence[int]) -> list[Row]:
    """A row for each k: `ahead` (N,) wrong ones came before the right one of each question, about `images` (N,)."""
    rows = []
    for k in ks:
        tally = Tally((ahead < k).astype(np.float64), np.ones(len(ahead)), len(ahead))
        name = f"{key.replace('_', ' ')} retrieval R@{k}"
        rows.append(Row(f"{key}_r{k}", name, tally.value, tally.count, tally.interval([int(i) for i in images])))
    return rows
