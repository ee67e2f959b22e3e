"""Weights in and out, in both published layouts: safetensors or PyTorch's .bin, one file or many with an index.

Nothing read here can run code: .bin files go through `torch.load(weights_only=True)`. Tensors keep the file's dtype,
so that reading and writing is exact to the bit.
"""

from __future__ import annotations

import json
import logging
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from open_florence.model.config import PADDED_ROWS, ConfigError, FlorenceConfig, Layout
from open_florence.model.florence import Florence, temporal_table
from open_florence.model.names import HEAD_NAME, LM_HEAD, LOGITS_BIAS, SHARED, TEMPORAL, embedding_aliases, links

Format = Literal["safetensors", "bin"]
STEM: dict[Format, str] = {"safetensors": "model", "bin": "pytorch_model"}

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A folder that holds no readable Florence-2; the message is one sentence with the file's name."""


def read_weights(folder: str | Path) -> tuple[FlorenceConfig, dict[str, Tensor]]:
    """The configuration and the weights, under our names and in the file's dtype, of a folder in either layout.

    Sizes of tables are those of the tensors: a position table of 4096 rows or a resized vocabulary needs no mention in
    config.json. An output layer that differs from the embedding table is kept apart (`config.text.tied` False). Tensors
    that no Florence-2 has are left out and logged in one line. Raises CheckpointError for a folder without weights, a
    file that is not what its name says, a tensor that is missing or of another shape.
    """
    folder = Path(folder)
    config = read_config(folder)
    tensors = read_tensors(folder)
    layout = layout_of(tensors, folder)
    config = _fold_aliases(config, tensors, layout, folder)
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    for link in links(config, layout):
        parts = [tensors.pop(name, None) for name in link.theirs]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts):
            tensor = found[0] if len(found) == 1 else torch.cat(found)
            state[link.ours] = tensor.T.contiguous() if link.transposed else tensor
        elif link.ours == TEMPORAL:
            state[TEMPORAL] = temporal_table(config.vision.frames, config.vision.dims[-1])
        else:
            missing += [name for name, part in zip(link.theirs, parts, strict=True) if part is None]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CheckpointError(f"the weights in {folder} lack {missing[0]}{more}")
    if tensors:
        logger.warning("%s: ignored %d tensors that no Florence-2 has: %s", folder, len(tensors), ", ".join(tensors))
    config = _sized_by(config, state)
    _check_shapes(config, state, folder)
    return config, state


def write_weights(
    folder: str | Path,
    config: FlorenceConfig,
    state: Mapping[str, Tensor],
    layout: Layout = "native",
    file_format: Format = "safetensors",
    max_shard_bytes: int | None = None,
) -> FlorenceConfig:
    """Write both config files and the weights (our names) as the published code of that layout reads them.

    Several files and an index are written when the tensors exceed `max_shard_bytes`. The native layout needs a row for
    the image placeholder: a model without one gets it, and rows up to a multiple of 64, all the mean of the others, so
    that they can never be the likeliest token. Returns the configuration as written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = dict(state)
    if layout == "native":
        config = _room_for_image_token(config, state)
    tensors = dict(to_layout(config, state, layout))
    shared = state[SHARED]
    if layout == "microsoft":
        # The original code does not tie the output layer of what it loads.
        tensors.setdefault(HEAD_NAME[layout], shared)
        tensors[LOGITS_BIAS] = torch.zeros(1, config.text.vocab_size, dtype=shared.dtype)
    if (layout == "native" and not config.text.tied) or (layout == "microsoft" and file_format == "bin"):
        # Untied, transformers looks for each alias; a .bin of the original has them all, as one storage.
        tensors |= dict.fromkeys(embedding_aliases(layout), shared)
    record = config.to_json(layout)
    record["dtype" if layout == "native" else "torch_dtype"] = str(state[SHARED].dtype).removeprefix("torch.")
    _write_json(folder / "config.json", record)
    _write_json(folder / "generation_config.json", config.generation_json())
    _write_tensors(folder, tensors, file_format, max_shard_bytes)
    return config


def to_layout(config: FlorenceConfig, state: Mapping[str, Tensor], layout: Layout) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a file of that layout, from ours; for gradients as well as weights."""
    for link in links(config, layout):
        tensor = state[link.ours].T if link.transposed else state[link.ours]
        yield from zip(link.theirs, tensor.chunk(len(link.theirs)), strict=True)


def read_config(folder: Path) -> FlorenceConfig:
    """The folder's config.json, of either layout. Raises CheckpointError."""
    try:
        return FlorenceConfig.from_json(read_json(folder / "config.json"))
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def layout_of(names: Mapping[str, Tensor], place: Path) -> Layout:
    """Which code wrote these names. Raises CheckpointError when neither did."""
    if any(name.startswith(("model.", "lm_head.")) for name in names):
        return "native"
    if any(name.startswith(("language_model.", "vision_tower.")) for name in names):
        return "microsoft"
    raise CheckpointError(f"the weights in {place} are not a Florence-2's: none has a name that its layouts use")


