"""What is written about a round beside the store: which images it has, how far it is, and how it ended.

    LABELS/rounds/001/images.txt      the ids of its images, sorted: fixed when the round begins
    LABELS/rounds/001/round.json      when it began, and with what
    LABELS/rounds/001/steps/*.json    for each step what it was told to do, and when it is finished what came of it
    LABELS/rounds/001/manifest.json   how the round ended; written last

Every file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from open_florence.data.jsonl import write_whole
from open_florence.errors import OpenFlorenceError

MANIFEST = "manifest.json"


class RoundFolder:
    """The files of one round."""

    def __init__(self, labels: Path, number: int) -> None:
        """`labels` is the engine's folder; rounds are counted from 1."""
        self.labels, self.number = labels, number
        self.path = labels / "rounds" / f"{number:03d}"

    @property
    def name(self) -> str:
        """ "round-001", as its tag and as the student's version."""
        return f"round-{self.number:03d}"

    @property
    def checkpoint(self) -> Path:
        """Where the model that it trained lies."""
        return self.path / "checkpoint"

    @property
    def has_begun(self) -> bool:
        """Whether its images are fixed."""
        return (self.path / "round.json").exists()

    def begin(self, images: Iterable[str], facts: Mapping[str, Any]) -> None:
        """Fixes its images and what it begins with; without effect on one that has begun."""
        if not self.has_begun:
            write_whole(self.path / "images.txt", (f"{image}\n".encode() for image in sorted(images)))
            self.write("round.json", {**facts, "date": now()})  # last: from here on it has begun

    def images(self) -> list[str]:
        """The ids of its images, sorted."""
        return (self.path / "images.txt").read_text("utf-8").split()

    def facts(self) -> dict[str, Any]:
        """What it began with."""
        return self.read("round.json") or {}

    def begin_step(self, step: str, settings: Mapping[str, Any]) -> None:
        """Notes what a step is told to do.

        Raises OpenFlorenceError when it was begun with something else: half a step of each would be neither.
        """
        plain = json.loads(json.dumps(settings))
        begun = self.read(f"steps/{step}.begun.json")
        if begun is None:
            self.write(f"steps/{step}.begun.json", plain)
        elif begun != plain:
            differing = next(name for name in [*plain, *begun] if begun.get(name) != plain.get(name))
            raise OpenFlorenceError(
                f"the step {step} of round {self.number} was begun with another {differing}: set it back in "
                "engine.toml, or close the round with --abandon and begin the next with the new one"
            )

    def finish_step(self, step: str, outcome: Mapping[str, Any]) -> None:
        """Notes that a step is done, and what came of it."""
        self.write(f"steps/{step}.json", {**outcome, "date": now()})

    def outcome(self, step: str) -> dict[str, Any] | None:
        """What came of a step; None while it is not finished."""
        outcome: dict[str, Any] | None = self.read(f"steps/{step}.json")
        return outcome

    def manifest(self) -> dict[str, Any] | None:
        """How the round ended; None while it has not."""
        manifest: dict[str, Any] | None = self.read(MANIFEST)
        return manifest

    def write(self, name: str, record: Any) -> None:
        """Writes a file of the round as JSON."""
        text = json.dumps(record, indent=1, ensure_ascii=False)
        write_whole(self.path / name, [text.encode("utf-8", "backslashreplace"), b"\n"])

    def read(self, name: str) -> Any:
        """What `write` wrote, None where there is nothing. Raises OpenFlorenceError for a damaged file."""
        path = self.path / name
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise OpenFlorenceError(f"{path} is damaged: {error}") from None


def rounds(labels: Path) -> list[RoundFolder]:
    """The rounds that have begun, in their order."""
    numbers = [int(path.name) for path in (labels / "rounds").glob("[0-9]*") if path.name.isdigit()]
    return [one for one in (RoundFolder(labels, number) for number in sorted(numbers)) if one.has_begun]


def now() -> str:
    """The time, as files here write it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
