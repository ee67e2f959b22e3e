"""Classes on which sources differ are found, those on which they agree or are merely few are not."""

import random

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.ontology.stability import unstable_labels
from open_florence.schema import Annotation, Region

CLASSES = ("cat", "dog", "cow")


def said(source, *named):
    regions = tuple(Region.box(20.0 * k, 0, 20.0 * k + 10, 10, label=name) for k, name in named)
    return Candidate(source, Annotation("<OD>", regions=regions, source=source))


def world(images, confuse, seed=0, sources=("a@1", "b@1")):
    """Each source calls a thing by its name, but `confuse(name, dice)` may say another for the last of them."""
    dice = random.Random(seed)
    for _ in range(images):
        truth = [(k, dice.choice(CLASSES)) for k in range(3)]
        yield [
            said(source, *((k, confuse(name, dice) if source == sources[-1] else name) for k, name in truth))
            for source in sources
        ]


def test_a_class_that_one_source_confuses_is_reported_with_its_rival():
    found = unstable_labels(world(60, lambda name, dice: "dog" if name == "cat" and dice.random() < 0.6 else name))
    assert [one.name for one in found] == ["cat", "dog"]
    cat = found[0]
    assert (cat.sources, cat.rival) == (("a@1", "b@1"), "dog")
    assert cat.chance < cat.agreement < 0.55
    assert "cat: a@1 and b@1 agree on" in cat.sentence
    assert "dog" in cat.sentence


def test_agreement_is_not_reported():
    assert unstable_labels(world(60, lambda name, dice: name)) == []
    assert unstable_labels(world(200, lambda name, dice: "cow" if dice.random() < 0.05 else name)) == []


def test_labels_by_the_dice_are_no_better_than_chance():
    found = unstable_labels(world(60, lambda name, dice: dice.choice(CLASSES)))
    assert {one.name for one in found} == set(CLASSES)
    assert all(abs(one.agreement - one.chance) < 0.12 for one in found)


def test_a_few_objects_say_nothing():
    assert unstable_labels(world(2, lambda name, dice: "dog")) == []


def test_only_pairs_that_differ_are_named():
    images = world(60, lambda name, dice: "dog" if name == "cat" else name, sources=("a@1", "b@1", "z@1"))
    assert {one.sources for one in unstable_labels(images)} == {("a@1", "z@1"), ("b@1", "z@1")}


def test_what_only_one_found_or_lies_elsewhere_is_no_disagreement():
    elsewhere = [[said("a@1", (0, "cat")), said("b@1", (1, "dog"))] for _ in range(50)]
    alone = [[said("a@1", (0, "cat")), said("b@1")] for _ in range(50)]
    assert unstable_labels(elsewhere) == unstable_labels(alone) == unstable_labels([]) == []


def test_each_object_is_matched_once():
    """A source that says both names of every object agrees on one of them and leaves the other unmatched."""
    both = [[said("a@1", (0, "cat")), said("b@1", (0, "dog"), (0, "cat"))] for _ in range(20)]
    assert sum(one.objects for one in unstable_labels(both)) <= 40
