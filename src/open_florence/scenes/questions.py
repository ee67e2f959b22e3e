"""Questions about a scene, each with its one answer."""

from __future__ import annotations

import random
from collections import Counter

from open_florence.scenes.contents import Contents
from open_florence.scenes.phrases import article, plural
from open_florence.scenes.vocabulary import COLOURS


def questions(scene: Contents, rng: random.Random) -> list[tuple[str, str]]:
    """(question, answer) pairs; yes and no are equally likely, numbers are digits."""
    counts = Counter(o.name for o in scene.objects)
    name = absent_class(scene, rng) if rng.random() < 0.1 else rng.choice(sorted(counts))
    asked = [
        (f"How many {plural(name)} are there?", str(counts[name])),
        ("How many objects are there?", str(len(scene.objects))),
        ("What colour is the background?", scene.background.colour),
        _presence(scene, rng),
    ]
    singles = [o for o in scene.objects if counts[o.name] == 1 and o.colour]
    if singles:
        thing = rng.choice(singles)
        asked.append((f"What colour is the {thing.name}?", thing.colour))
    colours = Counter(o.colour for o in scene.objects)
    alone = [o for o in scene.objects if o.colour and colours[o.colour] == 1]
    if alone:
        thing = rng.choice(alone)
        asked.append((f"What is the {thing.colour} object?", thing.name))
    if scene.words or rng.random() < 0.1:
        asked.append(("What is written?", " ".join(w.text for w in scene.words) or "nothing"))
    return asked


def absent_class(scene: Contents, rng: random.Random) -> str:
    """A class that no object has, or, if all are there, a class with no such name at all."""
    present = {o.name for o in scene.objects}
    return rng.choice([name for name in scene.classes if name not in present] or ["unicorn"])


def absent_noun(scene: Contents, rng: random.Random) -> str:
    """A noun that fits no object: half the time a class that is there in a colour that it does not have."""
    things = [o for o in scene.objects if o.colour]
    if not things or rng.random() < 0.5:
        return absent_class(scene, rng)
    name = rng.choice(things).name
    worn = {o.colour for o in things if o.name == name}
    return f"{rng.choice([c for c in COLOURS if c not in worn])} {name}"


def _presence(scene: Contents, rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        return f"Is there {article(absent_noun(scene, rng))}?", "no"
    thing = rng.choice(scene.objects)
    noun = thing.name if not thing.colour or rng.random() < 0.5 else f"{thing.colour} {thing.name}"
    return f"Is there {article(noun)}?", "yes"
