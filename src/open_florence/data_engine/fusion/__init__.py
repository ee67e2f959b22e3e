"""Boxes of several sources, fused: one region for each thing, with the probability that it is there as its score.

What a region becomes is decided by how far its sources can be believed (`reliability`), not by counting votes. Human
labels are not weighed: where a person has labelled an image, that is the answer.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.fusion.clusters import SAME, Cluster, gather
from open_florence.data_engine.fusion.reliability import NOTHING, UNKNOWN, Reliability
from open_florence.geometry import iou, region_box
from open_florence.schema import Annotation, Region, Sample

SOURCE = "fusion@1"
HUMAN = "human"
KEEP = 0.5


@dataclass(frozen=True)
class Fusion:
    """How the boxes of one task are fused."""

    reliability: Reliability
    keep: float = KEEP
    """The least probability of being something."""
    task: str = "<OD>"

    def __call__(self, sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        """One kept annotation with what is believed, left to right, and dropped ones, reason by reason.

        Candidates of other tasks are left alone (they are in no decision).
        """
        own = [c for c in candidates if c.annotation.task == self.task]
        if not own:
            return []
        people = [c for c in own if is_human(c.annotation)]
        if people:
            return _defer(people, [c for c in own if not is_human(c.annotation)])
        clusters = gather(by_source(c.annotation for c in own))
        real, classes = self.reliability.judge(clusters)
        parents = tuple(c.id for c in own)
        kept: list[Region] = []
        dropped: dict[str, list[Region]] = defaultdict(list)
        support: Counter[str] = Counter()
        for cluster, probability, of_class in zip(clusters, real, classes, strict=True):
            if probability >= self.keep:
                kept.append(self._fused(cluster, float(probability), of_class))
                support[", ".join(sorted(cluster.members))] += 1
            else:
                sources = " and ".join(sorted(cluster.members))
                reason = f"probably nothing: seen by {sources} alone, probability under {self.keep:g}"
                dropped[reason] += [replace(r, score=float(probability)) for r in cluster.members.values()]
        kept.sort(key=lambda region: region.parts[0])
        first = own[0].annotation
        whole = Annotation(self.task, regions=tuple(kept), source=SOURCE, round=first.round)
        said = "; ".join(f"{count} by {sources}" for sources, count in sorted(support.items()))
        return [
            Decision(whole, "kept", said, parents),
            *(
                Decision(replace(whole, regions=tuple(regions)), "dropped", reason, parents)
                for reason, regions in dropped.items()
            ),
        ]

    def _fused(self, cluster: Cluster, probability: float, of_class: NDArray[np.float64]) -> Region:
        best = int(of_class.argmax())
        box = self.reliability.box(cluster)
        region = Region.box(*box, label=self.reliability.classes[best], score=probability)
        return replace(region, label_score=float(of_class[best]))


def learn(
    images: Iterable[Sequence[Annotation]],
    task: str = "<OD>",
    *,
    truth: Sequence[Sequence[Region] | None] | None = None,
    per_class: bool = True,
) -> Reliability:
    """The reliability of the sources of a task, from what they said about each image.

    `truth`: for each image what a person says is there, None where nobody has looked.
    """
    clusters: list[list[Cluster]] = []
    sources: set[str] = set()
    classes: Counter[str] = Counter()
    for said in images:
        regions = by_source(a for a in said if a.task == task and not is_human(a))
        sources |= regions.keys()
        classes.update(region.label for some in regions.values() for region in some)
        clusters.append(gather(regions))
    for known in truth or ():
        classes.update(region.label for region in known or ())
    names = [name for name, _ in sorted(classes.items(), key=lambda item: (-item[1], item[0]))]
    told = None
    if truth is not None:
        told = [_told(image, known, names) for image, known in zip(clusters, truth, strict=True)]
    return Reliability.fit(clusters, sorted(sources), names, truth=told, per_class=per_class)


def by_source(annotations: Iterable[Annotation]) -> dict[str, list[Region]]:
    """Source -> its regions; a source that was asked and found nothing has none."""
    regions: dict[str, list[Region]] = defaultdict(list)
    for annotation in annotations:
        regions[annotation.source] += annotation.regions
    return regions


def is_human(annotation: Annotation) -> bool:
    """Whether a person said it."""
    return annotation.source.partition("@")[0] == HUMAN


def _defer(people: Sequence[Candidate], others: Sequence[Candidate]) -> list[Decision]:
    """What a person said stands; of several, the last word."""
    last = people[-1]
    return [
        Decision(last.annotation, "kept", "a person has labelled this image", (last.id,)),
        *(Decision(c.annotation, "dropped", "a person has labelled this image again", (c.id,)) for c in people[:-1]),
        *(Decision(c.annotation, "dropped", "a person has labelled this image", (c.id,)) for c in others),
    ]


def _told(clusters: Sequence[Cluster], known: Sequence[Region] | None, classes: Sequence[str]) -> list[int]:
    """What each cluster is, by a person's regions: each region belongs to the cluster that overlaps it most."""
    if known is None:
        return [UNKNOWN] * len(clusters)
    told = [NOTHING] * len(clusters)
    if not clusters or not known:
        return told
    means = np.array([cluster.boxes.mean(axis=0) for cluster in clusters])  # (N, 4)
    truth = np.array([region_box(region.parts) for region in known], np.float64)  # (M, 4)
    overlaps = iou(truth, means)
    for _ in range(min(overlaps.shape)):
        row, column = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        if overlaps[row, column] < SAME:
            break
        told[int(column)] = 1 + list(classes).index(known[int(row)].label)
        overlaps[row], overlaps[:, column] = 0.0, 0.0
    return told
