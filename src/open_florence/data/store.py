"""What is known of a set of images, and who said it: an images table and an annotations table, on Lance.

Nothing in it is ever changed. Rows come in shards, whose names the writer chooses so that the same work has the same
name: "001/annotate/detector@1.2/000017". A shard is committed whole or not at all, and a second time never, by however
many processes, one of which may be killed at any moment. A tag keeps the state of both tables under a name.

A `Store` may be used by one thread at a time; several threads and processes open one each.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from open_florence.data.jsonl import line_of, write_whole
from open_florence.data.store_images import (
    ImageRow,
    bytes_schema,
    bytes_table,
    cached,
    from_uri,
    image_rows,
    image_schema,
    image_table,
    is_uri,
)
from open_florence.data.store_parquet import write_parquet
from open_florence.data.store_rows import LEVELS, STATUSES, Row, annotation_rows, annotation_schema, annotation_table
from open_florence.data.store_table import LOOSE, Table, arrow, locked, one_sentence
from open_florence.errors import OpenFlorenceError

__all__ = ["LEVELS", "STATUSES", "ImageRow", "Row", "Store"]

FILTERS = ("image", "level", "task", "source", "round", "step", "status", "shard")
"""The columns by which `rows` and `tally` select: a value, or several of which one must hold."""
COUNTED = (*FILTERS, "reason", "label")
"""What `tally` can count by."""
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Store:
    """The store in a folder; with `create` it is made where there is none.

    Raises OpenFlorenceError where there is none, and in every method where the disk refuses something.
    """

    def __init__(self, folder: Path, create: bool = False) -> None:
        self.folder = Path(folder)
        schemas = {"images": image_schema, "bytes": bytes_schema, "annotations": annotation_schema}  # the last is last
        if create:
            with one_sentence(f"the store {self.folder} cannot be made"):
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._writing():
                    for name, schema in schemas.items():
                        Table.create(self.folder / f"{name}.lance", schema())
        elif not (self.folder / "annotations.lance").is_dir():
            raise OpenFlorenceError(f"there is no store in {self.folder}")
        self._images, self._bytes, self._annotations = (
            Table(self.folder / f"{name}.lance", self.folder / "readers.lock") for name in schemas
        )
        self._tagged: dict[str, tuple[Table, Table]] = {}

    def add_images(self, shard: str, rows: Sequence[ImageRow], data: Mapping[str, bytes] | None = None) -> bool:
        """Commits a shard of images; False when it was there already.

        `data` holds the files of those that are taken in, by their ids. The same id may come in several rows: copies.
        """
        if self._images.knows(shard):
            return False
        with self._writing():
            taken = self._take_in(shard, {row.id: data[row.id] for row in rows if row.id in data}) if data else {}
            added = self._images.append(shard, image_table(shard, rows, taken))
            self._merge_if_loose()
        return added

    def images(
        self, *, status: str | None = "ok", ids: Collection[str] | None = None, at: str | None = None
    ) -> Iterator[ImageRow]:
        """The images of one status, or (None) all; `at`: as of that tag. Shards come in any order."""
        where = {"status": status, "id": ids}
        condition = _condition({name: _several(value) for name, value in where.items() if value is not None})
        return chain.from_iterable(map(image_rows, self._at(at)[0].scan(None, condition)))

    def open(self, image: ImageRow) -> Path:
        """A file of the image on this machine: what was taken in, else where it is; a URI is downloaded, once.

        Raises OpenFlorenceError when there is none. Files in the folder "cache" may be deleted at any time.
        """
        place = image.taken
        if place is None and not is_uri(image.path) and not Path(image.path).exists():
            place = next((row.taken for row in self.images(status=None, ids=[image.id]) if row.taken is not None), None)
        if place is not None:
            path = cached(self.folder / "cache", image.id, image.path)
            if not path.exists():
                write_whole(path, [self._bytes.take(place, "data")])
            return path
        path = from_uri(image.path, self.folder / "cache") if is_uri(image.path) else Path(image.path)
        if not path.is_file():
            raise OpenFlorenceError(f"the image {image.id} is not at {path}")
        return path

    def commit(self, shard: str, rows: Sequence[Row], note: Mapping[str, Any] | None = None) -> bool:
        """Commits a shard of annotations with its note, which JSON must be able to hold; False when it was there."""
        if self._annotations.knows(shard):
            return False
        with one_sentence(f"the shard {shard} cannot be written"):
            table = annotation_table(shard, rows, note)
        with self._writing():
            added = self._annotations.append(shard, table)
            self._merge_if_loose()
        return added

    def notes(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """The notes of the shards, of images and of annotations, whose names begin with `prefix`."""
        condition = f"note IS NOT NULL AND starts_with(shard, {_literal(prefix)})"
        found = {}
        for table in (self._images, self._annotations):
            for batch in table.scan(["shard", "note"], condition):
                found.update({line["shard"]: json.loads(line["note"]) for line in batch.to_pylist()})
        return found

    def rows(self, *, at: str | None = None, **where: Any) -> Iterator[Row]:
        """The annotations that `where` selects (see `FILTERS`), read as they are asked for; `at`: as of that tag.

        The rows of a shard stand together in their order; shards come in any order, for merging files moves them.
        Quickest by `shard`: nothing else is then read.
        """
        return chain.from_iterable(map(annotation_rows, self._select(at, None, where)))

    def tally(self, *by: str, at: str | None = None, **where: Any) -> Counter[tuple[Any, ...]]:
        """How many rows there are of each combination of values of `by` (see `COUNTED`); `at` and `where` as in `rows`.

        By "label" the regions are counted, each by its label, and not the rows.
        """
        if unknown := set(by) - set(COUNTED):
            raise OpenFlorenceError(f"rows are counted by {', '.join(COUNTED)}, not by {min(unknown)}")
        columns = ["regions" if name == "label" else name for name in by] or ["place"]
        total: Counter[tuple[Any, ...]] = Counter()
        for batch in self._select(at, columns, where):
            lines = arrow().Table.from_batches([batch])
            if "label" in by:
                lines = _by_label(lines)
            for line in lines.group_by(list(by)).aggregate([([], "count_all")]).to_pylist():
                total[tuple(line[name] for name in by)] += line["count_all"]
        return total

    def tag(self, name: str) -> None:
        """Names the state of both tables, to be read with `at` from then on. A name stays with its state.

        Raises OpenFlorenceError when the name stands for another state. `compact` before it saves space.
        """
        if not _TAG.fullmatch(name):
            raise OpenFlorenceError(f"a tag is made of letters, digits, dots and dashes, unlike {name!r}")
        with self._writing():
            self._images.refresh()
            self._annotations.refresh()
            state = {"images": self._images.version, "annotations": self._annotations.version}
            if name in self.tags():
                if self._state(name) != state:
                    raise OpenFlorenceError(f"{self.folder} has a tag {name} already, for an earlier state")
                return
            self._images.tag(name)
            self._annotations.tag(name)
            write_whole(self.folder / "tags" / f"{name}.json", [line_of(state)])  # the tag is there from here on

    def tags(self) -> list[str]:
        """The names of the tags, the oldest state first."""
        names = sorted(path.stem for path in (self.folder / "tags").glob("*.json") if not path.name.startswith("."))
        return sorted(names, key=lambda name: self._state(name)["annotations"])

    def to_parquet(self, folder: Path, at: str | None = None) -> None:
        """Writes images.parquet and annotations.parquet: the tables without their notes, annotations with their ids."""
        images, annotations = self._at(at)
        write_parquet(Path(folder) / "images.parquet", images, image_schema())
        write_parquet(Path(folder) / "annotations.parquet", annotations, annotation_schema(), "id")

    def compact(self) -> None:
        """Merges small files, builds the indices by image, removes states without a tag. Rows and tags stay.

        Commits do the first by themselves now and then; this is for the end of a round, before its tag.
        """
        with self._writing():
            self._compact()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Nobody else writes meanwhile."""
        with one_sentence(f"the store {self.folder} cannot be written"), locked(self.folder / "commit.lock"):
            yield

    def _take_in(self, shard: str, data: dict[str, bytes]) -> dict[str, int]:
        """Commits bytes of images, unless a writer did who was killed before the images; where each of them is."""
        self._bytes.append(shard, bytes_table(shard, data))
        condition = f"note IS NULL AND shard = {_literal(shard)}"
        found: dict[str, int] = {}
        for batch in self._bytes.scan(["image"], condition, [shard], addresses=True):
            found.update(zip(batch.column("image").to_pylist(), batch.column("_rowaddr").to_pylist(), strict=True))
        return found

    def _select(self, at: str | None, columns: list[str] | None, where: Mapping[str, Any]) -> Iterator[Any]:
        """Batches of the annotations that `where` selects."""
        if unknown := where.keys() - set(FILTERS):
            raise OpenFlorenceError(f"rows are selected by {', '.join(FILTERS)}, not by {min(unknown)}")
        wanted = {name: _several(value) for name, value in where.items()}
        return self._at(at)[1].scan(columns, _condition(wanted), wanted.get("shard"))

    def _merge_if_loose(self) -> None:
        if max(self._images.loose, self._annotations.loose) > LOOSE:
            self._compact()

    def _compact(self) -> None:
        self._images.compact("id")
        self._annotations.compact("image")
        self._bytes.compact(None)  # places in it must stay as they are

    def _state(self, tag: str) -> dict[str, int]:
        """The versions of the tables that a tag stands for."""
        try:
            return dict(json.loads((self.folder / "tags" / f"{tag}.json").read_bytes()))
        except OSError:
            known = ", ".join(self.tags()) or "none"
            raise OpenFlorenceError(f"{self.folder} has no tag {tag}; there are: {known}") from None

    def _at(self, tag: str | None) -> tuple[Table, Table]:
        """The tables of images and annotations as of a tag."""
        if tag is None:
            return self._images, self._annotations
        if tag not in self._tagged:
            state = self._state(tag)
            self._tagged[tag] = self._images.at(state["images"]), self._annotations.at(state["annotations"])
        return self._tagged[tag]


def _several(wanted: Any) -> list[str | int]:
    """The values of which one must hold."""
    return [wanted] if isinstance(wanted, (str, int)) else list(wanted)


def _condition(where: Mapping[str, list[str | int]]) -> str:
    """The SQL by which rows are selected, and no marker."""
    parts = ["note IS NULL"]
    for name, wanted in where.items():
        parts.append(f"`{name}` IN ({', '.join(map(_literal, wanted))})" if wanted else "FALSE")
    return " AND ".join(parts)


def _literal(value: str | int) -> str:
    return str(int(value)) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _by_label(rows: Any) -> Any:
    """A row for each region, with its label in place of the regions."""
    import pyarrow.compute as pc

    regions = rows.column("regions").combine_chunks()
    row = pc.list_parent_indices(regions)
    others = {name: rows.column(name).take(row) for name in rows.column_names if name != "regions"}
    return arrow().table({**others, "label": regions.flatten().field("label")})
