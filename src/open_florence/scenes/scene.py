"""A scene: an image whose every label is known, made from a seed.

Everything about a scene follows from (seed, config), in any process: what stands where, the pixels, and the
annotations of all tasks, which are built only when they are asked for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.scenes.annotations import annotate
from open_florence.scenes.config import SceneConfig
from open_florence.scenes.contents import Contents, SceneObject, Word, reading_order
from open_florence.scenes.layout import RADII, Plan, class_names, make_plan
from open_florence.scenes.opencv import cv2
from open_florence.scenes.outlines import traced, whole
from open_florence.scenes.render import Layer, render, settle
from open_florence.schema import Annotation, Sample

ATTEMPTS = 30
"""Plans drawn until enough objects can be seen."""


@dataclass(frozen=True, eq=False)
class Scene(Contents):
    """An image and everything that is true of it."""

    seed: int
    image: NDArray[np.uint8]
    """(height, width, 3) RGB."""
    id_map: NDArray[np.int16]
    """(height, width) what is visible: the object's index, -1 background, -2 ink of a word."""

    @cached_property
    def annotations(self) -> tuple[Annotation, ...]:
        """All tasks, all from the same contents; deterministic by seed."""
        return annotate(self, random.Random(self.seed + 2**64))

    @cached_property
    def sample(self) -> Sample:
        """The scene as the project's data type."""
        size = (float(self.width), float(self.height))
        return Sample(image_id(Image.fromarray(self.image)), f"scenes/{self.seed}.png", size, self.annotations)


def make_scene(seed: int, config: SceneConfig = SceneConfig()) -> Scene:  # noqa: B008 (frozen)
    """The scene of a seed: the same pixels and labels in every process.

    Raises:
        OpenFlorenceError: the configured objects do not fit into the image, or its fonts or sprites cannot be read.
    """
    rng = random.Random(seed)
    width, height = config.extent
    for _ in range(ATTEMPTS):
        plan = make_plan(rng, config)
        layers, ids = settle(plan, width, height, config.min_visible)
        if len(layers) >= config.min_objects:
            break
    else:
        raise OpenFlorenceError(f"{config.min_objects} objects do not fit into a scene of {width} x {height} pixels")
    image = render(plan, layers, ids, rng, config.photometric)
    objects = [_object(number, layer, ids, config.unit) for number, layer in enumerate(layers)]
    order = sorted(range(len(objects)), key=lambda k: objects[k].centre)
    rank = np.empty(len(objects) + 2, np.int16)
    rank[order] = np.arange(len(objects))
    rank[-2:] = -2, -1  # indexed from the end by the map's own -2 and -1
    return Scene(
        width=width,
        height=height,
        objects=tuple(objects[k] for k in order),
        words=_words(plan),
        background=plan.background,
        classes=class_names(config),
        seed=seed,
        image=image,
        id_map=rank[ids],
    )


def _object(number: int, layer: Layer, ids: NDArray[np.int16], unit: int) -> SceneObject:
    height, width = ids.shape
    draft = layer.draft
    mask = (layer.window(ids) == number).view(np.uint8)
    x, y, w, h = cv2.boundingRect(mask)
    if layer.visible == layer.total and draft.vertices is not None:
        parts = whole(draft.vertices, draft.x, draft.y, width, height)
    else:
        parts = traced(mask[y : y + h, x : x + w], layer.x + x, layer.y + y)
    box = (float(layer.x + x), float(layer.y + y), float(layer.x + x + w), float(layer.y + y + h))
    # a large object of which only a middling piece shows is called neither large nor small
    clear = draft.size != "large" or max(w, h) >= 1.85 * RADII["large"][0] * unit
    return SceneObject(
        draft.name, draft.colour, draft.texture, draft.size if clear else "", box, parts, layer.visible / layer.total
    )


def _words(plan: Plan) -> tuple[Word, ...]:
    words = []
    for stamp, x, y in plan.prints:
        quad = tuple(map(tuple, (stamp.quad + np.array((x, y))).round(2).tolist()))
        (a, b, c), (d, e, f) = stamp.matrix.tolist()
        words.append(Word(stamp.text, quad, stamp.lexicon, ((a, b, c + x), (d, e, f + y)), stamp.edges, stamp.cap))
    return reading_order(words)
