"""Noun phrases and a crude dependency tree by rules, for where no parser is installed.

A word is what the closed classes of `words.py` say it is; any other is a noun, so that a noun phrase is determiners,
numbers and describing words up to its last noun. What follows a noun decides whether a word in -ing, -ed or -s is a
verb ("a man holding a bag") or part of the phrase ("a parking lot").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from open_florence.noun_phrases import words as w

Kind = Literal[
    "determiner",
    "adjective",
    "noun",
    "pronoun",
    "preposition",
    "conjunction",
    "adverb",
    "auxiliary",
    "verb",
    "stop",
]
_TOKEN = re.compile(r"\"[^\"]*\"|“[^”]*”|[^\W_]+(?:['’\-&][^\W_]+)*|[^\w\s]", re.UNICODE)


@dataclass(slots=True)
class Token:
    """A word or mark and where it stands."""

    text: str
    start: int
    kind: Kind = "stop"

    @property
    def word(self) -> str:
        return self.text.lower().replace("’", "'")

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens `first` to `last` (inclusive) are a noun phrase about the noun at `head`."""

    first: int
    head: int
    last: int


def tokenize(text: str) -> list[Token]:
    """The words and marks of a text, in order, each with its kind. What stands in double quotes is one "stop"."""
    tokens = [Token(match.group(), match.start()) for match in _TOKEN.finditer(text)]
    phrase: Literal["", "open", "named"] = ""  # nothing, words before the noun, a noun
    for index, token in enumerate(tokens):
        token.kind = _kind(tokens, index, phrase)
        if token.kind == "noun":
            phrase = "named"
        elif token.kind in ("determiner", "adjective"):
            phrase = "open" if phrase != "named" or token.kind == "determiner" else phrase
        elif not (token.kind == "adverb" and phrase == "open") and not _joins(tokens, index, phrase):
            phrase = ""
    return tokens


def _word_at(tokens: list[Token], index: int) -> str:
    return tokens[index].word if 0 <= index < len(tokens) else ""


def _nominal(word: str) -> bool:
    """Whether a word can stand inside a noun phrase before or as its noun, seen alone."""
    closed = w.DETERMINERS | w.PRONOUNS | w.PREPOSITIONS | w.CONJUNCTIONS | w.ADVERBS | w.AUXILIARIES
    return word[:1].isalnum() and word not in closed and not _certainly_verb(word) and not word.endswith("ly")


def _certainly_verb(word: str) -> bool:
    return word in w.CLEAR_FORMS or word in w.PAST_FORMS


def _kind(tokens: list[Token], index: int, phrase: str) -> Kind:
    word, after = tokens[index].word, _word_at(tokens, index + 1)
    if not word[0].isalnum():
        return "stop"
    if (closed := _closed(tokens, index, phrase)) is not None:
        return closed
    if _is_verb(tokens, index, phrase):
        return "verb"
    if word.endswith("ly") and word not in w.NOUNS_IN_LY and not w.is_adjective(word):
        describes = phrase == "open" or _word_at(tokens, index - 1) in w.PREPOSITIONS
        return "adjective" if describes and _nominal(after) else "adverb"
    if w.is_adjective(word):
        follows = _nominal(after) or (after in ("and", ",") and w.is_adjective(_word_at(tokens, index + 2)))
        if word in w.ADJECTIVES_AS_NOUNS and not follows and phrase == "open" and tokens[index - 1].kind != "adverb":
            return "noun"
        return "adjective" if phrase != "named" or follows else "stop"
    return "adjective" if word.isdigit() else "noun"


def _closed(tokens: list[Token], index: int, phrase: str) -> Kind | None:
    """The kind of a word of the closed classes, or None."""
    word, before, after = tokens[index].word, _word_at(tokens, index - 1), _word_at(tokens, index + 1)
    if word in w.DETERMINERS and not (word in w.RELATIVE and _finite(after)):
        begins = _nominal(after) or after == "of" or after in w.ADVERBS | w.DETERMINERS | w.NUMBERS
        return "determiner" if begins or word in ("a", "an", "the") else "pronoun"
    if word in w.NUMBERS:
        return "determiner"
    if word == "can" and phrase:
        return "auxiliary" if phrase == "named" and _finite(after) else "noun"
    if word in w.AUXILIARIES:
        return "auxiliary"
    if word in w.PRONOUNS:
        return "pronoun"
    if word in w.PREPOSITIONS:
        if before in ("the", "a", "an"):
            return "adjective" if _nominal(after) else "noun"
        return "preposition"
    if word in w.CONJUNCTIONS:
        return "conjunction"
    return "adverb" if word in w.ADVERBS else None


