"""What there is to be found: classes with their other names, and how a label is read as one of them.

A label is a class's name or synonym in any case, in the singular or plural, perhaps with a determiner, a number or the
attributes listed in the file before it. Other words are not skipped: a hot dog is no dog.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from open_florence.data_engine.ontology.file import OntologyTable, read_table, template
from open_florence.data_engine.ontology.migrations import Migration
from open_florence.data_engine.partition import relabel
from open_florence.errors import OpenFlorenceError
from open_florence.noun_phrases import BLACKLIST, Phrase, is_blacklisted, is_determiner, is_qualifier, singular
from open_florence.schema import Annotation
from open_florence.tasks import TASKS, find_task

NEGATIONS = ("no", "neither", "nor")


@dataclass(frozen=True, slots=True)
class OntologyClass:
    """A kind of thing."""

    name: str
    synonyms: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    """Words that may stand before it without making it another thing."""
    meaning: str = ""
    """What belongs to it, for the people who judge."""
    threshold: float | None = None
    """The least score of its regions; None: the default."""
    parent: str | None = None
    """The class that each of its things belongs to as well."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How things of two classes may stand to each other."""

    name: str
    subject: str
    object: str
    meaning: str = ""


@dataclass(frozen=True)
class Ontology:
    """The classes and what belongs to them. Without classes every label is one: nothing is outside."""

    classes: tuple[OntologyClass, ...] = ()
    relations: tuple[Relation, ...] = ()
    attributes: tuple[str, ...] = ()
    """Words that may stand before any class."""
    tasks: tuple[str, ...] = ()
    """Tokens of the tasks that matter."""
    blacklist: tuple[str, ...] = ()
    """Phrases that name nothing one could draw a box around, besides `noun_phrases.BLACKLIST`."""
    migrations: tuple[Migration, ...] = ()

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise OpenFlorenceError(problem)

    @classmethod
    def of(cls, names: Sequence[str]) -> Ontology:
        """Classes that have nothing but a name."""
        return cls(tuple(OntologyClass(name) for name in names))

    @classmethod
    def load(cls, path: Path) -> Ontology:
        """From a TOML file. Raises OpenFlorenceError, with the file and the place, for one that cannot be meant."""
        table = read_table(Path(path))
        try:
            return _from_table(table)
        except OpenFlorenceError as error:
            raise OpenFlorenceError(f"{path}: {error}") from None

    template = staticmethod(template)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the file."""
        return tuple(one.name for one in self.classes)

    @functools.cached_property
    def version(self) -> str:
        """Twelve hexadecimal digits of the content; comments and layout of the file do not count."""
        content = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def thresholds(self) -> dict[str, float]:
        """The least score of each class that has its own."""
        return {one.name: one.threshold for one in self.classes if one.threshold is not None}

    def name_of(self, label: str) -> str | None:
        """The class that a label means, None for none: "two Red Cars" is "car" where "red" is an attribute."""
        if not self.classes:
            return label
        words = _words(label)
        for start in range(len(words)):
            found = self._exact.get(" ".join(words[start:])) or self._singular.get(_key(words[start:]))
            if found is not None:
                return found if self._may_precede(words[:start], found) else None
        return None

    def class_of(self, phrase: Phrase) -> str | None:
        """The class that a noun phrase names, None for none or where it is blacklisted.

        More is skipped than in a label: any describing word before the noun. `blacklist` says what to skip that for.
        """
        if self.is_blacklisted(phrase.text):
            return None
        if (found := self.name_of(phrase.text)) is not None or not self.classes:
            return found
        words = _words(phrase.text)
        for start in range(1, len(words)):
            if not is_qualifier(words[start - 1]) or words[start - 1] in NEGATIONS:
                return None
            if (found := self.name_of(" ".join(words[start:]))) is not None:
                return found
        return None

    def is_blacklisted(self, phrase: str) -> bool:
        """Whether a phrase names nothing one could draw a box around."""
        return is_blacklisted(phrase, self._blacklist)

    def apply(self, annotation: Annotation) -> Annotation:
        """The annotation with labels as the classes are called; labels outside stay as they are."""
        return relabel(annotation, lambda label: self.name_of(label) or label)

    def ancestors(self, name: str) -> Iterator[str]:
        """The class and those it belongs to, upwards."""
        parents = {one.name: one.parent for one in self.classes}
        above: str | None = name
        while above is not None:
            yield above
            above = parents.get(above)

    @functools.cached_property
    def _blacklist(self) -> frozenset[str]:
        return BLACKLIST | {phrase.lower() for phrase in self.blacklist}

    @functools.cached_property
    def _exact(self) -> dict[str, str]:
        """Every name and synonym -> class."""
        return {" ".join(_words(form)): one.name for one in self.classes for form in (one.name, *one.synonyms)}

    @functools.cached_property
    def _singular(self) -> dict[str, str]:
        """The same in the singular; where two classes differ only there, the one that is singular has it."""
        return {_key(form.split()): name for form, name in self._exact.items()} | self._exact

    @functools.cached_property
    def _attributes(self) -> dict[str, frozenset[str]]:
        common = " ".join(self.attributes).lower()
        return {one.name: frozenset(_words(" ".join((common, *one.attributes)))) for one in self.classes}

    def _may_precede(self, words: Sequence[str], name: str) -> bool:
        allowed = self._attributes[name] | {"and"}
        return all((is_determiner(word) and word not in NEGATIONS) or word in allowed for word in words)


def _words(label: str) -> list[str]:
    """The words of a label in lower case: marks, hyphens and underscores separate."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", label.casefold())


