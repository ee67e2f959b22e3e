"""Models by name: the one that ships with the package, a folder, or a repository of the Hugging Face hub.

Weights, configuration and tokenizer are read; code that stands beside them is neither downloaded nor run.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.inference.calibration import NAME as CALIBRATION
from open_florence.inference.calibration import Calibration
from open_florence.model.adapter import CONFIG_NAME, base_of, merge_adapter
from open_florence.model.checkpoint import STEM, CheckpointError, Format, read_weights, write_weights
from open_florence.model.config import LAYOUTS, FlorenceConfig, Layout
from open_florence.model.florence import Florence
from open_florence.model.packed import PackedLinear
from open_florence.processor import Processor

SHIPPED = Path(__file__).parents[1] / "checkpoints"
"""Folders of the checkpoints inside the package; a model name without a slash is one of theirs."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SETTINGS = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    CONFIG_NAME,
    CALIBRATION,
)
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")
WEIGHTS = (("*.safetensors", "*.safetensors.index.json"), ("*.bin", "*.bin.index.json"))
"""Kinds of weights in the order they are wanted; the second is downloaded only where the first is not there."""

STAGING = ".saving"
"""Where a checkpoint stands, inside its folder, until all of it is written."""


def load_model(
    name_or_folder: str | Path,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
) -> tuple[Florence, Processor]:
    """A model ready for inference, and the processor that goes with it.

    `name_or_folder` is "tiny" (ships with the package), a folder in either published layout, a folder with a PEFT LoRA
    adapter (merged into the model it names), or the hub name of either. `dtype` is float32 unless given, whatever the
    file's; "auto" is bfloat16 where the device computes in it. `device` is the CPU unless given. Raises
    OpenFlorenceError for a name that leads nowhere, no network, a folder without a model, float16 on a CPU, an absent
    device.
    """
    kind, place = format_and_place(dtype, device)
    folder = find_folder(name_or_folder)
    try:
        config, state, processor = _read(folder)
    except CheckpointError as error:
        raise OpenFlorenceError(str(error)) from error
    if len(processor.tokenizer) > config.text.vocab_size + 1:  # one more: an image placeholder no answer holds
        raise OpenFlorenceError(
            f"the tokenizer of {folder} has {len(processor.tokenizer)} tokens but its model only "
            f"{config.text.vocab_size}"
        )
    return build(config, state, kind, place), processor


def save_model(
    model: Florence,
    processor: Processor,
    folder: str | Path,
    layout: Layout = "native",
    dtype: torch.dtype | None = None,
    file_format: Format = "safetensors",
    calibration: Calibration | None = None,
) -> None:
    """Write weights, configuration and tokenizer so that `load_model`, and the published code of `layout`, read them.

    "native" is what transformers' own Florence-2 class reads, "microsoft" what the remote code of microsoft/Florence-2
    does. `dtype` is that of the file, the model's own unless given. `calibration` has to be of these very weights;
    without one a calibration.json that is there goes, for it is of others.

    A checkpoint that the folder holds already is replaced when the new one is on the disk, file by file and each at
    once: a process killed before that leaves the old one as it was. It takes the disk space of both.

    Raises OpenFlorenceError for an unknown layout, a model to which adapters or other training parts are attached, or a
    folder that cannot be written.
    """
    config = model.config
    if layout not in LAYOUTS:
        raise OpenFlorenceError(f"a layout is one of {', '.join(LAYOUTS)}, not {layout!r}")
    if layout == "native" and config.image_token_id is None:
        # transformers gives the placeholder the first id its tokenizer has free
        config = replace(config, image_token_id=processor.tokenizer.image_token_id or len(processor.tokenizer))
    config = replace(config, image_size=processor.image_size)
    if any(isinstance(module, PackedLinear) for module in model.modules()):
        raise OpenFlorenceError("the model was laid out for answering, as a Predictor's is: save that of `load_model`")
    state = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in model.state_dict().items()}
    if attached := [name for name in state if ".lora_" in name or ".parametrizations." in name]:
        raise OpenFlorenceError(
            f"the model still has parts that are for training only ({attached[0]}): merge them first"
        )
    staging = Path(folder) / STAGING
    try:
        if staging.is_dir():  # of a process that was killed
            shutil.rmtree(staging)
        write_weights(staging, config, state, layout, file_format)
        processor.save(staging)
        if calibration is not None:
            calibration.save(staging)
        _replace_checkpoint(Path(folder), staging)
    except OSError as error:
        raise OpenFlorenceError(f"the model cannot be written to {folder}: {error.strerror or error}") from error