def _finite(word: str) -> bool:
    """Whether a word is a verb in the present, or may be one."""
    return word in w.CLEAR_FORMS or word in w.AMBIGUOUS_FORMS or word in w.PAST_FORMS or word in w.AUXILIARIES


def _is_verb(tokens: list[Token], index: int, phrase: str) -> bool:
    word, before, after = tokens[index].word, _word_at(tokens, index - 1), _word_at(tokens, index + 1)
    if word.endswith("ing") and len(word) > 4 and word not in w.NOUNS_IN_ING:
        if word in w.GERUNDS_BEFORE_NOUNS and _nominal(after):
            return phrase == "named" and not w.is_adjective(before) and after.endswith("s")
        return phrase == "named" or not _nominal(after) or (phrase == "" and before != "of")
    if (word.endswith("ed") and len(word) > 3 and word not in w.NOUNS_IN_ED and not w.is_adjective(word)) or (
        word in w.PAST_FORMS and word not in w.CLEAR_FORMS
    ):
        if phrase == "named" and w.is_adjective(after):  # "a lid painted red"
            return True
        return not _nominal(after) or (phrase == "" and index > 0 and before not in w.PREPOSITIONS | {"and", ","})
    if word in w.CLEAR_FORMS:
        return phrase != "open" or before in w.RELATIVE
    if word not in w.AMBIGUOUS_FORMS or phrase == "open" or before in w.RELATIVE:
        return before in w.RELATIVE and word in w.AMBIGUOUS_FORMS
    if before == "to" or (phrase == "" and before in ("and", "who", "which") and not _nominal(after)):
        return index > 1
    subject_agrees = not w.AMBIGUOUS_FORMS[word] or w.singular(before) != before or before == "sheep"
    return phrase == "named" and subject_agrees and not _nominal(after)


def _joins(tokens: list[Token], index: int, phrase: str) -> bool:
    """Whether "and" or a comma joins two describing words of one noun: "black and white cat", "small, dark room"."""
    if phrase != "open" or not 0 < index < len(tokens) or tokens[index - 1].kind != "adjective":
        return False
    after = _word_at(tokens, index + 1)
    return tokens[index].word in ("and", "or", ",", "&") and (w.is_adjective(after) or after == "and")


def chunk(tokens: list[Token]) -> list[Chunk]:
    """The noun phrases among tokens, in order, none overlapping. Measures take their noun in: "a bunch of bananas"."""
    chunks: list[Chunk] = []
    first = head = None
    for index, token in enumerate([*tokens, Token(".", 0)]):
        if token.kind == "determiner" and head is not None:  # a new phrase begins
            chunks.append(Chunk(first if first is not None else head, head, head))
            first, head = index, None
        elif token.kind == "noun":
            first, head = index if first is None else first, index
        elif token.kind in ("determiner", "adjective"):
            first = index if first is None else first
        elif first is not None and head is None and (token.kind == "adverb" or _joins(tokens, index, "open")):
            continue
        else:
            if head is not None:
                chunks.append(Chunk(first if first is not None else head, head, head))
            first = head = None
    return _measured(chunks, tokens)


def _measured(chunks: list[Chunk], tokens: list[Token]) -> list[Chunk]:
    merged: list[Chunk] = []
    for one in chunks:
        last = merged[-1] if merged else None
        if last and one.first == last.last + 2 and tokens[last.last + 1].word == "of":
            measure = tokens[last.head].word
            if measure in w.MEASURES - w.CONTAINERS:
                merged[-1] = Chunk(last.first, one.head, one.last)
                continue
        merged.append(one)
    return merged


def degrees(tokens: list[Token], chunks: list[Chunk]) -> tuple[list[int], list[int]]:
    """How many edges the noun of each chunk and each verb have in a crude dependency tree: two lists, in order.

    The words of a phrase hang on its noun; every noun, preposition, verb and adverb hangs on the last noun, verb or
    preposition before it in its sentence, and so does an "and".
    """
    heads = {one.head: one for one in chunks}
    inside = {index for one in chunks for index in range(one.first, one.last + 1)} - heads.keys()
    edges = [0] * len(tokens)
    verbs: list[int] = []
    last: int | None = None
    for index, token in enumerate(tokens):
        if index in inside:
            continue
        if token.word in (".", "!", "?", ";"):
            last = None
        if index not in heads and token.kind not in ("verb", "preposition", "auxiliary", "adverb", "conjunction"):
            continue
        if last is not None:
            edges[index] += 1
            edges[last] += 1
        if index in heads:
            edges[index] += heads[index].last - heads[index].first
        if token.kind == "verb":
            verbs.append(index)
        if index in heads or token.kind in ("verb", "preposition", "auxiliary"):
            last = index
    return [edges[one.head] for one in chunks], [edges[index] for index in verbs]
