"""Everything a round needs, made: who annotates, what filters and adds, who learns, and what it is measured on.

`recipe_of` makes it from engine.toml; a recipe in Python puts its own parts in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from open_florence.data_engine.audit.split import AuditSplit
from open_florence.data_engine.config import EngineConfig, plain, resolve_options
from open_florence.data_engine.employed import Employed
from open_florence.data_engine.enhance import make_enhancers
from open_florence.data_engine.enhance.additions import Enhancer
from open_florence.data_engine.filters import make_filters
from open_florence.data_engine.filters.thresholds import fit_thresholds
from open_florence.data_engine.fusion.ocr_fusion import OcrFusion
from open_florence.data_engine.fusion.texts import TextChoice
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.partition import Filter
from open_florence.data_engine.student import FlorenceStudent, Student
from open_florence.errors import OpenFlorenceError
from open_florence.specialists import load_specialist, options_of


@dataclass(frozen=True)
class Recipe:
    """The parts of a round."""

    specialists: Sequence[Employed]
    filters: Sequence[Filter] = ()
    precision: float | None = None
    """How often boxes of each class are to be right: thresholds of scores are fitted for it on the audit split."""
    enhancers: Sequence[Enhancer] = ()
    choices: Sequence[Filter] = (TextChoice(), OcrFusion())
    """For tasks of which each knows one: one answer out of several."""
    ontology: Ontology = field(default_factory=Ontology)
    student: Student | None = None
    """None: the labels are the specialists' alone."""
    keep: float = 0.5
    """The least probability of a fused box."""
    fit_images: int = 5000
    """Images from which it is learnt how far each source can be believed, at most."""
    learn_from_audit: bool = False
    """Whether the audit split's truth counts in that, too."""
    rare: float = 0.1
    """A class on a smaller share of the images is drawn more often."""
    split: AuditSplit | None = None
    guard: Mapping[str, Any] = field(default_factory=dict)
    shard: int = 64
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Step -> what it is told, as JSON holds it: a round that was begun is not finished with something else."""


def recipe_of(folder: Path, config: EngineConfig, ontology: Ontology, split: AuditSplit | None) -> Recipe:
    """The recipe of the engine in `folder`. Raises OpenFlorenceError for a name or an option that does not exist."""
    employed = []
    for one in config.specialist:
        options = resolve_options(folder, one.options)
        if ontology.names and "classes" in options_of(one.name):
            options.setdefault("classes", list(ontology.names))
        make = partial(load_specialist, one.name, **options)
        employed.append(Employed(make, one.name, one.isolate, one.timeout, one.batch))
    tables, precision = _filter_tables(config, split)
    additions = [{"name": one.name, **one.options} for one in config.enhance]
    train = config.train
    judged = {"filter": tables, "precision": precision, "ontology": ontology.version, "fusion": plain(config.fusion)}
    return Recipe(
        specialists=employed,
        filters=make_filters(tables, ontology) if tables or precision is None else (),
        precision=precision,
        enhancers=make_enhancers(additions, ontology, tasks=config.tasks),
        choices=(TextChoice(ontology), OcrFusion()),
        ontology=ontology,
        student=FlorenceStudent(train, train.tasks or config.tasks) if train else None,
        keep=config.fusion.keep,
        fit_images=config.fusion.images,
        learn_from_audit=config.fusion.audited,
        rare=train.rare if train else 0.0,
        split=split,
        guard=config.guard,
        shard=config.shard,
        settings={
            "filter": judged,
            "enhance": {"enhance": additions, "tasks": list(config.tasks), **judged},
            "train": {"train": plain(train) if train else None, "tasks": list(config.tasks)},
            "merge": judged,
        },
    )


def _filter_tables(config: EngineConfig, split: AuditSplit | None) -> tuple[list[dict[str, Any]], float | None]:
    """The [[filter]] tables, and the precision that one called "score" wants instead of thresholds.

    Raises OpenFlorenceError where there is nothing to fit thresholds on.
    """
    tables = [{"name": one.name, **one.options} for one in config.filter]
    fitted = [table for table in tables if table["name"] == "score" and "precision" in table]
    if not fitted:
        return tables, None
    if split is None:
        raise OpenFlorenceError('[[filter]] "score" fits thresholds on human labels, and [audit] names none')
    precision = fitted[-1]["precision"]
    fit_thresholds((), precision)
    return [table for table in tables if table not in fitted], precision
