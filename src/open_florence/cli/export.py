"""`open-florence export`: a checkpoint in the form of another engine."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """Engines that a checkpoint is written for."""

    ONNX = "onnx"
    OPENVINO = "openvino"


class ExportDType(StrEnum):
    """Number formats of the weights in the files."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


def export(
    checkpoint: Annotated[str, typer.Argument(help="tiny, a folder, or a name on the hub.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; it must not exist or be empty.")],
    format: Annotated[
        Format,
        typer.Option("--format", "-f", help="onnx: for ONNX Runtime and transformers.js; openvino: for OpenVINO."),
    ] = Format.ONNX,
    dtype: Annotated[
        list[ExportDType] | None,
        typer.Option("--dtype", help="Number format of the weights, float32 unless given; repeat it to write several."),
    ] = None,
) -> None:
    """Write a checkpoint for another engine, run it beside the model, and print how far the two are apart.

    The folder is there only if they agree; if they do not, the exit code is 1.
    """
    from open_florence.export import export_model

    found = export_model(checkpoint, out, format.value, [kind.value for kind in dtype or [ExportDType.FLOAT32]])
    for parity in found:
        print(parity)
    if wrong := [parity.dtype for parity in found if not parity.good]:
        print(
            f"open-florence: nothing was written to {out}, for in {' and '.join(wrong)} the files are further from the "
            "model than is allowed",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    print(f"{out} holds {checkpoint} for {format.value}")
