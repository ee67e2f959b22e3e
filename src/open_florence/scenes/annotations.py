"""The annotations of a scene: every task of the contract (C.3) and <VQA>, from the same contents.

Lists of objects run left to right. A region's label is what the task's answer calls it; where the answer has no words
(proposals, masks) the label is empty.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from open_florence.scenes.captions import brief, detailed, more_detailed
from open_florence.scenes.contents import Contents, SceneObject, same_line
from open_florence.scenes.phrases import Passage, groups
from open_florence.scenes.questions import absent_noun, questions
from open_florence.scenes.referring import expressions
from open_florence.schema import Annotation, Region

SOURCE = "scenes"
MOST_REGIONS = 6
"""How many objects of a crowd are asked about one by one."""
ABSENT = 0.35
"""Probability of a query for something that is not there: about one query in eight, as a scene has about three."""


def annotate(scene: Contents, rng: random.Random) -> tuple[Annotation, ...]:
    """Everything that is true of a scene, grouped by task."""
    return (
        *_captions(scene),
        *_lists(scene),
        *_printed(scene, rng),
        *_grounding(scene, rng),
        *_vocabulary(scene, rng),
        *_single_objects(scene, rng),
        *(Annotation("<VQA>", answer, query=question, source=SOURCE) for question, answer in questions(scene, rng)),
    )


def _captions(scene: Contents) -> Iterator[Annotation]:
    yield Annotation("<CAPTION>", brief(scene).text, source=SOURCE)
    yield Annotation("<DETAILED_CAPTION>", detailed(scene).text, source=SOURCE)
    yield Annotation("<MORE_DETAILED_CAPTION>", more_detailed(scene).text, source=SOURCE)


def _lists(scene: Contents) -> Iterator[Annotation]:
    objects = scene.objects
    yield Annotation("<OD>", regions=tuple(Region.box(*o.box, label=o.name) for o in objects), source=SOURCE)
    described = tuple(Region.box(*o.box, label=o.description) for o in objects)
    yield Annotation("<DENSE_REGION_CAPTION>", regions=described, source=SOURCE)
    yield Annotation("<REGION_PROPOSAL>", regions=tuple(Region.box(*o.box) for o in objects), source=SOURCE)


def _printed(scene: Contents, rng: random.Random) -> Iterator[Annotation]:
    if not scene.words and rng.random() >= 0.1:
        return
    text = ""
    for before, word in zip((None, *scene.words), scene.words, strict=False):
        text += ("" if before is None else " " if same_line(before, word) else "\n") + word.text
    yield Annotation("<OCR>", text, source=SOURCE)
    quads = tuple(Region("quad", (w.quad,), w.text) for w in scene.words)
    yield Annotation("<OCR_WITH_REGION>", regions=quads, source=SOURCE)
    for word in scene.words:
        yield Annotation("<REGION_TO_OCR>", word.text, query=Region.box(*word.box), source=SOURCE)


def _grounding(scene: Contents, rng: random.Random) -> Iterator[Annotation]:
    """The boxes of the phrases of the brief and the detailed caption, and of a list of a few phrases in any order."""
    kinds = groups(scene.objects, lambda o: o.description)
    chosen = rng.sample(kinds, min(len(kinds), rng.randint(1, 3)))
    listed = Passage()
    for k, group in enumerate(chosen):
        listed.say(", " if k else "").name(group.noun, group.members)
    for passage in (brief(scene), detailed(scene), listed):
        regions = tuple(
            Region("box", _corners(scene.objects[k]), passage.text[span[0] : span[1]], span=span)
            for span, members in passage.phrases
            for k in members
        )
        yield Annotation(
            "<CAPTION_TO_PHRASE_GROUNDING>", passage.text, regions=regions, query=passage.text, source=SOURCE
        )


def _corners(thing: SceneObject) -> tuple[tuple[tuple[float, ...], ...], ...]:
    return ((thing.box[:2], thing.box[2:]),)


def _vocabulary(scene: Contents, rng: random.Random) -> Iterator[Annotation]:
    """Open-vocabulary queries: a class, a coloured class, several names at once, something absent."""
    thing = rng.choice(scene.objects)
    yield _found(scene, [rng.choice(scene.objects).name])
    if thing.colour:
        yield _found(scene, [f"{thing.colour} {thing.name}"])
    if rng.random() < 0.5:
        names = sorted({o.name for o in scene.objects})
        chosen = rng.sample(names, min(len(names), rng.randint(2, 3)))
        if rng.random() < 0.3 or len(chosen) == 1:
            chosen.insert(rng.randrange(len(chosen) + 1), absent_noun(scene, rng))
        yield _found(scene, chosen)
    if rng.random() < ABSENT:
        yield _found(scene, [absent_noun(scene, rng)])


def _found(scene: Contents, names: list[str]) -> Annotation:
    regions = tuple(
        Region.box(*o.box, label=name)
        for name in names
        for o in scene.objects
        if name in (o.name, f"{o.colour} {o.name}")
    )
    return Annotation("<OPEN_VOCABULARY_DETECTION>", regions=regions, query="<and>".join(names), source=SOURCE)


def _single_objects(scene: Contents, rng: random.Random) -> Iterator[Annotation]:
    chosen = sorted(rng.sample(range(len(scene.objects)), min(MOST_REGIONS, len(scene.objects))))
    for expression, k in expressions(scene, rng):
        if k in chosen:
            mask = (Region("polygon", scene.objects[k].parts),)
            yield Annotation("<REFERRING_EXPRESSION_SEGMENTATION>", regions=mask, query=expression, source=SOURCE)
    for k in chosen:
        thing = scene.objects[k]
        query = Region("box", _corners(thing))
        mask = (Region("polygon", thing.parts),)
        yield Annotation("<REGION_TO_SEGMENTATION>", regions=mask, query=query, source=SOURCE)
        yield Annotation("<REGION_TO_CATEGORY>", thing.name, query=query, source=SOURCE)
        yield Annotation("<REGION_TO_DESCRIPTION>", thing.description, query=query, source=SOURCE)