def _replace_checkpoint(folder: Path, staging: Path) -> None:
    """Moves a whole checkpoint to where it belongs, in an order in which a reader always finds one set of weights."""
    new = sorted(staging.iterdir(), key=lambda path: (path.name == CALIBRATION, path.name.endswith(".index.json")))
    for path in new:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    (folder / CALIBRATION).unlink(missing_ok=True)
    for path in new:
        os.replace(path, folder / path.name)
    names = {path.name for path in new}
    old = [*folder.glob(f"{STEM['safetensors']}*.safetensors*"), *folder.glob(f"{STEM['bin']}*.bin*")]
    for path in sorted(old, key=lambda path: not path.name.endswith(".index.json")):
        if path.name not in names:
            path.unlink()
    staging.rmdir()


def build(
    config: FlorenceConfig, state: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Florence:
    """A model in evaluation mode around weights (our names), without ever making random ones."""
    with torch.device("meta"):
        model = Florence(config)
    model.load_state_dict({name: tensor.to(device, dtype) for name, tensor in state.items()}, assign=True)
    return model.eval()


def find_folder(name_or_folder: str | Path) -> Path:
    """The local folder of a model, downloaded first if its name is one of the hub's. Raises OpenFlorenceError."""
    name = str(name_or_folder)
    if re.fullmatch(r"[\w-]+", name) and (SHIPPED / name).is_dir():
        return SHIPPED / name
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if name and path.exists():
        raise OpenFlorenceError(f"{name} is a file: name the folder that holds the model")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name):
        return _download(name)
    raise OpenFlorenceError(
        f"there is no model {name!r}: name a folder, tiny, or a hub repository such as microsoft/Florence-2-base"
    )


def _read(folder: Path) -> tuple[FlorenceConfig, dict[str, Tensor], Processor]:
    adapted = (folder / CONFIG_NAME).is_file() and not (folder / "config.json").is_file()
    if not adapted:
        config, state = read_weights(folder)
        return config, state, Processor.from_folder(folder)
    base = find_folder(base_of(folder))
    if not (base / "config.json").is_file():
        raise OpenFlorenceError(f"the adapter in {folder} names {base}, which holds no model")
    config, state = merge_adapter(folder, *read_weights(base))
    own = any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json"))
    return config, state, Processor.from_folder(folder if own else base)


def _download(name: str) -> Path:
    import huggingface_hub  # only here: importing it takes longer than loading a small model
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        for kind in WEIGHTS:
            wanted = [*SETTINGS, *TOKENIZER, *kind]
            # "*/*": what stands in a subfolder is no part of the model
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*"]))
            if any(folder.glob(kind[0])):
                break
        return folder
    except RepositoryNotFoundError as error:
        raise OpenFlorenceError(f"there is no model {name} on the hub, or it is not public") from error
    except HFValidationError as error:
        raise OpenFlorenceError(f"{name} is not a name the hub could have") from error
    except HfHubHTTPError as error:
        raise OpenFlorenceError(f"the hub refused to give {name}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # without a network the exception is that of the HTTP library of the day
        raise OpenFlorenceError(
            f"{name} is not on this machine and the hub cannot be reached to download it"
        ) from error


def format_and_place(
    dtype: torch.dtype | str | None, device: torch.device | str | None
) -> tuple[torch.dtype, torch.device]:
    """What is asked for, float32 and the CPU unless given; raises OpenFlorenceError for what cannot be had.

    "auto" is bfloat16 where the device computes in it, and float32 elsewhere.
    """
    place = _device(device)
    kind = _fastest(place) if dtype == "auto" else _dtype(dtype)
    if kind == torch.float16 and place.type == "cpu":
        raise OpenFlorenceError("float16 is many times slower than float32 on a CPU: ask for bfloat16 or float32")
    return kind, place


def _fastest(place: torch.device) -> torch.dtype:
    if place.type == "cpu":
        able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return torch.bfloat16 if any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")) else torch.float32
    return torch.bfloat16 if place.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    found = DTYPES.get(str(dtype).removeprefix("torch."))
    if found is None:
        raise OpenFlorenceError(f"a model's dtype is one of auto, {', '.join(DTYPES)}, not {dtype}")
    return found


def _device(device: torch.device | str | None) -> torch.device:
    try:
        place = torch.device("cpu" if device is None else device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch built without that device
        raise OpenFlorenceError(f"there is no device {device} here") from error
    return place
