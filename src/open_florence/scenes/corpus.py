"""Texts that say what the scenes' annotations say: what a tokenizer for them is trained on."""

from __future__ import annotations

from collections.abc import Iterator

from open_florence.scenes.config import TRAINING_SEEDS, SceneConfig
from open_florence.scenes.scene import make_scene
from open_florence.schema import Annotation


def corpus(count: int, config: SceneConfig = SceneConfig()) -> Iterator[str]:  # noqa: B008 (frozen)
    """Every text, label and query of the first `count` training scenes."""
    for seed in TRAINING_SEEDS[:count]:
        for annotation in make_scene(seed, config).annotations:
            yield from _texts(annotation)


def _texts(annotation: Annotation) -> Iterator[str]:
    if annotation.text:
        yield annotation.text
    if isinstance(annotation.query, str) and annotation.query != annotation.text:
        yield annotation.query
    for region in annotation.regions:
        if region.label and region.span is None:
            yield region.label
