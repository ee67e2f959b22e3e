from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.things import best_overlap, find_things
from open_florence.schema import Annotation, Region


def candidate(name, task, *regions, text="", query=None):
    return Candidate(name, Annotation(task, text, tuple(regions), query, source=f"{name}@1"))


def box(x1, y1, x2, y2, label="", score=None):
    return Region.box(x1, y1, x2, y2, label=label, score=score)


def test_things_stand_from_left_to_right_whatever_the_order_of_the_labels():
    one = candidate("a", "<OD>", box(50, 0, 60, 10, "Dogs"), box(0, 0, 10, 10, "cat"))
    other = candidate("b", "<OD>", box(20, 0, 30, 10, "dog"))
    assert [thing.name for thing in find_things([one, other])] == ["cat", "dog", "dog"]
    assert find_things([one, other]) == find_things([other, one])


def test_what_two_sources_call_the_same_in_one_place_is_one_thing_as_the_surer_places_it():
    one = candidate("a", "<OD>", box(0, 0, 10, 10, "dog", 0.5))
    other = candidate("b", "<OD>", box(0, 0, 10, 9, "dog", 0.8))
    (thing,) = find_things([one, other])
    assert thing.box == (0, 0, 10, 9)
    assert thing.parents == ("a", "b")


def test_one_source_means_two_things_by_two_boxes():
    one = candidate("a", "<OD>", box(0, 0, 10, 10, "dog"), box(0, 0, 10, 9, "dog"))
    assert len(find_things([one])) == 2


def test_descriptions_belong_to_what_they_name():
    person, tie = box(0, 0, 10, 10, "person"), box(0, 0, 10, 9, "tie")
    said = candidate("d", "<DENSE_REGION_CAPTION>", box(0, 0, 10, 9, "a tall man"), box(80, 80, 90, 90, "red kites"))
    asked = candidate("q", "<REGION_TO_DESCRIPTION>", text="blue tie", query=box(0, 0, 10, 10))
    things = {thing.name: thing for thing in find_things([candidate("a", "<OD>", person, tie), said, asked])}
    assert [saying.text for saying in things["person"].sayings] == ["a tall man"]
    assert [saying.text for saying in things["tie"].sayings] == ["blue tie"]
    assert things["tie"].parents == ("a", "q")
    assert things["kite"].box == (80, 80, 90, 90)  # nobody else saw it


def test_the_overlap_must_be_large_enough():
    assert best_overlap(box(0, 0, 10, 10), []) is None
    assert best_overlap(box(0, 0, 10, 10), [box(5, 0, 15, 10)]) is None
    assert best_overlap(box(0, 0, 10, 10), [box(5, 0, 15, 10), box(0, 0, 10, 9)]) == 1
