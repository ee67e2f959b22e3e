"""How far each source can be believed, learnt from where the sources agree, and from what people have said.

Three questions about a cluster of boxes: is it anything (`existence`), what is it (`dawid_skene`), and whose box is the
better one. The third: a source's variance is the mean square by which its edges differ from those of the others in
the same cluster, and boxes are averaged with the inverse of it as weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from open_florence.data_engine.fusion.clusters import Cluster
from open_florence.data_engine.fusion.dawid_skene import ClassVotes, dawid_skene
from open_florence.data_engine.fusion.existence import BINS, Existence, estimate
from open_florence.selection import region_score

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

LEAST_VARIANCE = 1e-8
"""Sources that agree to the pixel are no more exact than that, in squares of the box's side."""
UNKNOWN, NOTHING = -1, 0
"""The truth of a cluster: nobody has looked; nothing is there; k + 1 is class k."""


@dataclass(frozen=True)
class Reliability:
    """What is known about the sources of one task."""

    sources: tuple[str, ...]
    classes: tuple[str, ...]
    edges: Mapping[str, tuple[float, ...]]
    """Source -> the scores between its bins."""
    existence: Existence
    votes: ClassVotes
    variances: Array
    """(S,) mean square error of an edge, in squares of the box's side."""

    @classmethod
    def fit(
        cls,
        images: Sequence[Sequence[Cluster]],
        sources: Sequence[str],
        classes: Sequence[str],
        *,
        truth: Sequence[Sequence[int]] | None = None,
        per_class: bool = True,
    ) -> Reliability:
        """From the clusters of some thousand images.

        `truth`: of each cluster of each image UNKNOWN, NOTHING, or 1 + its class. `per_class=False` pools the classes,
        which favours the frequent ones.
        """
        clusters = [cluster for image in images for cluster in image]
        known = np.array([t for image in truth for t in image] if truth else [UNKNOWN] * len(clusters), np.int64)
        edges = {source: _quantiles(clusters, source) for source in sources}
        labels, bins = _arrays(clusters, sources, classes, edges)
        fired = labels >= 0
        existence = estimate(fired, bins, np.minimum(known, 1))
        several = (fired.sum(axis=1) > 1) | (known > 0)
        believed = existence.probability(fired, bins)
        votes = dawid_skene(
            labels[several],
            len(classes),
            known=np.where(known > 0, known - 1, -1)[several],
            weights=believed[several],
            per_class=per_class,
        )
        return cls(tuple(sources), tuple(classes), edges, existence, votes, _variances(clusters, sources))

    def judge(self, clusters: Sequence[Cluster]) -> tuple[Array, Array]:
        """(N,) the probability that each cluster is something, and (N, C) of each class if it is.

        A class that no source names here is not considered: one source alone may know it, and everybody else be wrong,
        but not everybody. What a source says that was not there when this was learnt counts for nothing.
        """
        labels, bins = _arrays(clusters, self.sources, self.classes, self.edges)
        said = np.zeros((len(clusters), len(self.classes)), bool)
        for s in range(len(self.sources)):
            here = labels[:, s] >= 0
            said[here, labels[here, s]] = True
        said[~said.any(axis=1)] = True
        classes = self.votes.posterior(labels) * said + 1e-12 * said
        return self.existence.probability(labels >= 0, bins), classes / classes.sum(axis=1, keepdims=True)

    def box(self, cluster: Cluster) -> tuple[float, float, float, float]:
        """The mean of the members' boxes, each weighted by how exact its source is."""
        of_source = dict(zip(self.sources, self.variances, strict=True))
        stranger = float(self.variances.max(initial=LEAST_VARIANCE))
        weights = [1 / of_source.get(source, stranger) for source in cluster.members]
        x1, y1, x2, y2 = np.average(cluster.boxes, axis=0, weights=weights)
        return float(x1), float(y1), float(x2), float(y2)


def _arrays(
    clusters: Sequence[Cluster], sources: Sequence[str], classes: Sequence[str], edges: Mapping[str, tuple[float, ...]]
) -> tuple[Whole, Whole]:
    """(N, S) the class each source names, -1 where it is silent; (N, S) the bin of its score."""
    number = {name: k for k, name in enumerate(classes)}
    labels = np.full((len(clusters), len(sources)), -1, np.int64)
    bins = np.zeros_like(labels)
    for n, cluster in enumerate(clusters):
        for s, source in enumerate(sources):
            if (region := cluster.members.get(source)) is not None:
                labels[n, s] = number[region.label]
                bins[n, s] = np.searchsorted(edges[source], region_score(region), side="right")
    return labels, bins


def _quantiles(clusters: Sequence[Cluster], source: str) -> tuple[float, ...]:
    """The scores that cut a source's regions into `BINS` parts of one size."""
    scores = [region_score(c.members[source]) for c in clusters if source in c.members]
    if not scores:
        return (0.0,) * (BINS - 1)
    return tuple(float(q) for q in np.quantile(scores, np.arange(1, BINS) / BINS))


def _variances(clusters: Sequence[Cluster], sources: Sequence[str]) -> Array:
    """(S,) each source's mean square error; a pair's mean square difference is the sum of its two (least squares)."""
    rows, seen = [], []
    for a in range(len(sources)):
        for b in range(a + 1, len(sources)):
            squares = [
                _difference(c, sources[a], sources[b]) for c in clusters if {sources[a], sources[b]} <= c.members.keys()
            ]
            if len(squares) >= 10:
                rows.append([float(k in (a, b)) for k in range(len(sources))])
                seen.append(float(np.median(squares)))
    if not rows:
        return np.ones(len(sources))
    middle = float(np.mean(seen)) / 2
    towards = 0.1 * np.eye(len(sources))  # two sources alone cannot be told apart: equal parts
    solved, *_ = np.linalg.lstsq(
        np.concatenate([np.array(rows), towards]),
        np.concatenate([seen, np.full(len(sources), 0.1 * middle)]),
        rcond=None,
    )
    return np.asarray(np.maximum(solved, max(0.05 * middle, LEAST_VARIANCE)), np.float64)


def _difference(cluster: Cluster, a: str, b: str) -> float:
    """Mean square difference of two members' edges, in squares of the mean side."""
    boxes = Cluster({a: cluster.members[a], b: cluster.members[b]}).boxes
    sides = np.maximum(boxes.mean(axis=0)[2:] - boxes.mean(axis=0)[:2], 1e-6)
    return float((((boxes[0] - boxes[1]) / np.tile(sides, 2)) ** 2).mean())
