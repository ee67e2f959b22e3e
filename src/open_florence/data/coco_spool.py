"""What COCO files say, sorted by image on the disk: a file lists images and annotations in any order, and may be large.

The database is SQLite's own temporary one: small files never leave its cache, larger ones go to a nameless file in the
folder for temporary files (`TMPDIR`) that is gone with the process, however it ends.
"""

from __future__ import annotations

import marshal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

CACHE_KIB = 16_000
BATCH = 1000
"""Records written at once."""
LARGEST_SIDE = 1e6
"""Pixels; what is larger is a mistake."""

_TABLES = """
    CREATE TABLE images (number INTEGER PRIMARY KEY, folder TEXT, name TEXT, file INTEGER, id TEXT, width REAL,
                         height REAL, UNIQUE (folder, name));
    CREATE TABLE ids (file INTEGER, id TEXT, image INTEGER, PRIMARY KEY (file, id)) WITHOUT ROWID;
    CREATE INDEX ids_by_image ON ids (image);
    CREATE TABLE records (file INTEGER, image TEXT, record BLOB);
"""


@dataclass(frozen=True)
class ImageRecord:
    """An image as the first file that lists it has it."""

    number: int
    file: int
    id: str
    name: str
    """Its file_name, with slashes; or else the end of its coco_url."""
    size: tuple[float, float] | None
    """(width, height) in pixels; None where the file does not say."""


@dataclass(frozen=True)
class Record:
    """An annotation of a file, unchecked: whatever stood under each name, None where nothing did."""

    id: Any
    category_id: Any
    bbox: Any
    segmentation: Any
    iscrowd: Any
    score: Any
    caption: Any


class Spool:
    """Images and annotations go in file by file; they come out image by image, in the order of the files."""

    def __init__(self) -> None:
        # Samples may be drawn in another thread than the one that asked for them.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.executescript(_TABLES)
        self._waiting: list[tuple[int, str, bytes]] = []

    def close(self) -> None:
        """Frees the disk."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is added inside is kept together, or forgotten together when an exception ends it."""
        self._database.execute("BEGIN")
        try:
            yield
            self._flush()
        except BaseException:
            self._waiting.clear()
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def add_image(self, folder: str, file: int, record: Any) -> None:
        """An image of the file with this number. Files of one folder that give it the same name mean the same image.

        Raises ValueError, saying what is wrong with it.
        """
        if not isinstance(record, dict) or "id" not in record:
            raise ValueError("it has no id")
        name, given = _name(record), _id(record["id"])
        size = tuple(record.get(side) for side in ("width", "height"))
        width, height = size if all(_is_side(side) for side in size) else (None, None)
        known = self._database.execute(
            "SELECT name FROM ids JOIN images ON number = image WHERE ids.file = ? AND ids.id = ?", (file, given)
        ).fetchone()
        if known and known[0] != name:
            raise ValueError(f"{known[0]} has the same id")
        ((number,),) = self._database.execute(
            "INSERT INTO images (folder, name, file, id, width, height) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET width = ifnull(width, excluded.width), height = ifnull(height, excluded.height) RETURNING number",
            (folder, name, file, given, width, height),
        ).fetchall()
        self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (file, given, number))

    def add_record(self, file: int, record: Any) -> None:
        """An annotation of the file with this number. Raises ValueError where it does not name an image."""
        if not isinstance(record, dict) or record.get("image_id") is None:
            raise ValueError("it has no image_id")
        # marshal, because nothing else in Python is as fast on lists of numbers; nobody but us reads it.
        blob = marshal.dumps(tuple(record.get(name) for name in Record.__dataclass_fields__))
        self._waiting.append((file, _id(record["image_id"]), blob))
        if len(self._waiting) >= BATCH:
            self._flush()

    def images(self) -> Iterator[ImageRecord]:
        """All images, in the order in which they were added."""
        self._database.execute("CREATE INDEX IF NOT EXISTS records_by_image ON records (file, image)")
        rows = self._database.execute("SELECT number, file, id, name, width, height FROM images ORDER BY number")
        for number, file, given, name, width, height in rows:
            yield ImageRecord(number, file, given, name, None if width is None or height is None else (width, height))

    def files(self, image: ImageRecord) -> list[int]:
        """The files that list an image."""
        rows = self._database.execute("SELECT file FROM ids WHERE image = ? ORDER BY file", (image.number,))
        return [file for (file,) in rows]

    def records(self, image: ImageRecord) -> Iterator[tuple[int, Record]]:
        """The annotations of an image with the file that each is from, in the order of the files."""
        rows = self._database.execute(
            "SELECT records.file, record FROM ids JOIN records ON records.file = ids.file AND records.image = ids.id "
            "WHERE ids.image = ? ORDER BY records.file, records.rowid",
            (image.number,),
        )
        return ((file, Record(*marshal.loads(blob))) for file, blob in rows)

    def strays(self) -> Iterator[tuple[int, str, Record]]:
        """(file, image id, annotation) of annotations whose image their file does not list."""
        rows = self._database.execute(
            "SELECT file, image, record FROM records WHERE NOT EXISTS "
            "(SELECT 1 FROM ids WHERE ids.file = records.file AND ids.id = records.image)"
        )
        return ((file, image, Record(*marshal.loads(blob))) for file, image, blob in rows)

    def _flush(self) -> None:
        self._database.executemany("INSERT INTO records VALUES (?, ?, ?)", self._waiting)
        self._waiting.clear()


def _id(given: Any) -> str:
    """Ids as text: tools disagree on whether 7 is a number."""
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise ValueError(f"the id of its image is neither a number nor text: {given!r:.80}")
    return str(given)


def _name(record: dict[str, Any]) -> str:
    name = record.get("file_name")
    if not name and isinstance(record.get("coco_url"), str):  # LVIS gives nothing else
        name = "/".join(record["coco_url"].split("/")[-2:])
    if not isinstance(name, str) or not name.strip():
        raise ValueError("it has no file_name")
    return name.replace("\\", "/")


def _is_side(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < LARGEST_SIDE
