"""Text <-> ids: the byte-level BPE of BART and GPT-2, followed by the 1,024 markup and location tokens of Florence-2.

Follows the published tokenizer (vocab.json, merges.txt) and the order in which Microsoft's processor appends its
tokens to it. Reading and encoding are done by the `tokenizers` library; decoding is done here, because scores need to
know which characters every single id stands for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from open_florence.errors import OpenFlorenceError

LOCATION_COUNT = 1000
"""Bins per axis: the tokens <loc_0> ... <loc_999>."""

BASE_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3 of every Florence-2 vocabulary."""

_PAIRED = ("cap", "ncap", "dcap", "grounding", "seg")
_REGION = ("region_cap", "region_to_desciption", "proposal", "poly")  # "desciption" is how it was published

FLORENCE_TOKENS = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{k}>" for k in range(LOCATION_COUNT)),
    *(token for name in _PAIRED for token in (f"<{name}>", f"</{name}>")),
    "<sep>",
    *(token for name in _REGION for token in (f"<{name}>", f"</{name}>")),
    "<and>",
)
"""The 1,024 added tokens in their published order, ids 50265 to 51288 of the published vocabulary."""

_SPECIAL = re.compile("|".join(map(re.escape, ("<mask>", *BASE_TOKENS, *FLORENCE_TOKENS))))


