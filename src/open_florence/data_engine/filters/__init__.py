"""The table of filters: each keeps or drops with a reason, and they run one after another on what is left.

A filter of your own is a function of options that returns a `Filter`, and a row in `FILTERS`.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.filters import region_filters, text_filters
from open_florence.data_engine.filters.claims import claims
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.partition import Filter
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample

FILTERS: dict[str, Callable[..., Filter]] = {
    "degenerate": region_filters.degenerate,
    "ontology": region_filters.inside_ontology,
    "score": region_filters.score,
    "whole_image": region_filters.whole_image,
    "tiny": region_filters.tiny,
    "nms": region_filters.nms,
    "too_many": region_filters.too_many,
    "phrase_boxes": region_filters.phrase_boxes,
    "claims": claims,
    "near_duplicate": region_filters.near_duplicate,
    "complexity": text_filters.complexity,
    "too_many_named": text_filters.too_many_named,
    "length": text_filters.length,
    "repetition": text_filters.repetition,
    "blacklist": text_filters.blacklist,
}
"""Name -> factory of options, in the order in which they are best run."""

DEFAULTS = ("degenerate", "ontology", "nms", "phrase_boxes", "length", "repetition", "claims")
"""The filters that run where nothing else is asked. No threshold is among them: scores of different models do not mean
the same, and fusion learns what each is worth."""


def make_filters(
    tables: Sequence[Mapping[str, Any]], ontology: Ontology | None = None, near_duplicates: Collection[str] = ()
) -> list[Filter]:
    """The filters of the [[filter]] tables of engine.toml: {"name": ..., option: value}; without any, `DEFAULTS`.

    `ontology` goes to each that wants one. Raises OpenFlorenceError for a name or an option that does not exist, and
    for a filter that wants an ontology where there is none.
    """
    given = {"ontology": ontology or Ontology(), "ids": near_duplicates}
    filters = []
    for table in tables or [{"name": name} for name in DEFAULTS]:
        options = dict(table)
        name = str(options.pop("name", ""))
        if name not in FILTERS:
            raise OpenFlorenceError(f"there is no filter {name!r}; there are {', '.join(FILTERS)}")
        factory = FILTERS[name]
        takes = inspect.signature(factory).parameters
        if unknown := options.keys() - (takes.keys() - given.keys()):
            wanted = ", ".join(option for option in takes if option not in given) or "no options"
            raise OpenFlorenceError(f"the filter {name!r} has no option {min(unknown)!r}; it takes {wanted}")
        try:
            filters.append(factory(**options, **{key: value for key, value in given.items() if key in takes}))
        except OpenFlorenceError:
            raise
        except (TypeError, AttributeError, ValueError) as error:
            raise OpenFlorenceError(f"the filter {name!r} cannot be made: {error}") from None
    return filters


def apply_filters(filters: Sequence[Filter], sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
    """What becomes of the candidates of one image when the filters run one after another.

    What one keeps goes to the next; what any drops is in the result with its reason. Parents are the ids of the
    candidates given here. A kept annotation that filters changed has their reasons, joined by "; ".
    """
    dropped: list[Decision] = []
    origins: dict[str, tuple[str, ...]] = {c.id: (c.id,) for c in candidates}
    said: dict[str, str] = {}
    left = list(candidates)
    for one in filters:
        decisions = [
            replace(d, parents=tuple(dict.fromkeys(root for parent in d.parents for root in origins[parent])))
            for d in one(sample, left)
        ]
        reasons = said
        dropped += [d for d in decisions if d.status == "dropped"]
        left, origins, said, seen = [], {}, {}, Counter[str]()
        for decision in decisions:
            if decision.status == "dropped":
                continue
            name = "+".join(decision.parents)
            seen[name] += 1
            name += f"#{seen[name]}" if seen[name] > 1 else ""
            left.append(Candidate(name, decision.annotation))
            origins[name] = decision.parents
            said[name] = "; ".join(filter(None, dict.fromkeys((reasons.get(name, ""), decision.reason))))
    return [Decision(c.annotation, "kept", said.get(c.id, ""), origins[c.id]) for c in left] + dropped
