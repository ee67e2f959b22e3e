"""Scenes: images made from a seed whose every label is known, for training, testing and the demo."""

from open_florence.scenes.config import HELDOUT_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, SceneConfig
from open_florence.scenes.contents import Background, SceneObject, Word
from open_florence.scenes.corpus import corpus
from open_florence.scenes.dense import DENSE_HEADS, dense_heads, dense_labels
from open_florence.scenes.scene import Scene, make_scene

__all__ = [
    "DENSE_HEADS",
    "HELDOUT_SEEDS",
    "TRAINING_SEEDS",
    "VALIDATION_SEEDS",
    "Background",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "Word",
    "corpus",
    "dense_heads",
    "dense_labels",
    "make_scene",
]
