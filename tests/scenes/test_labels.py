"""Every label against the pixels: boxes, polygons, words, colours, the order of lists."""

import numpy as np
import pytest
from numpy.typing import NDArray

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import mask_iou, polygon_area, rasterize
from open_florence.scenes import Scene, SceneConfig, make_scene
from open_florence.scenes.contents import SceneObject, Word
from open_florence.scenes.shapes import SHAPE_TABLE
from open_florence.scenes.vocabulary import ACHROMATIC, COLOURS, LEXICON, RANDOM_CHARACTERS, SHAPES


def _pairs(scenes: list[Scene]) -> list[tuple[Scene, int, SceneObject]]:
    return [(scene, k, thing) for scene in scenes for k, thing in enumerate(scene.objects)]


def test_the_map_holds_the_objects_and_nothing_else(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.shape == (scene.height, scene.width, 3)
        assert scene.image.dtype == np.uint8
        seen = set(np.unique(scene.id_map).tolist())
        assert seen - {-1, -2} == set(range(len(scene.objects)))
        assert (-2 in seen) == bool(scene.words)


def test_boxes_are_the_extents_of_the_visible_pixels(scenes: list[Scene]) -> None:
    for scene, k, thing in _pairs(scenes):
        rows, columns = np.nonzero(scene.id_map == k)
        assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_polygons_cover_the_visible_pixels(scenes: list[Scene]) -> None:
    lowest, found = dict.fromkeys(SHAPES, 1.0), dict.fromkeys(SHAPES, 0)
    for scene, k, thing in _pairs(scenes):
        if thing.name == "ring" or any(o.name == "ring" and _touch(o, thing) for o in scene.objects):
            continue  # the outer outline of a ring is not its mask, nor is what is seen through a ring without holes
        polygons = rasterize(thing.parts, (scene.width, scene.height))
        mask = scene.id_map == k
        agreement = mask_iou(polygons, mask)
        assert agreement >= 0.86  # a pixel either way counts for one in a hundred on the smallest
        if mask.sum() >= 300:
            found[thing.name] += 1
            lowest[thing.name] = min(lowest[thing.name], agreement)
    assert min(lowest.values()) >= 0.9, lowest
    assert min(n for name, n in found.items() if name != "ring") > 5


def _touch(a: SceneObject, b: SceneObject) -> bool:
    x1, y1, x2, y2 = a.box
    return x1 <= b.box[2] and b.box[0] <= x2 and y1 <= b.box[3] and b.box[1] <= y2


def test_a_ring_is_its_outer_outline(scenes: list[Scene]) -> None:
    rings = [(s, k, o) for s, k, o in _pairs(scenes) if o.name == "ring" and o.visible == 1]
    assert len(rings) > 20
    for scene, k, ring in rings:
        covered = rasterize(ring.parts, (scene.width, scene.height))
        mask = scene.id_map == k
        assert np.count_nonzero(mask & covered) / np.count_nonzero(mask) > 0.9
        assert np.count_nonzero(mask) / np.count_nonzero(covered) == pytest.approx(1 - 0.55**2, abs=0.09)


def test_polygons_run_clockwise_inside_the_image_with_their_shape_s_number_of_vertices(scenes: list[Scene]) -> None:
    for scene, _, thing in _pairs(scenes):
        sizes = []
        for part in thing.parts:
            points = np.array(part)
            following = np.roll(points, -1, axis=0)
            signed = float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum())
            assert signed > 0  # y points down: positive is clockwise as seen
            assert (points >= 0).all()
            assert (points <= (scene.width, scene.height)).all()
            sizes.append(polygon_area(points))
        assert sizes == sorted(sizes, reverse=True)
        if thing.visible == 1:
            assert [len(part) for part in thing.parts] == [len(SHAPE_TABLE[thing.name].vertices)]


FIRST = {  # where the first vertex of an upright shape lies in its box: 0 = left or top, 1 = right or bottom
    "circle": (0.15, 0.15),
    "square": (0, 0),
    "triangle": (0.5, 0),
    "star": (0.5, 0),
    "ring": (0.15, 0.15),
    "cross": (0.33, 0),
    "diamond": (0.5, 0),
    "hexagon": (0.25, 0),
    "heart": (0.5, 0.2),
    "bolt": (0.4, 0),
}


@pytest.mark.parametrize("name", FIRST)
def test_polygons_start_where_the_shape_says(scenes: list[Scene], name: str) -> None:
    for _, _, thing in _pairs(scenes):
        if thing.name == name and thing.visible == 1:
            x1, y1, x2, y2 = thing.box
            x, y = thing.parts[0][0]
            assert (x - x1) / (x2 - x1) == pytest.approx(FIRST[name][0], abs=0.32)
            assert (y - y1) / (y2 - y1) == pytest.approx(FIRST[name][1], abs=0.32)


