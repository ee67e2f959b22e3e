"""LoRA adapters (Hu et al., arXiv 2106.09685) as PEFT saves them, merged into the weights they were trained on.

W + scale B A, with scale = lora_alpha / r, or lora_alpha / sqrt(r) for rank-stabilised adapters (arXiv 2312.03732).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from open_florence.model.checkpoint import CheckpointError, layout_of, read_json, read_tensors
from open_florence.model.config import FlorenceConfig, Layout
from open_florence.model.names import HEAD_NAME, LM_HEAD, SHARED, embedding_aliases, links

CONFIG_NAME = "adapter_config.json"
PREFIX = "base_model.model."
TOKEN_ROWS = ".token_adapter.trainable_tokens_delta"
"""What PEFT puts after the name of a table of which it trained some rows."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tensor of a published layout stands among ours."""

    ours: str
    rows: slice
    transposed: bool


def base_of(folder: str | Path) -> str:
    """The name or folder of the model an adapter was trained on. Raises CheckpointError when it does not say."""
    base = read_json(Path(folder) / CONFIG_NAME).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise CheckpointError(f"{Path(folder) / CONFIG_NAME} does not name the model it adapts")
    return base


def merge_adapter(
    folder: str | Path, config: FlorenceConfig, state: Mapping[str, Tensor]
) -> tuple[FlorenceConfig, dict[str, Tensor]]:
    """The weights (our names) with a PEFT LoRA adapter of either layout merged in; what it changes becomes float32.

    An adapter of the output layer unties it from the embedding table, as PEFT's own merge does. `fan_in_fan_out` is
    not looked at: every layer of Florence-2 is stored output first, where PEFT turns the setting off. Tensors that the
    adapter holds whole (`modules_to_save`, trained biases) replace ours; so do the trained rows of embedding tables
    (`trainable_token_indices`), and tables grow where new tokens need it. Raises CheckpointError for adapters of
    other kinds, and for tensors that belong to no layer.
    """
    folder = Path(folder)
    settings = read_json(folder / CONFIG_NAME)
    if settings.get("peft_type", "LORA") != "LORA" or settings.get("use_dora"):
        raise CheckpointError(f"the adapter in {folder} is not plain LoRA, the only kind that can be merged")
    tensors = {
        name.removeprefix(PREFIX).replace(".default.", ".").replace(".modules_to_save.", "."): tensor
        for name, tensor in read_tensors(folder, ("adapter_model",)).items()
    }
    layout = layout_of(tensors, folder)
    state = dict(state)
    head = HEAD_NAME[layout].removesuffix("weight")
    if config.text.tied and any(name.startswith(head) for name in tensors):
        config = replace(config, text=replace(config.text, tied=False))
        state[LM_HEAD] = state[SHARED].clone()
    places = _places(config, state, layout)
    for name in tensors:
        if name.endswith(".lora_B.weight"):
            continue  # read with its other half
        if name.endswith(TOKEN_ROWS):
            _set_rows(state, places, name.removesuffix(TOKEN_ROWS), tensors[name], settings, folder)
            continue
        target, change = _change(name, tensors, settings, folder)
        if target not in places:
            raise CheckpointError(f"the adapter in {folder} adapts {target}, which no Florence-2 has")
        _apply(state, places[target], change, whole=target == name, folder=folder)
    rows = len(state[SHARED])
    if len(state.get(LM_HEAD, state[SHARED])) != rows:
        raise CheckpointError(
            f"the adapter in {folder} has new tokens for one of embedding table and output layer only"
        )
    return config.with_vocabulary(rows, config.image_token_id), state


def _set_rows(
    state: dict[str, Tensor],
    places: Mapping[str, Place],
    module: str,
    rows: Tensor,
    settings: Mapping[str, Any],
    folder: Path,
) -> None:
    """Puts the trained rows (N, d) of some tokens into their table; rows it grows by otherwise are its mean."""
    place, ids = places.get(f"{module}.weight"), settings.get("trainable_token_indices")
    if isinstance(ids, Mapping):  # from the end of a module's name to the tokens trained there
        ids = next((found for end, found in ids.items() if f".{module}".endswith(f".{end}")), None)
    table = None if place is None else state[place.ours]
    if place is None or table is None or ids is None or rows.shape != (len(ids), table.shape[1]):
        raise CheckpointError(f"the adapter in {folder} has rows for {module} without saying for which tokens")
    table = table.to(torch.float32, copy=True)
    missing = max(ids) + 1 - len(table)
    if missing > 0:
        table = torch.cat([table, table.mean(0, keepdim=True).expand(missing, -1)])
    table[torch.tensor(ids)] = rows.float()
    state[place.ours] = table


def _change(name: str, tensors: Mapping[str, Tensor], settings: Mapping[str, Any], folder: Path) -> tuple[str, Tensor]:
    """The name of the tensor that changes, and what is added to it (or, under its own name, what replaces it)."""
    module, half, _ = name.partition(".lora_A.weight")
    if not half:
        if "lora_" in name:
            raise CheckpointError(f"the adapter in {folder} holds {name}, a kind of LoRA that cannot be merged")
        return name, tensors[name].float()
    down, up = tensors[name].float(), tensors.get(f"{module}.lora_B.weight")
    if up is None:
        raise CheckpointError(f"the adapter in {folder} lacks {module}.lora_B.weight")
    rank = down.shape[0]
    alpha = float(settings.get("lora_alpha", rank))
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = float(value)
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return f"{module}.weight", scale * (up.float().flatten(1) @ down.flatten(1)).view(up.shape[0], *down.shape[1:])


def _places(config: FlorenceConfig, state: Mapping[str, Tensor], layout: Layout) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for link in links(config, layout):
        height = state[link.ours].shape[0] // len(link.theirs)
        for i, name in enumerate(link.theirs):
            rows = slice(None) if link.transposed else slice(i * height, (i + 1) * height)
            places[name] = Place(link.ours, rows, link.transposed)
    for alias in embedding_aliases(layout):
        places[alias] = places[embedding_aliases(layout)[0]]
    return places


def _apply(state: dict[str, Tensor], place: Place, change: Tensor, whole: bool, folder: Path) -> None:
    change = change.T if place.transposed else change
    merged = state[place.ours].to(torch.float32, copy=True)
    if whole and place.ours in (SHARED, LM_HEAD) and change.shape[1:] == merged.shape[1:]:
        state[place.ours] = change  # a table that was resized for new tokens
        return
    if merged[place.rows].shape != change.shape:
        sizes = f"{tuple(change.shape)}, not {tuple(merged[place.rows].shape)}"
        raise CheckpointError(f"the adapter in {folder} changes {place.ours} by a tensor of shape {sizes}")
    merged[place.rows] = change if whole else merged[place.rows] + change
    state[place.ours] = merged
