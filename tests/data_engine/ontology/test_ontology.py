"""How a label becomes a class, what a file may not say, and that versions follow the content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.ontology import Ontology, OntologyClass, Relation
from open_florence.errors import OpenFlorenceError
from open_florence.noun_phrases import noun_phrases
from open_florence.scenes.phrases import counted, plural
from open_florence.scenes.vocabulary import COLOURS, SHAPES, TEXTURES
from open_florence.schema import Annotation, Region

FILE = """
tasks = ["OD", "<CAPTION>"]
attributes = ["red", "small"]
blacklist = ["Hot dog"]
[[class]]
name = "dog"
synonyms = ["puppy", "hound dog"]
attributes = ["fluffy"]
meaning = "A dog, not a toy."
threshold = 0.4
parent = "animal"
[[class]]
name = "animal"
[[class]]
name = "Traffic light"
[[relation]]
name = "next to"
subject = "dog"
object = "Traffic light"
[[migration]]
id = "one name"
change = "merge"
from = ["doggy", "dog"]
to = "dog"
"""


@pytest.fixture
def ontology(tmp_path):
    path = tmp_path / "ontology.toml"
    path.write_text(FILE)
    return Ontology.load(path)


def test_a_file_says_everything(ontology):
    assert ontology.names == ("dog", "animal", "Traffic light")
    assert ontology.tasks == ("<OD>", "<CAPTION>")
    assert ontology.thresholds == {"dog": 0.4}
    assert ontology.classes[0].meaning == "A dog, not a toy."
    assert ontology.relations == (Relation("next to", "dog", "Traffic light"),)
    assert ontology.migrations[0].old == ("doggy", "dog")
    assert list(ontology.ancestors("dog")) == ["dog", "animal"]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("dog", "dog"),
        ("DOGS", "dog"),
        ("puppies", "dog"),
        ("two small, red hound-dogs", "dog"),
        ("a fluffy dog", "dog"),
        ("a fluffy animal", None),  # fluffy is the dog's alone
        ("hot dog", None),
        ("no dogs", None),
        ("traffic_lights", "Traffic light"),
        ("the traffic light", "Traffic light"),
        ("light", None),
        ("dog house", None),
        ("", None),
    ],
)
def test_labels(ontology, label, name):
    assert ontology.name_of(label) == name


def test_phrases_skip_describing_words_but_not_nouns(ontology):
    text = "A group of angry dogs, a hot dog and a toy dog next to no dogs and a dirty parked animal"
    found = {phrase.text: ontology.class_of(phrase) for phrase in noun_phrases(text)}
    assert found == {
        "A group of angry dogs": "dog",
        "a hot dog": None,  # on the blacklist
        "a toy dog": None,
        "no dogs": None,
        "a dirty parked animal": "animal",
    }


@given(st.sampled_from(SHAPES), st.sampled_from(sorted(COLOURS)), st.sampled_from(TEXTURES), st.integers(1, 30))
def test_every_name_of_the_scenes_is_read(shape, colour, texture, count):
    ontology = Ontology(tuple(map(OntologyClass, SHAPES)), attributes=(*COLOURS, *TEXTURES))
    for label in (shape, plural(shape), shape.upper(), counted(f"{colour} {texture} {shape}", count)):
        assert ontology.name_of(label) == shape
    assert Ontology.of(SHAPES).name_of(f"{colour} {shape}") is None


def test_classes_that_differ_in_number_only():
    ontology = Ontology.of(["glass", "glasses"])
    assert [ontology.name_of(label) for label in ("glass", "glasses")] == ["glass", "glasses"]


def test_without_classes_everything_is_inside():
    assert Ontology().name_of("Anything") == "Anything"


def test_apply_renames_and_leaves_the_rest(ontology):
    regions = tuple(Region.box(0, 0, 5, 5, label=label) for label in ("Puppies", "cat", ""))
    applied = ontology.apply(Annotation("<OD>", regions=regions, source="a@1"))
    assert [region.label for region in applied.regions] == ["dog", "cat", ""]
    assert ontology.apply(Annotation("<REGION_TO_CATEGORY>", "Puppy")).text == "dog"
    words = Annotation("<DENSE_REGION_CAPTION>", regions=regions)
    assert ontology.apply(words) == words


def test_the_version_is_of_the_content(ontology, tmp_path):
    path = tmp_path / "other.toml"
    path.write_text("# a comment\n" + FILE)
    assert Ontology.load(path).version == ontology.version
    path.write_text(FILE.replace("0.4", "0.5"))
    assert Ontology.load(path).version != ontology.version


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[class]]\nname = 'a'\n[[class]]\nname = 'a'", "the class 'a' stands there twice"),
        ("[[class]]\nname = 'a'\nsynonyms = ['X']\n[[class]]\nname = 'x'", "'x' stands for both 'a' and 'x'"),
        ("[[class]]\nname = 'a'\nparent = 'b'", "the parent of 'a' is 'b', which is no class"),
        (
            "[[class]]\nname = 'a'\nparent = 'b'\n[[class]]\nname = 'b'\nparent = 'a'",
            "the parents of 'a' go round in a circle",
        ),
        ("[[relation]]\nname = 'on'\nsubject = 'a'\nobject = 'b'", "the relation 'on' is about 'a', which is no class"),
        ("tasks = ['ODD']", "there is no task 'ODD'; did you mean <OD>?"),
        ("[[class]]\nname = '!'", "'!' of the class '!' holds no letter"),
        (
            "[[migration]]\nid = 'm'\nchange = 'rename'\nfrom = 'a'\nto = 'b'",
            "the migration 'm' leads to 'b', which is no class",
        ),
        (
            "[[migration]]\nid = 'm'\nchange = 'drop'\nfrom = 'a'\nto = 'b'",
            "the migration 'm' cannot drop 1 classes to 1",
        ),
        ("[[class]]\nname = 'a'\nthreshold = 2", "class 1, threshold: input should be less than or equal to 1"),
        ("[[class]]\ncolour = 'a'", "class 1, name: field required"),
        ("clases = 1", "clases: extra inputs are not permitted"),
        ("x = ", "is not a TOML file"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_with_the_file(tmp_path, text, sentence):
    path = tmp_path / "ontology.toml"
    path.write_text(text)
    with pytest.raises(OpenFlorenceError) as error:
        Ontology.load(path)
    assert sentence in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(OpenFlorenceError, match="cannot be read"):
        Ontology.load(tmp_path / "no.toml")


@given(st.lists(st.text(st.characters(categories=("L",)), min_size=1, max_size=8), max_size=4, unique_by=str.casefold))
def test_the_template_is_a_file(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("template") / "ontology.toml"
    path.write_text(Ontology.template(names), "utf-8")
    assert Ontology.load(path).names == tuple(names)
