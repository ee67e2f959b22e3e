"""Every task as one row: what is asked, and the grammar of its answer (Florence-2, arXiv 2311.06242, section 3.1).

The first fifteen rows are the published ones, with their sentences word for word. A row of your own needs no change
here: `TASKS["<COUNT>"] = Task("<COUNT>", "How many {input} are there?", TextGrammar("<COUNT>"), query="text")`.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Region, Size
from open_florence.tasks.grammar import Extent, Grammar, Trace, corners, write_points
from open_florence.tasks.phrases import PhraseGrammar
from open_florence.tasks.regions import RegionGrammar
from open_florence.tasks.text import TextGrammar

__all__ = [
    "TASKS",
    "Extent",
    "Grammar",
    "PhraseGrammar",
    "RegionGrammar",
    "Task",
    "TextGrammar",
    "Trace",
    "find_task",
]


@dataclass(frozen=True, slots=True)
class Task:
    """A question and the form of its answer."""

    token: str
    """Its name, as "<OD>". The model never sees it."""
    prompt: str
    """The sentence sent to the model, with "{input}" where the query goes."""
    grammar: Grammar
    query: Literal["none", "text", "region"] = "none"
    """What has to be asked with it: nothing, words, or a region."""

    def __post_init__(self) -> None:
        if self.query == "none" and "{input}" in self.prompt:
            raise OpenFlorenceError(f"the prompt of {self.token} has {{input}} but the task takes no query")

    def question(self, query: str | Region | None, size: Size) -> str:
        """The sentence sent to the model about an input of `size`, in the unit of the region's points.

        Words lose spaces at their ends. A region is written as the location tokens of its box (x1, y1, x2, y2); a
        string of such tokens is taken as it is. Raises OpenFlorenceError where the query is missing, superfluous, or
        of the wrong kind.
        """
        if self.query == "none":
            if query is not None:
                raise OpenFlorenceError(f"{self.token} takes no query, but was given {str(query)[:80]!r}")
            return self.prompt
        if query is None or (isinstance(query, str) and not query.strip()):
            wanted = "words" if self.query == "text" else "a region"
            raise OpenFlorenceError(f"{self.token} needs {wanted} as its query")
        if isinstance(query, Region):
            if self.query == "text":
                raise OpenFlorenceError(f"{self.token} needs words as its query, not a region")
            query = write_points(corners(query), size)
        elif self.query == "region" and not re.fullmatch(rf"(<loc_[0-9]{{1,3}}>){{{2 * len(size)}}}", query.strip()):
            raise OpenFlorenceError(f"{self.token} needs a region as its query, not {query[:80]!r}")
        return self.prompt.replace("{input}", query.strip())


def _words(token: str, prompt: str, query: Literal["none", "text", "region"] = "none") -> Task:
    return Task(token, prompt, TextGrammar(token, echo=query == "region"), query)


def _boxes(token: str, prompt: str, labelled: bool = True) -> Task:
    return Task(token, prompt, RegionGrammar(token, ("box",), labelled))


def _mask(token: str, prompt: str, query: Literal["text", "region"]) -> Task:
    return Task(token, prompt, RegionGrammar(token, ("polygon",), labelled=False), query)


_QUADS = RegionGrammar("<OCR_WITH_REGION>", ("quad",))
_GROUNDED = PhraseGrammar("<CAPTION_TO_PHRASE_GROUNDING>")
_NAMED = RegionGrammar("<OPEN_VOCABULARY_DETECTION>", ("box", "polygon"))

TASKS: dict[str, Task] = {
    task.token: task
    for task in (
        _words("<CAPTION>", "What does the image describe?"),
        _words("<DETAILED_CAPTION>", "Describe in detail what is shown in the image."),
        _words("<MORE_DETAILED_CAPTION>", "Describe with a paragraph what is shown in the image."),
        _words("<OCR>", "What is the text in the image?"),
        Task("<OCR_WITH_REGION>", "What is the text in the image, with regions?", _QUADS),
        _boxes("<OD>", "Locate the objects with category name in the image."),
        _boxes("<DENSE_REGION_CAPTION>", "Locate the objects in the image, with their descriptions."),
        _boxes("<REGION_PROPOSAL>", "Locate the region proposals in the image.", labelled=False),
        Task("<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: {input}", _GROUNDED, "text"),
        _mask("<REFERRING_EXPRESSION_SEGMENTATION>", "Locate {input} in the image with mask", "text"),
        _mask("<REGION_TO_SEGMENTATION>", "What is the polygon mask of region {input}", "region"),
        Task("<OPEN_VOCABULARY_DETECTION>", "Locate {input} in the image.", _NAMED, "text"),
        _words("<REGION_TO_CATEGORY>", "What is the region {input}?", "region"),
        _words("<REGION_TO_DESCRIPTION>", "What does the region {input} describe?", "region"),
        _words("<REGION_TO_OCR>", "What text is in the region {input}?", "region"),
        _words("<VQA>", "{input}", "text"),
        _words("<CLASSIFICATION>", "What does the image describe?", "text"),
    )
}
"""Token to task. <VQA> asks its query; <CLASSIFICATION> scores each of the labels in its query ("cat<and>dog") as an
answer to the caption's question, which is all the model is asked."""


def find_task(name: str) -> Task:
    """The task called `name`, in any case, with or without angle brackets, with - or _.

    A name that holds a space or ends in "?" or "." is a free prompt: the question itself, answered in words. Any other
    raises OpenFlorenceError, naming the nearest task.
    """
    if (task := TASKS.get(name)) is not None:
        return task
    if " " in name.strip() or name.strip().endswith(("?", ".")):
        prompt = name.strip()
        return Task(prompt, prompt, TextGrammar(prompt))
    by_key = {_key(token): task for token, task in TASKS.items()}
    if (task := by_key.get(_key(name))) is not None:
        return task
    nearest = difflib.get_close_matches(_key(name), by_key, n=1, cutoff=0.0)
    raise OpenFlorenceError(f"there is no task {name!r}; did you mean {by_key[nearest[0]].token}?")


def _key(name: str) -> str:
    return name.strip().strip("<>").replace("-", "_").upper()
