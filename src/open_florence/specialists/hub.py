"""What the specialists from the Hugging Face hub share: finding a model, loading it, its version, and batches.

A model is a folder or the name of a repository on the hub. Only weights, configuration and vocabulary are read; code
that stands beside them is neither downloaded nor run.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_area, clip
from open_florence.images import open_image
from open_florence.inference.pretrained import format_and_place
from open_florence.schema import Region, Sample
from open_florence.specialists.versions import hash_of_files

SETTINGS = ("*.json", "*.txt", "*.model")
WEIGHTS = ("*.safetensors", "*.bin")
"""In the order they are wanted; the second is downloaded only where the first is not there."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A network ready for inference with what prepares its inputs."""

    network: Any
    processor: Any
    version: str
    """The model's name and, after a dash, the commit on the hub or a hash of the files in the folder."""
    batch_size: int = 8

    @property
    def kind(self) -> str:
        """The family by its name in the configuration, as "sam2"."""
        return str(self.network.config.model_type)

    def run(
        self, inputs: Sequence[Mapping[str, Tensor]], call: Callable[..., Mapping[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """What `call(**batch)` gives for each of the inputs, in their order, every tensor as (1, ...) on the CPU.

        Inputs are tensors (1, ...) of one image. Those of equal shapes go together, `batch_size` at a time: nothing is
        padded, so an answer does not depend on which images share its batch. Floating-point inputs are given the
        network's dtype, floating-point outputs come back as float32.
        """
        groups: dict[object, list[int]] = {}
        for index, one in enumerate(inputs):
            groups.setdefault(tuple(sorted((name, tensor.shape) for name, tensor in one.items())), []).append(index)
        answers: list[dict[str, Tensor]] = [{} for _ in inputs]
        batches = (
            group[start : start + self.batch_size]
            for group in groups.values()
            for start in range(0, len(group), self.batch_size)
        )
        for batch in batches:
            stacked = {name: self.place(torch.cat([inputs[i][name] for i in batch])) for name in inputs[batch[0]]}
            with torch.inference_mode():
                outputs = {name: back(tensor) for name, tensor in call(**stacked).items()}
            for row, index in enumerate(batch):
                answers[index] = {name: tensor[row : row + 1] for name, tensor in outputs.items()}
        return answers

    def place(self, tensor: Tensor) -> Tensor:
        """The tensor on the network's device, in its dtype where it holds floating-point numbers."""
        return tensor.to(self.network.device, self.network.dtype if tensor.is_floating_point() else tensor.dtype)


def back(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, floating-point numbers as float32."""
    return tensor.float().cpu() if tensor.is_floating_point() else tensor.cpu()


def load_hub_model(
    name: str | Path,
    network: str,
    processor: str = "AutoProcessor",
    *,
    kinds: Sequence[str] = (),
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 8,
) -> HubModel:
    """A model of the hub or of a folder, loaded by the classes of transformers called `network` and `processor`.

    `processor` may be empty. `kinds` are the families (model_type) that the caller can use, all where it is empty.
    Raises OpenFlorenceError when transformers is missing, the name leads nowhere, the hub cannot be reached, or the
    folder holds no such model.
    """
    try:
        import transformers
    except ImportError:
        raise OpenFlorenceError("models of the hub need transformers: pip install 'open-florence[hub]'") from None
    number, place = format_and_place(dtype, device)
    if batch_size < 1:
        raise OpenFlorenceError(f"the batch size is at least 1, not {batch_size}")
    folder = find_hub_folder(name)
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _silence(transformers):
            config = transformers.AutoConfig.from_pretrained(folder, **local)
            if kinds and config.model_type not in kinds:
                raise ValueError(f"it is of the kind {config.model_type}, not {' or '.join(kinds)}")
            loaded = getattr(transformers, network).from_pretrained(folder, dtype=number, **local)
            # Pillow, also where torchvision is installed: the same pixels, the same answers on every machine
            prepare = processor and getattr(transformers, processor).from_pretrained(folder, backend="pil", **local)
    except Exception as error:  # a library that is missing, a damaged file: transformers raises anything
        reason = " ".join(str(error).split())
        raise OpenFlorenceError(f"{name} cannot be loaded: {reason:.300}") from error
    return HubModel(loaded.eval().to(place), prepare or None, model_version(folder, name), batch_size)


def find_hub_folder(name: str | Path) -> Path:
    """The local folder of a model, downloaded first if its name is one of the hub's. Raises OpenFlorenceError."""
    path = Path(name).expanduser()
    if str(name) and path.is_dir():
        if not (path / "config.json").is_file():
            raise OpenFlorenceError(f"the folder {name} holds no model: it has no config.json")
        return path
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", str(name)):
        raise OpenFlorenceError(f"there is no model {str(name)!r}: name a folder or a repository of the hub")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        for kind in WEIGHTS:
            folder = Path(
                huggingface_hub.snapshot_download(str(name), allow_patterns=[*SETTINGS, kind], ignore_patterns=["*/*"])
            )
            if any(folder.glob(kind)):
                break
        return folder
    except RepositoryNotFoundError as error:
        raise OpenFlorenceError(f"there is no model {name} on the hub, or it is not public") from error
    except LocalEntryNotFoundError as error:
        raise OpenFlorenceError(f"{name} is not on this machine and the hub cannot be reached") from error
    except HfHubHTTPError as error:
        raise OpenFlorenceError(f"the hub refused to give {name}: {str(error).splitlines()[0]}") from error
    except Exception as error:  # without a network the exception is that of the HTTP library of the day
        raise OpenFlorenceError(f"{name} is not on this machine and the hub cannot be reached") from error


def model_version(folder: Path, name: str | Path) -> str:
    """The model's name and, after a dash, the commit of a download or a hash of what the folder's files hold."""
    state = folder.name[:12] if folder.parent.name == "snapshots" else hash_of_files(folder, *SETTINGS, *WEIGHTS)
    return f"{clean_name(str(name))}-{state}"


def clean_name(name: str) -> str:
    """The last part of a path or of a repository's name, with a dash for what has no place in a version."""
    return re.sub(r"[^\w.-]+", "-", name.rstrip("/").rpartition("/")[2]) or "model"


def open_samples(samples: Sequence[Sample]) -> list[Image.Image]:
    """The images of the samples, RGB and upright. Raises OpenFlorenceError for the first that cannot be read."""
    return [open_image(sample.path) for sample in samples]


def box_regions(
    boxes: Tensor, scores: Tensor, labels: Sequence[str], size: tuple[int, int], spans: Sequence[Any] = ()
) -> tuple[Region, ...]:
    """Regions of boxes (N, 4) in pixels (x1, y1, x2, y2), best score (N,) first, cut at the edge of the image.

    `size` is (W, H). `labels`, and `spans` where there are any, are those of the boxes. A box of which nothing lies
    in the image is left out.
    """
    regions = []
    for index in torch.argsort(scores, descending=True, stable=True).tolist():
        corners = clip(boxes[index].reshape(2, 2).double().numpy(), size)  # (2, 2)
        if float(box_area(corners.reshape(1, 4))[0]) <= 0:
            continue
        parts = (tuple((float(x), float(y)) for x, y in corners),)
        span = spans[index] if spans else None
        regions.append(Region("box", parts, labels[index], min(1.0, float(scores[index])), span=span))
    return tuple(regions)


@contextlib.contextmanager
def _silence(transformers: Any) -> Iterator[None]:
    """Keeps transformers' progress bars and remarks on its own classes from people while a model is loaded."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
