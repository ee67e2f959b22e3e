import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.fusion.clusters import gather
from open_florence.schema import Region


def box(x: float, y: float, w: float, h: float, label: str = "cat", score: float = 0.5) -> Region:
    return Region.box(x, y, x + w, y + h, label=label, score=score)


boxes = st.builds(box, *[st.integers(0, 40).map(float)] * 2, *[st.integers(1, 30).map(float)] * 2)
several = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(boxes, max_size=5), max_size=3)


@given(several)
def test_every_region_is_in_exactly_one_cluster(regions: dict[str, list[Region]]) -> None:
    members = [(source, r.parts) for cluster in gather(regions) for source, r in cluster.members.items()]
    assert sorted(members) == sorted((source, r.parts) for source, some in regions.items() for r in some)


@given(several, st.randoms(use_true_random=False))
def test_the_order_in_which_they_were_written_does_not_matter(
    regions: dict[str, list[Region]], rng: random.Random
) -> None:
    turned = {source: rng.sample(some, len(some)) for source, some in sorted(regions.items(), reverse=True)}
    sets = [{frozenset((s, r.parts) for s, r in c.members.items()) for c in gather(g)} for g in (regions, turned)]
    assert sets[0] == sets[1]


def test_one_thing_seen_by_three_and_one_seen_by_one() -> None:
    regions = {
        "a": [box(10, 10, 20, 20), box(60, 60, 10, 10)],
        "b": [box(11, 10, 20, 21, "dog")],
        "c": [box(9, 11, 21, 20)],
    }
    clusters = sorted(gather(regions), key=lambda c: len(c.members))
    assert [sorted(c.members) for c in clusters] == [["a"], ["a", "b", "c"]]
    assert clusters[1].boxes.shape == (3, 4)
    assert np.allclose(clusters[1].boxes.mean(axis=0), [10, 31 / 3, 91 / 3, 92 / 3])


def test_a_source_has_one_region_in_a_cluster_the_closest() -> None:
    regions = {"a": [box(0, 0, 20, 20), box(2, 0, 20, 20)], "b": [box(2, 0, 20, 20)]}
    clusters = gather(regions)
    assert sorted(len(c.members) for c in clusters) == [1, 2]
    pair = next(c for c in clusters if len(c.members) == 2)
    assert pair.members["a"].parts == pair.members["b"].parts
