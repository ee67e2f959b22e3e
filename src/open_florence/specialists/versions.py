"""Versions of specialists: the program's or the weights', and the options that change what is answered."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def with_options(version: str, **options: object) -> str:
    """A version that also changes with the options that the answers depend on: they make another source."""
    text = json.dumps(options, sort_keys=True, ensure_ascii=False)
    return f"{version}-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=3).hexdigest()}"


def version_of(program: str, specialist: DataclassInstance) -> str:
    """The program's version with the specialist's fields as options, without those that compare=False marks."""
    options = {field.name: getattr(specialist, field.name) for field in fields(specialist) if field.compare}
    return with_options(program, **options)


def hash_of_files(folder: Path, *patterns: str) -> str:
    """12 hexadecimal digits of the names and contents of the files of a folder that match."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        digest.update(path.name.encode("utf-8", "surrogateescape"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
