"""LoRA (Hu et al., arXiv 2106.09685) on a live model, under the names of the published layers and in PEFT's files.

Published checkpoints hold queries, keys and values of the language model apart, where ours stacks them in one matrix.
An adapter here therefore belongs to a block of a layer's rows: what is trained, and saved, is what PEFT would train.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from open_florence.errors import OpenFlorenceError
from open_florence.model.adapter import CONFIG_NAME, PREFIX, TOKEN_ROWS
from open_florence.model.config import LAYOUTS, Layout
from open_florence.model.florence import Florence
from open_florence.model.names import HEAD_NAME, embedding_aliases, links
from open_florence.processor import Processor

DEFAULT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "layers.*.fc1", "layers.*.fc2", "qkv", "proj")
"""All matrices of the language model's layers, and the tower's attention.

Adapters on every matrix, the MLPs too, are what reaches full fine-tuning (Dettmers et al., arXiv 2305.14314, section
4). The tower's MLPs are left out: the widest ones run over the finest grids, 36,864 cells of a 768 px image in the
first stage, so an adapter there costs the most memory, and its attention already lets the tower see a new kind of
image."""

PARTS = (("language_model.", "the language model"), ("vision_tower.", "the image tower"))


@dataclass(frozen=True)
class LoraConfig:
    """What is adapted, and how much an adapter can say."""

    rank: int = 16
    alpha: float = 32.0
    """What an adapter adds is multiplied by alpha / rank, so that the learning rate need not follow the rank."""
    dropout: float = 0.05
    """Of what the adapter reads, in training; the frozen layer reads everything."""
    targets: tuple[str, ...] = DEFAULT_TARGETS
    """Ends of published layer names of either layout ("q_proj", "decoder.layers.0.fc1"); * stands for anything."""
    rank_stabilised: bool = False
    """Multiply by alpha / sqrt(rank) instead (arXiv 2312.03732), for high ranks."""
    token_rows: tuple[int, ...] = ()
    """Ids whose rows of the embedding table are trained in full beside the adapters: those of new tokens."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or not self.targets:
            raise OpenFlorenceError(
                f"LoRA wants targets, a rank of 1 or more, alpha above 0 and dropout in [0, 1), not rank {self.rank}, "
                f"alpha {self.alpha}, dropout {self.dropout}, targets {self.targets}"
            )

    @property
    def scale(self) -> float:
        """The factor on B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one of our layers that are a layer of their own in the published files."""

    layer: str
    """Our layer's name."""
    rows: slice
    names: Mapping[Layout, str]

    @property
    def key(self) -> str:
        """The last word of its name, which no two blocks of a layer share."""
        return self.names["native"].rpartition(".")[2]

    def is_meant_by(self, target: str) -> bool:
        """Whether its name in either layout ends with `target`, whole words only."""
        return any(fnmatchcase(f".{name}", f"*.{target}") for name in self.names.values())


