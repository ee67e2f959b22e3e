"""What is it? The class behind the votes of several sources that confuse classes each in their own way.

Dawid & Skene (1979): every source has a matrix of what it calls things of each class; matrices and classes are
estimated in turn, by expectation maximisation. Two changes for rare classes: every row of a matrix is drawn towards the
source's mean accuracy by `PRIOR` imagined cases, so that a class with five examples is not taken to be something else
on their account; and the prior of a class is its frequency to the power `TEMPER`.

Letters: N things, S sources, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

PRIOR = 10.0
TEMPER = 0.5
SILENT = -1


@dataclass(frozen=True)
class ClassVotes:
    """The matrices, and with them the class of a thing."""

    calls: Array
    """(S, C, C) source s calls a thing of class c by class j with probability [s, c, j]."""
    prior: Array
    """(C,)"""

    def posterior(self, labels: Whole) -> Array:
        """(N, C) how probable each class is; `labels` (N, S) the class each source names, SILENT where it is silent."""
        logs = np.log(self.prior)[None].repeat(len(labels), axis=0)  # (N, C)
        for s in range(labels.shape[1]):
            here = labels[:, s] >= 0
            logs[here] += np.log(self.calls[s][:, labels[here, s]]).T
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def dawid_skene(
    labels: Whole,
    classes: int,
    *,
    known: Whole | None = None,
    weights: Array | None = None,
    per_class: bool = True,
    rounds: int = 50,
) -> ClassVotes:
    """The matrices of S sources from their labels (N, S), SILENT (-1) where a source is silent.

    `known` (N,) the true class where a person has told, otherwise -1; `weights` (N,) how much a thing counts;
    `per_class=False` gives each source one accuracy for all classes, and classes their plain frequency as prior.
    """
    count = len(labels)
    known = np.full(count, SILENT, np.int64) if known is None else known
    weights = np.ones(count) if weights is None else weights
    belief = _anchored(_by_vote(labels, classes), known)
    model = _matrices(labels, belief, weights, per_class)
    for _ in range(rounds):
        before, belief = belief, _anchored(model.posterior(labels), known)
        model = _matrices(labels, belief, weights, per_class)
        if np.abs(belief - before).max(initial=0.0) < 1e-4:
            break
    return model


def _by_vote(labels: Whole, classes: int) -> Array:
    """(N, C) the share of the votes for each class."""
    votes = np.zeros((len(labels), classes))
    for s in range(labels.shape[1]):
        here = np.nonzero(labels[:, s] >= 0)[0]
        votes[here, labels[here, s]] += 1
    return np.asarray((votes + 1e-9) / (votes + 1e-9).sum(axis=1, keepdims=True), np.float64)


def _anchored(belief: Array, known: Whole) -> Array:
    told = np.nonzero(known >= 0)[0]
    belief[told] = 0.0
    belief[told, known[told]] = 1.0
    return belief


def _matrices(labels: Whole, belief: Array, weights: Array, per_class: bool) -> ClassVotes:
    """The matrices that fit a belief best."""
    classes = belief.shape[1]
    weighted = belief * weights[:, None]
    mass = weighted.sum(axis=0) + 1
    prior = (mass / mass.sum()) ** (TEMPER if per_class else 1.0)
    calls = [_matrix(labels[:, s], weighted, classes, per_class) for s in range(labels.shape[1])]
    return ClassVotes(np.stack(calls), prior / prior.sum())


def _matrix(labels: Whole, weighted: Array, classes: int, per_class: bool) -> Array:
    """(C, C) of one source."""
    here = np.nonzero(labels >= 0)[0]
    counts = weighted[here].T @ np.eye(classes)[labels[here]]  # (C, C)
    right = (np.trace(counts) + 4) / (counts.sum() + 5)
    mean = np.full((classes, classes), (1 - right) / max(classes - 1, 1))
    np.fill_diagonal(mean, right if classes > 1 else 1.0)
    if not per_class:
        return mean
    table = counts + PRIOR * mean
    return np.asarray(table / table.sum(axis=1, keepdims=True), np.float64)
