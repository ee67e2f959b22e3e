"""Whether a round is promoted: not when it loses what the last promoted round could do.

Two audits are compared: the recall of each class, the F1 of each task with regions, the agreement of each task with
texts. A figure is lost when one of these holds:

* It falls under the interval that it had before (Wilson's, for as many independent objects as the images are worth).
* Image by image it falls for certain: the bootstrap's interval over images of the difference lies below zero. What
  both rounds find alike cancels out, so this sees losses that are too small for the first rule.
* A class that was found is not found at all any more.

As several figures are compared, each interval is widened (Bonferroni): all of them together are to hold with the
confidence asked for. What is lost only by the intervals that a single figure would have is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from open_florence.data_engine.audit.report import AuditReport, RegionRow, TextRow
from open_florence.data_engine.review.verdict_figures import wilson_interval
from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.intervals import Array, draws

DRAWS, TIMES = 500, 8
"""The bootstrap draws 4000 times, so many at a time."""
FEW = 5
"""Objects of a class under which its recall says little."""


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """The table [guard] of engine.toml."""

    classes: bool = True
    """Whether a class that loses recall stops a round."""
    overall: bool = True
    """Whether a task that loses F1, or agreement of texts, stops a round."""
    allowed: float = 0.0
    """What any figure may lose, 0 to 1, beyond its interval; not that a class vanishes."""
    confidence: float = 0.95
    """Of all intervals together."""

    def __post_init__(self) -> None:
        for name in ("classes", "overall"):
            if not isinstance(getattr(self, name), bool):
                raise OpenFlorenceError(f"[guard] {name} is true or false, not {getattr(self, name)!r}")
        for name, low, high in (("allowed", 0.0, 1.0), ("confidence", 0.5, 0.999)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise OpenFlorenceError(f"[guard] {name} lies between {low:g} and {high:g}, not at {value!r}")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> GuardConfig:
        """From the table of the file. Raises OpenFlorenceError naming the field that is wrong."""
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise OpenFlorenceError(f"[guard] has no field {name!r}: it has {', '.join(known)}")
        return cls(**options)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a round is promoted, and why."""

    promote: bool
    reasons: tuple[str, ...]
    """What was lost, a sentence each; where nothing was, why it is promoted."""
    warnings: tuple[str, ...] = ()
    """What a person should know before believing it."""

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        return {"promote": self.promote, "reasons": list(self.reasons), "warnings": list(self.warnings)}


Gains = Mapping[str, tuple[float, float]]
"""Image -> (what was gained, what could be): their sums' ratio is a figure."""


class _Figure(NamedTuple):
    """One figure of two rounds."""

    name: str
    before: Gains
    after: Gains
    of_class: bool = False


def judge(
    before: AuditReport | None, after: AuditReport | None, config: GuardConfig | Mapping[str, Any] | None = None
) -> Judgement:
    """Whether the round audited as `after` is promoted over the one audited as `before`; the same for the same audits.

    Without `after` (no image was audited) it is promoted without evidence, and that is a warning; without `before`
    it is the first. Images that only one of the two saw are left out, unless they share none: then each is judged on
    its own, by the first and the last rule. Raises OpenFlorenceError for a configuration with a mistake.
    """
    config = config if isinstance(config, GuardConfig) else GuardConfig.of(config or {})
    if after is None or not after.images:
        warning = (
            "nobody knows whether these labels are any good: there is no audit split, or none of its images is among "
            "those labelled; name human labels of some of them under [audit] in engine.toml"
        )
        return Judgement(True, ("promoted without evidence, as no image was audited",), (warning,))
    warnings = _poor_evidence(after)
    if before is None or not before.images:
        return Judgement(True, ("there is no earlier round to compare with",), tuple(warnings))
    images = sorted(set(before.images) & set(after.images))
    if not images:
        warnings.append("the two audits have no image in common: small losses cannot be seen")
    figures = []
    for figure in _figures(before, after, images):
        if not (config.classes if figure.of_class else config.overall) or not _total(figure.before)[1]:
            continue
        if _total(figure.after)[1]:
            figures.append(figure)
        else:
            warnings.append(f"{figure.name} was measured before and is not any more")
    error = 1 - config.confidence
    falls = _falls(figures, images)
    losses = _losses(figures, falls, error / max(len(figures), 1), config.allowed)
    perhaps = _losses(figures, falls, error, config.allowed)
    warnings += [f"perhaps: {sentence}" for name, sentence in perhaps.items() if name not in losses]
    if losses:
        return Judgement(False, tuple(losses.values()), tuple(warnings))
    seen = f"{len(images)} images that both audits saw" if images else "images that differ"
    return Judgement(True, (f"none of {len(figures)} figures was lost on {seen}",), tuple(warnings))


