"""Scenes that the tests of this folder look at: a few hundred ordinary ones, made once."""

import pytest

from open_florence.scenes import HELDOUT_SEEDS, Scene, SceneConfig, make_scene


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    """Default scenes, and some with much occlusion, at another size and not square."""
    crowded = SceneConfig(size=(200, 144), max_objects=9, occlusion=0.7, crowd=0.3)
    return [make_scene(seed) for seed in HELDOUT_SEEDS[:200]] + [make_scene(seed, crowded) for seed in range(60)]
