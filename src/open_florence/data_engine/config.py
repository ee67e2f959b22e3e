"""What the engine does with a folder of images, as one file: LABELS/engine.toml.

Every field is checked before anything is loaded, and a mistake is named by the table and the field it is in. Paths are
taken from the folder the file is in. Tables that name a part (`[[specialist]]`, `[[filter]]`, `[[enhance]]`) take the
options of that part besides the fields here.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from open_florence.errors import OpenFlorenceError
from open_florence.tasks import find_task

NAME = "engine.toml"

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A table of the file; a field it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(BaseModel):
    """A table that names a part of the engine; the fields it does not know are that part's options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, Field(min_length=1)]

    @property
    def options(self) -> dict[str, Any]:
        """What the part itself is told."""
        return dict(self.model_extra or {})


class SpecialistConfig(Part):
    """Who annotates; `name` is a row of `SPECIALISTS` or a third party's entry point."""

    isolate: bool = True
    """In a process of its own, which may hang or die without harm to the run."""
    timeout: Positive | None = 600.0
    """Seconds that a batch may take; then the process is ended and each image of the batch tried alone."""
    batch: Count = 16
    """Images it is handed at a time."""

    @model_validator(mode="after")
    def _can_be_stopped(self) -> SpecialistConfig:
        if not self.isolate and self.timeout is not None and "timeout" in self.model_fields_set:
            raise ValueError("a timeout needs isolate = true: only a process of its own can be stopped")
        return self


class FusionConfig(Strict):
    """How boxes of several sources become one."""

    keep: Share = 0.5
    """The least probability of being something."""
    images: Count = 5000
    """Images from which it is learnt how far each source can be believed, at most."""
    audited: bool = False
    """Whether the truth of the audit split counts in that, too. It is the only thing the split is ever used for besides
    judging, makes what the audit says a little too good, and helps where one source has nobody to be compared with."""


class TrainConfig(Strict):
    """How the student is trained in each round."""

    model: str = "tiny"
    """The model of the first round, and of every round where `start` is "base"."""
    start: Literal["base", "last"] = "base"
    """Whether a round starts from `model` or from the last promoted checkpoint."""
    tasks: tuple[str, ...] = ()
    """What is learnt; the tasks of the file unless given."""
    steps: Count = 1500
    batch_size: Count = 6
    image_size: Annotated[int, Field(ge=32)] | None = None
    learning_rate: Positive | None = None
    any_way_up: bool = False
    """Images have no up and down."""
    views: Literal[1, 2, 8] = 1
    """In how many views of an image the student's boxes have to agree when it annotates."""
    rare: Share = 0.1
    """A class on a smaller share of the images is drawn more often; 0 draws all images alike."""
    seed: int = 0
    device: str | None = None
    timeout: Positive | None = 3600.0
    """Seconds that a batch may take when the student annotates."""
    batch: Count = 16

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return _tokens(tasks)


class AuditConfig(Strict):
    """The images whose truth is known and that nothing is ever trained on."""

    labels: str | None = None
    """Human labels in any format `open-florence data` reads; without them a round is promoted without evidence."""
    images: Count = 100
    """How many of them make up the split, at most."""
    seed: int = 0
    near: Annotated[int, Field(ge=0, le=64)] = 6
    """Images within so many bits of the perceptual hash of one of them are near-duplicates and not trained on."""


class EngineConfig(Strict):
    """The whole file."""

    images: Annotated[tuple[str, ...], Field(min_length=1)]
    """Folders, files, http(s) addresses, and .txt files that hold one of these a line."""
    take_in: bool = False
    """Copy the images' bytes into the store; otherwise they stay where they are."""
    near_duplicates: Annotated[int, Field(ge=0, le=64)] | None = None
    """Images within so many bits of the perceptual hash of an earlier one are set aside; None keeps them."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("<OD>", "<CAPTION>")
    """What the labels are to answer."""
    shard: Count = 64
    """Images a shard: what is lost at most when the run is killed."""
    specialist: tuple[SpecialistConfig, ...] = ()
    filter: tuple[Part, ...] = ()
    fusion: FusionConfig = FusionConfig()
    enhance: tuple[Part, ...] = ()
    train: TrainConfig | None = None
    """None: nothing is trained, and a round's labels are the specialists'."""
    audit: AuditConfig = AuditConfig()
    guard: dict[str, Any] = {}
    """What keeps a round from being promoted; see `guards`."""

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return _tokens(tasks)

    @model_validator(mode="after")
    def _somebody_annotates(self) -> EngineConfig:
        if not self.specialist and self.train is None:
            raise ValueError("there is no [[specialist]] and no [train]: nobody would annotate")
        return self


def read_config(folder: Path) -> EngineConfig:
    """The configuration in LABELS/engine.toml. Raises OpenFlorenceError naming every field that is wrong."""
    path = folder / NAME
    try:
        record = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise OpenFlorenceError(f"{folder} holds no {NAME}: begin with open-florence engine init {folder}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OpenFlorenceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise OpenFlorenceError(f"{path} is not TOML: {error}") from None
    try:
        return EngineConfig.model_validate(record)
    except ValidationError as error:
        wrong = [f"{_place(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()]
        raise OpenFlorenceError(f"{path}: {'; '.join(wrong)}") from None


def resolve(folder: Path, value: str) -> str:
    """A path as written in the file -> from anywhere; addresses are left as they are."""
    return value if "://" in value else str((folder / Path(value).expanduser()).absolute())


def resolve_options(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Options in which a text with a separator or a suffix, naming what is there, is a path from anywhere."""

    def found(value: Any) -> Any:
        if not isinstance(value, str) or "://" in value or not ("/" in value or Path(value).suffix):
            return value
        place = folder / Path(value).expanduser()
        return str(place.absolute()) if place.exists() else value

    return {name: found(value) for name, value in options.items()}


def plain(config: BaseModel) -> Any:
    """A table as JSON holds it, so that two can be compared across files."""
    return json.loads(config.model_dump_json())


def _tokens(tasks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(find_task(name).token for name in tasks))
    except OpenFlorenceError as error:
        raise ValueError(str(error)) from None


def _place(location: tuple[int | str, ...]) -> str:
    """("specialist", 0, "timeout") -> "specialist 1, timeout"."""
    words: list[str] = []
    for part in location:
        if isinstance(part, int) and words:
            words[-1] += f" {part + 1}"
        else:
            words.append(str(part))
    return ", ".join(words) or "the file"
