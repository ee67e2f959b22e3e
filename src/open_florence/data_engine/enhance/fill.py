"""The kinds of annotation that an image lacks, and those that follow from what it has.

Nothing new is found out here: each rule says again, as the answer to another task, what is already known. What is asked
about where a choice is needed follows from the image's id, so that the same labels give the same answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance.additions import Enhancer, addition
from open_florence.data_engine.enhance.region_texts import SOURCE as CHOSEN_TEXTS
from open_florence.data_engine.enhance.things import Thing, find_things
from open_florence.data_engine.ontology import Ontology
from open_florence.geometry import region_box
from open_florence.reading_order import read_text
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import region_score

SOURCE = "derived@1"
MOST_REGIONS = 6
"""How many regions of an image are asked about one by one."""
ABSENT = 0.35
"""How often something is asked for that is not there."""


@dataclass(frozen=True)
class Known:
    """What an image has, for the rules to derive from."""

    candidates: Sequence[Candidate]
    things: Sequence[Thing]
    classes: Sequence[str]
    """What the regions were labelled from; of these, those without a region are absent."""
    rng: random.Random

    def of(self, task: str) -> list[tuple[Candidate, Region]]:
        """The regions of the candidates of a task, each place and label once."""
        found: dict[tuple[str, tuple[float, ...]], tuple[Candidate, Region]] = {}
        for candidate in self.candidates:
            if candidate.annotation.task == task:
                for region in candidate.annotation.regions:
                    found.setdefault((region.label, _box(region)), (candidate, region))
        return list(found.values())

    def some(self, task: str) -> list[tuple[Candidate, Region]]:
        """At most `MOST_REGIONS` regions of a task that have a label, of each place the surest, in their order."""
        found: dict[tuple[float, ...], tuple[Candidate, Region]] = {}
        for candidate, region in self.of(task):
            before = found.get(_box(region))
            if region.label.strip() and (before is None or region_score(before[1]) < region_score(region)):
                found[_box(region)] = (candidate, region)
        rows = list(found.values())
        return [rows[k] for k in sorted(self.rng.sample(range(len(rows)), min(MOST_REGIONS, len(rows))))]


def missing(annotations: Iterable[Annotation], tasks: Iterable[str]) -> list[str]:
    """The tasks, in their order and each once, that no annotation answers."""
    there = {annotation.task for annotation in annotations}
    return [task for task in dict.fromkeys(tasks) if task not in there]


def fill(*, tasks: Collection[str] | None = None, ontology: Ontology | None = None) -> Enhancer:
    """An enhancer that derives what is missing of `tasks` (of all in `RULES` unless given); what is there stays.

    `ontology`: its classes are what was looked for, so that one without a region is known to be absent.
    """
    wanted = tuple(RULES) if tasks is None else tuple(tasks)

    def enhance(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        things = find_things(candidates)
        classes = ontology.names if ontology is not None else ()
        decisions: list[Decision] = []
        for task in missing((c.annotation for c in candidates), wanted):
            if task in RULES:
                seeded = random.Random(f"{sample.id} {task}")
                decisions += RULES[task](Known(candidates, things, classes, seeded))
        return decisions

    return enhance


def _proposals(known: Known) -> Iterator[Decision]:
    places: dict[tuple[float, ...], float] = {}
    for thing in known.things:
        places[thing.box] = max(region_score(thing.region), places.get(thing.box, 0.0))
    regions = [Region.box(*box, score=score) for box, score in places.items()]
    if regions:
        parents = [parent for thing in known.things for parent in thing.parents]
        yield addition("<REGION_PROPOSAL>", SOURCE, parents, regions=regions)


def _categories(known: Known) -> Iterator[Decision]:
    for candidate, region in known.some("<OD>"):
        yield _about(candidate, region, "<REGION_TO_CATEGORY>", region.label)


def _descriptions(known: Known) -> Iterator[Decision]:
    chosen = [c for c in known.candidates if c.annotation.source == CHOSEN_TEXTS]
    for candidate, region in replace(known, candidates=chosen or known.candidates).some("<DENSE_REGION_CAPTION>"):
        yield _about(candidate, region, "<REGION_TO_DESCRIPTION>", region.label)


def _written(known: Known) -> Iterator[Decision]:
    read = [c for c in known.candidates if c.annotation.task == "<OCR_WITH_REGION>"]
    text = read_text([region for candidate in read for region in candidate.annotation.regions])
    if read:
        yield addition("<OCR>", SOURCE, [c.id for c in read], text=text)


def _written_there(known: Known) -> Iterator[Decision]:
    for candidate, region in known.some("<OCR_WITH_REGION>"):
        yield _about(candidate, region, "<REGION_TO_OCR>", region.label)


def _vocabulary(known: Known) -> Iterator[Decision]:
    """One class that is there, two or three at once, and now and then one that is not."""
    found: dict[str, list[tuple[Candidate, Region]]] = {}
    asked_for = any(c.annotation.task == "<OD>" for c in known.candidates)
    for candidate, region in known.of("<OD>"):
        found.setdefault(region.label, []).append((candidate, region))
    absent = [name for name in known.classes if name not in found] if asked_for else []
    queries: list[list[str]] = []
    present = sorted(label for label in found if label.strip() and "<" not in label)
    if present:
        queries.append([known.rng.choice(present)])
    if len(present) > 1:
        queries.append(known.rng.sample(present, min(len(present), known.rng.randint(2, 3))))
    if absent and known.rng.random() < ABSENT:
        queries.append([known.rng.choice(absent)])
    parents = [c.id for c in known.candidates if c.annotation.task == "<OD>"]
    for names in queries:
        rows = [row for name in names for row in found.get(name, ())]
        regions = [Region.box(*_box(region), label=region.label, score=region_score(region)) for _, region in rows]
        yield addition(
            "<OPEN_VOCABULARY_DETECTION>",
            SOURCE,
            parents,
            regions=regions,
            query="<and>".join(names),
            reason="" if regions else "no region of the class, which was looked for",
        )


Rule = Callable[[Known], Iterator[Decision]]
RULES: Mapping[str, Rule] = {
    "<REGION_PROPOSAL>": _proposals,
    "<REGION_TO_CATEGORY>": _categories,
    "<REGION_TO_DESCRIPTION>": _descriptions,
    "<OCR>": _written,
    "<REGION_TO_OCR>": _written_there,
    "<OPEN_VOCABULARY_DETECTION>": _vocabulary,
}
"""Task -> how it follows from the others."""


def _about(candidate: Candidate, region: Region, task: str, text: str) -> Decision:
    query = Region.box(*_box(region))
    return addition(task, SOURCE, (candidate.id,), text=text, query=query, score=region_score(region))


def _box(region: Region) -> tuple[float, ...]:
    return tuple(region_box(region.parts).tolist())
