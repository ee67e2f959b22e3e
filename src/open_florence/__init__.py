"""OpenFlorence: the open Florence-2, which describes images, finds what is in them, and says where.

    import open_florence as of
    predictor = of.Predictor.from_pretrained("tiny")
    annotation = predictor.predict("photo.jpg", "<OD>")

The names that are public, and stay:

- `Predictor`: a model ready to answer
- `Sample`, `Annotation`, `Region`: an image and what is said about it
- `TASKS`: everything that can be asked; `TASKS["<OD>"].grammar` writes and parses the answers
- `load_model`, `save_model`: checkpoints in both published layouts
- `read`, `write`: samples from files and to files

What needs torch is imported when it is first used, so that importing the package is quick.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from open_florence.schema import Annotation, Region, Sample

# Threads that spin while they wait make a small model 50 times slower on a computer that is doing something else as
# well. Read when PyTorch is loaded, which has to be later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from open_florence.data import read, write
    from open_florence.inference.predictor import Predictor
    from open_florence.inference.pretrained import load_model, save_model
    from open_florence.tasks import TASKS

__all__ = [
    "TASKS",
    "Annotation",
    "Predictor",
    "Region",
    "Sample",
    "load_model",
    "read",
    "save_model",
    "write",
]

_HOMES = {
    "Predictor": "open_florence.inference.predictor",
    "TASKS": "open_florence.tasks",
    "load_model": "open_florence.inference.pretrained",
    "save_model": "open_florence.inference.pretrained",
    "read": "open_florence.data",
    "write": "open_florence.data",
}


def __getattr__(name: str) -> Any:
    """A public name from its home, the first time it is asked for (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("open-florence")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
