"""What is said about one input: the one data type that flows through every part of the project.

`Sample` is an image (or a series); `Annotation` is one answer to one task about it, whoever gave it; `Region` is a
box, quad or polygon inside that answer. Points are absolute (pixels or seconds), always float, with as many numbers
as the input has axes, so the same three classes hold images (D = 2) and time series (D = 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

Point = tuple[float, ...]
"""(x, y) in pixels or (t,) in seconds: absolute, float, origin at the top-left corner."""

Size = tuple[float, ...]
"""(width, height) in pixels or (duration,) in seconds."""

Kind = Literal["box", "quad", "polygon"]
KINDS: tuple[Kind, ...] = ("box", "quad", "polygon")


@dataclass(frozen=True, slots=True)
class Region:
    """A place in the input, and what it is called."""

    kind: Kind
    """"box": one part of two points, lowest and highest corner (an interval on one axis); "quad": one part of four
    points, clockwise from the top-left; "polygon": one or more parts of vertices."""
    parts: tuple[tuple[Point, ...], ...]
    label: str = ""
    score: float | None = None
    """How sure the source is of the place, 0 to 1; None when it did not say."""
    label_score: float | None = None
    """How sure the source is of the label, 0 to 1."""
    span: tuple[int, int] | None = None
    """The characters of `Annotation.text` that this region grounds, end exclusive."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a region's kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        count = {"box": 2, "quad": 4}.get(self.kind)
        if count is not None and (len(self.parts) != 1 or len(self.parts[0]) != count):
            raise ValueError(f"a {self.kind} has one part of {count} points, not {[len(p) for p in self.parts]}")

    @classmethod
    def box(cls, *corners: float, label: str = "", score: float | None = None) -> Region:
        """A box from its numbers: (x1, y1, x2, y2) for an image, (start, end) for a series."""
        half = len(corners) // 2
        return cls("box", ((tuple(map(float, corners[:half])), tuple(map(float, corners[half:]))),), label, score)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain lists, numbers and strings; fields at their default are left out."""
        return _plain(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Region:
        """The inverse of `to_json`. Raises ValueError naming the field that is wrong."""
        _check_fields(cls, record)
        try:
            parts = tuple(tuple(tuple(float(v) for v in point) for point in part) for part in record["parts"])
        except (TypeError, ValueError):
            raise ValueError(f"Region's field 'parts' is not a list of lists of points: {record['parts']!r}") from None
        span = record.get("span")
        if span is not None and (len(span) != 2 or not all(isinstance(end, int) for end in span)):
            raise ValueError(f"Region's field 'span' is not two whole numbers: {span!r}")
        return cls(**{**record, "parts": parts, "span": None if span is None else (span[0], span[1])})


@dataclass(frozen=True, slots=True)
class Annotation:
    """One answer to one task about one input: text, regions, or both."""

    task: str
    """The task's token, as "<OD>"; a free prompt stands here as it was asked."""
    text: str = ""
    regions: tuple[Region, ...] = ()
    query: str | Region | None = None
    """The phrase or region that was asked about."""
    source: str = ""
    """Who said it: "human", "detector@1.2", "open-florence-tiny@round-2"."""
    round: int = 0
    score: float | None = None
    complete: bool = True
    """False when generation stopped at its limit or part of the answer could not be read."""
    dropped: int = 0
    """How many location tokens of the answer belonged to nothing and were thrown away."""

    def to_json(self) -> dict[str, Any]:
        """A dict of plain lists, numbers and strings; fields at their default are left out."""
        record = _plain(self)
        if self.regions:
            record["regions"] = [region.to_json() for region in self.regions]
        if isinstance(self.query, Region):
            record["query"] = self.query.to_json()
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Annotation:
        """The inverse of `to_json`. Raises ValueError naming the field that is wrong."""
        _check_fields(cls, record)
        query = record.get("query")
        return cls(
            **{
                **record,
                "regions": tuple(Region.from_json(region) for region in record.get("regions", ())),
                "query": Region.from_json(query) if isinstance(query, dict) else query,
            }
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """One input and everything said about it."""

    id: str
    """Content hash of the pixels, so that a renamed or re-downloaded file is the same sample."""
    path: str
    size: Size
    annotations: tuple[Annotation, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A dict of plain lists, numbers and strings: one line of our JSONL."""
        record = _plain(self)
        record["annotations"] = [annotation.to_json() for annotation in self.annotations]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Sample:
        """The inverse of `to_json`. Raises ValueError naming the field that is wrong."""
        _check_fields(cls, record)
        annotations = tuple(Annotation.from_json(annotation) for annotation in record.get("annotations", ()))
        try:
            size = tuple(float(v) for v in record["size"])
        except (TypeError, ValueError):
            raise ValueError(f"Sample's field 'size' is not a list of numbers: {record['size']!r}") from None
        return cls(record["id"], record["path"], size, annotations)


def _plain(value: Region | Annotation | Sample) -> dict[str, Any]:
    """The fields that differ from their default (those without a default always), tuples left for JSON to write."""
    return {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}


_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "Kind": (str,),
    "int": (int,),
    "bool": (bool,),
    "float | None": (int, float, type(None)),
    "str | Region | None": (str, dict, type(None)),
    "tuple[int, int] | None": (list, tuple, type(None)),
}
"""What JSON holds for a field of each type; any other is a tuple, which is a list there."""


def _check_fields(cls: type[Region] | type[Annotation] | type[Sample], record: dict[str, Any]) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{cls.__name__} is a JSON object, not {record!r}")
    names = {f.name for f in fields(cls)}
    required = {"Region": {"kind", "parts"}, "Annotation": {"task"}, "Sample": {"id", "path", "size"}}[cls.__name__]
    if missing := required - record.keys():
        raise ValueError(f"{cls.__name__} lacks the field {sorted(missing)[0]!r}")
    if unknown := record.keys() - names:
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}")
    for f in fields(cls):
        if f.name in record and not isinstance(record[f.name], _JSON_TYPES.get(str(f.type), (list, tuple))):
            raise ValueError(f"{cls.__name__}'s field {f.name!r} is not {f.type}: {record[f.name]!r}")
