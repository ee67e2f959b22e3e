"""CIDEr-D: how near a caption is to what several people wrote (Vedantam, Zitnick and Parikh 2015, arXiv 1411.5726).

Equal to pycocoevalcap on the same words. Its words come from Stanford's PTBTokenizer, a Java program; `caption_words`
gives the same words in Python but for rarities: of 23,238 captions of COCO and Visual Genome 5 come out differently.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.intervals import Tally

LONGEST = 4
"""n-grams of one to so many words count."""

SIGMA = 6.0
"""The width, in words, of the Gaussian that punishes a caption of another length than the reference."""

TWO_WORDS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "lemme": ("lem", "me"),
    "gimme": ("gim", "me"),
    "'tis": ("'t", "is"),
    "'twas": ("'t", "was"),
}
"""What the Penn Treebank writes as two words."""

BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
"""The names of brackets; in lower case they escape the removal of punctuation, and so count as words."""

DROPPED = frozenset(["'", "`", '"', ".", "?", "!", ",", ":", ";", "-", "--", "...", "..", "''", "``"])
"""Tokens that are no words. Runs such as "!!" are not among them and stay."""

TOKEN = re.compile(
    r"""(?:https?://|www\.)\S+ | [\w.+-]+@\w+(?:\.\w+)+            # addresses
      | (?:[a-z]\.){2,}(?:[a-z]\b)?                              # u.s., d.v.d
      | \b(?:mr|mrs|ms|dr|st|ave|no|jr|sr|vs|etc|inc|co|corp|ltd|bros|mt|ft|blvd|rd|sgt|capt|lt|gov|sen|rep|prof|gen
          |rev|dept|est|jan|feb|mar|apr|jun|jul|aug|sept|sep|oct|nov|dec|ph\.d|bldg|sq)\.(?!\w)
      | (?<![\w.])[+-]?\d+(?:[.,:/]\d+)+(?=[ap]m\b)                # 5:30 of 5:30pm
      | (?<![\w.])[+-]?\d+(?:[.,:/]\d+)+(?!\w)                     # 3,000  1/2  5:30  -0.5
      | (?<![\w+-])[+-]\d+\b
      | [a-z]+(?=n't\b) | n't\b | '(?:s|m|d|re|ve|ll)\b            # is n't, dog 's
      | '(?:tis|twas|cause|n)\b | '\d0s\b | (?:o|d|l)'[^\W\d_]+    # o'clock, '90s
      | [#@][a-z_]\w*
      | [^\W_]+(?:[-/&_.](?!-)[^\W_]+)*(?:'(?!(?:s|m|d|re|ve|ll)\b)[^\W_]+)?  # and/or, ho'ohu
      | [!?]+ | \*+ | \.\.\. | -+ | [^\w\s]
    """,
    re.VERBOSE,
)
"""What counts as one token of a caption in lower case: the Penn Treebank's rules, as far as captions meet them."""

QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "--", "—": "--", "…": "..."})

NGrams = Counter[tuple[str, ...]]


def caption_words(text: str) -> list[str]:
    """The words of a caption as the captioning world counts them: lower case, clitics apart, no punctuation.

    "A dog isn't on Mary's T-shirt." -> a dog is n't on mary 's t-shirt. Follows Stanford's PTBTokenizer with
    `-lowerCase`, and the list of punctuation that pycocoevalcap removes.
    """
    words: list[str] = []
    for token in TOKEN.findall(text.translate(QUOTES).lower()):
        words += TWO_WORDS.get(token, (BRACKETS.get(token, token),))
    return [word for word in words if word not in DROPPED and word.strip("-")]


def cider(references: Sequence[Sequence[str]], found: Sequence[str]) -> Tally:
    """CIDEr-D of captions: 0 to 10, of which papers print the hundredfold (1.2 here is their 120).

    `references` holds the captions that people wrote about each image, `found` (I) one caption for each. The cosine of
    the tf-idf vectors of their n-grams (n = 1 to 4), clipped to the reference's counts and weakened by the difference
    in length, averaged over n and references. An n-gram's weight falls with the number of images in whose references it
    stands, so the value belongs to this set of images: few images give a rough one, a single image 0. Raises
    OpenFlorenceError for an image without a reference.
    """
    documents = [[_count(caption_words(text)) for text in texts] for texts in references]
    if not all(documents):
        raise OpenFlorenceError(f"CIDEr needs a reference caption for image {documents.index([])}, which has none")
    frequency = Counter(ngram for texts in documents for ngram in set().union(*texts))
    rarest = float(np.log(len(documents))) if documents else 0.0
    weight = {ngram: rarest - float(np.log(count)) for ngram, count in frequency.items()}
    scores: list[tuple[float, float]] = []
    for texts, caption in zip(documents, found, strict=True):
        own = _Vector(_count(caption_words(caption)), weight, rarest)
        scores.append((10.0 * float(np.mean([own.similarity(_Vector(text, weight, rarest)) for text in texts])), 1.0))
    return Tally.of(scores)


def _count(words: Sequence[str]) -> NGrams:
    """How often each n-gram stands in a caption."""
    spans = ((start, start + n) for n in range(1, LONGEST + 1) for start in range(len(words) - n + 1))
    return Counter(tuple(words[start:end]) for start, end in spans)


class _Vector:
    """The tf-idf vector of one caption: one part for each length of n-gram."""

    def __init__(self, counts: NGrams, weight: dict[tuple[str, ...], float], rarest: float) -> None:
        """`weight` is the idf of the n-grams of the references; any other has that of the rarest."""
        self.parts: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
        for ngram, count in counts.items():
            self.parts[len(ngram) - 1][ngram] = count * weight.get(ngram, rarest)
        self.norms = [float(np.sqrt(sum(value**2 for value in part.values()))) for part in self.parts]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)

    def similarity(self, reference: _Vector) -> float:
        """The clipped cosine with a reference, averaged over the lengths of n-grams."""
        total = 0.0
        for own, other, norm in zip(self.parts, reference.parts, np.multiply(self.norms, reference.norms), strict=True):
            if norm:
                total += sum(min(own[key], other[key]) * other[key] for key in own.keys() & other.keys()) / norm
        return float(total / LONGEST * np.exp(-((self.length - reference.length) ** 2) / (2 * SIGMA**2)))
