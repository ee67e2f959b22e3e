"""Specialists for tests of the engine, in a module of their own so that a process of theirs can import it."""

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from open_florence.data_engine.employed import Employed
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample

SIZE = (100.0, 50.0)


def sample(name: str) -> Sample:
    return Sample(name, f"{name}.png", SIZE)


def box(*corners: float, **fields: object) -> Annotation:
    return Annotation("<OD>", regions=(Region.box(*corners, label="cat", score=0.5),), **fields)


class Troubled:
    """Does what the image's name says."""

    name, version, tasks, needs = "troubled", "1", ("<OD>",), ()

    def __init__(self, folder: str = "") -> None:
        self.folder = folder

    def annotate(self, samples):
        print("chatter on stdout")
        for one in samples:
            if one.id.startswith("raise"):
                raise RuntimeError("cannot\nlook")
            if one.id.startswith("hang"):
                subprocess.Popen(["sleep", "60"])
                time.sleep(60)
            if one.id.startswith("die"):
                os.kill(os.getpid(), signal.SIGKILL)
            if one.id.startswith("exit"):
                os._exit(7)
            if one.id.startswith("note"):
                Path(self.folder, str(os.getpid())).touch()
                time.sleep(60)
        if any(one.id.startswith("short") for one in samples):
            return []
        return [[box(-1e9, 0, 1, 1)] if one.id.startswith("far") else [box(1, 2, 3, 4)] for one in samples]


def unloadable():
    raise OpenFlorenceError("it needs a program that is not here")


def broken():
    raise ZeroDivisionError("on the way")


def dead():
    os._exit(3)


class Moody(Troubled):
    """Has trouble with four of the images of `make_images`, and answers about the others."""

    name = "moody"
    moods = {"003.png": "raise", "007.png": "hang", "011.png": "die", "015.png": "far"}  # noqa: RUF012

    def annotate(self, samples):
        return super().annotate([replace(one, id=self.moods.get(Path(one.path).name, "good")) for one in samples])


CLASSES = ("cat", "dog", "bird")


def make_images(folder: Path, count: int, side: int = 32) -> list[Path]:
    """Small pictures, each different from the others."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        blocks = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = folder / f"{number:03d}.png"
        Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST).save(path)
        paths.append(path)
    return paths


def true_regions(one: Sample) -> tuple[Region, ...]:
    """What is on a picture; nobody else would see it."""
    rng = random.Random(one.id)
    width, height = one.size
    regions = []
    for _ in range(rng.randint(1, 3)):
        x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
        label = rng.choice(CLASSES)
        regions.append(Region.box(x, y, x + width / 3, y + height / 3, label=label))
    return tuple(regions)


class Eye:
    """Finds most of what is there, and now and then what is not."""

    tasks, needs = ("<OD>",), ()

    def __init__(self, name: str = "eye", version: str = "1", misses: float = 0.1) -> None:
        self.name, self.version, self.misses = name, version, misses

    def annotate(self, samples):
        answers = []
        for one in samples:
            rng = random.Random(f"{one.id} {self.name} {self.version}")
            regions = [
                replace(_moved(region, rng), score=round(rng.uniform(0.5, 1.0), 3))
                for region in true_regions(one)
                if rng.random() >= self.misses
            ]
            if rng.random() < 0.2:
                regions.append(Region.box(0, 0, 5, 5, label="ghost", score=0.2))
            answers.append([Annotation("<OD>", regions=tuple(regions))])
        return answers


def _moved(region: Region, rng: random.Random) -> Region:
    points = tuple(tuple(value + rng.gauss(0, 0.3) for value in point) for point in region.parts[0])
    return replace(region, parts=(points,))


class Writer:
    """Writes about the labels it is shown."""

    name, version, tasks, needs = "writer", "1", ("<CAPTION>",), ("<OD>",)

    def annotate(self, samples):
        return [[Annotation("<CAPTION>", "A " + " and a ".join(self._names(one)) + ".")] for one in samples]

    def _names(self, one):
        return sorted(region.label for said in one.annotations for region in said.regions) or ["thing"]


class Pupil:
    """What the fake student has become: it sees as well as the labels it was trained on let it."""

    name, version, tasks, needs = "pupil", "1", ("<OD>",), ()

    def __init__(self, checkpoint: str) -> None:
        self.learnt = json.loads((Path(checkpoint) / "weights.json").read_bytes())["learnt"]

    def annotate(self, samples):
        return Eye("pupil", self.learnt, 0.05).annotate(samples)


class FakeStudent:
    """Learns a fingerprint of what it was shown, in a few steps that are saved as they are made."""

    def __init__(self, steps: int = 5, seconds: float = 0.0) -> None:
        self.steps, self.seconds = steps, seconds

    def train(self, samples, weights, folder, checkpoint, start):
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / "state.json"
        step, learnt = json.loads(state.read_bytes()) if state.exists() else (0, "")
        shown = json.dumps([[one.id, [a.to_json() for a in one.annotations]] for one in samples]) + str(weights)
        while step < self.steps:
            time.sleep(self.seconds)
            step, learnt = (
                step + 1,
                hashlib.sha256(f"{learnt} {step} {shown} {start and start.name}".encode()).hexdigest(),
            )
            (folder / "new.json").write_text(json.dumps([step, learnt]))
            os.replace(folder / "new.json", state)
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "weights.json").write_text(json.dumps({"learnt": learnt, "images": len(samples)}))

    def specialist(self, checkpoint):
        return Employed(partial(Pupil, str(checkpoint)), "pupil", isolate=False)


def employed(*specialists, **how) -> list[Employed]:
    """Specialists that run in the process of the test."""
    return [Employed(partial(_same, one), one.name, isolate=False, **how) for one in specialists]


def _same(one):
    return one
