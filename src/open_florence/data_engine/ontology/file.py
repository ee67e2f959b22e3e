"""The ontology file: what may stand in it, and the one sentence for what may not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from open_florence.data_engine.ontology.migrations import Change
from open_florence.errors import OpenFlorenceError

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class ClassTable(_Table):
    """[[class]]"""

    name: Name
    synonyms: list[Name] = []
    attributes: list[Name] = []
    meaning: str = ""
    threshold: float | None = Field(None, ge=0, le=1)
    parent: Name | None = None


class RelationTable(_Table):
    """[[relation]]"""

    name: Name
    subject: Name
    object: Name
    meaning: str = ""


class MigrationTable(_Table):
    """[[migration]]"""

    id: Name
    change: Change
    old: list[Name] = Field(alias="from", min_length=1)
    new: list[Name] = Field([], alias="to")


class OntologyTable(_Table):
    """The whole file."""

    tasks: list[Name] = []
    attributes: list[Name] = []
    blacklist: list[Name] = []
    classes: list[ClassTable] = Field([], alias="class")
    relations: list[RelationTable] = Field([], alias="relation")
    migrations: list[MigrationTable] = Field([], alias="migration")


def read_table(path: Path) -> OntologyTable:
    """The file as it is written; what the names mean together is checked by `Ontology`.

    Raises OpenFlorenceError for a file that cannot be read, and for an entry that has no place there or is of the
    wrong kind.
    """
    try:
        record = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise OpenFlorenceError(f"{path} is not a TOML file: {error}") from None
    for entry in record.get("migration", ()) if isinstance(record.get("migration"), list) else ():
        for key in ("from", "to"):
            if isinstance(entry, dict) and isinstance(entry.get(key), str):
                entry[key] = [entry[key]]
    try:
        return OntologyTable.model_validate(record)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise OpenFlorenceError(f"{path}, {_place(wrong['loc'])}: {wrong['msg'].lower()}") from None


def _place(where: tuple[str | int, ...]) -> str:
    """ "class 2, threshold" of ("class", 1, "threshold")."""
    words = [f" {part + 1}" if isinstance(part, int) else f", {part}" for part in where]
    return "".join(words).removeprefix(", ")


def template(classes: Sequence[str]) -> str:
    """The text of a file to begin with: the classes, and each kind of entry as a comment."""
    text = _HEAD
    for name in classes:
        text += f"\n[[class]]\nname = {json.dumps(name, ensure_ascii=False)}\nsynonyms = []\n"
    return text + _TAIL


_HEAD = """\
# What there is to be found. Labels that are none of these names are kept aside, not thrown away.
# Tasks that matter:
tasks = ["<OD>", "<CAPTION>"]
# Words that may stand before any class without making it another thing ("a large red car" is a car):
attributes = [
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "gray", "black", "white",
    "small", "large", "big", "little", "old", "new", "young",
]
# Phrases that never get a box, besides pronouns and words for the picture itself:
blacklist = []
"""
_TAIL = """
# More that a class may have:
# [[class]]
# name = "taxi"
# synonyms = ["cab"]
# attributes = ["checkered"]
# meaning = "A car that carries passengers for money, occupied or not."
# threshold = 0.4                    # the least score of a region
# parent = "car"
#
# [[relation]]
# name = "inside"
# subject = "person"
# object = "taxi"
#
# Changes of classes stay here for ever, in order; the store's older labels go through them.
# [[migration]]
# id = "cab-is-taxi"
# change = "rename"                  # or "merge" (several from), "split" (several to), "drop" (no to)
# from = "cab"
# to = "taxi"
"""
