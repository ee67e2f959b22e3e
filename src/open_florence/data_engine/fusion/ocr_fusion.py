"""Words read by several readers, fused: one word for each place, with the probability that it is read right.

A reader that is sure with probability c is taken to be right so often and otherwise to say anything else; readers err
independently. Of the texts that were read at one place the probability of each follows by Bayes' rule, which is a vote
that counts how sure the voters are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance.additions import addition
from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.fusion.clusters import gather
from open_florence.geometry import Array, box_area, region_box
from open_florence.reading_order import read_lines, read_text
from open_florence.schema import Annotation, Region, Sample

SOURCE = "ocr-fusion@1"
WORDS = "<OCR_WITH_REGION>"
TEXT = "<OCR>"

UNSAID = 0.6
"""How sure a reader is taken to be that gives no score."""
INSIDE = 0.6
"""The share of a word's box that lies in another, from which it is a word of that line, or the same word."""


@dataclass(frozen=True)
class OcrFusion:
    """How the words of several readers are fused."""

    lone: float | Mapping[str, float] = 0.6
    """The confidence from which a word that one reader alone saw is kept; for all, or by name of the reader."""
    least: float = 0.4
    """The probability from which a word that several saw is kept."""
    trust: Mapping[str, float] | None = None
    """Name of a reader -> the factor on its confidence, 0 to 1, where it is surer than it should be."""
    overlap: float = 0.4
    """The overlap (IoU) from which two boxes are one word."""

    def __call__(self, sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        """One kept annotation of words and one of the text in reading order; what was outvoted is dropped.

        Candidates of other tasks are in no decision. Where one source alone has read, its candidates are kept as they
        are; where a person has, the person's are. A line of one reader in which another sees several words is cut into
        words first.
        """
        own = [c for c in candidates if c.annotation.task == WORDS]
        texts = [c for c in candidates if c.annotation.task == TEXT]
        sources = {c.annotation.source for c in own}
        if any(is_human(c.annotation) for c in (*own, *texts)):
            return [*_defer(own), *_defer(texts)]
        if len(sources) < 2:
            return [Decision(c.annotation, "kept", parents=(c.id,)) for c in (*own, *texts)]
        read: dict[str, list[Region]] = defaultdict(list)
        for candidate in own:
            read[candidate.annotation.source] += candidate.annotation.regions
        kept, dropped = self._vote(cut_lines(read))
        parents = tuple(c.id for c in own)
        said = read_text(kept)
        words = [word for line in read_lines(kept) for word in line]
        return [
            addition(WORDS, SOURCE, parents, regions=words, reason=f"{len(words)} words of {len(sources)} readers"),
            *([addition(TEXT, SOURCE, parents, text=said)] if said else []),
            *(
                Decision(Annotation(WORDS, regions=tuple(some), source=source), "dropped", reason, _ids(own, source))
                for (source, reason), some in sorted(dropped.items())
            ),
            *(
                Decision(
                    c.annotation, "dropped", "rewritten: the text is put together anew from the fused words", (c.id,)
                )
                for c in texts
            ),
        ]

    def _vote(self, read: Mapping[str, Sequence[Region]]) -> tuple[list[Region], dict[tuple[str, str], list[Region]]]:
        """The words that are kept, and those that are not, by source and reason."""
        kept: list[Region] = []
        dropped: dict[tuple[str, str], list[Region]] = defaultdict(list)
        lone: list[tuple[str, Region, float]] = []
        places: list[tuple[Region, Collection[str]]] = []
        for cluster in gather(read, self.overlap):
            members = {source: (word, self._sure(source, word)) for source, word in cluster.members.items()}
            if len(members) == 1:
                ((source, (word, sure)),) = members.items()
                if sure >= (least := self._lone(source)):
                    lone.append((source, word, sure))
                else:
                    dropped[source, f"lone word: no other reader saw it, and its score is under {least:g}"].append(word)
                continue
            probability = posterior([(_key(word.label), sure) for word, sure in members.values()])
            best = max(sorted(probability), key=lambda text: probability[text])
            enough = probability[best] >= self.least
            winner = max(
                (source for source, (word, _) in members.items() if _key(word.label) == best),
                key=lambda source: (members[source][1], source),
            )
            if enough:
                kept.append(replace(members[winner][0], score=probability[best], label_score=None))
                places.append((kept[-1], members.keys()))
            for source, (word, _) in members.items():
                if not enough:
                    dropped[source, "in dispute: the readers do not agree on the word, and none is sure"].append(word)
                elif _key(word.label) != best:
                    dropped[source, f"outvoted: {winner} read it otherwise"].append(word)
        for source, word, sure in sorted(lone, key=lambda one: (-one[2], one[0], one[1].parts)):
            if any(source not in readers and _one_place(word, other) for other, readers in places):
                dropped[source, "lone word: in its place stands another reader's word"].append(word)
                continue
            kept.append(replace(word, score=sure, label_score=None))
            places.append((word, (source,)))
        return kept, dict(dropped)

    def _sure(self, source: str, word: Region) -> float:
        return reading_score(word) * (self.trust or {}).get(_reader(source), 1.0)

    def _lone(self, source: str) -> float:
        return self.lone if isinstance(self.lone, (int, float)) else self.lone.get(_reader(source), 0.6)


def reading_score(word: Region) -> float:
    """How sure a reader is of what a word says: `label_score`, where it gives the place a score of its own."""
    given = word.score if word.label_score is None else word.label_score
    return UNSAID if given is None else given


def posterior(votes: Sequence[tuple[str, float]]) -> dict[str, float]:
    """The probability of each text from (text, how sure) of each reader; what is left is that none of them is right."""
    sure = [(text, float(np.clip(value, 0.01, 0.99))) for text, value in votes]
    weights = {text: float(np.prod([value if said == text else 1 - value for said, value in sure])) for text, _ in sure}
    none = float(np.prod([1 - value for _, value in sure]))
    total = sum(weights.values()) + none
    return {text: weight / total for text, weight in weights.items()}


def cut_lines(read: Mapping[str, Sequence[Region]]) -> dict[str, list[Region]]:
    """Source -> its regions, those cut into words in which another source has several.

    As many words as the other has there take its places; else the line is shared out by the number of letters.
    """
    boxes = {source: np.array([region_box(r.parts) for r in some]).reshape(-1, 4) for source, some in read.items()}
    cut: dict[str, list[Region]] = {}
    for source, regions in read.items():
        cut[source] = []
        for region, box in zip(regions, boxes[source], strict=True):
            said = region.label.split()
            others = (other for other in read if other != source and len(said) > 1)
            inside = [_inside(box, read[other], boxes[other]) for other in others]
            pieces = max(inside, key=len, default=[])
            if len(said) < 2 or len(pieces) < 2:
                cut[source].append(region)
            elif len(said) == len(pieces):
                cut[source] += [_renamed(region, word, piece) for word, piece in zip(said, pieces, strict=True)]
            else:
                cut[source] += _shares(region, said)
    return cut


def _one_place(a: Region, b: Region) -> bool:
    """Whether the smaller of two boxes lies in the other, so that they cannot both be words of their own."""
    boxes = np.array([region_box(a.parts), region_box(b.parts)])  # (2, 4)
    shared = np.concatenate([boxes[:, :2].max(axis=0), boxes[:, 2:].min(axis=0)])[None]  # (1, 4)
    return bool(box_area(shared)[0] >= INSIDE * max(float(box_area(boxes).min()), 1e-9))


def _inside(line: Array, words: Sequence[Region], boxes: Array) -> list[Region]:
    """The words, whose boxes (N, 4) are given, that lie in a line's box (4,), from left to right."""
    shared = np.hstack([np.maximum(boxes[:, :2], line[:2]), np.minimum(boxes[:, 2:], line[2:])])  # (N, 4)
    found = np.flatnonzero(box_area(shared) >= INSIDE * np.maximum(box_area(boxes), 1e-9))
    return [words[k] for k in sorted(found.tolist(), key=lambda k: float(boxes[k, 0]))]


def _renamed(line: Region, word: str, place: Region) -> Region:
    return replace(line, kind=place.kind, parts=place.parts, label=word)


def _shares(line: Region, said: Sequence[str]) -> list[Region]:
    """The words of a line as quads, each as wide as its letters and the space after it are of the line."""
    if line.kind == "quad":
        a, b, c, d = (np.asarray(point) for point in line.parts[0])
    else:
        x1, y1, x2, y2 = region_box(line.parts)
        a, b, c, d = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    total = len(" ".join(said))
    start, words = 0, []
    for word in said:
        first, last = start / total, (start + len(word)) / total
        corners = [a + (b - a) * first, a + (b - a) * last, d + (c - d) * last, d + (c - d) * first]
        quad = tuple((float(x), float(y)) for x, y in corners)
        words.append(replace(line, kind="quad", parts=(quad,), label=word))
        start += len(word) + 1
    return words


def _defer(candidates: Sequence[Candidate]) -> list[Decision]:
    """What a person has read stands; all stands where no person has."""
    people = any(is_human(c.annotation) for c in candidates)
    return [
        Decision(c.annotation, "dropped", "human: a person has read this image", (c.id,))
        if people and not is_human(c.annotation)
        else Decision(c.annotation, "kept", parents=(c.id,))
        for c in candidates
    ]


def _reader(source: str) -> str:
    return source.partition("@")[0]


def _ids(candidates: Sequence[Candidate], source: str) -> tuple[str, ...]:
    return tuple(c.id for c in candidates if c.annotation.source == source)


def _key(text: str) -> str:
    """What two readings are compared by: case aside."""
    return " ".join(text.split()).casefold()
