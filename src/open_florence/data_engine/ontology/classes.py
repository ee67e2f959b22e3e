"""Which classes an annotation speaks of: what rarity, balance, drift and audits are counted by."""

from __future__ import annotations

from open_florence.data_engine.review.item import CLASS_TASKS, CLASS_TEXTS
from open_florence.schema import Annotation


def classes_of(annotation: Annotation) -> list[str]:
    """The class of each thing that the annotation names, once for each; none where labels are free words."""
    if annotation.task in CLASS_TASKS:
        return [region.label for region in annotation.regions if region.label]
    return [annotation.text] if annotation.task in CLASS_TEXTS and annotation.text else []
