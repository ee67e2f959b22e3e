"""How far a round's labels have moved from those of earlier rounds, and how many only the model stands behind.

Classes are compared by the Jensen-Shannon distance of their shares (the root of the divergence in bits: 0 the same, 1
nothing in common), scores, sizes and lengths by the Kolmogorov-Smirnov distance of their distributions (the largest
difference of two cumulative shares). With many labels any difference is significant and with few any distance is
reached by chance, so a shift is one when it passes a limit and is more than chance gives once in a thousand times.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from open_florence.data_engine.audit.profile import MEASURES, Key, Part, Profile

LIMIT = 0.1
"""The distance from which a shift is worth a warning."""
MODEL_ONLY = 0.5
"""The share of labels that only the model stands behind from which it is worth a warning."""
SURE = 3.0902
"""Standard deviations of a normal distribution that one value in a thousand exceeds."""
VANISHED = 5
"""A class that had so many labels and has none any more is worth a warning."""
NAMES = {"classes": "classes", "score": "scores", "size": "sizes", "words": "lengths in words"}


@dataclass(frozen=True, slots=True)
class Shift:
    """One distribution now and in an earlier round."""

    against: str
    """Which round, as "round 0"."""
    task: str
    source: str
    """ "" for all; what stands before "@" else."""
    measure: str
    """One of `NAMES`."""
    distance: float
    """0 to 1."""
    chance: float
    """What is exceeded by chance once in a thousand times."""
    before: int
    """How many labels the earlier distribution is made of."""
    now: int
    moved: str = ""
    """What moved most, in words."""

    @property
    def is_large(self) -> bool:
        """Whether it passes both the limit and chance."""
        return self.distance > max(LIMIT, self.chance)


@dataclass(frozen=True, slots=True)
class ModelShare:
    """How many labels only the model stands behind."""

    task: str
    class_name: str
    """ "" for all classes."""
    labels: int
    model_only: int

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.model_only / self.labels if self.labels else 0.0


@dataclass(frozen=True, slots=True)
class Drift:
    """What moved."""

    shifts: tuple[Shift, ...] = ()
    model_shares: tuple[ModelShare, ...] = ()
    vanished: tuple[tuple[str, str, str, int], ...] = ()
    """(earlier round, task, class, labels it had there) of classes without any label now."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each thing that a person should look at."""
        found = [
            f"{name!r} of {task} has no label any more, it had {count} in {against}"
            for against, task, name, count in self.vanished
        ]
        for shift in self.shifts:
            if shift.is_large:
                of = shift.task + (f" by {shift.source}" if shift.source else "")
                moved = f": {shift.moved}" if shift.moved else ""
                found.append(
                    f"the {NAMES[shift.measure]} of {of} moved by {shift.distance:.2f} since {shift.against}{moved}"
                )
        for part in self.model_shares:
            if part.share > MODEL_ONLY and (not part.class_name or part.labels >= VANISHED):
                of = f"{part.class_name!r} of {part.task}" if part.class_name else part.task
                found.append(f"only the model stands behind {part.share:.0%} of the {part.labels} labels of {of}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings; the warnings are written for people."""
        return {
            "shifts": [asdict(shift) for shift in self.shifts],
            "model_shares": [asdict(part) for part in self.model_shares],
            "vanished": [list(one) for one in self.vanished],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, record: Any) -> Drift:
        """The inverse of `to_json`. Raises ValueError for anything else."""
        try:
            return cls(
                tuple(Shift(**one) for one in record["shifts"]),
                tuple(ModelShare(**one) for one in record["model_shares"]),
                tuple((str(a), str(b), str(c), int(d)) for a, b, c, d in record["vanished"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is no drift report: {error!r:.80}") from None

    def table(self) -> str:
        """Markdown: the shifts, then the shares of the model."""
        lines = ["| against | task | source | measure | distance | by chance | before | now | |", "|" + "---|" * 9]
        for s in self.shifts:
            flag = "moved" if s.is_large else ""
            numbers = f"{s.distance:.3f} | {s.chance:.3f} | {s.before} | {s.now}"
            lines.append(f"| {s.against} | {s.task} | {s.source or 'all'} | {s.measure} | {numbers} | {flag} |")
        lines += ["", "| task | class | labels | the model alone | share |", "|" + "---|" * 5]
        for m in self.model_shares:
            lines.append(f"| {m.task} | {m.class_name or 'all'} | {m.labels} | {m.model_only} | {m.share:.1%} |")
        return "\n".join(lines)


def drift(now: Profile, earlier: Mapping[str, Profile]) -> Drift:
    """How the labels of a round differ from those of earlier ones, by name: {"round 0": ..., "the last round": ...}.

    Tasks and sources that only one of two profiles has are not compared; classes are compared by name.
    """
    shifts: list[Shift] = []
    vanished: list[tuple[str, str, str, int]] = []
    for against, profile in earlier.items():
        for key, before in sorted(profile.parts.items()):
            part = now.parts.get(key)
            if part is not None:
                shifts += _shifts(against, key, before, part)
            if not key[1]:
                gone = before.classes if part is None else before.classes - _only(before.classes, part.classes)
                vanished += [(against, key[0], name, n) for name, n in sorted(gone.items()) if n >= VANISHED]
    return Drift(tuple(shifts), tuple(_model_shares(now)), tuple(vanished))


def jensen_shannon(a: Mapping[str, int], b: Mapping[str, int]) -> tuple[float, float]:
    """(distance of the shares of two counts, each of at least 1, what chance exceeds once in a thousand times).

    Of equal shares, 8 ln 2 x the divergence in bits over (1 / n + 1 / m) follows a chi-squared distribution with one
    degree of freedom less than there are names; its quantile is Wilson and Hilferty's (1931).
    """
    n, m = sum(a.values()), sum(b.values())
    names = sorted({name for counts in (a, b) for name, count in counts.items() if count})
    divergence = 0.0
    for name in names:
        p, q = a.get(name, 0) / n, b.get(name, 0) / m
        divergence += sum(x * math.log2(2 * x / (p + q)) / 2 for x in (p, q) if x)
    free = len(names) - 1
    if not free:
        return 0.0, 0.0
    quantile = free * (1 - 2 / (9 * free) + SURE * math.sqrt(2 / (9 * free))) ** 3
    return math.sqrt(max(divergence, 0.0)), min(1.0, math.sqrt(quantile * (1 / n + 1 / m) / (8 * math.log(2))))


def kolmogorov_smirnov(a: Mapping[int, int], b: Mapping[int, int]) -> tuple[float, float]:
    """(largest difference of the cumulative shares of two counts by step, what chance exceeds once in a thousand)."""
    n, m = sum(a.values()), sum(b.values())
    largest = below_a = below_b = 0.0
    for step in sorted({*a, *b}):
        below_a += a.get(step, 0)
        below_b += b.get(step, 0)
        largest = max(largest, abs(below_a / n - below_b / m))
    return largest, min(1.0, math.sqrt(-math.log(0.001 / 2) / 2 * (1 / n + 1 / m)))


def _shifts(against: str, key: Key, before: Part, now: Part) -> Iterator[Shift]:
    if before.classes and now.classes:
        counts = before.classes.total(), now.classes.total()
        distance, chance = jensen_shannon(before.classes, now.classes)
        yield Shift(against, *key, "classes", distance, chance, *counts, _moved_classes(before.classes, now.classes))
    for measure in MEASURES:
        old, new = before.steps[measure], now.steps[measure]
        if old.total() and new.total():
            distance, chance = kolmogorov_smirnov(old, new)
            said = f"the median went from {_median(measure, old)} to {_median(measure, new)}"
            yield Shift(against, *key, measure, distance, chance, old.total(), new.total(), said)


def _moved_classes(before: Counter[str], now: Counter[str]) -> str:
    """The three classes whose share changed most."""
    shares = {name: (before[name] / before.total(), now[name] / now.total()) for name in sorted({*before, *now})}
    most = sorted(shares, key=lambda name: -abs(shares[name][1] - shares[name][0]))[:3]
    return ", ".join(f"{name!r} {shares[name][0]:.1%} -> {shares[name][1]:.1%}" for name in most)


def _median(measure: str, steps: Mapping[int, int]) -> str:
    below, total = 0, sum(steps.values())
    for step in sorted(steps):
        below += steps[step]
        if 2 * below >= total:
            return str(step) if measure == "words" else f"{step / MEASURES[measure]:.2f}"
    return "nothing"


def _only(counts: Counter[str], names: Mapping[str, int]) -> Counter[str]:
    return Counter({name: count for name, count in counts.items() if names.get(name)})


def _model_shares(now: Profile) -> Iterator[ModelShare]:
    """Of each task, then of its classes."""
    for (task, source), part in sorted(now.parts.items()):
        if not source and part.labels:
            yield ModelShare(task, "", part.labels, part.model_only)
            for name, count in sorted(part.classes.items()):
                yield ModelShare(task, name, count, part.model_only_classes[name])
