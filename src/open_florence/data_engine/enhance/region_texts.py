"""What each region is called in a few words: its category, a brief description or a noun chunk of a caption.

After Florence-2's data engine (arXiv 2311.06242, section 4.2), which takes the text most like the region's pixels.
Without a measure of likeness the text that says most is taken, as long as it still names the category.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.enhance.additions import Enhancer, addition
from open_florence.data_engine.enhance.grounding import TASK as GROUNDING
from open_florence.data_engine.enhance.phrase_matching import Names, means, names_of
from open_florence.data_engine.enhance.things import Saying, Thing, best_overlap, find_things, main_noun
from open_florence.data_engine.enhance.words import name_key, words
from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.ontology import Ontology
from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.schema import Sample
from open_florence.selection import region_score

SOURCE = "region-texts@1"
TASK = "<DENSE_REGION_CAPTION>"

Similarity = Callable[[Sequence[Image.Image], Sequence[str]], NDArray[Any]]
"""From crops (C) and texts (T) to how well they fit, (C, T), the higher the better."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The text of one region."""

    thing: Thing
    best: Saying
    others: tuple[Saying, ...]
    """The texts that were not taken, the next best first."""


def region_texts(
    *, similarity: Similarity | str | None = None, ontology: Ontology | None = None, margin: float = 0.1
) -> Enhancer:
    """An enhancer that gives every thing of an image one text, as <DENSE_REGION_CAPTION>.

    `similarity`: a function, or the name or folder of a model (`load_similarity`). `margin`: how much of the thing's
    width and height is shown around it. The reason of the decision says for each region what else there was.
    """
    measure = load_similarity(similarity) if isinstance(similarity, str) else similarity
    names = names_of(ontology)

    def enhance(sample: Sample, candidates: Sequence[Candidate]) -> list[Decision]:
        if any(c.annotation.task == TASK and is_human(c.annotation) for c in candidates):
            return []  # a person has described the regions
        things = find_things(candidates)
        chunks = _chunks(things, candidates)
        offered = [(thing, offers(thing, chunk)) for thing, chunk in zip(things, chunks, strict=True)]
        offered = [(thing, texts) for thing, texts in offered if texts]
        if not any(len(texts) > 1 or thing.sayings for thing, texts in offered):
            return []  # nobody says more than the category
        if measure is None:
            chosen = [_fullest(thing, texts, names) for thing, texts in offered]
        else:
            chosen = _likest(offered, open_image(sample.path), measure, margin)
        regions = [
            replace(one.thing.boxed, label=one.best.text, score=region_score(one.thing.region)) for one in chosen
        ]
        parents = [parent for one in chosen for parent in (*one.thing.parents, one.best.parent)]
        return [addition(TASK, SOURCE, parents, regions=regions, reason="; ".join(map(_why, chosen)))]

    return enhance


def load_similarity(name: str) -> Similarity:
    """Our own two towers, where `name` is a folder that holds them, else a CLIP or SigLIP of the hub.

    Raises OpenFlorenceError for a model that cannot be loaded.
    """
    from open_florence.inference.embedder import Embedder
    from open_florence.model.checkpoint import CheckpointError
    from open_florence.model.embedding import is_dual_encoder
    from open_florence.specialists.similarity import Similarity as HubSimilarity

    try:
        if not is_dual_encoder(name):
            return HubSimilarity(name)
    except CheckpointError as error:
        raise OpenFlorenceError(str(error)) from error
    embedder = Embedder.from_pretrained(name)
    return lambda crops, texts: embedder.images(crops) @ embedder.texts(texts).T


def offers(thing: Thing, chunks: Sequence[Saying]) -> list[Saying]:
    """The texts a thing can have, each once: its category, descriptions, noun chunks; without articles."""
    category = Saying(thing.region.label, thing.source, thing.parents[0])
    found: dict[str, Saying] = {}
    for saying in (category, *thing.sayings, *chunks):
        text = _bare(saying.text)
        if text:
            found.setdefault(text.lower(), replace(saying, text=text))
    return list(found.values())


def crop(image: Image.Image, thing: Thing, margin: float) -> Image.Image:
    """A thing with `margin` of its width and height around it, inside the image; at least one pixel."""
    x1, y1, x2, y2 = thing.box
    dx, dy = margin * (x2 - x1), margin * (y2 - y1)
    left, top = max(0, min(int(x1 - dx), image.width - 1)), max(0, min(int(y1 - dy), image.height - 1))
    right = min(max(int(np.ceil(x2 + dx)), left + 1), image.width)
    bottom = min(max(int(np.ceil(y2 + dy)), top + 1), image.height)
    return image.crop((left, top, right, bottom))


def _chunks(things: Sequence[Thing], candidates: Sequence[Candidate]) -> list[list[Saying]]:
    """For each thing the phrases of captions that were grounded to it alone."""
    found: list[list[Saying]] = [[] for _ in things]
    places = [thing.region for thing in things]
    for candidate in candidates:
        annotation = candidate.annotation
        if annotation.task != GROUNDING:
            continue
        for region in annotation.regions:
            phrase = [other for other in annotation.regions if (other.span, other.label) == (region.span, region.label)]
            index = best_overlap(region, places)
            if index is not None and len(phrase) == 1:
                found[index].append(Saying(region.label, annotation.source, candidate.id))
    return found


def _fullest(thing: Thing, texts: Sequence[Saying], names: Names | None) -> Chosen:
    """The text of most words that names the category; the category itself where none does."""

    def rank(saying: Saying) -> tuple[bool, int]:
        noun = name_key(main_noun(saying.text))
        fits = means(noun, thing.name, names) or f" {name_key(saying.text)}".endswith(f" {thing.name}")
        return fits, len(words(saying.text))

    order = sorted(texts, key=rank, reverse=True)
    return Chosen(thing, order[0], tuple(order[1:]))


def _likest(
    offered: Sequence[tuple[Thing, Sequence[Saying]]], image: Image.Image, measure: Similarity, margin: float
) -> list[Chosen]:
    """The text most like each region; of equal ones the first. Raises OpenFlorenceError for a measure that is wrong."""
    texts = list(dict.fromkeys(saying.text for _, sayings in offered for saying in sayings))
    found = np.asarray(measure([crop(image, thing, margin) for thing, _ in offered], texts), np.float64)  # (C, T)
    if found.shape != (len(offered), len(texts)):
        raise OpenFlorenceError(
            f"a similarity of {len(offered)} crops and {len(texts)} texts has shape {found.shape}, not (crops, texts)"
        )
    column = {text: place for place, text in enumerate(texts)}
    chosen = []
    for row, (thing, sayings) in zip(found, offered, strict=True):
        order = sorted(sayings, key=lambda saying: -row[column[saying.text]])
        chosen.append(Chosen(thing, order[0], tuple(order[1:])))
    return chosen


def _bare(text: str) -> str:
    """Without the article in front and the full stop behind."""
    text = " ".join(text.split()).rstrip(".")
    first, _, rest = text.partition(" ")
    return rest if first.lower() in ("a", "an", "the") and rest else text


def _why(one: Chosen) -> str:
    said = f"{one.best.text!r} of {one.best.source}"
    others = ", ".join(f"{other.text!r} of {other.source}" for other in one.others)
    return f"{said} before {others}" if others else said
