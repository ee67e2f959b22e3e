import numpy as np
import pytest

from open_florence.data_engine.fusion.clusters import gather
from open_florence.data_engine.fusion.reliability import Reliability
from open_florence.schema import Region


def world(images: int, errors: dict[str, float], seed: int = 0) -> list[dict[str, list[Region]]]:
    """Source -> regions of every image: one thing each, every edge off by a source's own error (share of the side)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(images):
        x, y, side = rng.uniform(0, 50), rng.uniform(0, 50), rng.uniform(20, 40)
        box = np.array([x, y, x + side, y + side])
        made.append(
            {
                name: [Region.box(*(box + rng.normal(0, error * side, 4)), label="cat", score=float(rng.random()))]
                for name, error in errors.items()
            }
        )
    return made


def test_the_exact_source_weighs_more_in_the_box() -> None:
    images = [gather(regions) for regions in world(300, {"coarse": 0.05, "exact": 0.01, "fair": 0.03})]
    found = Reliability.fit(images, ["coarse", "exact", "fair"], ["cat"])
    assert found.variances[0] > 2 * found.variances[2] > 4 * found.variances[1]
    cluster = next(c for image in images for c in image if len(c.members) == 3)
    place = list(cluster.members).index("exact")
    distance = [float(np.abs(np.array(found.box(cluster)) - box).mean()) for box in cluster.boxes]
    assert min(range(3), key=lambda k: distance[k]) == place


def test_two_sources_cannot_be_told_apart_and_share_the_box() -> None:
    images = [gather(regions) for regions in world(100, {"a": 0.04, "b": 0.01})]
    found = Reliability.fit(images, ["a", "b"], ["cat"])
    assert found.variances[0] == pytest.approx(found.variances[1], rel=0.05)


def test_a_cluster_is_judged_by_who_sees_it_and_by_its_score() -> None:
    rng = np.random.default_rng(0)
    images = []
    for regions in world(400, {"a": 0.02, "b": 0.02, "c": 0.02}):
        for name in "abc":
            if rng.random() < 0.3:
                regions[name] = []
            if rng.random() < 0.3:
                invented = Region.box(80, 80, 95, 95, label="dog", score=float(rng.beta(2, 6)))
                regions[name] = [*regions[name], invented]
        images.append(gather(regions))
    found = Reliability.fit(images, ["a", "b", "c"], ["cat", "dog"])
    alone = gather({"a": [Region.box(80, 80, 95, 95, label="dog", score=0.05)]})
    agreed = gather({n: [Region.box(10, 10, 40, 40, label="cat", score=0.6)] for n in "abc"})
    real, classes = found.judge([*alone, *agreed])
    assert real[0] < 0.3 < 0.9 < real[1]
    assert classes.argmax(axis=1).tolist() == [1, 0]
    assert np.allclose(classes.sum(axis=1), 1)


def test_nothing_at_all_is_no_error() -> None:
    found = Reliability.fit([], ["a", "b"], ["cat"])
    real, classes = found.judge(gather({"a": [Region.box(0, 0, 5, 5, label="cat")]}))
    assert 0 < real[0] < 1
    assert classes.shape == (1, 1)


def test_where_people_alone_have_labelled_there_is_nobody_to_judge() -> None:
    found = Reliability.fit([[], []], [], ["cat"])
    assert found.sources == ()
    real, classes = found.judge([])
    assert (real.shape, classes.shape) == ((0,), (0, 1))


def test_sources_that_agree_to_the_pixel_share_the_box() -> None:
    images = [gather(regions) for regions in world(50, {"a": 0.0, "b": 0.0})]
    found = Reliability.fit(images, ["a", "b"], ["cat"])
    assert np.allclose(found.box(images[0][0]), images[0][0].boxes[0])


def test_a_source_that_was_not_there_is_a_stranger() -> None:
    found = Reliability.fit([gather(r) for r in world(50, {"a": 0.01, "b": 0.03})], ["a", "b"], ["cat"])
    (alone,) = gather({"new": [Region.box(0, 0, 20, 20, label="cat")]})
    real, _ = found.judge([alone])
    assert real[0] == pytest.approx(0.5)
    assert found.box(alone) == (0, 0, 20, 20)


def test_a_class_that_one_source_alone_knows_keeps_its_name() -> None:
    rng = np.random.default_rng(0)
    images = []
    for regions in world(200, {"a": 0.02, "b": 0.02}):
        if rng.random() < 0.1:
            regions["expert"] = [Region.box(80, 80, 95, 95, label="face", score=0.9)]
        images.append(gather(regions))
    found = Reliability.fit(images, ["a", "b", "expert"], ["cat", "face"])
    _, classes = found.judge(gather({"expert": [Region.box(80, 80, 95, 95, label="face", score=0.9)]}))
    assert classes[0].tolist() == [0, 1]
