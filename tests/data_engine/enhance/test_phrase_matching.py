import pytest

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.phrase_matching import PROMINENT, UNCHECKED, match_phrases, names_of, read_phrase
from open_florence.data_engine.enhance.things import find_things
from open_florence.data_engine.ontology import Ontology, OntologyClass
from open_florence.noun_phrases import Phrase, noun_phrases
from open_florence.schema import Annotation, Region

SIZE = (100.0, 100.0)


def things_of(*named, descriptions=()):
    """Things of (label, x, y, side); descriptions likewise."""
    regions = [[Region.box(x, y, x + s, y + s, label=n) for n, x, y, s in some] for some in (named, descriptions)]
    tasks = ("<OD>", "<DENSE_REGION_CAPTION>")
    return find_things(
        [Candidate(task, Annotation(task, regions=tuple(r))) for task, r in zip(tasks, regions, strict=True)]
    )


def meant(caption, things, names=None):
    """Phrase -> the left edges of what it means."""
    matches = match_phrases(caption, noun_phrases(caption), things, SIZE, names)
    return {m.reading.phrase.text: [things[k].box[0] for k in m.things] for m in matches}


def evidence(caption, things):
    return [m.evidence for m in match_phrases(caption, noun_phrases(caption), things, SIZE)]


TWO_DOGS = things_of(("dog", 5, 40, 20), ("dog", 70, 40, 20), ("person", 40, 10, 20))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Two dogs and a man", {"Two dogs": [5, 70], "a man": [40]}),
        ("A couple of dogs", {"A couple of dogs": [5, 70]}),
        ("Some puppies in the park", {"Some puppies": [5, 70]}),
        ("A dog", {}),  # which one?
        ("A dog on the left.", {"A dog": [5]}),
        ("The right dog", {"The right dog": [70]}),
        ("A dog at the top right", {}),  # both are in the lower half
        ("A dog to the left of a person", {"a person": [40]}),  # where it stands to another, not in the image
        ("A man and a woman", {}),  # one person
        ("A man holds a dog. The man smiles.", {"A man": [40], "The man": [40]}),
        ("Three dogs", {"Three dogs": [5, 70]}),
        ("A hot dog", {}),
        ("A cat", {}),
    ],
)
def test_names_counts_and_sides(caption, expected):
    found = meant(caption, TWO_DOGS)
    assert found == {phrase: list(map(float, places)) for phrase, places in expected.items()}


def test_what_is_missing_or_unchecked_lowers_the_evidence():
    assert evidence("Three dogs", TWO_DOGS) == [2 / 3]
    assert evidence("A tall person", TWO_DOGS) == [UNCHECKED]
    assert evidence("Two dogs", TWO_DOGS) == [1.0]


def test_of_several_the_largest_by_far_may_be_meant_but_not_where_the_caption_names_two():
    things = things_of(("dog", 0, 0, 60), ("dog", 70, 0, 20))
    assert meant("A dog", things) == {"A dog": [0]}
    assert evidence("A dog", things) == [PROMINENT]
    assert meant("A dog and a dog", things) == {}
    assert meant("A brown dog", things) == {}  # the brown one may be the small one


def test_attributes_tell_things_apart():
    stars = [("star", 0, 0, 10), ("star", 30, 0, 10), ("star", 60, 0, 10)]
    said = [("red star", 0, 0, 10), ("blue star", 30, 0, 10), ("red striped star", 60, 0, 10)]
    things = things_of(*stars, descriptions=said)
    assert meant("a blue star", things) == {"a blue star": [30]}
    assert meant("a red star", things) == {"a red star": [0]}  # of the other more would be said
    assert meant("two red stars", things) == {"two red stars": [0, 60]}
    assert meant("a green star", things) == {}


def test_the_name_is_as_long_as_the_labels_know_it():
    phrase = Phrase("a large stuffed bear", (0, 20), "bear")
    reading = read_phrase(phrase, phrase.text, {"bear"})
    assert (reading.name, reading.attributes) == ("stuffed bear", {"large"})
    assert read_phrase(Phrase("a bear", (0, 6), "bear"), "a bear", ()).name == "bear"


def test_an_ontology_gives_names_that_the_table_lacks():
    ontology = Ontology((OntologyClass("white blood cell", ("leukocyte",)), OntologyClass("platelet")))
    things = things_of(("white blood cell", 5, 5, 10))
    assert meant("A leukocyte", things) == {}
    assert meant("A leukocyte", things, names_of(ontology)) == {"A leukocyte": [5]}
    assert names_of(Ontology()) is None
