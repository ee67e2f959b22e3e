"""The same seed gives the same scene, in any process; the parts of the data keep apart."""

import hashlib
import subprocess
import sys

import numpy as np

from open_florence.images import image_id
from open_florence.scenes import HELDOUT_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, SceneConfig, corpus, make_scene

SEEDS = (0, 7, 12345, HELDOUT_SEEDS[0])
PROGRAM = """
import hashlib
from open_florence.scenes import make_scene
for seed in {seeds}:
    scene = make_scene(seed)
    print(hashlib.sha256(scene.image.tobytes() + scene.id_map.tobytes() + repr(scene.sample).encode()).hexdigest())
"""


def test_scenes_are_the_same_in_another_process_in_any_order() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seeds=SEEDS[::-1])], capture_output=True, text=True, check=True
    )
    scenes = [make_scene(seed) for seed in SEEDS]
    ours = [
        hashlib.sha256(s.image.tobytes() + s.id_map.tobytes() + repr(s.sample).encode()).hexdigest() for s in scenes
    ]
    assert run.stdout.split() == ours[::-1]


def test_different_seeds_give_different_scenes() -> None:
    samples = [make_scene(seed).sample for seed in range(50)]
    assert len({s.id for s in samples}) == 50
    assert samples[3].id == image_id(make_scene(3).image)
    assert samples[3].path == "scenes/3.png"
    assert samples[3].size == (160.0, 160.0)


def test_no_seed_serves_two_purposes() -> None:
    assert TRAINING_SEEDS.stop <= VALIDATION_SEEDS.start
    assert VALIDATION_SEEDS.stop <= HELDOUT_SEEDS.start == 2**40
    assert len(HELDOUT_SEEDS) == 300


def test_sizes_scale_what_is_in_the_scene() -> None:
    small, large = (make_scene(5, SceneConfig(size=size, text=0)) for size in (128, 256))
    assert large.image.shape == (256, 256, 3)
    assert [o.description for o in small.objects] == [o.description for o in large.objects]
    for a, b in zip(small.objects, large.objects, strict=True):
        assert np.allclose(np.array(a.box) * 2, b.box, atol=8)


def test_the_corpus_holds_texts_labels_and_questions() -> None:
    texts = list(corpus(20))
    assert texts == list(corpus(20))
    assert any(t.startswith("The image shows") for t in texts)
    assert any(t.startswith("How many") for t in texts)
    assert "circle" in texts
    assert "" not in texts
