"""Which tokens may come next in the answer to a question: the grammars of `tasks`, token by token, without PyTorch.

`automaton` gives the automaton of a question; `inference.legal` masks a model's scores with it. What is allowed is what
the task's reader understands completely; all that its writer writes is allowed, where labels are listed as far as they
are in the list.
"""

from __future__ import annotations

from functools import lru_cache

from open_florence.legal_tokens.automaton import UNLIMITED, Allowed, Automaton, Choice, State
from open_florence.legal_tokens.lexicon import Lexicon
from open_florence.legal_tokens.listed import labels_of, phrases_of
from open_florence.legal_tokens.regions import RegionAutomaton
from open_florence.legal_tokens.text import TextAutomaton
from open_florence.schema import Kind, Region
from open_florence.tasks import PhraseGrammar, RegionGrammar, Task, TextGrammar
from open_florence.tokenizer import Tokenizer

__all__ = ["UNLIMITED", "Allowed", "Automaton", "Choice", "State", "automaton"]

NAMED = "<OPEN_VOCABULARY_DETECTION>"
SEPARATOR = "<and>"
"""What stands between the labels of its query."""


def automaton(task: Task, query: str | Region | None, tokenizer: Tokenizer, vocabulary: int) -> Automaton | None:
    """The automaton of the answers to a task about an image; None for a grammar of one's own, where all is allowed.

    Masks have `vocabulary` ids. Labels of <OPEN_VOCABULARY_DETECTION> are those of its query ("cat<and>dog"), phrases
    of grounding are runs of whole words of the caption asked about; other labels are any words. Questions without a
    list of their own share one automaton.
    """
    grammar = task.grammar
    if type(grammar) is TextGrammar:
        return _words(tokenizer, vocabulary, grammar.echo)
    if type(grammar) is PhraseGrammar:
        lexicon = _lexicon(tokenizer, vocabulary)
        phrases = phrases_of(query, tokenizer, lexicon) if isinstance(query, str) else None
        return RegionAutomaton(lexicon, ("box",), True, phrases) if phrases else _boxes(tokenizer, vocabulary)
    if type(grammar) is not RegionGrammar:
        return None
    if task.token == NAMED and isinstance(query, str):
        lexicon = _lexicon(tokenizer, vocabulary)
        return RegionAutomaton(lexicon, grammar.kinds, True, labels_of(query.split(SEPARATOR), tokenizer, lexicon))
    return _regions(tokenizer, vocabulary, grammar.kinds, grammar.labelled)


@lru_cache(maxsize=4)
def _lexicon(tokenizer: Tokenizer, vocabulary: int) -> Lexicon:
    return Lexicon(tokenizer, vocabulary)


@lru_cache(maxsize=8)
def _words(tokenizer: Tokenizer, vocabulary: int, echo: bool) -> TextAutomaton:
    return TextAutomaton(_lexicon(tokenizer, vocabulary), echo)


@lru_cache(maxsize=32)
def _regions(tokenizer: Tokenizer, vocabulary: int, kinds: tuple[Kind, ...], labelled: bool) -> RegionAutomaton:
    return RegionAutomaton(_lexicon(tokenizer, vocabulary), kinds, labelled)


def _boxes(tokenizer: Tokenizer, vocabulary: int) -> RegionAutomaton:
    return _regions(tokenizer, vocabulary, ("box",), True)
