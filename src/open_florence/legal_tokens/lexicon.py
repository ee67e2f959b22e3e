"""Which ids are words, and what can be told of words while they are being said, byte by byte.

Two things go wrong with words that are cut into tokens: a label may hold nothing but blanks, which no reader takes for
a label, and harmless tokens may spell markup ("<", "se", "p", ">"), which every reader takes for markup. Both are
decided here on bytes, because a token may end in the middle of a character.
"""

from __future__ import annotations

import codecs
import re

import numpy as np
from numpy.typing import NDArray

from open_florence.tokenizer import Tokenizer

Mask = NDArray[np.bool_]
"""(V,): True where an id is meant."""

Words = tuple[bool, bytes]
"""Words said so far: whether any of it is visible, and the end that the next token may change the meaning of. That is
the beginning of a character as long as nothing is visible, of markup (its digits as zeros) from then on."""

NO_WORDS: Words = (False, b"")
VISIBLE: Words = (True, b"")
HALF: Words = (False, b"\xe3")
"""Half a character, which may become a visible one or a blank."""

_MARKUP = re.compile(rb"<loc_[0-9]{1,6}>|<s>|</s>|<pad>|<sep>|<poly>|</poly>")
"""What `tasks.grammar` reads as a token wherever it stands."""

_LITERAL = (b"<s>", b"</s>", b"<pad>", b"<sep>", b"<poly>", b"</poly>", b"<loc_000000>")
_BEGINNINGS = {token[:length] for token in _LITERAL for length in range(1, len(token))}


class Lexicon:
    """The words of a tokenizer, as far as a model with `vocabulary` ids can say them."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.end = tokenizer.eos
        self.locations = range(tokenizer.location_start, tokenizer.location_start + tokenizer.location_count)
        self.marks = {mark: tokenizer.encode(mark, wrap=False)[0] for mark in ("<sep>", "<poly>", "</poly>")}
        self._bytes = {id_: said for id_, said in tokenizer.word_bytes.items() if id_ < vocabulary}
        self._plain = frozenset(id_ for id_, said in self._bytes.items() if _is_plain(said))
        self._closing = [id_ for id_, said in self._bytes.items() if b">" in said]
        self._masks: dict[bytes, Mask] = {}

    def __contains__(self, token: int) -> bool:
        """Whether an id is words: no special token, and within the vocabulary."""
        return token in self._bytes

    def mask(self, words: Words) -> Mask:
        """The ids that may follow as further words: all those that complete no markup. Not to be changed."""
        beginning = words[1] if words[0] else b""
        if beginning not in self._masks:
            found = np.zeros(self.vocabulary, np.bool_)
            found[list(self._bytes)] = True
            found[[id_ for id_ in self._closing if _MARKUP.search(beginning + self._bytes[id_])]] = False
            self._masks[beginning] = found
        return self._masks[beginning]

    def say(self, words: Words, token: int) -> Words | None:
        """The words after one more token; None where it is no word or completes markup."""
        visible, end = words
        if token in self._plain and not (visible and end):
            return VISIBLE
        if token not in self._bytes:
            return None
        said = end + self._bytes[token]
        if _MARKUP.search(said):
            return None
        if not visible:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            if not decoder.decode(said).strip():
                return False, bytes(decoder.getstate()[0])
        return True, _beginning(said)


def is_label(words: Words) -> bool:
    """Whether a label may end here: something of it is visible, be it half a character, which reads as U+FFFD."""
    return words[0] or bool(words[1])


def _is_plain(said: bytes) -> bool:
    """Whether a token is visible whatever stood before it, and neither part of markup nor of a split character."""
    if b"<" in said:
        return False
    try:
        return bool(said.decode("utf-8").strip())
    except UnicodeDecodeError:
        return False


def _beginning(said: bytes) -> bytes:
    """The beginning of markup that some bytes end with; empty where they end with none."""
    start = said.rfind(b"<")
    found = re.sub(rb"[0-9]", b"0", said[start:]) if start >= 0 else b""
    return found if found in _BEGINNINGS else b""
