"""The table of enhancers: each adds annotations that follow from those an image has, and never changes those.

An enhancer of your own is a function of options that returns an `Enhancer`, and a row in `ENHANCERS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance import describe, fill, grounding, region_texts
from open_florence.data_engine.enhance.additions import Enhancer
from open_florence.data_engine.ontology import Ontology
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample

ENHANCERS: dict[str, Callable[..., Enhancer]] = {
    "grounding": grounding.grounding,
    "region_texts": region_texts.region_texts,
    "description": describe.description,
    "fill": fill.fill,
}
"""Name -> factory of options, in the order in which they are best run: each sees what those before it added."""

SOURCES = frozenset({grounding.SOURCE, region_texts.SOURCE, describe.SOURCE, fill.SOURCE})
"""What enhancers call themselves. Their annotations are derived anew from the others, and never from themselves."""


def make_enhancers(
    tables: Sequence[Mapping[str, Any]] = (),
    ontology: Ontology | None = None,
    similarity: region_texts.Similarity | None = None,
    tasks: Sequence[str] | None = None,
) -> list[Enhancer]:
    """The enhancers of the [[enhance]] tables of engine.toml: {"name": ..., option: value}; without any, all of them.

    `ontology`, `similarity` and `tasks` (what the labels are to answer) go to each that wants one and whose table does
    not set it. Raises OpenFlorenceError for a name or an option that does not exist.
    """
    given = {"ontology": ontology, "similarity": similarity}
    enhancers = []
    for table in tables or [{"name": name} for name in ENHANCERS]:
        options = dict(table)
        name = str(options.pop("name", ""))
        if name not in ENHANCERS:
            raise OpenFlorenceError(f"there is no enhancer {name!r}; there are {', '.join(ENHANCERS)}")
        factory = ENHANCERS[name]
        takes = inspect.signature(factory).parameters
        if unknown := options.keys() - takes.keys() | options.keys() & {"ontology"}:
            wanted = ", ".join(option for option in takes if option != "ontology") or "no options"
            raise OpenFlorenceError(f"the enhancer {name!r} has no option {min(unknown)!r}; it takes {wanted}")
        if name == "fill" and tasks is not None:
            options.setdefault("tasks", tasks)
        try:
            enhancers.append(factory(**{key: value for key, value in given.items() if key in takes} | options))
        except (TypeError, AttributeError) as error:
            raise OpenFlorenceError(f"the enhancer {name!r} cannot be made: {error}") from None
    return enhancers


def apply_enhancers(enhancers: Iterable[Enhancer], sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
    """What the enhancers, one after another, add to the kept labels of an image; each sees what came before it.

    Parents are ids of the candidates given here: what was made from an addition rests on what that rests on. Additions
    that say what is there already are left out. Candidates whose source is one of `SOURCES` are not read.
    """
    pool = [c for c in candidates if c.annotation.source not in SOURCES]
    said = {_content(c.annotation) for c in pool}
    latest = max((c.annotation.round for c in pool), default=0)
    roots: dict[str, tuple[str, ...]] = {c.id: (c.id,) for c in pool}
    additions: list[Decision] = []
    for enhancer in enhancers:
        for decision in enhancer(sample, pool):
            content = _content(decision.annotation)
            if content in said:
                continue
            said.add(content)
            parents = tuple(dict.fromkeys(root for parent in decision.parents for root in roots[parent]))
            added = replace(decision, annotation=replace(decision.annotation, round=latest), parents=parents)
            additions.append(added)
            name = f"addition {len(additions)}"
            roots[name] = parents
            pool = [*pool, Candidate(name, added.annotation)]
    return additions


def current(candidates: Sequence[Candidate], additions: Sequence[Decision]) -> list[Annotation]:
    """The labels to train on or to export: the additions, and of the candidates those that no addition stands for.

    An addition stands for a candidate of the same task and query that is one of its parents, as region texts do for the
    descriptions they were chosen from, and for what enhancers derived in an earlier round.
    """
    replaced = {
        (parent, decision.annotation.task, decision.annotation.query)
        for decision in additions
        for parent in decision.parents
    }
    left = [
        c.annotation
        for c in candidates
        if c.annotation.source not in SOURCES and (c.id, c.annotation.task, c.annotation.query) not in replaced
    ]
    return [*left, *(decision.annotation for decision in additions)]


def _content(annotation: Annotation) -> tuple[str, str, str | Region | None, tuple[Region, ...]]:
    """What an annotation says, whoever says it and however sure."""
    regions = tuple(replace(region, score=None, label_score=None) for region in annotation.regions)
    return annotation.task, annotation.text, annotation.query, regions
