"""Rows of the store and the Arrow columns they are kept in, each the exact inverse of the other.

A region's points lie in `parts`, a list of flat lists [x1, y1, x2, y2, ...] with `axes` numbers a point; x1, y1, x2, y2
is the box around it. A box is in those four numbers alone and has no parts; on one axis it is x1 and x2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any

from open_florence.data.store_table import arrow
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region

LEVELS = ("text", "region-text", "text-phrase-region")
STATUSES = ("candidate", "kept", "dropped")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the annotations table; never changed after it is written."""

    image: str
    """`Sample.id`."""
    annotation: Annotation
    level: str
    """One of `LEVELS`."""
    step: str
    """What wrote it: "annotate", "filter", "enhance", "reannotate", "merge", "review", "migrate"."""
    status: str = "candidate"
    """One of `STATUSES`."""
    reason: str = ""
    parents: tuple[str, ...] = ()
    """The ids of the rows it was fused, filtered or refined from."""
    id: str = ""
    """Given by the store: the shard, "#", and the place in it."""


@cache
def region_type() -> Any:
    """The Arrow type of a region."""
    pa = arrow()
    return pa.struct(
        [
            ("kind", pa.string()),
            ("label", pa.string()),
            ("score", pa.float64()),
            ("label_score", pa.float64()),
            ("span_start", pa.int32()),
            ("span_end", pa.int32()),
            *((name, pa.float64()) for name in ("x1", "y1", "x2", "y2")),
            ("axes", pa.int8()),
            ("parts", pa.list_(pa.list_(pa.float64()))),
        ]
    )


@cache
def annotation_schema() -> Any:
    """The columns of annotations.lance. In the marker of a shard all but the last three are null."""
    pa = arrow()
    return pa.schema(
        [
            ("image", pa.string()),
            ("level", pa.string()),
            ("task", pa.string()),
            ("text", pa.string()),
            ("query", pa.string()),
            ("query_region", region_type()),
            ("regions", pa.list_(region_type())),
            ("source", pa.string()),
            ("round", pa.int32()),
            ("score", pa.float64()),
            ("complete", pa.bool_()),
            ("dropped", pa.int32()),
            ("step", pa.string()),
            ("status", pa.string()),
            ("reason", pa.string()),
            ("parents", pa.list_(pa.string())),
            *marker_fields(),
        ]
    )


def marker_fields() -> list[Any]:
    """The last three columns of every table: the shard, the place of the row in it, and in its marker the note."""
    pa = arrow()
    return [pa.field("shard", pa.string()), pa.field("place", pa.int32()), pa.field("note", pa.string())]


def with_marker(columns: dict[str, Any], schema: Any, shard: str, count: int, note: Mapping[str, Any] | None) -> Any:
    """The Arrow table of a shard of `count` rows: its columns, arrays or lists, and at the end its marker."""
    pa = arrow()
    if not shard:
        raise OpenFlorenceError("a shard has a name")
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, schema.field(name).type)
        for name, column in columns.items()
    ]
    rows = pa.table(
        [*arrays, pa.array([shard] * count), pa.array(range(count), pa.int32()), pa.nulls(count, pa.string())],
        schema=schema,
    )
    marker = {"shard": shard, "place": count, "note": json.dumps(dict(note or {}))}
    return pa.concat_tables([rows, pa.Table.from_pylist([marker], schema)]).combine_chunks()


def annotation_table(shard: str, rows: Sequence[Row], note: Mapping[str, Any] | None) -> Any:
    """The shard as an Arrow table of `annotation_schema`. Raises OpenFlorenceError for a row that is wrong."""
    pa = arrow()
    for row in rows:
        _check(row)
    said = [row.annotation for row in rows]
    queries = [one.query for one in said]
    asked = [query for query in queries if isinstance(query, Region)]
    number = iter(range(len(asked)))
    which = pa.array([next(number) if isinstance(query, Region) else None for query in queries], pa.int32())
    columns = {
        "image": [row.image for row in rows],
        "level": [row.level for row in rows],
        "task": [one.task for one in said],
        "text": [one.text for one in said],
        "query": [query if isinstance(query, str) else None for query in queries],
        "query_region": _region_array(asked).take(which),
        "regions": pa.ListArray.from_arrays(
            _offsets(len(one.regions) for one in said), _region_array([r for one in said for r in one.regions])
        ),
        "source": [one.source for one in said],
        "round": [one.round for one in said],
        "score": [one.score for one in said],
        "complete": [one.complete for one in said],
        "dropped": [one.dropped for one in said],
        "step": [row.step for row in rows],
        "status": [row.status for row in rows],
        "reason": [row.reason for row in rows],
        "parents": [row.parents for row in rows],
    }
    return with_marker(columns, annotation_schema(), shard, len(rows), note)


