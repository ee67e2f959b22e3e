"""VQA accuracy: how many of ten people gave the same answer (Antol et al. 2015, arXiv 1505.00468; visualqa.org).

An answer that three people gave is right; one or two are worth a third or two thirds. Both sides are normalized first
(`normalize_answer`), as the official evaluation does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.intervals import Tally

ENOUGH = 3
"""So many people agreeing make an answer right."""

PEOPLE = 10
"""Answers to a question in VQA's data; with fewer one that agrees is enough."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)} | {"none": "0"}

ARTICLES = frozenset(["a", "an", "the"])

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
"""Removed, or made a space inside a word; full stops and apostrophes are dealt with apart."""

CONTRACTIONS = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've y'all'd've y'all'll you'd've 'ow's'at
"""

MISSPELT = {
    word[: match.start()] + word[match.end() :]: word
    for word in CONTRACTIONS.split()
    for match in re.finditer("'", word)
} | {"somebody'd": "somebodyd"}
"""A contraction with one apostrophe forgotten -> as it is written; the last is a slip of the official table."""


def normalize_answer(text: str) -> str:
    """An answer in lower case, without punctuation and articles, small numbers as digits, contractions mended.

    "The two  dogs." -> "2 dogs", "dont" -> "don't". A mark of punctuation vanishes where a space stands beside one of
    its kind, or the answer holds a number with a comma ("1,000"); elsewhere it becomes a space ("black/white").
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    number = re.search(r"\d,\d", text) is not None
    stripped = text
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside or number else " ")
    words = [DIGITS.get(word, word) for word in re.sub(r"\.(?!\d)", "", stripped).lower().split()]
    return " ".join(MISSPELT.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(references: Sequence[Sequence[str]], found: Sequence[str]) -> Tally:
    """VQA's accuracy: min(people who gave this answer / 3, 1), averaged over each choice of all people but one.

    `references` holds the answers that people gave to each question, `found` one answer for each. With fewer than ten
    people the answer is right when anybody gave it. The official program leaves answers as they are where all people
    wrote the same; here they are normalized there too. Raises OpenFlorenceError for a question without a reference.
    """
    scores: list[tuple[float, float]] = []
    for question, (answers, text) in enumerate(zip(references, found, strict=True)):
        if not answers:
            raise OpenFlorenceError(f"VQA accuracy needs a person's answer to question {question}, which has none")
        own = normalize_answer(text)
        same = np.array([normalize_answer(answer) == own for answer in answers], dtype=np.float64)
        if len(answers) < PEOPLE:
            scores.append((same.max(), 1.0))
        else:
            scores.append((np.minimum((same.sum() - same) / ENOUGH, 1.0).mean(), 1.0))
    return Tally.of(scores)
