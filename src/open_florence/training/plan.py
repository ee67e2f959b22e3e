"""A run as data: stages with their own image size, task mixture, data, steps and learning rate, read from one TOML.

The paper trains in stages (384 px, then 768 px; appendix E.1) and mixes granularities (section 4.4); here that is a
list. Every field is checked before anything is loaded, and a mistake is named by the stage and the field it is in.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from open_florence.errors import OpenFlorenceError
from open_florence.scenes.config import SceneConfig
from open_florence.tasks import find_task
from open_florence.training.config import TrainConfig

Level = Literal["image", "region", "pixel"]

LEVELS: dict[Level, tuple[str, ...]] = {
    "image": ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>"),
    "region": (
        "<OD>",
        "<REGION_PROPOSAL>",
        "<DENSE_REGION_CAPTION>",
        "<REGION_TO_CATEGORY>",
        "<REGION_TO_DESCRIPTION>",
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "<OPEN_VOCABULARY_DETECTION>",
    ),
    "pixel": ("<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>"),
}
"""The granularities of the paper's section 4.4; printed words and questions are outside of them."""

SCENES = "scenes"
"""The source of generated scenes, which never run out."""

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """A table of the file; a field it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Strict):
    """Where images come from."""

    source: str
    """"scenes", or a path that `open_florence.read` reads."""
    weight: Positive = 1.0
    """How often it is drawn from, relative to the stage's other sources."""
    augment: bool = True
    """Crops and mirroring where the annotations allow it, and another light; never on scenes."""
    any_way_up: bool = False
    """Images have no up and down: rotations by 90 degrees as well."""
    scenes: SceneConfig = SceneConfig()
    """The knobs of the scenes; their size is the stage's."""


class StageConfig(Strict):
    """One stage."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    objective: Literal["sequence", "dense", "contrastive"] = "sequence"
    """The paper's one loss over all tasks; dense heads on the tower alone; UniCL on the tower and a text encoder."""
    data: Annotated[tuple[DataConfig, ...], Field(min_length=1)]
    tasks: dict[str, Positive] = {}
    """The mixture: task, in any spelling, to weight."""
    levels: dict[Level, Positive] = {}
    """The mixture by granularity: the weight of a level is shared evenly by its tasks, and added to `tasks`."""
    image_size: Annotated[int, Field(ge=32)] | None = None
    """Pixels a side; that of the model or of the stage before unless given."""
    batch_size: Count = 6
    targets_per_image: Count = 4
    max_target: Count = 300
    """Longest target in tokens; longer ones are left out and counted."""
    soft_locations: bool = True
    """The aids for coordinates, a location table with a smooth part; soft targets are `train.sigma`."""
    dense_heads: bool = False
    """Keep the dense heads' loss beside the sequences (`train.dense_weight`); scenes only."""
    calibrate: bool = False
    """Set the projector from the tower's features before the stage: for a language model that knows nothing yet."""
    train: TrainConfig

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: dict[str, float]) -> dict[str, float]:
        try:
            return {find_task(name).token: weight for name, weight in tasks.items()}
        except OpenFlorenceError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _teaches(self) -> StageConfig:
        if self.objective != "dense" and not self.mixture:
            raise ValueError("the stage has neither tasks nor levels to learn")
        scenes = [data.source == SCENES for data in self.data]
        if (self.dense_heads or self.objective == "dense") and not all(scenes):
            raise ValueError("dense heads learn from scenes only, whose every pixel is known")
        return self

    @property
    def mixture(self) -> dict[str, float]:
        """Task token to weight."""
        weights = dict(self.tasks)
        for level, weight in self.levels.items():
            for task in LEVELS[level]:
                weights[task] = weights.get(task, 0.0) + weight / len(LEVELS[level])
        return weights


class EvaluationConfig(Strict):
    """What a stage is looked at with, every `train.evaluate_every` of its steps, and the run at its end."""

    data: str = "scenes:validation"
    """As `open-florence evaluate --data`."""
    limit: Count | None = 48
    tasks: tuple[str, ...] = ()
    """All of the data's unless given."""
    best: str | None = None
    """The figure by which the best weights of a stage are kept, as "od_ap50"; None keeps the last."""


class RunConfig(Strict):
    """A whole run."""

    model: str = "tiny"
    """What to start from: tiny, a folder, or a name on the hub."""
    from_scratch: bool = False
    """Only the model's shape and tokenizer, with random weights and without dropout where data never run out."""
    seed: int = 0
    stage: Annotated[tuple[StageConfig, ...], Field(min_length=1)]
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("stage")
    @classmethod
    def _apart(cls, stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
        names = [stage.name for stage in stages]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two stages are called {sorted(twice)[0]!r}")
        return stages


def read_plan(path: str | Path) -> RunConfig:
    """The run that a TOML file describes. Raises OpenFlorenceError naming every field that is wrong."""
    path = Path(path)
    try:
        record = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise OpenFlorenceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise OpenFlorenceError(f"{path} is not TOML: {error}") from None
    try:
        return RunConfig.model_validate(record)
    except ValidationError as error:
        found = [(e["loc"], e["msg"].removeprefix("Value error, ")) for e in error.errors()]
        # a list is also called too short when its only item is wrong
        own = [(at, why) for at, why in found if not any(at == other[: len(at)] != other for other, _ in found)]
        raise OpenFlorenceError(f"{path}: " + "; ".join(f"{_place(at)}: {why}" for at, why in own)) from None


def _place(location: tuple[int | str, ...]) -> str:
    """("stage", 0, "train", "steps") -> "stage 1, train, steps"."""
    words: list[str] = []
    for part in location:
        if isinstance(part, int) and words:
            words[-1] += f" {part + 1}"
        else:
            words.append(str(part))
    return ", ".join(words) or "the file"
