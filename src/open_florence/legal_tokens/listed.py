"""Labels that have to be one of those in a list, or a phrase of a caption, as the token sequences that spell them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from open_florence.legal_tokens.lexicon import Lexicon
from open_florence.tasks.grammar import pieces
from open_florence.tokenizer import Tokenizer

Place = tuple[tuple[int, int], ...]
"""Where a label stands: the sequences that began with what was said of it, each with how many tokens that was."""


class Listed:
    """Token sequences that may be said, each up to any of its `stops` (numbers of tokens, at least 1)."""

    def __init__(self, sequences: Sequence[Sequence[int]], stops: Sequence[Iterable[int]]) -> None:
        self._stops = [frozenset(ends) for ends in stops]
        self._sequences = [list(said[: max(ends)]) for said, ends in zip(sequences, self._stops, strict=True)]
        self._rest = [_to_stop(len(said), ends) for said, ends in zip(self._sequences, self._stops, strict=True)]
        self.longest = max((max(rest) for rest in self._rest), default=0)
        """The most tokens that it takes from anywhere to the next stop."""
        self._first: dict[int, Place] = {}
        for index, said in enumerate(self._sequences):
            self._first[said[0]] = (*self._first.get(said[0], ()), (index, 1))
        self._opening = {token: self._nearest(place) for token, place in self._first.items()}

    def begin(self, token: int) -> Place:
        """The place after a label's first token; empty where none begins so."""
        return self._first.get(token, ())

    def advance(self, place: Place, token: int) -> Place:
        """The place after one more token; empty where no label goes on so."""
        return tuple((index, said + 1) for index, said in place if self._next(index, said) == token)

    def may_stop(self, place: Place) -> bool:
        """Whether what was said is a label."""
        return any(said in self._stops[index] for index, said in place)

    def options(self, place: Place | None) -> dict[int, int]:
        """Token -> how many more the label takes at least after it; None asks for the first tokens."""
        if place is None:
            return self._opening
        found: dict[int, int] = {}
        for index, said in place:
            token = self._next(index, said)
            if token is not None:
                rest = self._rest[index][said]
                found[token] = min(rest, found.get(token, rest))
        return found

    def _next(self, index: int, said: int) -> int | None:
        sequence = self._sequences[index]
        return sequence[said] if said < len(sequence) else None

    def _nearest(self, place: Place) -> int:
        return min(self._rest[index][said - 1] for index, said in place)


def labels_of(names: Iterable[str], tokenizer: Tokenizer, lexicon: Lexicon) -> Listed:
    """Whole names only, as they are and with a space before them. Names that hold markup cannot be said."""
    spelt = [
        tokenizer.encode(before + name.strip(), wrap=False)
        for name in names
        if name.strip() and _are_words(name)
        for before in ("", " ")
    ]
    spelt = [ids for ids in spelt if all(id_ in lexicon for id_ in ids)]
    return Listed(spelt, [(len(ids),) for ids in spelt])


def phrases_of(caption: str, tokenizer: Tokenizer, lexicon: Lexicon) -> Listed | None:
    """The runs of whole words of a caption, also with a small first letter and with a space before them.

    None where they cannot be told: in a caption that holds markup, or is of a script without spaces between words.
    """
    if not _are_words(caption) or any(_without_case(letter) for letter in caption):
        return None
    sequences, stops = [], []
    for start in _word_starts(caption):
        rest = caption[start:]
        for spelt in dict.fromkeys((rest, rest[0].lower() + rest[1:], f" {rest}")):
            ids = tokenizer.encode(spelt, wrap=False)
            if all(id_ in lexicon for id_ in ids) and (ends := _word_ends(spelt, ids, tokenizer)):
                sequences.append(ids)
                stops.append(ends)
    return Listed(sequences, stops)


def _to_stop(length: int, stops: frozenset[int]) -> list[int]:
    """For each token of a sequence, how many follow it up to the nearest stop."""
    return [min(stop for stop in stops if stop > said) - said - 1 for said in range(length)]


def _are_words(text: str) -> bool:
    found = pieces(text)
    return len(found) == 1 and found[0].kind == "words" and found[0].text == text


def _without_case(letter: str) -> bool:
    return letter.isalpha() and letter.lower() == letter.upper()


def _inside_a_word(text: str, place: int) -> bool:
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def _word_starts(caption: str) -> Iterator[int]:
    for place, character in enumerate(caption):
        if not character.isspace() and not _inside_a_word(caption, place):
            yield place


def _word_ends(text: str, ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """After how many tokens a phrase that begins with the text may end: behind a word or a sign, not within one."""
    _, spans = tokenizer.decode_with_spans(ids)
    followers = [start for start, _ in spans[1:]] + [len(text)]
    return [
        said
        for said, ((_, end), follower) in enumerate(zip(spans, followers, strict=True), 1)
        if end == follower and not text[end - 1].isspace() and not _inside_a_word(text, end)
    ]