def read_tensors(folder: Path, stems: tuple[str, ...] = ("model", "pytorch_model")) -> dict[str, Tensor]:
    """All tensors of the folder under the names they are stored with, safetensors before .bin.

    `stems` are the file names looked for, without their ending. Raises CheckpointError.
    """
    for end in (".safetensors", ".bin"):
        for stem in stems:
            path = folder / f"{stem}{end}"
            if path.is_file():
                return _read_file(path)
            if (index := folder / f"{stem}{end}.index.json").is_file():
                return _read_shards(index)
    raise CheckpointError(f"there are no weights in {folder}: neither {stems[0]}.safetensors nor {stems[-1]}.bin")


def _read_shards(index: Path) -> dict[str, Tensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index} has no weight_map, so it is not an index of weights")
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(weight_map.values()):
        path = index.parent / str(name)
        if path.parent != index.parent or not path.is_file():
            raise CheckpointError(f"{index} names the file {name!r}, which is not in its folder")
        tensors |= _read_file(path)
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path} is refused: it is damaged, or would run code if it were loaded") from error
    except (SafetensorError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is damaged or not a file of weights") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path} does not hold a plain table of tensors")
    return loaded


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of settings. Raises CheckpointError naming the file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {path.name} in {path.parent}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return record


def _write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _fold_aliases(config: FlorenceConfig, tensors: dict[str, Tensor], layout: Layout, folder: Path) -> FlorenceConfig:
    """Leave the embedding table under its own name only, whichever alias the file kept, and see whether it is tied."""
    names = embedding_aliases(layout)
    found = {name: tensors.pop(name) for name in names if name in tensors}
    head = tensors.get(HEAD_NAME[layout])
    if not found and head is None:
        raise CheckpointError(f"the weights in {folder} lack {names[0]}")
    shared = next(iter(found.values()), head)
    assert shared is not None
    for name, alias in found.items():
        if not torch.equal(alias, shared):
            raise CheckpointError(f"the weights in {folder} have a {name} of their own, which Florence-2 shares")
    tied = head is None or torch.equal(head, shared)
    if tied:
        tensors.pop(HEAD_NAME[layout], None)
    tensors[names[0]] = shared
    bias = tensors.get(LOGITS_BIAS)
    if bias is not None and not bias.any():
        del tensors[LOGITS_BIAS]
    return replace(config, text=replace(config.text, tied=tied))


def _sized_by(config: FlorenceConfig, state: Mapping[str, Tensor]) -> FlorenceConfig:
    positions = state["language_model.decoder.embedding.embed_positions.weight"].shape[0] - 2
    return replace(
        config,
        vision=replace(
            config.vision,
            positions=state["projector.row_embeddings.weight"].shape[0],
            frames=state[TEMPORAL].shape[0],
        ),
        text=replace(config.text, vocab_size=state[SHARED].shape[0], max_positions=positions),
    )


def _check_shapes(config: FlorenceConfig, state: Mapping[str, Tensor], folder: Path) -> None:
    with torch.device("meta"):  # shapes only: nothing is allocated
        expected = Florence(config).state_dict()
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            sizes = f"{tuple(tensor.shape)}, where its config.json asks for {tuple(expected[name].shape)}"
            raise CheckpointError(f"in the weights of {folder}, {name} has shape {sizes}")


def _room_for_image_token(config: FlorenceConfig, state: dict[str, Tensor]) -> FlorenceConfig:
    size = config.text.vocab_size
    image = size if config.image_token_id is None else config.image_token_id
    rows = -(image + 1) % PADDED_ROWS + image + 1 - size
    if image < size:
        return replace(config, image_token_id=image)
    for name in (SHARED, LM_HEAD):
        if name in state:
            mean = state[name].float().mean(0, keepdim=True).to(state[name].dtype)
            state[name] = torch.cat([state[name], mean.expand(rows, -1)])
    return config.with_vocabulary(size + rows, image_token_id=image)


def _write_tensors(folder: Path, tensors: dict[str, Tensor], file_format: Format, max_bytes: int | None) -> None:
    for old in (*folder.glob(f"{STEM['safetensors']}*.safetensors*"), *folder.glob(f"{STEM['bin']}*.bin*")):
        old.unlink()  # a reader would take what an earlier call left
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if max_bytes is not None and shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().cpu()
        size += tensor.nbytes
    stem, end = STEM[file_format], f".{file_format}"
    if len(shards) == 1:
        return _write_file(folder / f"{stem}{end}", shards[0])
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        path = folder / f"{stem}-{i:05}-of-{len(shards):05}{end}"
        _write_file(path, shard)
        weight_map |= dict.fromkeys(shard, path.name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / f"{stem}{end}.index.json", index)


def _write_file(path: Path, tensors: dict[str, Tensor]) -> None:
    """A slice is copied, or the whole it is a slice of would be written; so is an alias, which safetensors refuses."""
    written: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        alias = path.suffix == ".safetensors" and storage.data_ptr() in written
        copied = alias or not tensor.is_contiguous() or storage.nbytes() != tensor.nbytes
        own[name] = tensor.clone(memory_format=torch.contiguous_format) if copied else tensor
        written.add(storage.data_ptr())
    if path.suffix == ".bin":
        torch.save(own, path)
    else:
        save_file(own, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors makes files that only their owner can read
