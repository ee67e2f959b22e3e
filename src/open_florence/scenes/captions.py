"""The three granularities of caption (arXiv 2311.06242, section 4): brief, detailed, more detailed.

What is said is fixed by the scene, so that a caption can be judged word by word; every attribute named here is also
supervised in the dense stage (`dense.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from open_florence.scenes.contents import Contents, SceneObject
from open_florence.scenes.phrases import Group, Passage, counted, groups, joined, place, position

MOST_WORDS = 85
"""A longer caption loses its sentence about relations."""


def brief(scene: Contents) -> Passage:
    """Up to about ten words: two kinds with their attributes, or the classes counted, the largest two if many."""
    kinds = groups(scene.objects, lambda o: o.description)
    if len(kinds) <= 2:
        return Passage().list([_named(g) for g in kinds])
    classes = groups(scene.objects, lambda o: o.name)
    if len(classes) <= 3:
        return Passage().list([_named(g) for g in classes])
    salient = sorted(classes, key=lambda g: -sum(scene.objects[k].area for k in g.members))[:2]
    items = [_named(g) for g in classes if g in salient]
    others = len(scene.objects) - sum(len(g.members) for g in salient)
    return Passage().list([*items, _said(counted("other object", others) if others > 1 else "another object")])


def detailed(scene: Contents) -> Passage:
    """Every object with colour and texture, and the background."""
    kinds = groups(scene.objects, lambda o: o.description)
    return Passage().say("The image shows ").list([_named(g) for g in kinds]).say(f" on {_background(scene)}.")


def more_detailed(scene: Contents) -> Passage:
    """Also sizes, positions, a relation and the printed words; at most `MOST_WORDS` words."""
    kinds = groups(scene.objects, lambda o: " ".join(filter(None, (o.size, o.description))))
    passage = Passage().say(f"On {_background(scene)} there {'is' if len(kinds[0].members) == 1 else 'are'} ")
    passage.list([_placed(g, scene) for g in kinds]).say(".")
    written = ""
    if scene.words:
        words = [
            f'"{w.text}" {place(((w.box[0] + w.box[2]) / 2, (w.box[1] + w.box[3]) / 2), scene)}' for w in scene.words
        ]
        written = f" The text reads {joined(words)}."
    relation = _relation(scene)
    if len((passage.text + relation + written).split()) <= MOST_WORDS:
        passage.say(relation)
    return passage.say(written)


def _background(scene: Contents) -> str:
    return f"a {scene.background.kind} {scene.background.colour} background"


def _named(group: Group) -> Callable[[Passage], object]:
    return lambda passage: passage.name(group.phrase, group.members)


def _said(words: str) -> Callable[[Passage], object]:
    return lambda passage: passage.say(words)


def _placed(group: Group, scene: Contents) -> Callable[[Passage], object]:
    places = dict.fromkeys(position(scene.objects[k], scene) for k in group.members)
    where = f" {joined(places)}" if len(group.members) <= 3 else ""
    return lambda passage: passage.name(group.phrase, group.members).say(where)


def _relation(scene: Contents) -> str:
    """How the first pair of neighbours that can be named without doubt stand to each other; empty if there is none."""
    single = [
        scene.objects[g.members[0]] for g in groups(scene.objects, lambda o: o.description) if len(g.members) == 1
    ]
    for a, b in pairwise(single):
        if relation := _relate(a, b):
            return f" The {a.description} is {relation} the {b.description}."
    return ""


def _relate(a: SceneObject, b: SceneObject) -> str:
    dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    if dx > 1.5 * abs(dy):
        return "to the left of"
    if abs(dy) > 1.5 * dx:
        return "above" if dy > 0 else "below"
    return ""
