"""A checkpoint of a published shape with random weights, for measuring: no download, any seed, any machine.

Its answers are noise, but how long they are is not left to chance. Location tokens in the question say it: the mean
bin of "<loc_500>" and the like, divided by 20, is about the number of tokens of the answer, and a question without one
is answered at once. So two programs can be given the same answers of varied lengths. A script that wants all answers
equally long forbids the end token instead.

It is done with three coordinates of the language model's states that nothing else writes: how long the answer shall be
and that a token says so (encoder), and how long it is (decoder). The last layer subtracts one from the other, and the
end token reads the difference.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from open_florence.inference.pretrained import save_model
from open_florence.model.config import PRESETS, FlorenceConfig
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tasks import TASKS
from open_florence.tokenizer import BASE_TOKENS, FLORENCE_TOKENS, Tokenizer

VOCABULARY = 51289
"""Ids of the published tokenizer; its native checkpoints have the image placeholder and a few empty rows behind."""
ROWS = 51328

SHAPES = ("base", "large", "toy")
"""Two that are published, and one on which a script takes seconds."""

WANTED, ASKED, WRITTEN = 0, 1, 2
"""The coordinates: tokens to write, that this token of the question says so, and tokens written less those wanted."""
PER_TOKEN = 0.075
"""What a token written adds to its coordinate, where the others are about 1."""
LONGEST = 53
"""Tokens after which the coordinate grows no more, or it would dwarf the others."""


def config_of(shape: str) -> FlorenceConfig:
    """A published shape as transformers' own class has it, or the toy one. Raises ValueError for another name."""
    if shape not in SHAPES:
        raise ValueError(f"a shape is one of {', '.join(SHAPES)}, not {shape!r}")
    config = PRESETS["tiny" if shape == "toy" else shape].with_vocabulary(ROWS, image_token_id=VOCABULARY)
    return replace(config, image_size=80) if shape == "toy" else config


def checkpoint(shape: str, work: Path | None = None) -> Path:
    """The folder of the shape's checkpoint, float16 as published, in transformers' layout; written on the first call.

    `work` is the folder to keep it in, one of the system's for temporary files unless given.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    folder = (work or Path(tempfile.gettempdir()) / "open-florence-speed") / f"{shape}-{recipe}"
    if not (folder / "config.json").is_file():
        config = config_of(shape)
        torch.manual_seed(0)
        model = Florence(config).eval()
        processor = Processor(made_up_tokenizer(), config.image_size, image_seq_length=visual_tokens(config))
        end_as_asked(model, processor.tokenizer)
        save_model(model, processor, folder, "native", torch.float16)
    return folder


def visual_tokens(config: FlorenceConfig) -> int:
    """How many tokens the model makes of an image: the mean and the cells of the last grid."""
    side = config.image_size
    for kernel, stride, padding in zip(
        config.vision.patch_sizes, config.vision.patch_strides, config.vision.patch_paddings, strict=True
    ):
        side = (side + 2 * padding - kernel) // stride + 1
    return 1 + side * side


def made_up_tokenizer() -> Tokenizer:
    """A tokenizer of the published size, in which every word of the tasks' questions is one token.

    The other tokens are made up: pairs of bytes.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    texts = [re.sub(r"\{input\}", "", task.prompt) for task in TASKS.values()]
    words = dict.fromkeys(word for text in texts for word, _ in split.pre_tokenize_str(text))
    pairs = [(word[:end], word[end]) for word in words for end in range(1, len(word))]
    pairs += [(first, second) for first in letters for second in letters]
    merges: dict[str, tuple[str, str]] = {}
    room = VOCABULARY - len(FLORENCE_TOKENS) - 1 - len(BASE_TOKENS) - len(letters)  # 1: <mask>
    for first, second in pairs:
        if len(merges) < room:
            merges.setdefault(first + second, (first, second))
    vocabulary = {token: id_ for id_, token in enumerate([*BASE_TOKENS, *letters, *merges])}
    backend.model = models.BPE(vocabulary, list(merges.values()))
    backend.pre_tokenizer = split
    backend.add_special_tokens([*BASE_TOKENS, "<mask>"])
    tokenizer = Tokenizer(backend)
    assert len(tokenizer) == VOCABULARY
    return tokenizer


@torch.no_grad()
def end_as_asked(model: Florence, tokenizer: Tokenizer) -> None:
    """Writes the coordinates into random weights, in place."""
    bart = model.language_model
    unit = bart.config.init_std * 2**0.5  # of a coordinate before the first norm, where a token meets its position
    kept = [WANTED, ASKED, WRITTEN]
    table = bart.shared.weight  # (V, d)
    table[:, kept] = 0
    table[VOCABULARY:] = 0
    places = slice(tokenizer.location_start, tokenizer.location_start + tokenizer.location_count)
    table[places, WANTED] = torch.linspace(0, 40 * PER_TOKEN * unit, tokenizer.location_count)
    table[places, ASKED] = 3 * unit
    table[tokenizer.eos, WRITTEN] = 30
    model.projector.image_proj_norm.weight[kept] = 0
    for part in (bart.encoder, bart.decoder):
        part.embedding.embed_positions.weight[:, kept] = 0
        for layer in part.layers:
            attentions = [layer.self_attn, layer.cross_attn] if part is bart.decoder else [layer.self_attn]
            for last in (*(attention.out for attention in attentions), layer.ffn.fc2):
                last.weight[kept] = 0
    positions = bart.decoder.embedding.embed_positions.weight  # (2 + positions, d), two rows unused
    steps = torch.arange(len(positions) - 2).clamp(max=LONGEST)
    positions[2:, WRITTEN] = steps * PER_TOKEN * unit
    _subtract(bart.decoder.layers[-1].cross_attn, bart.config.d_model)


def _subtract(cross: torch.nn.Module, width: int) -> None:
    """The first head of a cross-attention finds the tokens that say it, and takes what they say from WRITTEN."""
    head = slice(0, width // cross.heads)
    cross.q.weight[head] = 0
    cross.q.bias[0] = 10  # the key's first channel is all it asks for
    cross.kv.weight[0] = 0
    cross.kv.weight[0, ASKED] = 10
    cross.kv.weight[width] = 0  # the first channel of the values
    cross.kv.weight[width, WANTED] = 1
    cross.out.weight[WRITTEN, 0] = -1
