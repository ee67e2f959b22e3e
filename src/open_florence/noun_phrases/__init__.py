"""The noun phrases of a caption, and how much it says: spaCy where it and a model are installed, else our own rules.

Complexity follows DiHT (arXiv 2301.02280) and Florence-2's data engine (arXiv 2311.06242): a word's complexity is its
degree in the dependency tree, taken as undirected.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from open_florence.noun_phrases.chunker import chunk, degrees, tokenize
from open_florence.noun_phrases.words import BLACKLIST, is_blacklisted, is_determiner, is_qualifier, singular

__all__ = [
    "BLACKLIST",
    "Complexity",
    "Phrase",
    "complexity",
    "is_blacklisted",
    "is_determiner",
    "is_qualifier",
    "noun_phrases",
    "parser_name",
    "singular",
]


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase of a text."""

    text: str
    span: tuple[int, int]
    """The characters of the text that it is, end exclusive: `text[slice(*span)] == phrase.text`."""
    head: str
    """The noun it is about, as written: "motorcycles" of "a row of parked motorcycles"."""


@dataclass(frozen=True, slots=True)
class Complexity:
    """How much a text says."""

    objects: int
    """Noun phrases that name a thing."""
    actions: int
    """Verbs, auxiliaries not counted."""
    object_degree: int
    """The largest degree among the nouns of those phrases; 0 without one."""
    action_degree: int
    """The largest degree among the verbs; 0 without one."""


def noun_phrases(text: str) -> list[Phrase]:
    """The noun phrases that name a thing, in order, none overlapping another.

    Left out are the phrases of `BLACKLIST`: pronouns, places in the picture ("the left"), the picture itself.
    """
    if (parser := _spacy()) is not None:
        return [_phrase(text, one.start_char, one.end_char, one.root.text) for one in _spacy_chunks(parser(text))]
    tokens = tokenize(text)
    found = [(tokens[one.first].start, tokens[one.last].end, tokens[one.head].text) for one in chunk(tokens)]
    return [phrase for one in found if not is_blacklisted((phrase := _phrase(text, *one)).text)]


def complexity(text: str) -> Complexity:
    """How many objects and actions a text names, and how much is said of the one of each of which most is said."""
    if (parser := _spacy()) is not None:
        document = parser(text)
        objects = [_degree(one.root) for one in _spacy_chunks(document)]
        actions = [_degree(token) for token in document if token.pos_ == "VERB"]
    else:
        tokens = tokenize(text)
        chunks = chunk(tokens)
        named, actions = degrees(tokens, chunks)
        phrases = [text[tokens[one.first].start : tokens[one.last].end] for one in chunks]
        objects = [degree for phrase, degree in zip(phrases, named, strict=True) if not is_blacklisted(phrase)]
    return Complexity(len(objects), len(actions), max(objects, default=0), max(actions, default=0))


def parser_name() -> str:
    """What reads the texts here: "spacy:en_core_web_sm@3.8.0" or "rules"."""
    parser = _spacy()
    return "rules" if parser is None else f"spacy:{parser.meta['lang']}_{parser.meta['name']}@{parser.meta['version']}"


def _phrase(text: str, start: int, end: int, head: str) -> Phrase:
    return Phrase(text[start:end], (start, end), head)


@functools.cache
def _spacy() -> Any | None:
    """An English pipeline that parses, the first by name of those installed; None without spaCy or without one."""
    try:
        import spacy
    except ImportError:
        return None
    for name in sorted(spacy.util.get_installed_models()):
        if name.startswith("en_"):
            parser = spacy.load(name, exclude=["ner"])
            if "parser" in parser.pipe_names:
                return parser
    return None


def _spacy_chunks(document: Any) -> list[Any]:
    """The noun chunks that name a thing."""
    return [one for one in document.noun_chunks if one.root.pos_ != "PRON" and not is_blacklisted(one.text)]


def _degree(token: Any) -> int:
    """Edges of a token in the dependency tree, marks not counted."""
    return int(token.head.i != token.i) + sum(1 for child in token.children if not child.is_punct)
