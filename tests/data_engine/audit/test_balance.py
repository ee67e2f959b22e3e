"""Repeat factors: the published formula, what is never rare, and what people labelled."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.audit.balance import MOST, image_weights
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample


def sample(*names, source="fusion@1", task="<OD>"):
    regions = tuple(Region.box(0, 0, 9, 9, label=name) for name in names)
    return Sample("id", "image.png", (10.0, 10.0), (Annotation(task, regions=regions, source=source),))


def test_the_rarest_class_of_an_image_sets_its_weight():
    samples = [sample("cat")] * 96 + [sample("cat", "dog")] * 3 + [sample("bolt", "dog", "dog")]
    weights = image_weights(samples, 0.16)
    assert weights[0] == 1.0
    assert weights[96] == pytest.approx(2.0)  # sqrt(.16 / .04)
    assert weights[-1] == pytest.approx(4.0)  # sqrt(.16 / .01): bolt


def test_what_is_not_a_class_has_no_factor():
    samples = [sample("a long description of a thing", task="<DENSE_REGION_CAPTION>"), *[sample("cat")] * 999, sample()]
    assert set(image_weights(samples)) == {1.0}


def test_a_single_image_is_not_drawn_all_day():
    weights = image_weights([sample("cat")] * 99_999 + [sample("teapto")])
    assert weights[-1] == MOST


def test_images_that_a_person_labelled_have_a_standing_factor():
    samples = [sample("cat"), sample("cat", source="human"), sample("cat", source="human@review")]
    assert image_weights(samples, 0.1, human=3.0) == [1.0, 3.0, 3.0]


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=4), max_size=30), st.floats(0, 1))
def test_weights_are_at_least_one_and_zero_draws_all_alike(images, threshold):
    samples = [sample(*names) for names in images]
    weights = image_weights(samples, threshold)
    assert len(weights) == len(samples)
    assert all(1.0 <= weight <= MOST for weight in weights)
    assert set(image_weights(samples, 0.0)) <= {1.0}
    for names, weight in zip(images, weights, strict=True):
        for name in names:
            share = sum(name in other for other in images) / len(images)
            assert weight >= min(MOST, math.sqrt(threshold / share)) - 1e-9


@pytest.mark.parametrize(("options", "message"), [((1.5,), "rare lies between"), ((0.1, 0.5), "at least 1")])
def test_numbers_that_cannot_be_meant(options, message):
    with pytest.raises(OpenFlorenceError, match=message):
        image_weights([], *options)
