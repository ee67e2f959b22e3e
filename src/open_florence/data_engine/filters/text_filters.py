"""Filters that look at captions: each is a function of options that makes a `Filter`. People's captions are kept.

A figure may be one for all captions, or a table by task as {"<CAPTION>" = 1, "<DETAILED_CAPTION>" = 3}; a task that it
does not name is not judged by it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.partition import CAPTION_TASKS, Filter, by_text
from open_florence.errors import OpenFlorenceError
from open_florence.noun_phrases import complexity as measure
from open_florence.schema import Annotation

Figure = int | Mapping[str, int]

MOST_OBJECTS = {"<CAPTION>": 12, "<DETAILED_CAPTION>": 40, "<MORE_DETAILED_CAPTION>": 80}
"""About three times the mean of FLD-5B's captions of each length (arXiv 2311.06242, table 2)."""


def complexity(
    objects: Figure = 1, actions: Figure = 0, object_degree: Figure = 1, action_degree: Figure = 0
) -> Filter:
    """Captions go that say too little: fewer objects or actions, or less of each, than asked (`noun_phrases`)."""
    asked = {
        "objects": objects,
        "actions": actions,
        "object_degree": object_degree,
        "action_degree": action_degree,
    }
    _check("complexity", asked)

    def judge(annotation: Annotation) -> str:
        least = {name: _figure(figure, annotation.task) or 0 for name, figure in asked.items()}
        if not any(least.values()):
            return ""
        measured = measure(annotation.text)
        for name, wanted in least.items():
            if (found := getattr(measured, name)) < wanted:
                return f"complexity: {name.replace('_', ' ')} {found}, under {wanted}"
        return ""

    return _of_machines(judge)


def too_many_named(most: Figure = MOST_OBJECTS) -> Filter:
    """Captions go that name more objects than anybody can check."""
    _check("too_many_named", {"most": most})

    def judge(annotation: Annotation) -> str:
        limit = _figure(most, annotation.task)
        if limit is None:
            return ""
        found = measure(annotation.text).objects
        return f"too many named: {found} objects, more than {limit}" if found > limit else ""

    return _of_machines(judge)


def length(least: Figure = 2, most: Figure = 250) -> Filter:
    """Captions go with fewer or more words than asked."""
    _check("length", {"least": least, "most": most})

    def judge(annotation: Annotation) -> str:
        count = len(annotation.text.split())
        low, high = _figure(least, annotation.task), _figure(most, annotation.task)
        if low is not None and count < low:
            return f"length: {count} words, under {low}"
        return f"length: {count} words, more than {high}" if high is not None and count > high else ""

    return _of_machines(judge)


def repetition(words: int = 4, times: int = 3, in_a_row: int = 3) -> Filter:
    """Captions go in which a model has begun to repeat itself.

    That is, the same run of `words` words occurs more than `times` times, or one word stands `in_a_row` times in a row.
    """
    for name, value in (("words", words), ("times", times), ("in_a_row", in_a_row - 1)):
        if value < 1:
            raise OpenFlorenceError(f"repetition: {name} is too small")

    def judge(annotation: Annotation) -> str:
        said = re.findall(r"[^\W_]+", annotation.text.casefold())
        for start in range(len(said) - in_a_row + 1):
            if len(set(said[start : start + in_a_row])) == 1:
                return f"repetition: {said[start]!r} stands {in_a_row} times in a row"
        runs = Counter(tuple(said[start : start + words]) for start in range(len(said) - words + 1))
        run, count = runs.most_common(1)[0] if runs else ((), 0)
        return f"repetition: {' '.join(run)!r} occurs {count} times, more than {times}" if count > times else ""

    return _of_machines(judge)


def blacklist(phrases: Collection[str]) -> Filter:
    """Captions go that hold one of the phrases as whole words, in any case: "stock photo", "as an AI"."""
    if isinstance(phrases, str) or not all(phrase.strip() for phrase in phrases):
        raise OpenFlorenceError("blacklist: phrases is a list of words")
    words = sorted((re.escape(phrase.strip()) for phrase in phrases), key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE) if words else None

    def judge(annotation: Annotation) -> str:
        found = pattern.search(annotation.text) if pattern else None
        return f"blacklist: the caption says {found.group()!r}" if found else ""

    return _of_machines(judge)


def _of_machines(judge: Callable[[Annotation], str]) -> Filter:
    return by_text(lambda annotation: "" if is_human(annotation) else judge(annotation))


def _figure(figure: Figure, task: str) -> int | None:
    return figure.get(task) if isinstance(figure, Mapping) else figure


def _check(name: str, figures: Mapping[str, Figure]) -> None:
    for option, figure in figures.items():
        for value in figure.values() if isinstance(figure, Mapping) else [figure]:
            if not isinstance(value, int) or value < 0:
                raise OpenFlorenceError(f"{name}: {option} is a whole number, or one for each task, not {value!r}")
        for task in figure if isinstance(figure, Mapping) else ():
            if task not in CAPTION_TASKS:
                raise OpenFlorenceError(f"{name}: {option} is for {', '.join(CAPTION_TASKS)}, not for {task}")
