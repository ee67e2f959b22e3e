"""Many scenes, some files that are none, and an engine on them: what `throughput.py` measures, in a module that the
engine's processes can import.

Beside each scene lies a file with its truth, which the noisy detectors (`noise.py`) read: nobody holds that of all.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

from noise import NAMES, detectors
from PIL import Image

from open_florence.data_engine.audit.split import AuditSplit
from open_florence.data_engine.config import TrainConfig
from open_florence.data_engine.employed import Employed
from open_florence.data_engine.engine import Engine
from open_florence.data_engine.enhance import make_enhancers
from open_florence.data_engine.filters import make_filters
from open_florence.data_engine.ontology import Ontology, OntologyClass
from open_florence.data_engine.recipe import Recipe
from open_florence.data_engine.student import FlorenceStudent
from open_florence.scenes import SceneConfig, make_scene
from open_florence.schema import Annotation, Sample
from open_florence.specialists import load_specialist

SCENES = SceneConfig(size=128, zipf=1.5, text=0.0, crowd=0.0)
BROKEN = 100
"""One file in so many is none that can be read."""
TROUBLE = 1000
"""One image in so many ends the process of the third detector, and one makes it raise."""
AUDITED = 100
STEPS = 100
"""Of the student's training."""
TASK = "<OD>"
ONTOLOGY = Ontology(tuple(OntologyClass(NAMES[shape], (shape,)) for shape in NAMES))


def make_world(folder: Path, count: int) -> None:
    """`count` files, of which every `BROKEN`th cannot be read; those that are there already are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:06d}.png"
        if number % BROKEN == BROKEN // 2:
            _break(path, number // BROKEN)
        elif not path.exists():
            scene = make_scene(number, SCENES)
            boxes = next(a for a in scene.sample.annotations if a.task == TASK).regions
            truth = Annotation(TASK, regions=tuple(replace(r, label=NAMES[r.label]) for r in boxes), source="human")
            sample = replace(scene.sample, path=str(path), annotations=(truth,))
            path.with_suffix(".json").write_text(json.dumps(sample.to_json()))
            Image.fromarray(scene.image).save(path)


def truth_of(path: str | Path) -> Sample:
    """What is really on a scene."""
    return Sample.from_json(json.loads(Path(path).with_suffix(".json").read_bytes()))


class Noisy:
    """One of the three noisy detectors."""

    tasks, needs = (TASK,), ()

    def __init__(self, number: int, troubled: bool = False) -> None:
        """`troubled`: a few images, the same ones every time, make it raise or end its process."""
        self._number, self._troubled = number, troubled
        one = detectors((), seed=0)[number]
        self.name, self.version = one.name, one.version

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """What it finds."""
        for sample in samples if self._troubled else ():
            lot = int(sample.id[:8], 16) % TROUBLE
            if lot == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if lot == 1:
                raise RuntimeError("there is something about this image")
        known = [replace(sample, annotations=truth_of(sample.path).annotations) for sample in samples]
        return detectors(known, seed=0)[self._number].annotate(known)


def recipe(folder: Path, count: int, isolate: bool) -> Recipe:
    """The shipped checkpoint and three noisy detectors, the default filters and additions, a student of a few steps.

    With `isolate` every specialist has a process of its own, and the third detector has trouble with some images.
    """
    florence = partial(load_specialist, "florence", model="tiny", tasks=[TASK])
    others = [Employed(partial(Noisy, k, isolate and k == 2), isolate=isolate) for k in range(3)]
    student = FlorenceStudent if isolate else _Near
    good = [number for number in range(min(count, 5 * AUDITED)) if number % BROKEN != BROKEN // 2]
    audited = [truth_of(folder / "images" / f"{number:06d}.png") for number in good]
    return Recipe(
        specialists=[Employed(florence, "florence", isolate), *others],
        filters=make_filters([], ONTOLOGY),
        enhancers=make_enhancers([], ONTOLOGY, tasks=[TASK]),
        ontology=ONTOLOGY,
        student=student(TrainConfig(steps=STEPS, image_size=128), (TASK,)),
        split=AuditSplit.choose(audited, AUDITED).freeze(folder / "labels" / "audit"),
    )


class _Near(FlorenceStudent):
    """A student that annotates in the engine's process."""

    def specialist(self, checkpoint: Path) -> Employed:
        return replace(super().specialist(checkpoint), isolate=False)


def engine(folder: Path, count: int, isolate: bool = True) -> Engine:
    """The engine in FOLDER/labels on FOLDER/images."""
    return Engine(folder / "labels", recipe(folder, count, isolate), [str(folder / "images")], say=print)


def _break(path: Path, kind: int) -> None:
    """A file as image folders have them, of ten kinds."""
    buffer, jpeg = BytesIO(), BytesIO()
    picture = Image.effect_noise((64, 64), 50).convert("RGB")
    picture.save(buffer, "PNG")
    picture.save(jpeg, "JPEG")
    data = buffer.getvalue()
    contents = [
        b"",
        data[: len(data) // 2],
        jpeg.getvalue()[:200],
        b"this is no picture",
        b"<html></html>",
        data.replace(b"IDAT", b"IDAT\xff", 1),
        _sized(data, 0),
        _sized(data, 60_000),
        b"\xff\xd8\xff\xe0",
    ]
    if path.exists():
        return
    if kind % 10 < len(contents):
        path.write_bytes(contents[kind % 10])
    elif not path.is_symlink():
        path.symlink_to("gone.png")


def _sized(png: bytes, side: int) -> bytes:
    """The file of a picture that says it is `side` x `side` pixels."""
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
