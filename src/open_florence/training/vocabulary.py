"""New tokens for new tasks: the tokenizer, the embedding table and the configuration grow together.

A new token takes the next free id. Published native checkpoints end in rows that only pad their table; those are used
first. What the model answers to questions without the new tokens does not change: their rows start near the mean of
known ones, and so are never the likeliest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from open_florence.errors import OpenFlorenceError
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tokenizer import Tokenizer

IMAGE_TOKEN = "<image>"
"""transformers' placeholder, for which native checkpoints keep an id."""

NOISE = 0.1
"""Standard deviation of what is added to a new row, as a share of the table's: rows that start equal learn alike."""


def add_tokens(model: Florence, processor: Processor, tokens: Iterable[str] | Mapping[str, str]) -> Processor:
    """Gives the model, in place, a row for each new token, and returns the processor that knows them.

    `tokens` are names as "<COUNT>", or a mapping from each to a phrase that describes it ("the number of objects"). A
    new row starts at the mean of the phrase's rows, without a phrase at the mean of all rows in use, plus a little
    noise that depends on the id alone (Hewitt 2021, "Initializing new word embeddings"). Tokens that the vocabulary
    has keep their ids and rows. To be called before adapters or other training parts are attached. Raises
    OpenFlorenceError for a name that is not of the form "<NAME>", or a model whose table is not plain.
    """
    phrases = dict(tokens) if isinstance(tokens, Mapping) else dict.fromkeys(tokens, "")
    for token in phrases:
        if not re.fullmatch(r"</?[^<>\s]+>", token):
            raise OpenFlorenceError(
                f'a new token is written as "<NAME>", so that no text holds it by chance: {token!r}'
            )
    text = model.language_model
    tables = [table for table in (text.shared, text.lm_head) if table is not None]
    if any(".lora_" in name or ".parametrizations." in name for name in model.state_dict()):
        raise OpenFlorenceError("new tokens have to be added before adapters or other training parts are attached")
    old = processor.tokenizer
    new = _extended(old, list(phrases), model.config.image_token_id)
    for table in tables:
        _resize(table, max(len(new), model.config.text.vocab_size))
    used = [id_ for id_ in range(len(old)) if id_ != model.config.image_token_id]
    for token, phrase in phrases.items():
        (id_,) = new.encode(token, wrap=False)
        if id_ >= len(old):
            near = old.encode(phrase.strip(), wrap=False) or used
            for table in tables:
                _initialise(table.weight, id_, near, used)
    rows = len(text.shared.weight)
    model.config = model.config.with_vocabulary(rows, model.config.image_token_id)
    text.config = model.config.text
    return replace(processor, tokenizer=new)


def _extended(tokenizer: Tokenizer, tokens: list[str], image: int | None) -> Tokenizer:
    """The tokenizer with the tokens, none of which takes the id kept for the image placeholder."""
    if image == len(tokenizer) and tokenizer.image_token_id is None:
        tokens = [IMAGE_TOKEN, *tokens]
    extended = tokenizer.with_tokens(tokens)
    if image is not None and len(tokenizer) < image < len(extended):
        raise OpenFlorenceError(
            f"only {image - len(tokenizer)} tokens fit before id {image}, which the model keeps for the image "
            f"placeholder, and {len(extended) - len(tokenizer)} are new"
        )
    return extended


def _resize(table: nn.Embedding | nn.Linear, rows: int) -> None:
    """Appends rows of zeros to a table (V, d) until it has `rows`."""
    weight = table.weight
    if rows > len(weight):
        grown = torch.cat([weight.detach(), weight.new_zeros(rows - len(weight), weight.shape[1])])
        table.weight = nn.Parameter(grown, requires_grad=weight.requires_grad)
    if isinstance(table, nn.Embedding):
        table.num_embeddings = rows
    else:
        table.out_features = rows


@torch.no_grad()
def _initialise(weight: Tensor, id_: int, near: list[int], used: list[int]) -> None:
    """Row `id_` of a table (V, d) becomes the mean of the rows `near`, plus noise."""
    draw = torch.Generator().manual_seed(id_)
    noise = torch.randn(weight.shape[1], generator=draw).to(weight.device)  # (d,)
    spread = float(weight[used].float().std(0).mean())
    weight[id_] = (weight[near].float().mean(0) + NOISE * spread * noise).to(weight.dtype)