def _key(words: Sequence[str]) -> str:
    """Words with the last in the singular."""
    return " ".join([*words[:-1], singular(words[-1])]) if words else ""


def _problems(ontology: Ontology) -> Iterator[str]:
    """What cannot be meant, one sentence each."""
    names = ontology.names
    if twice := {name for name in names if names.count(name) > 1}:
        yield f"the class {min(twice)!r} stands there twice"
    claimed: dict[str, str] = {}
    for one in ontology.classes:
        for form in (one.name, *one.synonyms):
            key = " ".join(_words(form))
            if not key:
                yield f"{form!r} of the class {one.name!r} holds no letter"
            if claimed.setdefault(key, one.name) != one.name:
                yield f"{form!r} stands for both {claimed[key]!r} and {one.name!r}"
        if one.parent is not None and one.parent not in names:
            yield f"the parent of {one.name!r} is {one.parent!r}, which is no class"
    for name in names:
        if len(list(itertools.islice(ontology.ancestors(name), len(names) + 1))) > len(names):
            yield f"the parents of {name!r} go round in a circle"
    for relation in ontology.relations:
        for name in (relation.subject, relation.object):
            if name not in names:
                yield f"the relation {relation.name!r} is about {name!r}, which is no class"
    for task in ontology.tasks:
        if task not in TASKS:
            yield f"there is no task {task!r}"
    yield from _migration_problems(ontology.migrations, names)


def _migration_problems(migrations: Sequence[Migration], names: Sequence[str]) -> Iterator[str]:
    ids: set[str] = set()
    for index, one in enumerate(migrations):
        if one.id in ids:
            yield f"two migrations are called {one.id!r}"
        ids.add(one.id)
        olds, news = len(one.old), len(one.new)
        possible = {
            "rename": olds == 1 and news == 1,
            "merge": olds >= 1 and news == 1,
            "split": olds == 1 and news > 1,
            "drop": olds >= 1 and news == 0,
        }
        if not possible[one.change]:
            yield f"the migration {one.id!r} cannot {one.change} {olds} classes to {news}"
        later = {name for after in migrations[index + 1 :] for name in after.old}
        for name in one.new:
            if name not in names and name not in later:
                yield f"the migration {one.id!r} leads to {name!r}, which is no class"


def _from_table(table: OntologyTable) -> Ontology:
    """Raises OpenFlorenceError for what cannot be meant."""
    return Ontology(
        classes=tuple(
            OntologyClass(c.name, tuple(c.synonyms), tuple(c.attributes), c.meaning, c.threshold, c.parent)
            for c in table.classes
        ),
        relations=tuple(Relation(r.name, r.subject, r.object, r.meaning) for r in table.relations),
        attributes=tuple(table.attributes),
        tasks=tuple(find_task(task).token for task in table.tasks),
        blacklist=tuple(table.blacklist),
        migrations=tuple(Migration(m.id, m.change, tuple(m.old), tuple(m.new)) for m in table.migrations),
    )
