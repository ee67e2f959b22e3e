"""A checkpoint in the form of another engine, with a comparison of the two at the end.

| file | what is in it |
|---|---|
| `onnx.py` | the files that onnx-community publishes and transformers.js reads |
| `graphs.py` | the parts of the model as functions of tensors, their names and axes |
| `merge.py` | both steps of the decoder as one ONNX file |
| `precision.py` | ONNX files in float16 and int8 |
| `openvino.py` | the graphs that OpenVINO reads |
| `settings.py` | the JSON files beside them |
| `parity.py` | the files run beside the model |

A new format is a function and a row in `FORMATS`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from open_florence.errors import OpenFlorenceError

if TYPE_CHECKING:
    from open_florence.export.parity import Parity
    from open_florence.model.florence import Florence
    from open_florence.processor import Processor

__all__ = ["DTYPES", "FORMATS", "export_model"]

Exporter = Callable[["Florence", "Processor", Path, Sequence[str]], "list[Parity]"]
"""Writes a model (float32, CPU) into an empty folder in some dtypes, and says how far each is from it."""

DTYPES = ("float32", "float16", "int8")
"""Number formats of the weights that are written."""


def _onnx() -> Exporter:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise OpenFlorenceError("ONNX files need the extra `onnx`: pip install 'open-florence[onnx]'") from error
    from open_florence.export.onnx import export_onnx

    return export_onnx


def _openvino() -> Exporter:
    from open_florence.export.openvino import export_openvino
    from open_florence.inference.openvino_graphs import need_openvino

    need_openvino()
    return export_openvino


FORMATS: dict[str, Callable[[], Exporter]] = {"onnx": _onnx, "openvino": _openvino}
"""Name to a function that finds the exporter, importing what it needs; OpenFlorenceError where that is missing."""


def export_model(
    name_or_folder: str | Path, out: str | Path, format: str = "onnx", dtypes: Sequence[str] = ("float32",)
) -> list[Parity]:
    """Writes a checkpoint into the folder `out` in another engine's format, and runs it beside the model.

    `name_or_folder` as in `load_model`; its calibration.json, where there is one, comes along. `out` must not exist, or
    be empty; it is there, whole, when every dtype's files agree with the model (`Parity.good`), and not at all
    otherwise. Returns one `Parity` per dtype. Raises OpenFlorenceError for an unknown format or dtype, an extra that is
    not installed, a model that cannot be had, and a folder that holds something or cannot be written.
    """
    from open_florence.inference.calibration import Calibration
    from open_florence.inference.pretrained import find_folder, load_model

    out = Path(out)
    if format not in FORMATS:
        raise OpenFlorenceError(f"a model is exported as {' or '.join(FORMATS)}, not as {format!r}")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise OpenFlorenceError(f"exported weights are {', '.join(DTYPES)}, not {dtype!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OpenFlorenceError(f"{out} exists and is not an empty folder: choose another")
    exporter = FORMATS[format]()
    checkpoint = find_folder(name_or_folder)
    model, processor = load_model(checkpoint)
    calibration = Calibration.load(checkpoint)
    staging = out.with_name(f".{out.name}.exporting")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
        staging.mkdir(parents=True)
        found = exporter(model, processor, staging, tuple(dict.fromkeys(dtypes)))
        if calibration is not None:
            calibration.save(staging)
        if all(parity.good for parity in found):
            if out.exists():
                out.rmdir()
            staging.rename(out)
    except OSError as error:
        raise OpenFlorenceError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return found
