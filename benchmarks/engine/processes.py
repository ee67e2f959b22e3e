"""What a process and those it starts use of memory and processor, looked at from outside, through Linux's /proc."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Used:
    """What a part of a run has used."""

    seconds: float = 0.0
    own: float = 0.0
    """Seconds of a processor in the process itself."""
    children: float = 0.0
    """Seconds of a processor in those that it started, and that they started."""
    own_peak: int = 0
    """Resident bytes of the process, at most."""
    children_peak: int = 0
    """Resident bytes of the others together, at most. Memory that they share counts in each."""


@dataclass
class Usage:
    """What a run has used, by its parts; as JSON it can be put away and gone on with."""

    parts: dict[str, Used] = field(default_factory=dict)
    _last: tuple[float, float, float] | None = None

    def look(self, pid: int, part: str, now: float) -> None:
        """Adds to `part` what was used since the last look. The process has ended: nothing is added."""
        seen = _look(pid)
        if seen is None:
            return
        own, children, own_memory, children_memory = seen
        used = self.parts.setdefault(part, Used())
        if self._last is not None:
            before = self._last
            used.seconds += now - before[0]
            used.own += max(own - before[1], 0.0)
            used.children += max(children - before[2], 0.0)
        self._last = now, own, children
        used.own_peak = max(used.own_peak, own_memory)
        used.children_peak = max(used.children_peak, children_memory)

    def to_json(self) -> dict[str, dict[str, float]]:
        """Plain numbers by part and name."""
        return {name: asdict(used) for name, used in self.parts.items()}

    @classmethod
    def from_json(cls, record: dict[str, dict[str, float]]) -> Usage:
        """The inverse of `to_json`."""
        return cls({name: Used(**one) for name, one in record.items()})  # type: ignore[arg-type]


def _look(pid: int) -> tuple[float, float, int, int] | None:
    """(processor seconds of the process, of its children, resident bytes of the process, of its children)."""
    told = {number: told for number in _numbers() if (told := _stat(number)) is not None}
    if pid not in told:
        return None
    family, children = {pid}, 0.0
    while more := {number for number, one in told.items() if one[0] in family} - family:
        family |= more
    family.discard(pid)
    children = told[pid][2] + sum(told[number][1] + told[number][2] for number in family)
    return told[pid][1], children, told[pid][3], sum(told[number][3] for number in family)


def _numbers() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> tuple[int, float, float, int] | None:
    """(parent, processor seconds, those of children that have ended, resident bytes); None when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    own, ended = (sum(map(int, fields[k : k + 2])) / TICKS for k in (11, 13))
    return int(fields[1]), own, ended, int(fields[21]) * PAGE
