"""BART, the language model: a post-norm encoder and decoder over one embedding table.

Follows Lewis et al., "BART" (arXiv 1910.13461), as Florence-2 sets it up: learned positions whose table starts two rows
late, a norm after the embeddings, none after the last layer, no scaling of the embeddings. Letters: B rows, R rows
being decoded, L and S encoder positions, T decoder positions, d model width, H heads, D head width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from open_florence.model.attention import attend
from open_florence.model.config import TextConfig
from open_florence.model.kv_cache import KVCache
from open_florence.model.packed import PackedLinear, being_recorded, linear_gelu, packable
from open_florence.model.slots import SlotCache

POSITION_OFFSET = 2
"""Position p reads row p + 2 of its table: BART's ancestor kept two rows for padding."""


class Bart(nn.Module):
    """Encoder, decoder, the embedding they share, and the output layer, which is that embedding unless untied."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.shared = Table(config.vocab_size, config.d_model, padding_idx=config.pad)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.lm_head = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self._packed_heads: dict[range | None, PackedLinear] = {}  # of some ids, None: of all
        self.apply(self._initialise)

    def embed(self, ids: Tensor) -> Tensor:
        """ids (B, L) long -> (B, L, d)."""
        return self.shared(ids)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor, among: range | None = None) -> Tensor:
        """Decoder states (..., d) -> (..., V), or (..., len(among)) of the ids `among` alone."""
        weight = (self.shared if self.lm_head is None else self.lm_head).weight
        if self._packed_heads:
            if among not in self._packed_heads:
                self._packed_heads[among] = PackedLinear(weight[among.start : among.stop], None)  # type: ignore[union-attr]
            return self._packed_heads[among](hidden)  # type: ignore[no-any-return]
        return F.linear(hidden, weight if among is None else weight[among.start : among.stop])

    def pack_head(self) -> None:
        """Lays the output layer out for a CPU; the embeddings, which are looked up row by row, stay as they are."""
        weight = (self.shared if self.lm_head is None else self.lm_head).weight
        if packable(weight):
            self._packed_heads[None] = PackedLinear(weight, None)

    def _initialise(self, module: nn.Module) -> None:
        if not isinstance(module, nn.Linear | Table) or module.weight.is_meta:  # drawing for "meta" loads a compiler
            return
        nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Table) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()


class Table(nn.Embedding):
    """An embedding table that leaves its first values to the model that has it."""

    def reset_parameters(self) -> None:
        """Does nothing: values drawn here would be drawn again."""


class Encoder(nn.Module):
    """Layers that read in both directions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embedding = PositionedEmbedding(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """embedded (B, S, d); mask (B, S) bool, False where padded -> hidden (B, S, d)."""
        x = self.embedding(embedded, 0)
        seen = _what_is_seen(mask)
        for layer in self.layers:
            x = layer(x, seen)
        return x  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Layers that read backwards in what was said so far, and all of the memory."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embedding = PositionedEmbedding(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))

    def forward(self, embedded: Tensor, memory: Tensor, memory_mask: Tensor, cache: KVCache | None) -> Tensor:
        """embedded (R, T, d), memory (B, S, d), memory_mask (B, S) bool -> hidden (R, T, d).

        Rows b * R / B .. (b + 1) * R / B - 1 read memory row b. With a cache, the T tokens continue what it holds.
        """
        past = 0 if cache is None else cache.length
        x, seen = self.embedding(embedded, past), _what_is_seen(memory_mask)
        for i, layer in enumerate(self.layers):
            x = layer(i, x, memory, seen, cache)
        if cache is not None:
            cache.advance(embedded.shape[1])
        return x  # type: ignore[no-any-return]

    def step(self, embedded: Tensor, positions: Tensor, slots: SlotCache) -> Tensor:
        """One token of every row, embedded (R, 1, d), each at its own position (R,) long -> hidden (R, 1, d)."""
        slots.begin_step(positions)
        x = self.embedding.at(embedded, positions)
        seen = _what_is_seen(slots.memory_mask)
        for i, layer in enumerate(self.layers):
            x = layer(i, x, None, seen, slots)
        return x

    def read(self, memory: Tensor) -> list[Tensor]:
        """memory (B, S, d) -> per layer its keys and values (2, B, H, S, D), for `SlotCache.admit`."""
        return [layer.cross_attn.read(memory) for layer in self.layers]  # type: ignore[operator, union-attr]


class PositionedEmbedding(nn.Module):
    """Adds the learned positions to the embeddings, then normalises."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.limit = config.max_positions
        self.dropout = config.dropout
        self.embed_positions = Table(config.max_positions + POSITION_OFFSET, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)

    def forward(self, embedded: Tensor, past: int) -> Tensor:
        """embedded (B, L, d), whose first token stands at position `past` -> (B, L, d)."""
        end = past + embedded.shape[1]
        if end > self.limit:
            raise ValueError(f"a sequence of {end} tokens does not fit this model's {self.limit} positions")
        positions = self.embed_positions.weight[past + POSITION_OFFSET : end + POSITION_OFFSET]  # (L, d)
        return F.dropout(self.layernorm_embedding(embedded + positions), self.dropout, self.training)

    def at(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """embedded (R, 1, d) of tokens at positions (R,) long -> (R, 1, d)."""
        return self.layernorm_embedding(embedded + self.embed_positions(positions + POSITION_OFFSET)[:, None])  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Self-attention and an MLP, each followed by dropout, the residual and a norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.d_model, config.encoder_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config, config.encoder_ffn)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = config.dropout

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, S, d), mask (B, 1, 1, S) bool or None where all is seen -> (B, S, d)."""
        x = self.self_attn_layer_norm(x + F.dropout(self.self_attn(x, mask), self.dropout, self.training))
        x = self.final_layer_norm(x + F.dropout(self.ffn(x), self.dropout, self.training))
        if x.dtype == torch.float16:  # half precision overflows here; BART clamps, so we do
            limit = torch.finfo(torch.float16).max - 1000
            x = x.clamp(-limit, limit)
        return x


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the memory, and an MLP, each followed by dropout, the residual and a norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.d_model, config.decoder_heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.cross_attn = CrossAttention(config.d_model, config.decoder_heads, config.attention_dropout)
        self.cross_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config, config.decoder_ffn)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.dropout = config.dropout

    def forward(
        self, index: int, x: Tensor, memory: Tensor | None, mask: Tensor | None, cache: KVCache | SlotCache | None
    ) -> Tensor:
        """x (R, T, d), memory (B, S, d), mask (B, 1, 1, S) bool or None -> (R, T, d); `index`: this layer in the cache.

        The memory is read at the first step only, and not at all with slots, which were given it.
        """
        said = self.self_attn.causal(index, x, cache)
        x = self.self_attn_layer_norm(x + F.dropout(said, self.dropout, self.training))
        seen = self.cross_attn(index, x, memory, mask, cache)
        x = self.cross_attn_layer_norm(x + F.dropout(seen, self.dropout, self.training))
        return self.final_layer_norm(x + F.dropout(self.ffn(x), self.dropout, self.training))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: TextConfig, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, hidden)
        self.fc2 = nn.Linear(hidden, config.d_model)
        self.dropout = config.activation_dropout

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return self.fc2(F.dropout(linear_gelu(self.fc1, x), self.dropout, self.training))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself; queries, keys and values from one matrix product."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, S, d), mask (B, 1, 1, S) bool or None where all is seen -> (B, S, d)."""
        query, key, value = self._split(x).unbind(0)
        return self._merge(attend(query, key, value, mask, dropout=self.dropout if self.training else 0.0))

    def causal(self, index: int, x: Tensor, cache: KVCache | SlotCache | None) -> Tensor:
        """x (R, T, d), which continues what the cache holds -> (R, T, d)."""
        dropout = self.dropout if self.training else 0.0
        qkv = self._split(x)
        length = x.shape[1]
        if cache is None:
            return self._merge(attend(qkv[0], qkv[1], qkv[2], causal=length > 1, dropout=dropout))
        held, mask = cache.append(index, qkv[1:])
        return self._merge(attend(qkv[0], held[0], held[1], mask, dropout=dropout))

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, d) -> queries, keys and values (3, B, H, L, D)."""
        b, length, d = x.shape
        return self.qkv(x).view(b, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # type: ignore[no-any-return]

    def _merge(self, x: Tensor) -> Tensor:
        """(B, H, L, D) -> (B, L, d)."""
        return self.out(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Multi-head attention of the answer to the memory."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, index: int, x: Tensor, memory: Tensor | None, mask: Tensor | None, cache: KVCache | SlotCache | None
    ) -> Tensor:
        """x (R, T, d), memory (B, S, d), mask (B, 1, 1, S) bool or None -> (R, T, d).

        The R / B rows that share a memory row stand behind one another in the query, so that its keys and values are
        read where they are.
        """
        r, length, d = x.shape
        held = None if cache is None else cache.memory(index)
        if held is None:
            if memory is None:
                raise ValueError("there is no memory to read, and the cache holds none")
            held = self.read(memory)
            if isinstance(cache, KVCache):
                held = cache.keep_memory(held)
        key, value = held.unbind(0)
        b = key.shape[0]
        query = self.q(x).view(b, r // b * length, self.heads, d // self.heads).transpose(1, 2)
        seen = attend(query, key, value, mask, dropout=self.dropout if self.training else 0.0)
        return self.out(seen.transpose(1, 2).reshape(r, length, d))  # type: ignore[no-any-return]

    def read(self, memory: Tensor) -> Tensor:
        """memory (B, S, d) -> its keys and values (2, B, H, S, D)."""
        b, s, d = memory.shape
        return self.kv(memory).view(b, s, 2, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # type: ignore[no-any-return]


def _what_is_seen(mask: Tensor) -> Tensor | None:
    """A mask (B, S) for all heads and queries, (B, 1, 1, S); None where it hides nothing.

    On a CPU alone: elsewhere, looking would wait for the device.
    """
    if mask.device.type == "cpu" and not being_recorded() and bool(mask.all()):
        return None
    return mask[:, None, None]
