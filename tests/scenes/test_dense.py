"""Dense labels against the scene they were taken from, cell by cell."""

import numpy as np
import pytest

from open_florence.scenes import DENSE_HEADS, Scene, SceneConfig, dense_heads, dense_labels
from open_florence.scenes.vocabulary import BACKGROUNDS, CHARACTERS, COLOURS, SHAPES, TEXTURES


@pytest.mark.parametrize("grid", [(10, 10), (5, 7)])
def test_cells_say_what_their_centres_are_on(scenes: list[Scene], grid: tuple[int, int]) -> None:
    rows, cols = grid
    for scene in scenes[:20] + scenes[-20:]:
        labels = dense_labels(scene, grid)
        for r in range(rows):
            for c in range(cols):
                x, y = (c + 0.5) * scene.width / cols, (r + 0.5) * scene.height / rows
                k = scene.id_map[int(y), int(x)]
                assert labels["object"][r, c] == (k >= 0)
                if k < 0:
                    assert [labels[n][r, c] for n in ("shape", "colour", "texture")] == [-100] * 3
                    assert np.isnan(labels["box"][r, c]).all()
                    assert np.isnan(labels["mask"][r, c]).all()
                    continue
                thing = scene.objects[k]
                assert SHAPES[labels["shape"][r, c]] == thing.name
                assert list(COLOURS)[labels["colour"][r, c]] == thing.colour
                assert TEXTURES[labels["texture"][r, c]] == thing.texture
                left, top, right, bottom = labels["box"][r, c]
                assert (labels["box"][r, c] >= 0).all()
                found = (
                    x - left * scene.width,
                    y - top * scene.height,
                    x + right * scene.width,
                    y + bottom * scene.height,
                )
                assert found == pytest.approx(thing.box, abs=1e-3)
                sub = [
                    scene.id_map[
                        int((r + (j + 0.5) / 4) * scene.height / rows), int((c + (i + 0.5) / 4) * scene.width / cols)
                    ]
                    == k
                    for j in range(4)
                    for i in range(4)
                ]
                assert labels["mask"][r, c].tolist() == sub
        assert BACKGROUNDS[labels["background_type"]] == scene.background.kind
        assert list(COLOURS)[labels["background_colour"]] == scene.background.colour


def test_characters_are_found_where_they_are_printed(scenes: list[Scene]) -> None:
    """Read a word back from a fine grid: its letters come in order along its middle line."""
    words = 0
    for scene in [s for s in scenes if s.words][:60]:
        labels = dense_labels(scene, (scene.height, scene.width))["characters"]  # (H, W, 4)
        fine = labels.reshape(scene.height, scene.width, 2, 2).transpose(0, 2, 1, 3).reshape(2 * scene.height, -1)
        for word in scene.words:
            a, b, c, d = np.array(word.quad)
            start, end = (a + d) / 2, (b + c) / 2
            line = [start + (end - start) * t for t in np.linspace(0.005, 0.995, 400)]
            codes = [int(fine[int(2 * y), int(2 * x)]) for x, y in line]
            read = "".join(CHARACTERS[k] for i, k in enumerate(codes) if k >= 0 and (i == 0 or codes[i - 1] != k))
            doubled = "".join(ch for i, ch in enumerate(word.text) if i == 0 or word.text[i - 1] != ch)
            assert read == doubled
            words += 1
    assert words > 60


def test_text_cells_are_those_with_characters(scenes: list[Scene]) -> None:
    for scene in scenes:
        labels = dense_labels(scene, (10, 10))
        assert np.array_equal(labels["text"] == 1, (labels["characters"] >= 0).any(axis=-1))
        assert labels["text"].any() == bool(scene.words)


def test_the_table_of_heads_fits_the_labels(scenes: list[Scene]) -> None:
    labels = dense_labels(scenes[0], (10, 10))
    assert set(labels) == set(DENSE_HEADS)
    for name, (kind, outputs) in DENSE_HEADS.items():
        label = labels[name]
        assert label.dtype == (np.int64 if "class" in kind else np.float32), name
        groups = 1 if kind == "global_class" else int(np.prod(label.shape[2:], dtype=int))
        if kind in ("binary", "distance"):
            assert outputs == groups, name
        else:
            assert outputs % groups == 0, name
            assert label.max() < outputs // groups
        assert label.shape[:2] == (() if kind == "global_class" else (10, 10)), name
    assert dense_heads(SceneConfig(size=192)) == DENSE_HEADS