def annotation_rows(batch: Any) -> Iterator[Row]:
    """The rows of an Arrow batch of `annotation_schema`, without markers."""
    queries = batch.column("query_region")
    asked = iter(_regions(queries.filter(queries.is_valid())))
    regions = batch.column("regions")
    flat = iter(_regions(regions.flatten()))
    counts = regions.value_lengths().to_pylist()
    plain = {f.name: _values(batch.column(f.name)) for f in batch.schema if f.name not in ("query_region", "regions")}
    has_region = queries.is_valid().to_pylist()
    parents = plain["parents"]
    for i, count in enumerate(counts):
        annotation = Annotation(
            plain["task"][i],
            plain["text"][i],
            tuple([next(flat) for _ in range(count)]),
            next(asked) if has_region[i] else plain["query"][i],
            plain["source"][i],
            plain["round"][i],
            plain["score"][i],
            plain["complete"][i],
            plain["dropped"][i],
        )
        yield Row(
            plain["image"][i],
            annotation,
            plain["level"][i],
            plain["step"][i],
            plain["status"][i],
            plain["reason"][i],
            tuple(parents[i]),
            f"{plain['shard'][i]}#{plain['place'][i]}",
        )


def _check(row: Row) -> None:
    for value, allowed, what in ((row.level, LEVELS, "level"), (row.status, STATUSES, "status")):
        if value not in allowed:
            raise OpenFlorenceError(
                f"the {what} of a row about {row.image} is one of {', '.join(allowed)}, not {value!r}"
            )
    if not row.image:
        raise OpenFlorenceError("a row of the store is about an image, and this one names none")


def _offsets(counts: Iterable[int]) -> Any:
    """Where each of several lists of these lengths begins, laid end to end, and where the last ends."""
    return arrow().array([0, *accumulate(counts)], arrow().int32())


def _region_array(regions: Sequence[Region]) -> Any:
    """Regions (R) as an Arrow array (R) of `region_type`."""
    pa = arrow()
    lines = [(r.kind, r.label, r.score, r.label_score, *(r.span or (None, None)), *_geometry(r)) for r in regions]
    kinds = list(region_type())
    columns = zip(*lines, strict=True) if lines else [()] * len(kinds)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, kinds, strict=True)]
    return pa.StructArray.from_arrays(arrays, fields=kinds)


def _geometry(region: Region) -> tuple[Any, ...]:
    """x1, y1, x2, y2, axes, parts."""
    if region.kind == "box":
        low, high = region.parts[0]
        if len(low) == len(high) == 2:
            return *low, *high, 2, None
        if len(low) == len(high) == 1:
            return low[0], None, high[0], None, 1, None
    widths = {len(point) for part in region.parts for point in part}
    if len(widths) > 1 or 0 in widths:
        raise OpenFlorenceError(f"the points of a region have as many numbers as each other, unlike {region.parts}")
    axes = max(widths, default=0)
    points = [point for part in region.parts for point in part]
    flat = [[v for point in part for v in point] for part in region.parts]
    if axes not in (1, 2):
        return None, None, None, None, axes, flat
    around = [[pick(point[axis] for point in points) for axis in range(axes)] + [None] for pick in (min, max)]
    return *around[0][:2], *around[1][:2], axes, flat


def _regions(array: Any) -> list[Region]:
    """The inverse of `_region_array`."""
    columns = [_values(column) for column in array.flatten()]
    found = []
    for kind, label, score, label_score, start, end, x1, y1, x2, y2, axes, parts in zip(*columns, strict=True):
        points: tuple[tuple[tuple[float, ...], ...], ...]
        if parts is not None:
            points = tuple([tuple(zip(*[iter(part)] * axes, strict=True)) for part in parts])
        else:
            points = (((x1, y1), (x2, y2)),) if axes == 2 else (((x1,), (x2,)),)
        found.append(Region(kind, points, label, score, label_score, None if start is None else (start, end)))
    return found


def _values(array: Any) -> list[Any]:
    """What `to_pylist` gives, in a fraction of the time; equal strings are one string."""
    pa = arrow()
    if array.null_count or not len(array):
        return list(array.to_pylist())
    if pa.types.is_string(array.type):
        coded = array.dictionary_encode()
        words = coded.dictionary.to_pylist()
        return [words[code] for code in coded.indices.to_numpy().tolist()]
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return list(array.to_numpy().tolist())
    return list(array.to_pylist())
