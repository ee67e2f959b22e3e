"""The engine: the answers of `predict`, whatever comes and goes beside them, and nothing held longer than needed."""

import itertools
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.images import image_id
from open_florence.inference.asking import Question, Said
from open_florence.inference.engine import HELD
from open_florence.inference.predictor import Predictor
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.scenes import VALIDATION_SEEDS, make_scene
from open_florence.schema import Annotation
from open_florence.tasks import TASKS
from open_florence.tokenizer import Tokenizer

SHORT = GenerationConfig(max_new_tokens=6)


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    return Predictor.from_pretrained("tiny")


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Image.Image, list[Any]]]:
    """Scenes, each with one question of every task it was drawn for."""
    requests: list[Any] = []
    for seed in VALIDATION_SEEDS[:3]:
        scene = make_scene(seed)
        asks = {a.task: (a.task, a.query) for a in scene.sample.annotations}
        requests.append((Image.fromarray(scene.image), list(asks.values())))
    return requests


@pytest.fixture
def small() -> Predictor:
    """Random weights, milliseconds an answer: answers are nonsense, and reproducible."""
    words = [task.prompt for task in TASKS.values()] + ["a cat and a dog on a red mat", "cat", "dog", "wheel"]
    processor = Processor(Tokenizer.train(words * 3, vocab_size=400), image_size=64)
    vision = VisionConfig(
        dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), groups=(1, 1, 2, 2), projection_dim=32, window=4
    )
    text = TextConfig(len(processor.tokenizer), 32, 2, 2, 2, 2, encoder_ffn=64, decoder_ffn=64, max_positions=60)
    torch.manual_seed(1)
    model = Florence(FlorenceConfig(vision, text, image_size=64))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 1 if "norm" in name and name.endswith("weight") else 0.3)
        model.language_model.shared.weight[2] *= 2  # so that answers end
    return Predictor(model, processor, "random", max_rows=4, max_images=2)


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))


def plain(annotation: Annotation) -> tuple[Any, ...]:
    regions = [(region.kind, region.label, len(region.parts)) for region in annotation.regions]
    return annotation.task, annotation.text, annotation.query, annotation.complete, annotation.dropped, regions


def numbers(annotation: Annotation) -> list[float]:
    scores = [annotation.score, *(s for region in annotation.regions for s in (region.score, region.label_score))]
    return [-1.0 if score is None else score for score in scores]


def points(annotation: Annotation) -> list[float]:
    return [number for region in annotation.regions for part in region.parts for point in part for number in point]


def assert_same(found: list[Annotation], expected: list[Annotation]) -> None:
    assert [plain(one) for one in found] == [plain(one) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), abs=1e-5)
        assert points(one) == pytest.approx(points(other), abs=1e-2)  # between the bins
        assert one.source == other.source


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name in ("prepare images", "open images")]


# --- the answers of one question at a time


@pytest.mark.parametrize(
    "settings",
    [
        GenerationConfig(),
        GenerationConfig.published(max_new_tokens=60),
        GenerationConfig(constrained=True, max_new_tokens=80),
    ],
    ids=["greedy", "published", "constrained"],
)
def test_every_task_is_answered_as_it_is_alone(
    tiny: Predictor, scenes: list[tuple[Image.Image, list[Any]]], settings: GenerationConfig
) -> None:
    chosen = [("<CLASSIFICATION>", "photo<and>drawing<and>a red circle"), "<OD>", "<MORE_DETAILED_CAPTION>"]
    requests: list[Any] = [(scenes[2][0], chosen), scenes[0], (scenes[1][0], ["<OCR>", "<OD>"])]
    few = Predictor(tiny.model, tiny.processor, "tiny", max_rows=9, max_images=2)
    found = list(few.predict_many(requests, generation=settings))
    assert [answered.index for answered in found] == [0, 1, 2]
    for answered, (image, asks) in zip(found, requests, strict=True):
        assert (answered.reason, answered.size) == ("", (image.width, image.height))
        assert_same(answered.annotations, [few.predict(image, ask, generation=settings) for ask in asks])
    assert len({ask[0] for ask in scenes[0][1]}) > 12


