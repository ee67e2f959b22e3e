"""Specialists for tests of the engine, in a module of their own so that a process of theirs can import it."""

import os
import signal
import subprocess
import time
from pathlib import Path

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