class Tokenizer:
    """Text to ids and back, for published and for our own vocabularies.

    `bos`, `pad` and `eos` are the ids of <s>, <pad> and </s> (0, 1, 2); `location_start` is the id of <loc_0>, the
    other locations follow it without a gap; `image_token_id` is the id of <image>, None where the vocabulary has none.
    """

    location_count = LOCATION_COUNT

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """Takes over `backend`, adding the Florence-2 tokens it lacks.

        Raises OpenFlorenceError when its vocabulary cannot be a Florence-2 one.
        """
        backend.no_padding()  # training scripts leave such settings in the file they save
        backend.no_truncation()
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in FLORENCE_TOKENS])
        self._backend = backend
        self.bos, self.pad, self.eos = (self._id(token) for token in BASE_TOKENS[:3])
        self.location_start = self._id("<loc_0>")
        self.image_token_id: int | None = backend.token_to_id("<image>")
        if (self.bos, self.pad, self.eos) != (0, 1, 2):
            raise OpenFlorenceError("the tokenizer's <s>, <pad> and </s> are not its ids 0, 1 and 2")
        if any(self._id(f"<loc_{k}>") != id_ for k, id_ in enumerate(self.location_ids)):
            raise OpenFlorenceError("the tokenizer's location tokens <loc_0> ... <loc_999> do not follow each other")

    @classmethod
    def from_folder(cls, folder: str | Path) -> Tokenizer:
        """Reads tokenizer.json, or else vocab.json with merges.txt and, if there, added_tokens.json.

        Raises OpenFlorenceError, naming the file, when neither is there or one cannot be read.
        """
        folder = Path(folder)
        whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
        if not whole.is_file() and not (vocabulary.is_file() and merges.is_file()):
            raise OpenFlorenceError(
                f"{folder} holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt"
            )
        try:
            return cls(tokenizers.Tokenizer.from_file(str(whole)) if whole.is_file() else _from_vocabulary(folder))
        except Exception as error:  # the library raises bare Exception for whatever is wrong in a file
            raise OpenFlorenceError(f"the tokenizer in {folder} cannot be used: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """A vocabulary of our own from texts, for a model trained from scratch.

        `vocab_size` is the most ids that bytes, words and the five tokens of BART may take, 261 at least: the 50,265
        of the published vocabulary. The 1,024 tokens of Florence-2 come on top. Special tokens inside the texts are
        not learnt from. The same texts give the same vocabulary.
        """
        smallest = len(BASE_TOKENS) + 256 + 1
        if vocab_size < smallest:
            raise OpenFlorenceError(f"a vocabulary has at least {smallest} ids, not {vocab_size}")
        backend = _byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 1,
            min_frequency=2,
            special_tokens=list(BASE_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator((piece for text in texts for piece in _SPECIAL.split(_whole(text))), trainer)
        backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        return cls(backend)

    def with_tokens(self, tokens: Iterable[str]) -> Tokenizer:
        """The same tokenizer with further special tokens, at the next ids in their order; those it has keep theirs."""
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
        return Tokenizer(backend)

    def encode(self, text: str, wrap: bool = True) -> list[int]:
        """The ids of a text, between <s> and </s> if `wrap`. Special tokens written out in the text become theirs."""
        ids: list[int] = self._backend.encode(_whole(text), add_special_tokens=False).ids
        return [self.bos, *ids, self.eos] if wrap else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, every token written out, <s>, </s> and locations too, and no space tidied away.

        Ids beyond the vocabulary (published models have some, to fill their tables) stand for nothing; bytes that
        make no character become U+FFFD.
        """
        table = self._bytes
        return b"".join([table.get(id_, b"") for id_ in ids]).decode("utf-8", "replace")

    def decode_with_spans(self, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
        """The text of ids as `decode` gives it, and for each id the (start, end) of the characters it stands for.

        A character whose bytes are split over several ids belongs to each of them, so spans may overlap; both ends
        never decrease from one id to the next.
        """
        table = self._bytes
        pieces = [table.get(id_, b"") for id_ in ids]
        data = b"".join(pieces)
        edges = np.cumsum([0, *map(len, pieces)])  # (T + 1,) byte offsets
        text, owner = _decode_bytes(data)
        owner = np.append(owner, len(text))  # (bytes + 1,) the character each byte belongs to
        starts = owner[edges[:-1]]  # (T,)
        ends = np.where(edges[1:] > edges[:-1], owner[np.maximum(edges[1:] - 1, 0)] + 1, starts)
        return text, list(zip(starts.tolist(), ends.tolist(), strict=True))

    @property
    def word_bytes(self) -> dict[int, bytes]:
        """The bytes of every id that is no special token."""
        special = self._backend.get_added_tokens_decoder()
        return {id_: said for id_, said in self._bytes.items() if id_ not in special}

    @property
    def location_ids(self) -> range:
        """The ids of <loc_0> ... <loc_999>."""
        return range(self.location_start, self.location_start + LOCATION_COUNT)

    def __len__(self) -> int:
        """How many ids there are, the added ones too."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and the tokenizer_config.json that transformers wants beside it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(folder / "tokenizer.json"), pretty=False)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "bos_token": "<s>",
            "clean_up_tokenization_spaces": False,
            "cls_token": "<s>",
            "eos_token": "</s>",
            "extra_special_tokens": {"image_token": "<image>"},
            "mask_token": "<mask>",
            "model_max_length": 1024,
            "pad_token": "<pad>",
            "sep_token": "</s>",
            "unk_token": "<unk>",
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _id(self, token: str) -> int:
        id_: int | None = self._backend.token_to_id(token)
        if id_ is None:
            raise OpenFlorenceError(f"the tokenizer has no token {token}")
        return id_

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        """The bytes every id stands for."""
        alphabet = _byte_alphabet()
        added = self._backend.get_added_tokens_decoder()
        table = {
            id_: bytes(alphabet[character] for character in token)
            for token, id_ in self._backend.get_vocab(with_added_tokens=False).items()
            if id_ not in added
        }
        return table | {id_: token.content.encode() for id_, token in added.items()}


def _whole(text: str) -> str:
    """The text, if it is one: a lone surrogate, as broken JSON leaves behind, has no bytes to encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OpenFlorenceError(f"{text[:80]!r} holds half of a character (a lone surrogate)") from None
    return text


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """A backend around `model` that splits and wraps as the published tokenizer does."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


def _from_vocabulary(folder: Path) -> tokenizers.Tokenizer:
    """The backend of vocab.json, merges.txt and added_tokens.json (token -> id, appended in the order of its ids)."""
    backend = _byte_level(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    backend.add_special_tokens([AddedToken(token, special=True) for token in BASE_TOKENS])
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    path = folder / "added_tokens.json"
    if path.is_file():
        added: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        order = sorted(added, key=added.__getitem__)
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in order])
        for token in order:
            if backend.token_to_id(token) != added[token]:
                raise OpenFlorenceError(
                    f"{path} wants id {added[token]} for {token}, which does not follow the vocabulary"
                )
    return backend


def _byte_alphabet() -> dict[str, int]:
    """The printable character that stands for each byte in GPT-2's vocabulary files, to the byte.

    Bytes that print as themselves in Latin-1 are their own character; the others, in order, take those from U+0100 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _decode_bytes(data: bytes) -> tuple[str, NDArray[np.int64]]:
    """UTF-8 with U+FFFD for each run that is no character, and for each byte the index of its character."""
    array = np.frombuffer(data, dtype=np.uint8)
    first = (array & 0xC0) != 0x80  # (bytes,) True where a character begins: not a continuation byte
    for start, end in _broken(data):
        first[start:end] = False
        first[start] = True
    return data.decode("utf-8", "replace"), np.cumsum(first) - 1


def _broken(data: bytes) -> Iterator[tuple[int, int]]:
    """The (start, end) of every run of bytes that decoding replaces by one U+FFFD."""
    offset = 0
    while True:
        try:
            data[offset:].decode("utf-8")
        except UnicodeDecodeError as error:
            yield offset + error.start, offset + error.end
            offset += error.end
        else:
            return