@pytest.mark.parametrize(
    "settings",
    [
        SHORT,
        GenerationConfig(max_new_tokens=1),
        GenerationConfig(max_new_tokens=2),
        GenerationConfig(),  # as far as the model has positions
        GenerationConfig(max_new_tokens=30, no_repeat_ngram_size=1),
        GenerationConfig(max_new_tokens=30, no_repeat_ngram_size=2, suppressed=(5, 6)),
        GenerationConfig(max_new_tokens=20, forced_first=None, forced_last=None),
        GenerationConfig(max_new_tokens=20, location_window=3),
        GenerationConfig.published(max_new_tokens=20),
        GenerationConfig(num_beams=2, early_stopping="never", max_new_tokens=20, location_window=3),
        GenerationConfig(num_beams=2, early_stopping=False, length_penalty=0.5, max_new_tokens=20, forced_first=None),
        GenerationConfig(num_beams=6, max_new_tokens=3),  # more beams than rows
        GenerationConfig(num_beams=2, max_new_tokens=1),
        GenerationConfig.published(max_new_tokens=20, constrained=True),
    ],
)
def test_all_settings_say_the_same_tokens(small: Predictor, settings: GenerationConfig) -> None:
    words = ["<OD>", ("<VQA>", "what is red?"), "<CAPTION>", ("<VQA>", "is a cat or a dog on a red mat?")]
    requests: list[Any] = [(picture(k), words[k % 3 :]) for k in range(5)]
    heard: dict[tuple[int, int], Said] = {}
    write = small.annotation

    def listen(question: Question, said: Said) -> Annotation:
        heard[question.image, question.place] = said
        return write(question, said)

    small.annotation = listen  # type: ignore[method-assign]
    found = list(small.predict_many(requests, generation=settings))
    together = heard.copy()
    for (image, asks), answered in zip(requests, found, strict=True):
        heard.clear()
        assert_same(answered.annotations, small.predict(image, asks, generation=settings))
        for (_, place), expected in heard.items():
            said = together[answered.index, place]
            assert (said.ids, said.stopped) == (expected.ids, expected.stopped)
            assert said.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
            assert said.bins == pytest.approx(expected.bins, abs=1e-2, nan_ok=True)


def test_sampling_goes_by_batches(small: Predictor) -> None:
    settings = GenerationConfig(do_sample=True, seed=3, max_new_tokens=12)
    requests: list[Any] = [(picture(k), ["<OD>", "<CAPTION>"]) for k in range(5)]
    found = [answered.annotations for answered in small.predict_many(requests, generation=settings)]
    assert found == small.predict_each(requests, generation=settings)


def test_a_model_without_slots_goes_by_batches(small: Predictor) -> None:
    class Slotless:
        def __init__(self, model: Florence) -> None:
            self.inner = model

        def __getattr__(self, name: str) -> Any:
            if name == "new_slots":
                raise AttributeError
            return getattr(self.inner, name)

    requests: list[Any] = [(picture(k), ["<OD>", "<CAPTION>"]) for k in range(3)]
    plainly = Predictor(small.model, small.processor, "random")
    plainly.model = Slotless(small.model)  # type: ignore[assignment]
    found = list(plainly.predict_many([*requests, ("no such.jpg", ["<OD>"])], generation=SHORT))
    assert [answered.annotations for answered in found[:3]] == plainly.predict_each(requests, generation=SHORT)
    assert found[3].reason == "there is no file no such.jpg"


# --- rows are refilled


