"""The folder of an ONNX export: which files it holds, in which number formats, and what its config.json says."""

from __future__ import annotations

import json
from pathlib import Path

from open_florence.errors import OpenFlorenceError
from open_florence.model.config import ConfigError, FlorenceConfig

PARTS = ("vision_encoder", "embed_tokens", "encoder_model", "decoder_model_merged")
"""The files that are read, in the order in which an answer needs them; others may stand beside them."""

FORMATS = {"float32": "", "float16": "_fp16", "int8": "_quantized"}
"""Number format of the weights -> how its files' names end."""

WEIGHTS = ("*.safetensors", "*.bin")
"""What a checkpoint for PyTorch has."""


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds an ONNX export, and no weights that PyTorch would read."""
    folder = Path(folder).expanduser()
    return any(_has(folder, name) for name in FORMATS) and not any(any(folder.glob(kind)) for kind in WEIGHTS)


def part_path(folder: Path, part: str, name: str) -> Path:
    """Where one of PARTS stands in a number format."""
    return folder / "onnx" / f"{part}{FORMATS[name]}.onnx"


def find_format(folder: Path, dtype: str | None) -> str:
    """The number format asked for, or the first that is there. Raises OpenFlorenceError where it is not."""
    if not folder.is_dir():
        raise OpenFlorenceError(f"there is no folder {folder}")
    if dtype is not None and dtype not in FORMATS:
        raise OpenFlorenceError(f"the dtype of an export is one of {', '.join(FORMATS)}, not {dtype}")
    found = [name for name in FORMATS if _has(folder, name)]
    if not found:
        files = ", ".join(f"{part}.onnx" for part in PARTS)
        raise OpenFlorenceError(
            f"{folder} holds no ONNX export, which has a folder onnx with {files}: "
            "`open-florence export --format onnx` writes one"
        )
    if dtype is not None and dtype not in found:
        raise OpenFlorenceError(f"the export in {folder} is in {' and '.join(found)}, not in {dtype}")
    return dtype or found[0]


def read_config(folder: Path) -> FlorenceConfig:
    """What config.json says, in either published layout. Raises OpenFlorenceError, naming the file."""
    path = folder / "config.json"
    try:
        return FlorenceConfig.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise OpenFlorenceError(f"{folder} holds no config.json") from None
    except ConfigError as error:
        raise OpenFlorenceError(f"{path}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise OpenFlorenceError(f"{path} is damaged, or not a Florence-2's") from error


def _has(folder: Path, name: str) -> bool:
    return all(part_path(folder, part, name).is_file() for part in PARTS)