def test_objects_run_left_to_right_and_show_enough_of_themselves(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert [o.centre for o in scene.objects] == sorted(o.centre for o in scene.objects)
        assert all(0.35 <= o.visible <= 1 for o in scene.objects)
        assert all(o.colour != scene.background.colour for o in scene.objects)
    hidden = [o.visible < 1 for _, _, o in _pairs(scenes)]
    assert 0.05 < np.mean(hidden) < 0.5


def test_size_words_are_beyond_doubt(scenes: list[Scene]) -> None:
    sides: dict[str, list[float]] = {"small": [], "": [], "large": []}
    for scene, _, thing in _pairs(scenes):
        if thing.visible == 1:
            x1, y1, x2, y2 = thing.box
            sides[thing.size].append(max(x2 - x1, y2 - y1) / min(scene.width, scene.height))
    assert max(sides["small"]) < 0.22 < min(sides[""])
    assert max(sides[""]) < 0.35 < min(sides["large"])


def test_pixels_are_nearest_to_the_colour_they_are_called() -> None:
    """Of plain objects, in scenes to which nothing has happened: the mean of their pixels."""
    wrong, count = [], 0
    for seed in range(150):
        scene = make_scene(seed, SceneConfig(photometric=0))
        for k, thing in enumerate(scene.objects):
            mask = scene.id_map == k
            mean = scene.image[mask].mean(axis=0)
            names = (
                COLOURS if np.ptp(mean) > 25 or thing.colour not in ACHROMATIC else {c: COLOURS[c] for c in ACHROMATIC}
            )
            if thing.texture == "plain":
                nearest = min(names, key=lambda c: float(np.abs(mean - names[c]).sum()))
                count += 1
                if nearest != thing.colour:
                    wrong.append((seed, thing.description, nearest))
    assert count > 200
    assert not wrong


def test_quads_hold_the_ink_and_the_ink_is_readable(scenes: list[Scene]) -> None:
    lengths = 0
    for scene in scenes:
        for word in scene.words:
            quad = rasterize([_grown(word, 1.0)], (scene.width, scene.height))
            ink = (scene.id_map == -2) & _around(word, scene)
            assert np.count_nonzero(ink & quad) >= 0.97 * np.count_nonzero(ink)
            tight = rasterize([_grown(word, -1.5)], (scene.width, scene.height))
            assert np.count_nonzero(ink & ~tight) > 0, "the quad is larger than its word"
            lightness = scene.image @ np.array([0.299, 0.587, 0.114])
            rest = quad & (scene.id_map != -2)
            assert abs(np.median(lightness[ink]) - np.median(lightness[rest])) > 25, scene.seed
            assert word.cap >= 9 * min(scene.width, scene.height) / 160 - 0.6
            lengths += 1
            if word.lexicon:
                assert word.text in LEXICON
            else:
                assert 3 <= len(word.text) <= 5
                assert set(word.text) <= set(RANDOM_CHARACTERS)
    assert lengths > 80


def _grown(word: Word, margin: float) -> NDArray[np.float64]:
    """The quad with each side moved outwards."""
    quad = np.array(word.quad)
    along, down = quad[1] - quad[0], quad[3] - quad[0]
    along, down = margin * along / np.hypot(*along), margin * down / np.hypot(*down)
    return quad + np.array([-along - down, along - down, along + down, -along + down])


def _around(word: Word, scene: Scene) -> NDArray[np.bool_]:
    """The upright box around a word: no other word reaches into it."""
    x1, y1, x2, y2 = (int(v) for v in word.box)
    mask = np.zeros(scene.id_map.shape, np.bool_)
    mask[max(0, y1 - 1) : y2 + 2, max(0, x1 - 1) : x2 + 2] = True
    return mask


def test_quads_are_clockwise_from_the_top_left(scenes: list[Scene]) -> None:
    for scene in scenes:
        for word in scene.words:
            (ax, ay), (bx, by), (cx, cy), (dx, dy) = word.quad
            assert ax < bx
            assert dx < cx
            assert ay < dy
            assert by < cy
            assert min(ax, dx) >= 0
            assert max(bx, cx) <= scene.width


def test_the_class_distribution_has_a_long_tail() -> None:
    counts = dict.fromkeys(SHAPES, 0)
    for seed in range(250):
        for thing in make_scene(seed, SceneConfig(crowd=0)).objects:
            counts[thing.name] += 1
    assert min(counts.values()) > 8
    assert 3.5 < counts["circle"] / counts["bolt"] < 9  # 12 ** 0.7 = 5.7
    assert sum(counts[name] for name in SHAPES[:4]) > sum(counts[name] for name in SHAPES[6:])


def test_crowds_hold_many_small_objects_mostly_of_one_kind() -> None:
    scenes = [make_scene(seed, SceneConfig(crowd=1)) for seed in range(40)]
    assert np.mean([len(s.objects) for s in scenes]) > 8
    assert all(o.size == "small" for s in scenes for o in s.objects)
    for scene in scenes:
        kinds = [o.description for o in scene.objects]
        assert max(map(kinds.count, kinds)) >= 0.4 * len(kinds)


def test_scenes_that_cannot_be_are_refused_in_a_sentence() -> None:
    with pytest.raises(OpenFlorenceError, match="do not fit"):
        make_scene(1, SceneConfig(min_objects=50, max_objects=50, crowd=0))
    with pytest.raises(OpenFlorenceError, match="at least 64 pixels"):
        SceneConfig(size=32)
    with pytest.raises(OpenFlorenceError, match="1 or more objects"):
        SceneConfig(min_objects=3, max_objects=2)
    with pytest.raises(OpenFlorenceError, match=r"cannot read the font .*no\.ttf"):
        make_scene(1, SceneConfig(fonts=("no.ttf",), text=1, crowd=0))