def test_a_row_does_not_wait_for_the_longest_of_its_batch(
    tiny: Predictor, scenes: list[tuple[Image.Image, list[Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are counted: near the tokens by the rows, where batches take the longest answer each."""
    asked = Predictor(tiny.model, tiny.processor, "tiny", max_rows=4, max_images=2)
    lengths: list[int] = []
    steps = 0
    write, step = asked.annotation, tiny.model.step

    def listen(question: Question, said: Said) -> Annotation:
        lengths.append(len(said.ids))
        return write(question, said)

    def counted(*arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        return step(*arguments)

    monkeypatch.setattr(asked, "annotation", listen)
    monkeypatch.setattr(tiny.model, "step", counted)
    requests: list[Any] = [
        (image, ["<OD>", ("<VQA>", "How many circles are there?"), "<DETAILED_CAPTION>"]) for image, _ in scenes
    ]
    asked.predict_each(requests)
    by_batches = sum(max(lengths[k : k + 4]) for k in range(0, 9, 4))
    in_turn = sum(max(lengths[k] for k in group) for group in ((0, 3, 6, 1), (4, 7, 2, 5), (8,)))
    list(asked.predict_many(requests))
    assert steps < 0.8 * max(by_batches, in_turn)
    assert steps < 1.5 * sum(lengths) / 4 + max(lengths)


# --- order, back-pressure, memory


def test_in_order_or_as_they_come(small: Predictor) -> None:
    """Of two questions the first is answered at length and the other shortly."""
    settings = GenerationConfig(max_new_tokens=40, suppressed=(2,))
    requests: list[Any] = [(picture(0), ["<OD>"]), *((picture(k), []) for k in range(1, 6))]
    assert [a.index for a in small.predict_many(requests, generation=settings)] == [0, 1, 2, 3, 4, 5]
    assert [a.index for a in small.predict_many(requests, generation=settings, in_order=False)] == [1, 2, 3, 4, 5, 0]


def endless(read: list[int], asks: Any = ("<OD>", "<CAPTION>")) -> Iterator[tuple[Image.Image, list[Any]]]:
    for k in itertools.count():
        read.append(k)
        yield picture(k % 7), list(asks)


def test_requests_are_read_only_as_far_as_there_is_room(small: Predictor) -> None:
    read: list[int] = []
    stream = small.predict_many(endless(read), generation=SHORT)
    assert read == []
    for taken in range(1, 30):
        next(stream)
        assert len(read) <= taken + HELD * (small.max_rows + small.max_images) + 2 * small.max_images
    stream.close()
    assert threads() == []


def test_answers_that_wait_for_a_slow_one_are_bounded(small: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    released = small.model.step

    def requests() -> Iterator[tuple[Image.Image, list[Any]]]:
        yield picture(0), ["<OD>"]
        yield from endless(read, ())

    most = 0

    def watched(*arguments: Any) -> Tensor:
        nonlocal most
        most = max(most, len(read))
        return released(*arguments)

    monkeypatch.setattr(small.model, "step", watched)
    stream = small.predict_many(requests(), generation=GenerationConfig(max_new_tokens=59, suppressed=(2,)))
    assert next(stream).index == 0
    assert 10 < most <= HELD * (small.max_rows + small.max_images) + 2 * small.max_images + 1
    stream.close()


def living(references: list[weakref.ref[Any]]) -> int:
    return sum(reference() is not None for reference in references)


def test_memory_does_not_grow_with_the_stream(small: Predictor) -> None:
    images: list[weakref.ref[Any]] = []
    features: list[weakref.ref[Any]] = []

    def requests() -> Iterator[tuple[Image.Image, list[Any]]]:
        for k in range(300):
            image = picture(k % 5)
            images.append(weakref.ref(image))
            yield image, ["<OD>"]

    encode = small.features

    def watched(levels: Any) -> Tensor:
        made = encode(levels)
        features.append(weakref.ref(made))
        return made

    small.features = watched  # type: ignore[method-assign]
    most_images = most_features = count = 0
    for answered in small.predict_many(requests(), generation=GenerationConfig(max_new_tokens=3)):
        assert not answered.reason
        count += 1
        most_images, most_features = max(most_images, living(images)), max(most_features, living(features))
    assert count == 300
    assert most_images <= 2 * small.max_images + 2  # those that are being prepared: pixels go on without them
    assert most_features <= small.max_rows + 2
    assert len(images) == 300
    assert len(features) > 100
    assert living(images) == living(features) == 0


# --- what goes wrong costs only itself


def test_failures_are_items_with_reasons(small: Predictor, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    good = (picture(0), ["<OD>"])
    requests: list[Any] = [
        good,
        (tmp_path / "broken.png", ["<OD>"]),
        (tmp_path / "missing.png", ["<OD>"]),
        (picture(1), ["<ODD>"]),
        (picture(1), ["<OD>", ("<OD>", "a query")]),
        (picture(1), ["<OD>", ("<VQA>", "what " * 200 + "?")]),
        (picture(1), ["<OD>", ("<CLASSIFICATION>", ["cat", "dog " * 200])]),
        (picture(1), []),
        good,
    ]
    found = list(small.predict_many(requests, generation=SHORT, with_id=True))
    reasons = [answered.reason for answered in found]
    expected = ["", "broken.png is not an image", "there is no file", "there is no task", "takes no query"]
    expected += ["the question for <VQA>", "is too long|too long for this model", "", ""]
    for reason, said in zip(reasons, expected, strict=True):
        assert bool(reason) == bool(said)
        assert any(part in reason for part in said.split("|"))
    assert [answered.is_refused for answered in found] == [False] * 3 + [True] * 4 + [False] * 2
    assert_same(found[8].annotations, small.predict(*good, generation=SHORT))
    assert (found[7].annotations, found[7].size, found[7].id) == ([], (40, 30), image_id(picture(1)))
    assert found[3].size == (40, 30)


def test_a_failing_step_costs_nothing_but_time(small: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    step, calls = small.model.step, itertools.count()

    def failing(*arguments: Any) -> Tensor:
        if next(calls) in (3, 9):
            raise torch.OutOfMemoryError("out of memory")
        return step(*arguments)

    monkeypatch.setattr(small.model, "step", failing)
    requests: list[Any] = [(picture(k), ["<OD>", "<CAPTION>", ("<VQA>", "what is red?")]) for k in range(9)]
    found = list(small.predict_many(requests, generation=SHORT))
    assert [answered.index for answered in found] == list(range(9))
    for answered, (image, asks) in zip(found, requests, strict=True):
        assert_same(answered.annotations, small.predict(image, asks, generation=SHORT))
    assert next(calls) > 10


@pytest.mark.parametrize("published", [False, True])
def test_an_image_the_model_fails_on_costs_only_itself(
    small: Predictor, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    requests: list[Any] = [(picture(k), ["<OD>", "<CAPTION>"]) for k in range(7)]
    poison = torch.from_numpy(small.processor.pixels([picture(3)]))[0]
    encode = small.model.encode_image

    def failing(pixels: Tensor) -> Tensor:
        if any(torch.equal(image, poison) for image in pixels):
            raise RuntimeError("index out of range in self")
        return encode(pixels)

    settings = GenerationConfig.published(max_new_tokens=6) if published else SHORT
    monkeypatch.setattr(small.model, "encode_image", failing)
    found = list(small.predict_many(requests, generation=settings))
    assert [answered.index for answered in found] == list(range(7))
    assert found[3].reason == "the model failed: RuntimeError: index out of range in self"
    assert not found[3].is_refused
    for answered in [*found[:3], *found[4:]]:
        assert_same(answered.annotations, small.predict(*requests[answered.index], generation=settings))


def test_an_answer_that_cannot_be_read_costs_only_its_image(small: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    write = small.annotation

    def failing(question: Question, said: Said) -> Annotation:
        if question.image == 1 and question.place == 0:
            raise ZeroDivisionError("of an answer")
        return write(question, said)

    monkeypatch.setattr(small, "annotation", failing)
    found = list(small.predict_many([(picture(k), ["<OD>", "<CAPTION>"]) for k in range(4)], generation=SHORT))
    assert [bool(answered.reason) for answered in found] == [False, True, False, False]


def test_what_the_requests_raise_comes_through(small: Predictor) -> None:
    def requests() -> Iterator[tuple[Image.Image, list[Any]]]:
        yield picture(0), []
        raise KeyError("the database is gone")

    with pytest.raises(KeyError, match="database"):
        list(small.predict_many(requests(), generation=SHORT))
    assert threads() == []


def test_interrupted_it_leaves_nothing_running(small: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(small.model, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(small.predict_many(endless([]), generation=SHORT))
    assert threads() == []


# --- the rest


def test_no_requests_no_answers(small: Predictor) -> None:
    assert list(small.predict_many([])) == []
    with pytest.raises(OpenFlorenceError, match="give one of the two"):
        small.predict_many([], published=True, generation=GenerationConfig())
    with pytest.raises(OpenFlorenceError, match="max_images is at least 1"):
        small.predict_many([], max_images=0)


def test_the_grad_mode_of_others_is_left_alone(small: Predictor) -> None:
    for _ in small.predict_many([(picture(k), ["<OD>"]) for k in range(3)], generation=SHORT):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_worker_processes_and_files(small: Predictor, tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(5)]
    for k, path in enumerate(paths):
        picture(k).save(path)
    requests: list[Any] = [(path, ["<OD>"]) for path in paths]
    found = list(small.predict_many(requests, generation=SHORT, workers=1, with_id=True, max_images=3))
    assert [answered.id for answered in found] == list(map(image_id, paths))
    expected = [replace(a, annotations=[]) for a in small.predict_many(requests, generation=SHORT, with_id=True)]
    assert [replace(answered, annotations=[]) for answered in found] == expected
    for answered, path in zip(found, paths, strict=True):
        assert_same(answered.annotations, [small.predict(path, "<OD>", generation=SHORT)])
    assert threads() == []


def test_a_large_jpeg_may_be_decoded_smaller(small: Predictor, tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize((1600, 1200)).save(tmp_path / "large.jpg", quality=90)
    requests = [(str(tmp_path / "large.jpg"), ["<OD>"])]
    (whole,), (draft,) = (list(small.predict_many(requests, generation=SHORT, draft=how)) for how in (False, True))
    assert draft.size == whole.size == (1600, 1200)
    assert not draft.reason
    with pytest.raises(OpenFlorenceError, match="every pixel"):
        small.predict_many(requests, draft=True, with_id=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares a GPU with the CPU")
@pytest.mark.parametrize("settings", [SHORT, GenerationConfig.published(max_new_tokens=12)])
def test_a_gpu_answers_as_the_cpu_does(
    small: Predictor, scenes: list[tuple[Image.Image, list[Any]]], settings: GenerationConfig
) -> None:
    requests = [(image, ["<OD>", "<CAPTION>"]) for image, _ in scenes] * 5
    expected = [answered.annotations for answered in small.predict_many(requests, generation=settings)]
    small.model.to("cuda")
    for found, wanted in zip(small.predict_many(requests, generation=settings), expected, strict=True):
        assert [a.text for a in found.annotations] == [a.text for a in wanted]
        assert [a.score for a in found.annotations] == pytest.approx([a.score for a in wanted], rel=1e-3)
