import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.enhance.grounding import TASK as GROUNDING
from open_florence.data_engine.enhance.region_texts import crop, load_similarity, offers, region_texts
from open_florence.data_engine.enhance.things import Thing, find_things
from open_florence.errors import OpenFlorenceError
from open_florence.inference.embedder import save_embedder
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.embedding import DualEncoder
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region, Sample
from open_florence.tokenizer import Tokenizer

RED, BLUE = (10.0, 10.0, 40.0, 40.0), (50.0, 50.0, 90.0, 90.0)
OBJECTS = Annotation("<OD>", regions=tuple(Region.box(*b, label="square") for b in (RED, BLUE)), source="detector@1")
CHUNKS = Annotation(
    GROUNDING, "A red square and two squares", source="grounding@1",
    regions=(
        Region.box(*RED, label="A red square"),
        Region.box(*RED, label="two squares"),
        Region.box(*BLUE, label="two squares"),
    ),
)  # fmt: skip
DESCRIBED = Annotation("<DENSE_REGION_CAPTION>", regions=(Region.box(*BLUE, label="the blue square"),), source="c@1")


@pytest.fixture
def sample(tmp_path):
    image = Image.new("RGB", (100, 100), "white")
    image.paste((200, 0, 0), tuple(map(int, RED)))
    image.paste((0, 0, 200), tuple(map(int, BLUE)))
    image.save(tmp_path / "squares.png")
    return Sample("x", str(tmp_path / "squares.png"), (100.0, 100.0))


def choose(sample, *annotations, **options):
    return region_texts(**options)(sample, [Candidate(str(k), one) for k, one in enumerate(annotations)])


def by_colour(crops, texts):
    """Likes texts that name the strongest colour in the middle of a crop."""
    colours = [np.asarray(image)[image.height // 2, image.width // 2].argmax() for image in crops]
    return np.array([[float(("red", "green", "blue")[k] in text) for text in texts] for k in colours])


def test_without_a_measure_the_fullest_text_that_names_the_category_is_taken(sample):
    (decision,) = choose(sample, OBJECTS, CHUNKS, DESCRIBED)
    assert [region.label for region in decision.annotation.regions] == ["red square", "blue square"]
    assert decision.annotation.source == "region-texts@1"
    assert decision.parents == ("0", "1", "2")
    assert "'red square' of grounding@1 before 'square' of detector@1" in decision.reason


def test_a_text_that_names_something_else_is_not_taken_however_full(sample):
    wrong = Annotation("<DENSE_REGION_CAPTION>", regions=(Region.box(*RED, label="a very large red fire truck"),))
    (decision,) = choose(sample, OBJECTS, wrong)
    assert [region.label for region in decision.annotation.regions] == ["square", "square"]


def test_the_text_most_like_the_pixels_is_taken(sample):
    wrong = Annotation("<DENSE_REGION_CAPTION>", regions=(Region.box(*RED, label="big blue square"),), source="w@1")
    (decision,) = choose(sample, OBJECTS, wrong, CHUNKS, DESCRIBED, similarity=by_colour)
    assert [region.label for region in decision.annotation.regions] == ["red square", "blue square"]


def test_where_nobody_says_more_than_the_category_there_is_nothing_to_add(sample):
    assert choose(sample, OBJECTS) == []
    assert choose(sample) == []


def test_what_a_person_has_described_stands(sample):
    human = Annotation("<DENSE_REGION_CAPTION>", regions=DESCRIBED.regions, source="human")
    assert choose(sample, OBJECTS, CHUNKS, human) == []


def test_a_measure_of_another_shape_is_refused(sample):
    with pytest.raises(OpenFlorenceError, match=r"2 crops and 3 texts has shape \(1, 1\)"):
        choose(sample, OBJECTS, CHUNKS, DESCRIBED, similarity=lambda crops, texts: np.zeros((1, 1)))


def test_each_text_is_offered_once_and_without_its_article():
    things = find_things([Candidate("a", DESCRIBED), Candidate("b", OBJECTS)])
    assert [saying.text for saying in offers(things[1], things[1].sayings)] == ["square", "blue square"]


@given(st.tuples(*[st.floats(-20, 120)] * 2), st.tuples(*[st.floats(0, 150)] * 2), st.floats(0, 1))
def test_a_crop_lies_in_the_image_and_is_never_empty(corner, extent, margin):
    box = (*corner, corner[0] + extent[0], corner[1] + extent[1])
    found = crop(Image.new("RGB", (100, 80)), Thing(Region.box(*box), "", "", ()), margin)
    assert 1 <= found.width <= 100
    assert 1 <= found.height <= 80


@given(st.lists(st.sampled_from(["a red square", "square", "a dog", "squares"]), max_size=4))
def test_texts_come_from_what_was_said_and_regions_from_what_was_seen(texts):
    said = Annotation("<DENSE_REGION_CAPTION>", regions=tuple(Region.box(*RED, label=text) for text in texts))
    for decision in choose(Sample("x", "x", (100.0, 100.0)), OBJECTS, said):
        assert {region.parts for region in decision.annotation.regions} == {r.parts for r in OBJECTS.regions}
        known = {"square", "red square", "dog", "squares"}
        assert {region.label for region in decision.annotation.regions} <= known


def test_our_two_towers_are_a_measure_by_the_folder_they_are_in(tmp_path):
    processor = Processor(Tokenizer.train(["a red square", "a blue square"] * 5, 300), image_size=32)
    vision = VisionConfig(
        (8,) * 4, (1,) * 4, (1,) * 4, (1,) * 4, projection_dim=16, window=4, patch_strides=(4, 2, 2, 1)
    )
    text = TextConfig(len(processor.tokenizer), 16, 1, 1, 2, 2, 32, 32, max_positions=24)
    save_embedder(DualEncoder(FlorenceConfig(vision, text, image_size=32), 8), processor, tmp_path)
    measure = load_similarity(str(tmp_path))
    assert measure([Image.new("RGB", (9, 9))] * 2, ["a red square", "blue", "square"]).shape == (2, 3)
