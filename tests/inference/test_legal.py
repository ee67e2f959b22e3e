"""Grammars against a model's scores: with and without the short way, greedy, drawn and with beams."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.generation import Generation, GenerationConfig
from open_florence.images import open_image
from open_florence.inference.asking import Question
from open_florence.inference.generate import generate
from open_florence.inference.legal import Legal
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model
from open_florence.legal_tokens import Automaton, Choice, automaton
from open_florence.model.florence import Memory
from open_florence.questions import read_ask
from open_florence.scenes import make_scene
from open_florence.schema import Annotation
from open_florence.tasks import TASKS

NAMED = "<OPEN_VOCABULARY_DETECTION>"
LABELS = {"red ring", "blue square"}
ASKS = [
    "<OD>",
    "<CAPTION>",
    "<OCR_WITH_REGION>",
    "<REGION_PROPOSAL>",
    ("<CAPTION_TO_PHRASE_GROUNDING>", "a red ring and a blue square"),
    (NAMED, "red ring<and>blue square"),
    ("<REFERRING_EXPRESSION_SEGMENTATION>", "the red ring"),
    ("<REGION_TO_CATEGORY>", (10.0, 10.0, 60.0, 60.0)),
]
WAYS = {
    "greedy": GenerationConfig(max_new_tokens=24, constrained=True),
    "drawn": GenerationConfig(max_new_tokens=24, do_sample=True, seed=3, constrained=True),
    "beams": GenerationConfig.published(max_new_tokens=24, constrained=True),
}


def predictor(noise: float) -> Predictor:
    """The shipped model, its decoder shaken: by enough noise it forgets what an answer looks like."""
    model, processor = load_model("tiny")
    dice = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.language_model.decoder.parameters():
            if weight.dim() > 1:
                weight += noise * weight.std() * torch.randn(weight.shape, generator=dice)
    return Predictor(model, processor, max_rows=9)


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    return predictor(0)


@pytest.fixture(scope="module")
def broken() -> Predictor:
    return predictor(0.4)


@pytest.fixture(scope="module")
def images() -> list:
    return [make_scene(seed).image for seed in (5, 6)]


def asked(model: Predictor, images: list, settings: GenerationConfig) -> tuple[Memory, list[Question]]:
    """All that is asked about the images, encoded."""
    size = (float(images[0].shape[1]), float(images[0].shape[0]))
    read = [read_ask(ask) for ask in ASKS]
    questions = [question for k in range(len(images)) for question in model.questions(k, size, read, settings)]
    with torch.inference_mode():
        features = model.features(np.stack([model.processor.resized(open_image(image)) for image in images]))
        return model.encode(features[[question.image for question in questions]], questions), questions


def answered(model: Predictor, images: list, settings: GenerationConfig) -> tuple[Generation, list[Question]]:
    settings = model.settings(False, settings)
    memory, questions = asked(model, images, settings)
    return generate(model.model, memory, settings, [question.automaton for question in questions]), questions


def unreadable(model: Predictor, found: Generation, questions: list[Question]) -> int:
    """Answers of which something is not understood, being cut left aside."""
    texts = map(model.processor.tokenizer.decode, found.ids)
    read = [q.task.grammar.parse(text, q.size, q.query) for q, text in zip(questions, texts, strict=True)]
    for question, annotation in zip(questions, read, strict=True):
        if question.task.token == NAMED and question.automaton is not None:
            assert {region.label for region in annotation.regions} <= LABELS
    return sum(not annotation.complete or annotation.dropped > 0 for annotation in read)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [2, 7, 24])
def test_every_answer_can_be_read(broken: Predictor, images: list, way: str, limit: int) -> None:
    settings = replace(WAYS[way], max_new_tokens=limit)
    assert unreadable(broken, *answered(broken, images, settings)) == 0
    if limit == 24:
        assert unreadable(broken, *answered(broken, images, replace(settings, constrained=False))) > len(images)


@pytest.mark.parametrize("way", WAYS)
def test_the_short_way_is_the_long_way(
    broken: Predictor, images: list, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, _ = answered(broken, images, WAYS[way])
    monkeypatch.setattr(Legal, "only_locations", lambda legal, row: False)
    long, _ = answered(broken, images, WAYS[way])
    assert short.ids == long.ids
    assert short.stopped == long.stopped
    for found, expected in zip(short.logprobs, long.logprobs, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_scores_are_probabilities_among_what_is_allowed(tiny: Predictor, images: list) -> None:
    settings = tiny.settings(False, GenerationConfig(max_new_tokens=3, constrained=True))
    memory, questions = asked(tiny, images[:1], settings)
    automata = [question.automaton for question in questions]
    found = generate(tiny.model, memory, settings, automata)
    with torch.inference_mode():
        logits = tiny.model.decode(torch.tensor([[2, 0]] * len(questions)), memory)[:, -1, : settings.vocabulary]
    for row, kept in enumerate(automata):
        mask = torch.from_numpy(kept.allowed(kept.start, 2).mask)
        expected = logits[row].masked_fill(~mask, -float("inf")).log_softmax(0).max()
        assert found.logprobs[row][1] == pytest.approx(float(expected), abs=1e-5)


def test_a_model_that_answers_rightly_answers_the_same(tiny: Predictor, images: list) -> None:
    asks = ASKS[:4]
    free = tiny.predict_batch(images, asks)
    kept = tiny.predict_batch(images, asks, generation=GenerationConfig(constrained=True))
    assert [[(a.text, [r.label for r in a.regions]) for a in some] for some in kept] == [
        [(a.text, [r.label for r in a.regions]) for a in some] for some in free
    ]


@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_a_stream_is_answered_as_one_by_one(broken: Predictor, images: list, way: str) -> None:
    settings = replace(WAYS[way], location_window=0)  # means over several bins are equal but for rounding
    requests = [(image, ASKS) for image in images]
    streamed = [answer.annotations for answer in broken.predict_many(requests, generation=settings, max_images=1)]
    for (image, asks), annotations in zip(requests, streamed, strict=True):
        alone = [broken.predict(image, ask, generation=settings) for ask in asks]
        assert [bare(annotation) for annotation in annotations] == [bare(annotation) for annotation in alone]


def bare(annotation: Annotation) -> Annotation:
    """Without scores."""
    regions = tuple(replace(region, score=None, label_score=None) for region in annotation.regions)
    return replace(annotation, regions=regions, score=None)


def test_an_answer_that_the_limit_ended_is_cut(tiny: Predictor) -> None:
    image = next(
        scene.image
        for seed in range(20)
        if len((scene := make_scene(seed)).objects) == 2 and len(tiny.predict(scene.image, "<OD>").regions) == 2
    )
    settings = GenerationConfig(max_new_tokens=10, constrained=True)
    cut = tiny.predict(image, "<OD>", generation=settings)
    assert (len(cut.regions), cut.dropped, cut.complete) == (1, 0, False)
    assert tiny.predict(image, "<OD>", generation=replace(settings, max_new_tokens=100)).complete


class Only(Automaton):
    """One answer, and no other."""

    def __init__(self, model: Predictor, tokens: list[int]) -> None:
        super().__init__(automaton(TASKS["<OD>"], None, model.processor.tokenizer, model.vocabulary()).lexicon)
        self.tokens, self.start, self.slack = [*tokens, 2], 0, 1
        self.steps = 0

    def advance(self, state: int, token: int) -> int | None:
        self.steps += 1
        return state + 1 if token == self.tokens[state] and token != 2 else None

    def choices(self, state: int) -> list[Choice]:
        return [Choice([self.tokens[state]], 0)]


@pytest.mark.parametrize("config", [GenerationConfig(), GenerationConfig(num_beams=3, early_stopping=False)])
def test_beams_stop_when_nothing_is_left_to_say(tiny: Predictor, images: list, config: GenerationConfig) -> None:
    config = replace(tiny.settings(False, config), constrained=True)
    memory, _ = asked(tiny, images[:1], config)
    one = Memory(memory.hidden[:1], memory.mask[:1])
    only = Only(tiny, [50, 51, 50, 51, 50, 51])
    found = generate(tiny.model, one, config, [only])
    assert found.ids == [[0, *only.tokens]]
    assert found.logprobs == [pytest.approx([0.0] * 8, abs=1e-6)]
    assert only.steps <= 3 * 8 + 7


def test_the_ban_on_repetition_gives_way(tiny: Predictor, images: list) -> None:
    config = replace(tiny.settings(False, GenerationConfig(no_repeat_ngram_size=1)), constrained=True)
    memory, _ = asked(tiny, images[:1], config)
    found = generate(tiny.model, Memory(memory.hidden[:1], memory.mask[:1]), config, [Only(tiny, [50, 50, 50])])
    assert found.ids == [[0, 50, 50, 50, 2]]


def test_rows_come_and_go(tiny: Predictor) -> None:
    boxes, words = (
        automaton(TASKS[task], None, tiny.processor.tokenizer, tiny.vocabulary())
        for task in ("<REGION_PROPOSAL>", "<CAPTION>")
    )
    place = boxes.lexicon.locations.start
    legal = Legal(tiny.vocabulary())
    for kept in (words, boxes, None):
        legal.add(kept, 100, rows=2)
    legal.advance([place], [2])
    assert [legal.only_locations(row) for row in range(6)] == [False, False, True, False, False, False]
    legal.release(0, 2)  # the last two rows, which may say anything, move to the first place
    assert [legal.only_locations(row) for row in range(4)] == [False, False, True, False]
    legal.reorder([2, 2, 3, 1])
    assert [legal.only_locations(row) for row in range(4)] == [True, True, False, False]
    legal.advance([2, place, 2, 7])  # an answer that is over, also by a token that was not allowed, says no more
    scores = legal.mask(torch.zeros(4, legal.vocabulary))
    assert [int(row.isfinite().sum()) for row in scores] == [legal.vocabulary, 1000, legal.vocabulary, legal.vocabulary]
    assert [legal.only_locations(row) for row in range(4)] == [True, True, True, False]


class Head:
    """Says which logits were asked for."""

    def __init__(self, vocabulary: int) -> None:
        self.weight = torch.randn(vocabulary, 4, generator=torch.Generator().manual_seed(1))
        self.asked: list[tuple[int, int]] = []

    def logits(self, hidden: Tensor, among: range | None = None) -> Tensor:
        weight = self.weight if among is None else self.weight[among.start : among.stop]
        self.asked.append((len(hidden), len(weight)))
        return hidden @ weight.T


def test_where_a_place_is_due_only_places_are_computed(tiny: Predictor) -> None:
    boxes = automaton(TASKS["<REGION_PROPOSAL>"], None, tiny.processor.tokenizer, tiny.vocabulary())
    place, size = boxes.lexicon.locations.start, tiny.vocabulary()
    hidden, head = torch.randn(3, 4), Head(size)
    legal = Legal(size)
    legal.add(boxes, 100, rows=3)
    asked = []
    for rows in ([], [0, 2], [0, 1, 2]):  # those that say one more coordinate before
        legal.advance([place] * len(rows), rows)
        head.asked.clear()
        found = legal.logits(head, hidden)
        asked.append(sorted(head.asked))
        assert torch.allclose(found, legal.mask(hidden @ head.weight.T), atol=1e-6)
        assert torch.allclose(legal.logits(head, hidden[[2, 1]], [2, 1]), found[[2, 1]], atol=1e-6)
    assert asked == [[(3, size)], [(1, size), (2, 1000)], [(3, 1000)]]


def test_what_cannot_be_is_refused(tiny: Predictor, images: list) -> None:
    settings = tiny.settings(False, GenerationConfig(constrained=True))
    memory, questions = asked(tiny, images[:1], settings)
    with pytest.raises(OpenFlorenceError, match="constrained answers need the automata"):
        generate(tiny.model, memory, settings)
    with pytest.raises(OpenFlorenceError, match="of 7 ids, but the scores"):
        Legal(tiny.vocabulary()).add(automaton(TASKS["<CAPTION>"], None, tiny.processor.tokenizer, 7), 10)
    assert all(question.automaton is not None for question in questions)
