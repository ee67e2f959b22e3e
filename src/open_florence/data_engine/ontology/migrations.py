"""What became of classes: renamed, merged, split or dropped, in the order in which it was decided.

A migration is never taken out of the ontology file: rows of the store that are older than it hold the old names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.partition import class_labels, drop, partition, relabel
from open_florence.schema import Annotation

Change = Literal["rename", "merge", "split", "drop"]
CHANGES: tuple[Change, ...] = ("rename", "merge", "split", "drop")


@dataclass(frozen=True, slots=True)
class Migration:
    """One change of the classes."""

    id: str
    """Known to the store, which remembers which migrations its rows have been through."""
    change: Change
    old: tuple[str, ...]
    """The names before it: one, or for a merge several."""
    new: tuple[str, ...] = ()
    """The names after it: one for a rename or merge, several for a split, none for a drop."""


def migrate(annotation: Annotation, migrations: Sequence[Migration]) -> Annotation:
    """The annotation with the names that its classes have now, migrations applied in their order.

    Regions of classes that were split or dropped are left out; `migrate_candidate` says so of each. Only tasks that
    are answered with classes are touched. Names are compared letter by letter: they were written by the engine.
    """
    kept = [d.annotation for d in migrate_candidate(Candidate("", annotation), migrations) if d.status == "kept"]
    if kept:
        return kept[0]
    return replace(annotation, text=annotation.text if annotation.regions else "", regions=())


def migrate_candidate(candidate: Candidate, migrations: Sequence[Migration]) -> list[Decision]:
    """What becomes of an annotation: one kept decision with the new names, and dropped ones for each class without one.

    What is dropped keeps the name it had before.
    """
    annotation = candidate.annotation
    labels = class_labels(annotation)
    fates = {label: _fate(label, migrations) for label in dict.fromkeys(labels)}
    if not annotation.regions:
        reason = fates[labels[0]][1] if labels else ""
        decisions = [drop(candidate, reason) if reason else partition(candidate, [])[0]]
    else:
        decisions = partition(candidate, [fates[label][1] for label in labels] or [""] * len(annotation.regions))
    return [
        replace(d, annotation=relabel(d.annotation, lambda label: fates[label][0])) if d.status == "kept" else d
        for d in decisions
    ]


def _fate(label: str, migrations: Sequence[Migration]) -> tuple[str, str]:
    """The name a label has after all migrations, and why it has none, or ""."""
    for migration in migrations:
        if label not in migration.old:
            continue
        if migration.change == "drop":
            return label, f"migration {migration.id}: {label} is no class any more"
        if migration.change == "split":
            return label, f"migration {migration.id}: {label} was split into {' and '.join(migration.new)}"
        label = migration.new[0]
    return label, ""
