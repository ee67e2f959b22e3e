"""The model that a round trains, and that annotates from then on: as a trainer, and as a specialist like any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from open_florence.data_engine.audit.profile import STUDENT
from open_florence.data_engine.child import Make
from open_florence.data_engine.config import TrainConfig
from open_florence.data_engine.employed import Employed
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample
from open_florence.specialists import Specialist
from open_florence.tasks import TASKS


class Student(Protocol):
    """Who learns from a round's labels; anything with these two methods is one."""

    def train(
        self, samples: Sequence[Sample], weights: Sequence[float], folder: Path, checkpoint: Path, start: Path | None
    ) -> None:
        """Learns from the samples, drawn by their weights, and leaves what it learnt in the folder `checkpoint`.

        `folder` is for what it needs to go on after it was killed. `start`: the last promoted checkpoint, or None.
        """
        ...

    def specialist(self, checkpoint: Path) -> Employed:
        """The specialist that a checkpoint is."""
        ...


@dataclass(frozen=True)
class FlorenceStudent:
    """A checkpoint of ours or a published one, fine-tuned on the labels."""

    config: TrainConfig
    tasks: tuple[str, ...]
    """What it learns and answers, by token; tasks that nobody labelled are left out."""

    def train(
        self, samples: Sequence[Sample], weights: Sequence[float], folder: Path, checkpoint: Path, start: Path | None
    ) -> None:
        """Trains and saves. Raises OpenFlorenceError where nothing can be learnt."""
        from open_florence.inference.pretrained import load_model, save_model
        from open_florence.training.augment import Augmentation
        from open_florence.training.finetune import FinetuneConfig, finetune

        config = self.config
        found = Counter(annotation.task for sample in samples for annotation in sample.annotations)
        tasks = tuple(task for task in self.tasks if found[task])
        if not tasks:
            raise OpenFlorenceError(f"there is nothing to learn: no label answers {', '.join(self.tasks)}")
        model, processor = load_model(start if config.start == "last" and start else config.model, device=config.device)
        settings = FinetuneConfig(
            tasks=tasks,
            steps=config.steps,
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            image_size=config.image_size,
            augmentation=Augmentation(flip_vertical=config.any_way_up, transpose=config.any_way_up),
            seed=config.seed,
        )
        model, processor = finetune(model, processor, samples, folder, settings, weights=weights)
        save_model(model, processor, checkpoint)

    def specialist(self, checkpoint: Path) -> Employed:
        """The checkpoint, asked for those of the tasks that need no query."""
        from open_florence.specialists import load_specialist

        plain = [task for task in self.tasks if task not in TASKS or TASKS[task].query == "none"]
        options: dict[str, Any] = {"device": self.config.device} if self.config.device else {}
        options["views"] = self.config.views
        make = partial(load_specialist, "florence", model=str(checkpoint), tasks=plain, **options)
        return Employed(make, STUDENT, timeout=self.config.timeout, batch=self.config.batch)


class Graduate:
    """A student as a specialist: what it says has the source "student@round-001"."""

    name = STUDENT
    needs: tuple[str, ...] = ()

    def __init__(self, make: Make, round_name: str) -> None:
        """`make` loads it; `round_name` is the round that it was trained in."""
        self._model: Specialist = make()
        self.version = round_name
        self.tasks = tuple(self._model.tasks)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """What the model says."""
        return self._model.annotate(samples)


def graduate(student: Student, checkpoint: Path, round_name: str) -> Employed:
    """The student of a round as a specialist."""
    employed = student.specialist(checkpoint)
    return replace(employed, make=partial(Graduate, employed.make, round_name), name=f"{STUDENT}@{round_name}")
