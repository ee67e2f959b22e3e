"""A table of the store as one Parquet file, which most programs that know tables can read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_florence.data.store_table import Table, arrow, one_sentence

ROW_GROUP = 65_536
"""Rows in memory at a time, and in a row group of the file."""


def write_parquet(path: Path, table: Table, schema: Any, identity: str = "") -> None:
    """Writes the rows without notes; with `identity` a first column of that name holds the ids of the rows.

    The file takes the place of an older one when it is whole. Raises OpenFlorenceError when it cannot be written.
    """
    pa = arrow()
    from pyarrow.parquet import ParquetWriter

    kept = schema.remove(schema.get_field_index("note"))
    written = kept.insert(0, pa.field(identity, pa.string())) if identity else kept
    temporary = path.with_name(f".{path.name}.part")
    with one_sentence(f"{path} cannot be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ParquetWriter(temporary, written) as writer:
                for group in _groups(table.scan(kept.names, "note IS NULL")):
                    writer.write_table(_with_ids(group, identity) if identity else group, ROW_GROUP)
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _groups(batches: Iterator[Any]) -> Iterator[Any]:
    """The rows of the batches in tables of `ROW_GROUP` rows or a few more."""
    held: list[Any] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= ROW_GROUP:
            yield arrow().Table.from_batches(held)
            held = []
    if held:
        yield arrow().Table.from_batches(held)


def _with_ids(rows: Any, name: str) -> Any:
    import pyarrow.compute as pc

    ids = pc.binary_join_element_wise(rows.column("shard"), rows.column("place").cast("string"), "#")
    return rows.add_column(0, name, ids)