class LoraLinear(nn.Module):
    """A frozen linear layer, and for each adapted block of its rows the addition scale * B A dropout(x)."""

    def __init__(self, base: nn.Linear, rows: Mapping[str, slice], config: LoraConfig) -> None:
        """`rows` says, by the adapter's key, which rows of the layer each adapter is added to."""
        super().__init__()
        self.base, self.rows, self.config = base, dict(rows), config
        self.lora_A, self.lora_B = nn.ParameterDict(), nn.ParameterDict()
        kind: dict[str, Any] = {"device": base.weight.device, "dtype": torch.float32}  # however coarse the frozen layer
        for key, block in rows.items():
            down = torch.empty(config.rank, base.in_features, **kind)  # (r, in)
            self.lora_A[key] = nn.Parameter(nn.init.kaiming_uniform_(down, a=math.sqrt(5)))
            self.lora_B[key] = nn.Parameter(torch.zeros(block.stop - block.start, config.rank, **kind))  # (rows, r)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out: Tensor = self.base(x)
        pieces, end = [], 0
        for key, rows in self.rows.items():
            seen = F.dropout(x, self.config.dropout, self.training)
            inner = F.linear(seen, self.lora_A[key].to(x.dtype))  # (..., r)
            change = self.config.scale * F.linear(inner, self.lora_B[key].to(inner.dtype))  # (..., rows)
            pieces += [out[..., end : rows.start], out[..., rows] + change]
            end = rows.stop
        return torch.cat([*pieces, out[..., end:]], dim=-1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with its adapters added to its weight, in place and at the adapters' precision."""
        weight = self.base.weight
        for key, rows in self.rows.items():
            change = self.config.scale * self.lora_B[key] @ self.lora_A[key]  # (rows, in)
            weight[rows] = (weight[rows].to(change.dtype) + change).to(weight.dtype)
        return self.base


class TokenRows(nn.Module):
    """Embedding table (V, d) -> the same table with some rows replaced by trained ones."""

    ids: Tensor

    def __init__(self, table: Tensor, ids: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("ids", torch.tensor(ids, device=table.device))  # (N,)
        self.rows = nn.Parameter(table.detach()[self.ids].clone())  # (N, d)

    def forward(self, table: Tensor) -> Tensor:
        """(V, d) -> (V, d)."""
        return table.index_copy(0, self.ids, self.rows)


def add_lora(model: Florence, config: LoraConfig | None = None) -> None:
    """Attaches adapters to the layers that `config` names and freezes everything else, in place.

    B starts at zero, so the model answers as before until it is trained. Raises OpenFlorenceError for a target that
    names no layer, listing those that exist; for ids the vocabulary has not; for a model that has adapters already.
    """
    config = config or LoraConfig()
    if any(_adapted(model)) or any(_tables(model)):
        raise OpenFlorenceError("the model has LoRA adapters already: merge them before adding others")
    blocks = _blocks(model)
    for target in config.targets:
        if not any(block.is_meant_by(target) for block in blocks):
            raise OpenFlorenceError(f"no layer that LoRA can adapt is called {target!r}; {_inventory(blocks)}")
    if unknown := [id_ for id_ in config.token_rows if not 0 <= id_ < model.config.text.vocab_size]:
        raise OpenFlorenceError(f"the vocabulary has no id {unknown[0]} whose row could be trained")
    model.requires_grad_(False)
    wanted: dict[str, dict[str, slice]] = {}
    for block in blocks:
        if any(block.is_meant_by(target) for target in config.targets):
            wanted.setdefault(block.layer, {})[block.key] = block.rows
    for layer, rows in wanted.items():
        base = model.get_submodule(layer)
        assert isinstance(base, nn.Linear)
        _replace(model, layer, LoraLinear(base, rows, config).train(base.training))
    if config.token_rows:
        for table in _vocabulary_tables(model):
            parametrize.register_parametrization(table, "weight", TokenRows(table.weight, config.token_rows))


def lora_parameters(model: Florence) -> list[nn.Parameter]:
    """Everything that LoRA trains: the halves of all adapters, and the rows of new tokens."""
    found: list[nn.Parameter] = []
    for _, layer in _adapted(model):
        found += [*layer.lora_A.parameters(), *layer.lora_B.parameters()]
    return found + [rows.rows for _, rows in _tables(model)]


def merge_lora(model: Florence) -> None:
    """Adds the adapters to the weights they adapt, in place: a plain Florence-2, all of which can be trained."""
    for name, layer in list(_adapted(model)):
        _replace(model, name, layer.merged())
    for table, _ in list(_tables(model)):
        parametrize.remove_parametrizations(table, "weight", leave_parametrized=True)
    model.requires_grad_(True)


def save_adapter(
    model: Florence,
    folder: str | Path,
    base_name: str,
    layout: Layout = "native",
    processor: Processor | None = None,
) -> None:
    """Writes adapter_config.json and adapter_model.safetensors as PEFT does, for a base model of the given layout.

    `base_name` is the folder or hub name of the model the adapters were trained on, which `load_model` and PEFT load
    first. `layout` only matters to PEFT, `load_model` reads either. With a `processor`, its files are written too: a
    model with new tokens needs its own. Raises OpenFlorenceError for a model without adapters, an unknown layout, or
    a folder that cannot be written.
    """
    if layout not in LAYOUTS:
        raise OpenFlorenceError(f"a layout is one of {', '.join(LAYOUTS)}, not {layout!r}")
    layers = dict(_adapted(model))
    if not layers:
        raise OpenFlorenceError("the model has no LoRA adapters to save")
    tensors: dict[str, Tensor] = {}
    targets: list[str] = []
    for block in _blocks(model):
        layer = layers.get(block.layer)
        if layer is not None and block.key in layer.rows:
            targets.append(block.names[layout])
            tensors[f"{PREFIX}{targets[-1]}.lora_A.weight"] = layer.lora_A[block.key]
            tensors[f"{PREFIX}{targets[-1]}.lora_B.weight"] = layer.lora_B[block.key]
    config = next(iter(layers.values())).config
    tables: dict[str, list[int]] = {}
    for table, rows in _tables(model):
        is_head = table is model.language_model.lm_head
        name = (HEAD_NAME[layout] if is_head else embedding_aliases(layout)[0]).removesuffix(".weight")
        tables[name] = rows.ids.tolist()
        tensors[f"{PREFIX}{name}{TOKEN_ROWS}"] = rows.rows
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = _record(config, base_name, targets, tables)
        (folder / CONFIG_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        path = folder / "adapter_model.safetensors"
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path, {"format": "pt"})
        path.chmod(0o644)  # safetensors makes files that only their owner can read
        if processor is not None:
            processor.save(folder)
    except OSError as error:
        raise OpenFlorenceError(f"the adapter cannot be written to {folder}: {error.strerror or error}") from error


def _record(config: LoraConfig, base_name: str, targets: list[str], tables: dict[str, list[int]]) -> dict[str, Any]:
    """The content of adapter_config.json. Layers have their whole names, for PEFT knows no * in a list."""
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_name,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.rank_stabilised,
        "target_modules": targets,
        "trainable_token_indices": tables or None,
        "modules_to_save": None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _blocks(model: Florence) -> list[Block]:
    """Every linear layer of the published model that can be adapted, in the order the network runs.

    The projection of image features and the output layer are not among them: they are used as bare matrices.
    """
    found = []
    both = zip(links(model.config, "native"), links(model.config, "microsoft"), strict=True)
    for native, microsoft in both:
        layer, _, end = native.ours.rpartition(".")
        if end != "weight" or not layer.startswith(("language_model.encoder.", "language_model.decoder.", PARTS[1][0])):
            continue
        module = model.get_submodule(layer)
        base = module.base if isinstance(module, LoraLinear) else module
        if isinstance(base, nn.Linear):
            height = base.out_features // len(native.theirs)
            for i, names in enumerate(zip(native.theirs, microsoft.theirs, strict=True)):
                layouts: dict[Layout, str] = {
                    "native": names[0].removesuffix(".weight"),
                    "microsoft": names[1].removesuffix(".weight"),
                }
                found.append(Block(layer, slice(i * height, (i + 1) * height), layouts))
    return found


def _inventory(blocks: list[Block]) -> str:
    """Which names exist, in words."""
    sentences = []
    for prefix, part in PARTS:
        names = dict.fromkeys(block.key for block in blocks if block.layer.startswith(prefix))
        sentences.append(f"{part} has {', '.join(names)}")
    return " and ".join(sentences)


def _adapted(model: Florence) -> Iterator[tuple[str, LoraLinear]]:
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def _tables(model: Florence) -> Iterator[tuple[nn.Embedding | nn.Linear, TokenRows]]:
    """The tables some of whose rows are trained, and those rows."""
    for table in _vocabulary_tables(model):
        for part in getattr(table, "parametrizations", {"weight": ()})["weight"]:
            if isinstance(part, TokenRows):
                yield table, part


def _vocabulary_tables(model: Florence) -> list[nn.Embedding | nn.Linear]:
    """The embedding table, and the output layer where it is another."""
    shared, head = model.language_model.shared, model.language_model.lm_head
    return [shared] if head is None else [shared, head]


def _replace(model: Florence, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
