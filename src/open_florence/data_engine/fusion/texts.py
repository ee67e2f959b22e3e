"""One of several captions of an image: the one that agrees most with the others and with the regions.

Agreement of two captions is that of CIDEr (Vedantam et al. 2015) without its corpus: the cosine of the counts of their
words and pairs of words, those left out that say nothing, and every noun replaced by the class it means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance.grounding import CAPTIONS
from open_florence.data_engine.enhance.phrase_matching import SILENT, means, names_of, read_phrase
from open_florence.data_engine.enhance.things import Thing, find_things
from open_florence.data_engine.enhance.words import KINDS, name_key, words
from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.ontology import Ontology
from open_florence.noun_phrases import noun_phrases, singular
from open_florence.noun_phrases.words import AUXILIARIES, CONJUNCTIONS, PREPOSITIONS, PRONOUNS
from open_florence.schema import Sample

_FUNCTION_WORDS = SILENT | AUXILIARIES | CONJUNCTIONS | PREPOSITIONS | PRONOUNS | {"there", "it"}


@dataclass(frozen=True)
class TextChoice:
    """How one of several captions is chosen."""

    ontology: Ontology | None = None
    """Its classes are what regions can show: a caption that names one without a region loses by it."""
    keep: int = 1
    """How many captions of each kind are kept."""

    def __call__(self, sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        """The captions of each kind, kept or dropped with their figures; other candidates are in no decision.

        Where a person has described the image, that is kept and everything else dropped. Captions with the same words
        are one, with several parents.
        """
        things = find_things(candidates)
        decisions: list[Decision] = []
        for task in CAPTIONS:
            own = [c for c in candidates if c.annotation.task == task]
            if any(is_human(c.annotation) for c in own):
                decisions += [_beside_a_person(c) for c in own]
            elif own:
                decisions += self._choose(own, things)
        return decisions

    def _choose(self, own: Sequence[Candidate], things: Sequence[Thing]) -> list[Decision]:
        same: dict[str, list[Candidate]] = {}
        for candidate in own:
            same.setdefault(candidate.annotation.text.strip(), []).append(candidate)
        if len(same) <= self.keep:
            return [_joined(group, "") for group in same.values()]
        figures = {text: self._figures(text, own, things) for text in same}
        order = sorted(same, key=lambda text: (-_mean(figures[text]), -_score(same[text]), text))
        decisions = []
        for place, text in enumerate(order):
            others, regions = figures[text]
            said = f"agrees {others:.2f} with the other captions"
            if regions is not None:
                said += f" and {regions:.2f} with the regions"
            if place < self.keep:
                decisions.append(_joined(same[text], said))
            else:
                why = f"other caption: {said}, no more than the one kept ({_mean(figures[order[0]]):.2f} on average)"
                decisions += [Decision(c.annotation, "dropped", why, (c.id,)) for c in same[text]]
        return decisions

    def _figures(self, text: str, own: Sequence[Candidate], things: Sequence[Thing]) -> tuple[float, float | None]:
        """The mean agreement with the captions of the others, and that with the regions."""
        others = [c.annotation.text for c in own]
        others.remove(next(other for other in others if other.strip() == text))
        agreements = [agreement(text, other) for other in others]
        return float(np.mean(agreements)), support(text, things, self.ontology)


def agreement(a: str, b: str) -> float:
    """How far two captions say the same, 0 to 1."""
    first, second = _grams(a), _grams(b)
    cosines = [_cosine(x, y) for x, y in zip(first, second, strict=True) if x or y]
    return float(np.mean(cosines)) if cosines else 1.0


def support(caption: str, things: Sequence[Thing], ontology: Ontology | None = None) -> float | None:
    """How far a caption and the regions name the same classes, 0 to 1 (F1); None where neither could be compared.

    Nouns that are neither the name of a region nor of the ontology are not counted: nobody looked for those.
    """
    seen = {thing.name for thing in things}
    names = names_of(ontology)
    known = seen | {name_key(name) for name in (ontology.names if ontology else ())}
    nouns = {read_phrase(phrase, caption, known, names).name for phrase in noun_phrases(caption)}
    claimed = {noun for noun in nouns if any(means(noun, name, names) for name in known)}
    if not claimed and not seen:
        return None
    right = sum(any(means(noun, name, names) for name in seen) for noun in claimed)
    told = sum(any(means(noun, name, names) for noun in claimed) for name in seen)
    precision, recall = right / len(claimed) if claimed else 0.0, told / len(seen) if seen else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _grams(text: str) -> tuple[Counter[str], Counter[str]]:
    """The words and the pairs of neighbouring words that say something."""
    said = [_meaning(singular(word)) for word in words(text) if word not in _FUNCTION_WORDS]
    return Counter(said), Counter(f"{a} {b}" for a, b in pairwise(said))


def _meaning(word: str) -> str:
    return min(KINDS[word]) if word in KINDS else word


def _cosine(a: Counter[str], b: Counter[str]) -> float:
    dot = sum(count * b[gram] for gram, count in a.items())
    norm = np.sqrt(sum(count**2 for count in a.values()) * sum(count**2 for count in b.values()))
    return float(dot / norm) if norm else 0.0


def _mean(figures: tuple[float, float | None]) -> float:
    others, regions = figures
    return others if regions is None else (others + regions) / 2


def _score(same: Sequence[Candidate]) -> float:
    return max(1.0 if c.annotation.score is None else c.annotation.score for c in same)


def _joined(same: Sequence[Candidate], reason: str) -> Decision:
    best = max(same, key=lambda c: (_score([c]), c.annotation.source))
    return Decision(best.annotation, "kept", reason, tuple(c.id for c in same))


def _beside_a_person(candidate: Candidate) -> Decision:
    if is_human(candidate.annotation):
        return Decision(candidate.annotation, "kept", parents=(candidate.id,))
    return Decision(candidate.annotation, "dropped", "human: a person has described this image", (candidate.id,))
