"""A JSON file too large for memory, read once from front to back: its lists come apart into their elements.

The parsing is that of `json`, an element at a time, so what other programs write and `json` reads (NaN for one) is read
here too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

CHUNK = 1 << 20
"""Characters read at a time; an element longer than that is read in steps that double."""
LONGEST_LITERAL = 16
"""An error or the end of a number nearer than this to the end of what was read may be due to the chunk's end."""


def stream(path: Path, characters: int | None = None) -> Iterator[tuple[str, Any]]:
    """(key, value) of the object in a file, in its order; for a list, (key, element) of every element instead.

    Memory is that of the longest element. `characters` stops silently after about so many, for a look at the head of a
    file. Raises ValueError saying where when the text is no JSON or no object, and OSError when it cannot be read.
    """
    return _parsed(path, characters, _members)


def stream_list(path: Path, characters: int | None = None) -> Iterator[Any]:
    """The elements of the list in a file, otherwise as `stream`."""
    return _parsed(path, characters, _elements)


Part = TypeVar("Part")


def _parsed(path: Path, characters: int | None, parse: Callable[[_Text], Iterator[Part]]) -> Iterator[Part]:
    with path.open(encoding="utf-8-sig") as file:
        text = _Text(file, characters)
        try:
            yield from parse(text)
        except _HeadEndsError:
            return
        except RecursionError:
            raise ValueError(f"it is nested too deeply at character {text.position}") from None
        if rest := text.next():
            raise ValueError(f"there is {rest!r} after its end, at character {text.position}")


class _HeadEndsError(Exception):
    """As much was read as was asked for."""


def _members(text: _Text) -> Iterator[tuple[str, Any]]:
    text.expect("{")
    if text.next() == "}":
        text.expect("}")
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise ValueError(f"there is no key before character {text.position}")
        text.expect(":")
        if text.next() == "[":
            yield from ((key, element) for element in _elements(text))
        else:
            yield key, text.value()
        if text.expect(",}") == "}":
            return


def _elements(text: _Text) -> Iterator[Any]:
    text.expect("[")
    if text.next() == "]":
        text.expect("]")
        return
    while True:
        yield text.value()
        if text.expect(",]") == "]":
            return


class _Text:
    """The part of a file that is being parsed."""

    def __init__(self, file: IO[str], characters: int | None) -> None:
        self._file = file
        self._left = characters
        self._text = ""
        self._at = 0
        self._before = 0  # characters of the file that are no longer in _text

    @property
    def position(self) -> int:
        """Characters of the file that are behind us."""
        return self._before + self._at

    def next(self) -> str:
        """The next character that is no space, not yet taken; "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def expect(self, characters: str) -> str:
        """Takes the next character, which has to be one of these."""
        found = self.next()
        if not found or found not in characters:
            seen = repr(found) if found else "the end of the file"
            raise ValueError(f"there is {seen} at character {self.position}, not {' or '.join(characters)}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Takes the next value of any kind."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                where = self._before + error.pos
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - LONGEST_LITERAL
                if cut and self._more():
                    continue
                raise ValueError(f"{error.msg} at character {where}") from None
            length = end - self._at
            if end + LONGEST_LITERAL <= len(self._text) or not self._more():  # "0" may be the beginning of "0.5"
                self._at += length
                return value

    def _more(self) -> bool:
        """Reads on; False at the end of the file."""
        if self._left is not None and self._left <= 0:
            raise _HeadEndsError
        piece = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._before += self._at
        self._text = self._text[self._at :] + piece
        self._at = 0
        if self._left is not None:
            self._left -= len(piece)
        return bool(piece)


_DECODER = json.JSONDecoder()
