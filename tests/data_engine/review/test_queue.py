"""The review queue: what is most worth judging, and a sample whose chances are what they say."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.review.item import ReviewItem, read_queue, write_queue
from open_florence.data_engine.review.queue import review_queue
from open_florence.data_engine.review.sampling import systematic_sample
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample


def box(number: int, label: str, score: float | None = 0.9) -> Region:
    """The number-th of a row of boxes that do not touch."""
    return Region.box(20 * number, 0, 20 * number + 10, 10, label=label, score=score)


def image(name: str, *labels: Annotation, said: tuple[Annotation, ...] = ()) -> tuple[Sample, list[Candidate]]:
    """An image with the labels of a round, one row each, and what sources said."""
    rows = [Candidate(f"{name}/{number}", label) for number, label in enumerate(labels)]
    return Sample(name, f"{name}.png", (400.0, 100.0), said), rows


def objects(*regions: Region, source: str = "a@1") -> Annotation:
    return Annotation("<OD>", regions=regions, source=source)


def plain(images: int = 12) -> list[tuple[Sample, list[Candidate]]]:
    """Images with many cats, some dogs and one hat."""
    made = []
    for number in range(images):
        regions = [box(place, "cat", 0.5 + 0.01 * number) for place in range(8)]
        regions += [box(9, "dog", 0.8)] * (number % 3 == 0) + [box(10, "hat", 0.95)] * (number == 5)
        made.append(image(f"{number:02d}", objects(*regions)))
    return made


def test_the_disputed_comes_first_and_says_why() -> None:
    label = objects(box(0, "cat"), box(1, "cat"), box(2, "cat", 0.2), source="fused")
    said = (
        objects(box(0, "cat"), box(1, "dog"), box(2, "cat")),
        objects(box(0, "Cat"), box(2, "cat"), source="b@2"),
    )
    queue = review_queue([image("x", label, said=said)], 3, random_share=0)
    assert [item.id for item in queue] == ["x/0#1", "x/0#2", "x/0#0"]
    first, second, third = queue
    assert first.why == (
        "2 of 2 sources say otherwise (a@1: dog, b@2: nothing here); its score is 0.90; its class has 3."
    )
    assert (first.disagreement, first.sources) == (1.0, ("fused",))
    assert second.why == "Its score is 0.20; its class has 3."
    assert third.sources == ("a@1", "b@2")
    assert {item.siblings for item in queue} == {3}
    assert {item.chance for item in queue} == {1.0}


def test_only_sources_that_were_asked_the_same_count() -> None:
    asked = Annotation("<OPEN_VOCABULARY_DETECTION>", regions=(box(0, "hat"),), query="hat", source="a@1")
    other = replace(asked, query="shoe", source="b@1", regions=())
    (item,) = review_queue([image("x", asked, said=(asked, other, objects()))], 1)
    assert (item.disagreement, item.sources) == (0.0, ("a@1",))


def test_texts_are_claims_and_so_is_that_nothing_is_here() -> None:
    caption = Annotation("<CAPTION>", "a red hat on a table", source="a@1", score=0.7)
    said = (
        caption,
        replace(caption, text="a red hat on the table", source="b@1"),
        replace(caption, text="a cat", source="c@1"),
        objects(box(0, "cat"), source="b@1"),
    )
    queue = review_queue([image("x", caption, objects(), said=said)], 2, random_share=0)
    nothing, text = queue
    assert (text.label, text.region, text.score, text.sources) == ("a red hat on a table", None, 0.7, ("a@1", "b@1"))
    assert text.why == "1 of 3 sources says otherwise (c@1: a cat); its score is 0.70."
    assert nothing.says_nothing
    assert nothing.why == "1 of 1 source says otherwise (b@1: cat)."


@settings(max_examples=25)
@given(st.randoms(use_true_random=False), st.booleans(), st.integers(0, 5))
def test_the_order_of_images_changes_nothing(generator: random.Random, whole: bool, seed: int) -> None:
    images = plain(6)
    expected = review_queue(images, 10, whole_images=whole, seed=seed)
    generator.shuffle(images)
    assert review_queue(images, 10, whole_images=whole, seed=seed) == expected


def test_what_is_chosen_takes_turns_between_classes() -> None:
    queue = review_queue(plain(), 6, random_share=0)
    assert sorted(item.class_name for item in queue) == ["cat", "cat", "dog", "dog", "dog", "hat"]


def test_the_drawn_are_spread_over_the_queue_and_over_classes() -> None:
    queue = review_queue(plain(), 40, random_share=0.5, seed=3)
    assert len({item.id for item in queue}) == 40
    drawn = [item.chance < 1 for item in queue]
    assert sum(drawn) == 20
    assert all(8 <= sum(drawn[start : start + 20]) <= 12 for start in (0, 20))
    assert all((item.why == "Drawn at random.") == (item.chance < 1) for item in queue)


@pytest.mark.parametrize("whole", [False, True])
def test_weights_make_up_for_the_drawing(whole: bool) -> None:
    """Over many seeds the weighted sums of the sample are the sums of all, in each class."""
    images = plain(9)
    truth = {"cat": 72.0, "dog": 3.0, "hat": 1.0}
    sums = {name: [] for name in truth}
    for seed in range(150):
        queue = review_queue(images, 4 if whole else 14, random_share=0.5, whole_images=whole, seed=seed)
        for name, values in sums.items():
            values.append(sum(1 / item.chance for item in queue if item.class_name == name))
    for name, values in sums.items():
        error = 4 * np.std(values) / np.sqrt(len(values)) + 1e-9
        assert abs(np.mean(values) - truth[name]) < error, name


def test_everything_is_taken_where_there_is_less_than_asked() -> None:
    queue = review_queue(plain(2), 500)
    assert len(queue) == 17
    assert {item.chance for item in queue} == {1.0}
    assert review_queue([], 10) == []


def test_whole_images_come_with_all_their_claims() -> None:
    queue = review_queue(plain(), 4, whole_images=True, random_share=0.5)
    assert len({item.image for item in queue}) == 4
    for name in {item.image for item in queue}:
        of_image = [item for item in queue if item.image == name]
        assert len(of_image) == of_image[0].siblings
        assert len({item.chance for item in of_image}) == 1
        assert not of_image[0].context


def test_what_is_not_asked_about_is_shown_as_context() -> None:
    (item,) = review_queue([image("x", objects(box(0, "cat", 0.1), box(1, "dog"), box(2, "hat")))], 1, random_share=0)
    assert item.label == "cat"
    assert item.context == (box(1, "dog"), box(2, "hat"))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=40), st.data())
def test_a_systematic_sample_has_its_size_and_no_double(weights: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(weights)))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    picked, chances = systematic_sample(np.array(weights), count, generator)
    assert len(set(picked.tolist())) == len(picked) == count
    assert chances.sum() == pytest.approx(count)
    assert (chances <= 1).all()
    assert (chances[picked] > 0).all()


def test_the_chances_of_a_systematic_sample_are_exact() -> None:
    weights = np.array([5.0, 1.0, 1.0, 2.0, 0.5, 0.5])
    counts = np.zeros(6)
    for seed in range(4000):
        picked, chances = systematic_sample(weights, 3, np.random.default_rng(seed))
        counts[picked] += 1
    assert chances[0] == 1
    assert np.abs(counts / 4000 - chances).max() < 0.04


def test_a_queue_comes_back_from_its_file(tmp_path: Path) -> None:
    asked = Annotation("<REGION_TO_CATEGORY>", "hat", query=box(3, ""), source="a@1")
    queue = review_queue([*plain(2), image("x", asked, said=(asked,))], 9)
    write_queue(tmp_path / "queue.jsonl", queue)
    assert read_queue(tmp_path / "queue.jsonl") == queue


@pytest.mark.parametrize("broken", ["{}", "[1]", "nothing", '{"id": 3}'])
def test_a_broken_queue_is_one_sentence(tmp_path: Path, broken: str) -> None:
    (item,) = review_queue([image("x", objects(box(0, "cat")))], 1)
    (tmp_path / "queue.jsonl").write_text(json.dumps(item.to_json()) + "\n" + broken + "\n")
    with pytest.raises(OpenFlorenceError, match=r"queue\.jsonl, line 2 is no item of a review queue"):
        read_queue(tmp_path / "queue.jsonl")


def test_a_queue_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="cannot be read"):
        read_queue(tmp_path / "queue.jsonl")


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(OpenFlorenceError, match="between 0 and 1"):
        review_queue(plain(1), 3, random_share=1.5)
    with pytest.raises(OpenFlorenceError, match="the image 00 is given twice"):
        review_queue(plain(1) * 2, 3)
    sample, rows = plain(1)[0]
    with pytest.raises(OpenFlorenceError, match="the row 00/0 is given twice"):
        review_queue([(sample, rows * 2)], 3)


def test_the_words_of_free_labels_are_no_classes() -> None:
    word = Annotation("<OCR_WITH_REGION>", regions=(box(0, "TOTAL"),), source="a@1")
    (item,) = review_queue([image("x", word)], 1, random_share=0)
    assert isinstance(item, ReviewItem)
    assert (item.label, item.class_name) == ("TOTAL", "")
    assert "class" not in item.why
