"""Referring expressions: words that fit exactly one object of a scene."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from open_florence.scenes.contents import Contents, SceneObject

CLEARLY = 0.05
"""By how much of the image's side the leftmost object leads the next one, to be called so."""
LARGER = 1.6
"""How many times the area of the next one the largest object has, to be called so."""


def expressions(scene: Contents, rng: random.Random) -> list[tuple[str, int]]:
    """One expression for each object that can be told from the others: (expression, index of the object)."""
    found = []
    for index in range(len(scene.objects)):
        by_look, by_place = _by_attributes(scene, index), _by_extreme(scene, index)
        if by_place and (not by_look or rng.random() < 0.35):
            found.append((rng.choice(by_place), index))
        elif by_look:
            found.append((rng.choice(by_look), index))
    return found


def _by_attributes(scene: Contents, index: int) -> list[str]:
    """All unique combinations of size, colour and texture, none with a word that could be left out but one more."""
    target = scene.objects[index]
    said = [
        (kind, value) for kind in ("size", "colour", "texture") if (value := getattr(target, kind)) not in ("", "plain")
    ]
    fitting: list[tuple[tuple[str, str], ...]] = []
    for count in range(len(said) + 1):
        for words in itertools.combinations(said, count):
            if fitting and count > len(fitting[0]) + 1:
                break
            if [o for o in scene.objects if o.name == target.name and _has(o, words)] == [target]:
                fitting.append(words)
    return ["the " + " ".join([*(value for _, value in words), target.name]) for words in fitting]


def _has(thing: SceneObject, words: Sequence[tuple[str, str]]) -> bool:
    return all(getattr(thing, kind) == value for kind, value in words)


def _by_extreme(scene: Contents, index: int) -> list[str]:
    """ "the leftmost star", "the largest red ring": first among two or more of its kind, and clearly so."""
    target = scene.objects[index]
    side = min(scene.width, scene.height)
    found = []
    kinds: list[tuple[str, list[SceneObject]]] = [(target.name, [o for o in scene.objects if o.name == target.name])]
    if target.colour:
        same = [o for o in kinds[0][1] if o.colour == target.colour]
        kinds.append((f"{target.colour} {target.name}", same))
    for noun, rivals in kinds:
        others = [o for o in rivals if o is not target]
        if not others:
            continue
        (x, y), area = target.centre, target.area
        lead = {
            "leftmost": min(o.centre[0] for o in others) - x > CLEARLY * side,
            "rightmost": x - max(o.centre[0] for o in others) > CLEARLY * side,
            "topmost": min(o.centre[1] for o in others) - y > CLEARLY * side,
            "bottommost": y - max(o.centre[1] for o in others) > CLEARLY * side,
            "largest": area > LARGER * max(o.area for o in others),
            "smallest": LARGER * area < min(o.area for o in others),
        }
        found += [f"the {word} {noun}" for word, leads in lead.items() if leads]
    return found
