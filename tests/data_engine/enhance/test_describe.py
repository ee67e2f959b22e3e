from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.describe import MOST_KINDS, description, place, relation
from open_florence.data_engine.enhance.grounding import TASK as GROUNDING
from open_florence.data_engine.enhance.things import find_things
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("x", "x.png", (90.0, 90.0))


def describe(*annotations, **options):
    return description(**options)(SAMPLE, [Candidate(str(k), one) for k, one in enumerate(annotations)])


def objects(*named):
    return Annotation("<OD>", regions=tuple(Region.box(x, y, x + 10, y + 10, label=name) for name, x, y in named))


PARK = objects(("dog", 0, 40), ("frisbee", 40, 40), ("dog", 75, 0))


def test_what_there_is_how_many_and_where():
    detailed, _, more, _ = describe(PARK)
    assert detailed.annotation.text == "The image shows two dogs and a frisbee."
    assert more.annotation.text == (
        "The image shows two dogs and a frisbee. The two dogs are on the left and at the top right. "
        "The frisbee is in the middle."
    )
    assert (more.annotation.source, more.reason) == ("template@1", "written from the regions")
    assert more.parents == ("0",)


def test_how_two_stand_to_each_other():
    *_, more, _ = describe(objects(("dog", 0, 40), ("frisbee", 40, 40)))
    assert more.annotation.text.endswith("The dog is to the left of the frisbee.")


def test_short_descriptions_are_used_and_counted():
    said = Annotation(
        "<DENSE_REGION_CAPTION>",
        regions=(
            Region.box(0, 40, 10, 50, label="brown dog"),
            Region.box(75, 0, 85, 10, label="dog that jumps over a fence"),
        ),
    )
    assert describe(PARK, said)[0].annotation.text == "The image shows a brown dog, a frisbee and a dog."


def test_a_writer_goes_before_the_template():
    written = Annotation("<DETAILED_CAPTION>", "Two dogs play.", source="writer@1")
    assert {d.annotation.task for d in describe(PARK, written)} == {"<MORE_DETAILED_CAPTION>", GROUNDING}


def test_an_image_without_things_is_not_described():
    assert describe(objects()) == []


def test_places_and_relations():
    left, right = find_things([Candidate("0", objects(("a", 0, 0), ("b", 80, 5)))])
    below = find_things([Candidate("0", objects(("c", 2, 30)))])[0]
    assert place(left, SAMPLE.size) == "at the top left"
    assert relation(left, right) == "to the left of"
    assert relation(right, left) == "to the right of"
    assert relation(left, below) == "above"
    assert relation(below, left) == "below"
    assert relation(left, left) == ""


places = st.tuples(st.sampled_from(["dog", "wine glass", "skis", "person"]), *[st.integers(0, 80)] * 2)


@given(st.lists(places, min_size=1, max_size=12, unique_by=lambda one: one[1:]))
def test_every_phrase_is_grounded_in_what_it_names(named):
    labels = objects(*named)
    decisions = describe(labels)
    known = {(region.parts, region.label) for region in labels.regions}
    assert [d.annotation.task for d in decisions] == [
        "<DETAILED_CAPTION>",
        GROUNDING,
        "<MORE_DETAILED_CAPTION>",
        GROUNDING,
    ]
    for text, grounded in (decisions[:2], decisions[2:]):
        regions = grounded.annotation.regions
        assert grounded.annotation.query == grounded.annotation.text == text.annotation.text
        assert all(region.span and text.annotation.text[slice(*region.span)] == region.label for region in regions)
        assert {region.parts for region in regions} == {parts for parts, _ in known}  # few enough kinds to name all
        assert len({(region.span, region.parts) for region in regions}) == len(regions)


def test_of_many_kinds_the_largest_are_named():
    many = objects(*((f"kind{chr(97 + k)}", 8 * k, 0) for k in range(MOST_KINDS + 2)))
    assert describe(many)[0].annotation.text.count("kind") == MOST_KINDS