def _figures(before: AuditReport, after: AuditReport, images: Sequence[str]) -> Iterator[_Figure]:
    """Whatever `before` measured of all sources together, on `images`, or on each one's own where there are none."""
    only = set(images)

    def part(gains: Gains) -> Gains:
        return {image: pair for image, pair in gains.items() if image in only or not only}

    for row in before.regions:
        new = after.region_row(row.task, row.class_name)
        name = f"the recall of {row.class_name!r} in {row.task}" if row.class_name else f"the F1 of {row.task}"
        if not row.source:
            yield _Figure(name, part(_region_gains(row)), part(_region_gains(new)), bool(row.class_name))
    for text in before.texts:
        if not text.source:
            said = after.text_row(text.task)
            yield _Figure(f"the agreement of {text.task}", part(_text_gains(text)), part(_text_gains(said)))


def _region_gains(row: RegionRow | None) -> Gains:
    """Of recall for the row of a class, of F1 for that of a task."""
    images = row.images.items() if row else ()
    if row and row.class_name:
        return {image: (c.right, c.true) for image, c in images}
    return {image: (2 * c.right, c.found + c.true) for image, c in images}


def _text_gains(row: TextRow | None) -> Gains:
    return {image: (c.agreement, c.true) for image, c in row.images.items()} if row else {}


def _losses(figures: Sequence[_Figure], falls: Array, error: float, allowed: float) -> dict[str, str]:
    """Figure -> the sentence that says it was lost, where it was.

    `falls` (R, F): what each lost in each draw; `error`: how often an interval may be wrong.
    """
    least = np.quantile(falls, error / 2, axis=0, method="lower").tolist()  # (F,)
    deviations = NormalDist().inv_cdf(1 - error / 2)
    losses: dict[str, str] = {}
    for figure, fall in zip(figures, least, strict=True):
        was, now = (gained / possible for gained, possible in (_total(figure.before), _total(figure.after)))
        low, high = wilson_interval(was, _effective_number(figure.before), deviations)
        fell = f"{figure.name} fell from {was:.1%} to {now:.1%}"
        if figure.of_class and was > 0 and now == 0:
            losses[figure.name] = f"{fell}: none of its {_total(figure.after)[1]:g} objects is found any more"
        elif now < low - allowed:
            losses[figure.name] = f"{fell}, under the interval that it had ({low:.1%} to {high:.1%})"
        elif fall > allowed:
            losses[figure.name] = f"{fell}, by {fall * 100:.1f} points or more if images are compared one by one"
    return losses


def _falls(figures: Sequence[_Figure], images: Sequence[str]) -> Array:
    """What each figure lost in each draw of the bootstrap over images: (R, F), below 0 where it rose.

    A draw without any such object says nothing of a loss, nor do fewer than two images: 0.
    """
    if len(images) < 2 or not figures:
        return np.zeros((1, len(figures)))
    nothing = (0.0, 0.0)
    sides = [[f.before.get(i, nothing) + f.after.get(i, nothing) for i in images] for f in figures]
    pairs = np.array(sides, dtype=np.float64).transpose(1, 0, 2)  # (I, F, 4)
    parts = []
    for seed in range(TIMES):
        sums = np.tensordot(draws(len(images), DRAWS, seed), pairs, axes=1)  # (DRAWS, F, 4)
        parts.append(_ratio(sums[..., 0], sums[..., 1]) - _ratio(sums[..., 2], sums[..., 3]))
    return np.nan_to_num(np.concatenate(parts))


def _ratio(gained: Array, possible: Array) -> Array:
    return np.divide(gained, possible, out=np.full_like(gained, np.nan), where=possible > 0)


def _effective_number(gains: Gains) -> float:
    """How many independent objects would vary as much as these do, which hang together within an image."""
    gained, possible = _total(gains)
    share, count = gained / possible, len(gains)
    squares = sum((g - share * p) ** 2 for g, p in gains.values())
    variance = squares / possible**2 * count / max(count - 1, 1)
    return min(possible, share * (1 - share) / variance) if variance > 0 else possible


def _total(gains: Gains) -> tuple[float, float]:
    return sum(gained for gained, _ in gains.values()), sum(possible for _, possible in gains.values())


def _poor_evidence(after: AuditReport) -> list[str]:
    """Classes that are never found, and those of which too few were audited."""
    warnings = [f"{name!r} in {task} is there and never found, not even wrongly" for task, name in after.silent_classes]
    counts = {row.class_name: row.total.true for row in after.regions if row.class_name and not row.source}
    rare = [f"{name!r} ({count})" for name, count in sorted(counts.items()) if 0 < count < FEW]
    if rare:
        warnings.append(f"too few objects are audited for their recall to say much: {', '.join(rare)}")
    return warnings
