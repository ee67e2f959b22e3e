"""What was said about a box goes with the box."""

from open_florence.data_engine.deciding import _still
from open_florence.data_engine.decision import Candidate, Decision
from open_florence.schema import Annotation, Region

HERE, GONE = Region.box(10, 10, 30, 30, label="cat"), Region.box(60, 60, 90, 90, label="dog")
KEPT = [
    Decision(Annotation("<OD>", regions=(HERE,)), "kept"),
    Decision(Annotation("<OD>", regions=(GONE,)), "dropped", "score: 0.1 under 0.3 for dog"),
]


def decided(annotation: Annotation) -> list[tuple[str, int]]:
    """(status, regions) of what becomes of an annotation."""
    return [(d.status, len(d.annotation.regions)) for d in _still(Candidate("row", annotation), KEPT)]


def test_an_answer_about_a_box_is_kept_with_it_and_dropped_with_it() -> None:
    assert decided(Annotation("<REGION_TO_CATEGORY>", "cat", query=Region("box", HERE.parts))) == [("kept", 0)]
    assert decided(Annotation("<REGION_TO_CATEGORY>", "dog", query=Region("box", GONE.parts))) == [("dropped", 0)]


def test_of_region_texts_those_stay_whose_box_does() -> None:
    task = "<DENSE_REGION_CAPTION>"
    assert decided(Annotation(task, regions=(HERE, GONE))) == [("kept", 1), ("dropped", 1)]
    assert decided(Annotation(task, regions=(GONE,))) == [("dropped", 1)]
    assert decided(Annotation(task, regions=(HERE,))) == [("kept", 1)]


def test_phrases_may_mark_what_no_detector_knows() -> None:
    grounded = Annotation("<CAPTION_TO_PHRASE_GROUNDING>", "a sky", regions=(GONE,), query="a sky")
    assert decided(grounded) == [("kept", 1)]
    assert decided(Annotation("<DETAILED_CAPTION>", "a cat and a dog")) == [("kept", 0)]


def test_where_nobody_looked_for_boxes_everything_is_kept() -> None:
    answer = Annotation("<REGION_TO_OCR>", "EXIT", query=Region("box", GONE.parts))
    assert [d.status for d in _still(Candidate("row", answer), [])] == ["kept"]
