"""What is it? The class behind the votes of several sources that confuse classes each in their own way.

Dawid & Skene (1979): every source has a matrix of what it calls things of each class; matrices and classes are
estimated in turn, by expectation maximisation. What is different here is for the sake of rare classes and of sources
that are no independent witnesses: every row of a matrix is drawn towards the source's mean accuracy by `PRIOR` imagined
cases, so that a class with five examples is not taken to be something else on their account; the words of sources that
repeat each other's mistakes count for less (`independence`); and there are few turns, because with many the classes
themselves begin to drift.

Letters: N things, S sources, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

PRIOR = 10.0
TURNS = 10
SILENT = -1


@dataclass(frozen=True)
class ClassVotes:
    """The matrices, and with them the class of a thing."""

    calls: Array
    """(S, C, C) source s calls a thing of class c by class j with probability [s, c, j]."""
    prior: Array
    """(C,)"""
    independence: Array
    """(S,) how much of a source's word is its own: 1, less where others repeat its mistakes."""

    def posterior(self, labels: Whole) -> Array:
        """(N, C) how probable each class is; `labels` (N, S) the class each source names, SILENT where it is silent."""
        logs = np.log(self.prior)[None].repeat(len(labels), axis=0)  # (N, C)
        for s in range(labels.shape[1]):
            here = labels[:, s] >= 0
            logs[here] += self.independence[s] * np.log(self.calls[s][:, labels[here, s]]).T
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float64)


def dawid_skene(
    labels: Whole,
    classes: int,
    *,
    known: Whole | None = None,
    weights: Array | None = None,
    per_class: bool = True,
) -> ClassVotes:
    """The matrices of S sources from their labels (N, S), SILENT (-1) where a source is silent.

    `known` (N,) the true class where a person has told, otherwise -1; `weights` (N,) how much a thing counts;
    `per_class=False` gives each source one accuracy for all classes.
    """
    count = len(labels)
    known = np.full(count, SILENT, np.int64) if known is None else known
    weights = np.ones(count) if weights is None else weights
    belief = _anchored(_by_vote(labels, classes), known)
    own = independence(labels)
    model = _matrices(labels, belief, weights, per_class, own)
    for _ in range(TURNS):
        belief = _anchored(model.posterior(labels), known)
        model = _matrices(labels, belief, weights, per_class, own)
    return model


def independence(labels: Whole) -> Array:
    """(S,) 1 / (1 + how many of its mistakes the other sources repeat).

    Of a pair, a mistake is a label against the one all others agree on, two of them at least. Where both of a pair make
    the same one, more often than chance has it, they are not two witnesses. With three sources or fewer nothing can be
    told, and all count in full.
    """
    sources = labels.shape[1]
    repeated = np.zeros((sources, sources))
    for a in range(sources):
        for b in range(a):
            reference, usable = _reference(np.delete(labels, (a, b), axis=1))
            both = usable & (labels[:, a] >= 0) & (labels[:, b] >= 0)
            wrong_a, wrong_b = both & (labels[:, a] != reference), both & (labels[:, b] != reference)
            same = (wrong_a & wrong_b & (labels[:, a] == labels[:, b])).sum()
            chance = wrong_a.sum() * wrong_b.sum() / max(both.sum(), 1)
            mistakes = np.sqrt(wrong_a.sum() * wrong_b.sum())
            if mistakes >= 5:
                repeated[a, b] = repeated[b, a] = max(0.0, same - chance) / mistakes
    return np.asarray(1 / (1 + repeated.sum(axis=1)), np.float64)


def _reference(labels: Whole) -> tuple[Whole, NDArray[np.bool_]]:
    """(N,) the label on which sources agree, and whether two or more speak and none contradicts."""
    if labels.shape[1] < 2:
        return np.full(len(labels), SILENT), np.zeros(len(labels), bool)
    highest = labels.max(axis=1)
    lowest = np.where(labels >= 0, labels, np.iinfo(np.int64).max).min(axis=1)
    return highest, ((labels >= 0).sum(axis=1) >= 2) & (highest == lowest)


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


def _matrices(labels: Whole, belief: Array, weights: Array, per_class: bool, own: Array) -> ClassVotes:
    """The matrices that fit a belief best."""
    classes = belief.shape[1]
    weighted = belief * weights[:, None]
    mass = weighted.sum(axis=0) + 1
    calls = [_matrix(labels[:, s], weighted, classes, per_class) for s in range(labels.shape[1])]
    return ClassVotes(np.array(calls).reshape(-1, classes, classes), mass / mass.sum(), own)


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
