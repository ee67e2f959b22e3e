"""What a step of the engine says about one annotation: kept or dropped, why, and what it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from open_florence.schema import Annotation


@dataclass(frozen=True, slots=True)
class Candidate:
    """An annotation with the id of its row in the store."""

    id: str
    annotation: Annotation


@dataclass(frozen=True, slots=True)
class Decision:
    """An annotation as a step leaves it; regions that are dropped stand in decisions of their own."""

    annotation: Annotation
    status: Literal["kept", "dropped"]
    reason: str = ""
    """One sentence a person can argue with; empty where there was nothing to decide."""
    parents: tuple[str, ...] = ()
    """The rows it was filtered, fused or refined from."""
