"""What becomes of everything that was said about one image: filtered, fused, one answer chosen where there are several.

Every region of every candidate ends in a decision, or was fused into one. Human labels stand; what a person said about
single regions in a review corrects what the machines made of the image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.filters import apply_filters
from open_florence.data_engine.fusion import Fusion, is_human
from open_florence.data_engine.partition import Filter, partition
from open_florence.geometry import iou, region_box
from open_florence.schema import Annotation, Region, Sample

SAME = 0.5
"""The overlap (IoU) from which two boxes are the same thing."""
REJECTED = "rejected by a person"
SAID = "a person said so"


@dataclass(frozen=True)
class Settlement:
    """The rules of a round."""

    filters: Sequence[Filter] = ()
    fusion: Fusion | None = None
    """Of the boxes; None where nobody gave any."""
    choices: Sequence[Filter] = ()
    """For tasks of which each knows one: one answer out of several, as `TextChoice` and `OcrFusion`."""
    order: Sequence[str] = ()
    """Sources, the most trusted first: for tasks that nothing else decides."""

    def __call__(
        self, sample: Sample, candidates: Sequence[Candidate], rejected: Sequence[Annotation] = ()
    ) -> list[Decision]:
        """The decisions; parents are ids of the candidates. `rejected`: what a person said is wrong, by its task."""
        partial = [c for c in candidates if is_human(c.annotation) and not c.annotation.complete]
        corrected = {c.id for c in partial}
        filtered = apply_filters(self.filters, sample, [c for c in candidates if c.id not in corrected])
        decisions = [d for d in filtered if d.status == "dropped"]
        origin: dict[str, Decision] = {}
        left: list[Candidate] = []
        for number, decision in enumerate(d for d in filtered if d.status == "kept"):
            origin[str(number)] = decision
            left.append(Candidate(str(number), decision.annotation))
        for decision in self._settled(sample, left):
            before = [origin[parent] for parent in decision.parents]
            parents = tuple(dict.fromkeys(parent for one in before for parent in one.parents))
            reason = decision.reason or (before[0].reason if len(before) == 1 else "")
            decisions.append(replace(decision, parents=parents, reason=reason))
        return _review(decisions, partial, rejected)

    def _settled(self, sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        """One kept answer to each question, the others dropped."""
        decisions: list[Decision] = []
        left = list(candidates)
        for rule in (*((self.fusion,) if self.fusion else ()), *self.choices):
            made = rule(sample, left)
            decided = {parent for decision in made for parent in decision.parents}
            decisions += made
            left = [c for c in left if c.id not in decided]
        questions: dict[tuple[str, str, str | Region | None], list[Candidate]] = defaultdict(list)
        for candidate in left:
            said = candidate.annotation
            text = said.text if said.regions else ""  # a grounding is the answer about one caption
            questions[said.task, text, said.query].append(candidate)
        for answers in questions.values():
            decisions += self._first(answers)
        return decisions

    def _first(self, answers: Sequence[Candidate]) -> list[Decision]:
        """The answers of the source that is trusted most; those of others are dropped."""
        best = min((c.annotation for c in answers), key=self._rank).source
        return [
            Decision(c.annotation, "kept", "", (c.id,))
            if c.annotation.source == best
            else Decision(c.annotation, "dropped", f"not needed: {best} has answered, which stands before it", (c.id,))
            for c in answers
        ]

    def _rank(self, annotation: Annotation) -> tuple[bool, int, str]:
        place = self.order.index(annotation.source) if annotation.source in self.order else len(self.order)
        return not is_human(annotation), place, annotation.source


def _review(
    decisions: Sequence[Decision], partial: Sequence[Candidate], rejected: Sequence[Annotation]
) -> list[Decision]:
    """The decisions, corrected by what a person said of single regions and texts."""
    result: list[Decision] = []
    for decision in decisions:
        annotation = decision.annotation
        if decision.status == "dropped" or is_human(annotation):
            result.append(decision)
            continue
        wrong = [one for one in rejected if (one.task, one.query) == (annotation.task, annotation.query)]
        right = [c.annotation for c in partial if c.annotation.task == annotation.task]
        result += _corrected(decision, wrong, right)
    for number, candidate in enumerate(partial):
        later = [c.annotation for c in partial[number + 1 :] if c.annotation.task == candidate.annotation.task]
        since = [one for one in rejected if one.round > candidate.annotation.round]
        wrong = [one for one in since if one.task == candidate.annotation.task]
        result += _corrected(Decision(candidate.annotation, "kept", SAID, (candidate.id,)), wrong, later)
    return result


def _corrected(decision: Decision, wrong: Sequence[Annotation], right: Sequence[Annotation]) -> list[Decision]:
    said = decision.annotation
    if not said.regions:
        same = any(not one.regions and one.text == said.text for one in wrong)
        return [replace(decision, status="dropped", reason=REJECTED)] if same and said.text else [decision]
    reasons = []
    for region in said.regions:
        if any(_overlap(region, other) and other.label == region.label for one in wrong for other in one.regions):
            reasons.append(REJECTED)
        elif any(_overlap(region, other) for one in right for other in one.regions):
            reasons.append("a person has labelled this place")
        else:
            reasons.append("")
    parts = partition(Candidate("", said), reasons)
    return [
        replace(decision, annotation=part.annotation, status=part.status, reason=part.reason or decision.reason)
        for part in parts
    ]


def _overlap(a: Region, b: Region) -> bool:
    boxes = [np.asarray(region_box(region.parts), np.float64)[None] for region in (a, b)]
    return bool(iou(*boxes)[0, 0] >= SAME)
