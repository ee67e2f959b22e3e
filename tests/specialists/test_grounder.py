from types import SimpleNamespace

import pytest
import torch

from open_florence.schema import Annotation
from open_florence.specialists import grounder as module
from open_florence.specialists.grounder import Grounder


@pytest.fixture(scope="module")
def grounder(dino):
    return Grounder(dino, threshold=0.05)


def test_spans_point_at_their_phrase_and_boxes_lie_in_the_image(grounder, samples, check_batches, check_boxes):
    for sample, annotations in zip(samples, check_batches(grounder), strict=True):
        [annotation] = annotations
        assert annotation.task == "<CAPTION_TO_PHRASE_GROUNDING>"
        assert annotation.text == annotation.query == "A red dog on the sofa"
        assert annotation.regions
        for region in annotation.regions:
            assert annotation.text[slice(*region.span)] == region.label
        assert {region.label for region in annotation.regions} <= {"A red dog", "the sofa"}
        check_boxes(annotations, sample.size)


def plant(monkeypatch, grounder, fits, boxes):
    """For every image these boxes (Q, 4), box q fitting the word fits[q] with logit 2."""

    def forward(pixel_values, input_ids, **_):
        words = grounder._model.processor.tokenizer.convert_ids_to_tokens(input_ids[0])
        logits = torch.full((1, len(boxes), 32), -torch.inf)
        for row, word in enumerate(fits):
            logits[0, row, words.index(word)] = 2.0
        return SimpleNamespace(logits=logits, pred_boxes=torch.tensor([boxes]))

    monkeypatch.setattr(grounder._model.network, "forward", forward)


def test_a_box_belongs_to_the_phrase_that_holds_its_word(grounder, make_sample, monkeypatch, corners):
    caption = "The sofa under a cat. A red dog."
    boxes = [[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.2, 0.2], [0.9, 0.9, 0.2, 0.2]]
    plant(monkeypatch, grounder, ["red", "sofa", "."], boxes)
    [[annotation]] = grounder.annotate([make_sample((200, 100), Annotation("<DETAILED_CAPTION>", caption))])
    found = {region.label: region for region in annotation.regions}
    assert set(found) == {"A red dog", "The sofa"}  # the full stop is no phrase
    assert found["A red dog"].span == (22, 31)
    assert corners(found["A red dog"]) == pytest.approx([80, 30, 120, 70])
    assert corners(found["The sofa"]) == pytest.approx([0, 0, 40, 20])
    assert found["The sofa"].score == pytest.approx(float(torch.tensor(2.0).sigmoid()))


def test_two_phrases_of_the_same_words_have_spans_of_their_own(grounder, make_sample, monkeypatch):
    plant(monkeypatch, grounder, ["dog"], [[0.5, 0.5, 0.2, 0.4]])
    caption = "A dog on the sofa and a dog on the cat"
    [[annotation]] = grounder.annotate([make_sample((60, 60), Annotation("<CAPTION>", caption))])
    assert [region.span for region in annotation.regions] == [(0, 5)]


def test_every_caption_once_in_the_order_of_the_annotations(grounder, make_sample):
    captions = [
        Annotation("<CAPTION>", "a cat"),
        Annotation("<OCR>", "a dog"),
        Annotation("<DETAILED_CAPTION>", "the red cat"),
        Annotation("<CAPTION>", "a cat"),
        Annotation("<CAPTION>", " "),
    ]
    sample, bare = make_sample((60, 40), *captions), make_sample((60, 40))
    answers = grounder.annotate([bare, sample])
    assert [[annotation.text for annotation in answer] for answer in answers] == [[], ["a cat", "the red cat"]]


def test_a_caption_without_phrases_has_no_regions(grounder, make_sample):
    [[annotation]] = grounder.annotate([make_sample((60, 40), Annotation("<CAPTION>", "it is on"))])
    assert (annotation.regions, annotation.complete) == ((), True)


def test_a_caption_longer_than_the_model_reads_is_not_complete(grounder, make_sample):
    caption = "the cat on " * 12 + "the sofa"
    [[annotation]] = grounder.annotate([make_sample((60, 40), Annotation("<CAPTION>", caption))])
    assert not annotation.complete
    assert max(region.span[1] for region in annotation.regions) < len(caption)


def test_the_parser_is_part_of_the_version(dino, grounder, monkeypatch):
    monkeypatch.setattr(module, "parser_name", lambda: "another")
    assert Grounder(dino, threshold=0.05).version != grounder.version
