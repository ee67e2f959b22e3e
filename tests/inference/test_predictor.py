"""From images and tasks to annotations: with a stand-in that says what a test wants said, and with random weights."""

import re
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
from open_florence.inference.calibration import Calibration, Curve
from open_florence.inference.predictor import Predictor, source_name
from open_florence.inference.pretrained import save_model
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence, Memory
from open_florence.model.kv_cache import KVCache
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region
from open_florence.tasks import TASKS
from open_florence.tokenizer import Tokenizer

SURE = 20.0
"""The logit of the token the stand-in says; all others are at 0."""


@pytest.fixture(scope="module")
def processor() -> Processor:
    words = [task.prompt for task in TASKS.values()] + ["a cat and a dog on a red mat", "cat", "dog", "wheel"]
    return Processor(Tokenizer.train(words * 3, vocab_size=400), image_size=64)


def config_for(processor: Processor) -> FlorenceConfig:
    vision = VisionConfig(
        dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), groups=(1, 1, 2, 2), projection_dim=32, window=4
    )
    text = TextConfig(len(processor.tokenizer), 32, 2, 2, 2, 2, encoder_ffn=64, decoder_ffn=64, max_positions=160)
    return FlorenceConfig(vision, text, image_size=64)


class Parrot(Florence):
    """Says a fixed answer to each question, token after token, and counts what is asked of it."""

    def __init__(self, processor: Processor, answers: dict[str, str]) -> None:
        super().__init__(config_for(processor))
        tokenizer = processor.tokenizer
        self.questions = [tokenizer.encode(question) for question in answers]
        self.answers = [tokenizer.encode(answer) for answer in answers.values()]
        self.images_encoded = 0
        self.rows_encoded: list[int] = []

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        self.images_encoded += len(pixel_values)
        return super().encode_image(pixel_values)

    def encode(self, image_features: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Memory:
        memory = super().encode(image_features, input_ids, attention_mask)
        self.rows_encoded.append(len(input_ids))
        asked = [row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)]
        chosen = torch.tensor([float(self.questions.index(question)) for question in asked])
        return Memory(chosen[:, None, None].expand_as(memory.hidden), memory.mask)

    def decode(self, ids: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        past = 0 if cache is None else cache.length
        chosen = memory.hidden[:, 0, 0].long().repeat_interleave(len(ids) // len(memory.hidden)).tolist()
        logits = torch.zeros(*ids.shape, self.config.text.vocab_size)
        for row, answer in enumerate(chosen):
            for place in range(ids.shape[1]):
                said = self.answers[answer]
                logits[row, place, said[past + place] if past + place < len(said) else 2] = SURE
        if cache is not None:
            cache.advance(ids.shape[1])
        return logits


def parrot(processor: Processor, **answers: str) -> Predictor:
    """A predictor whose model answers tasks (OD="...") or, under `say`, the question "Say it."."""
    lines = {TASKS[f"<{task}>"].prompt: answer for task, answer in answers.items() if task != "say"}
    if "say" in answers:
        lines["Say it."] = answers["say"]
    return Predictor(Parrot(processor, lines), processor, "parrot")


@pytest.fixture
def predictor(processor: Processor) -> Predictor:
    """Random weights: the answers are nonsense, and reproducible."""
    torch.manual_seed(1)
    model = Florence(config_for(processor))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 1 if "norm" in name and name.endswith("weight") else 0.3)
    return Predictor(model, processor, "random")


def picture(seed: int = 0, size: tuple[int, int] = (100, 50)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def locations(*bins: int) -> str:
    return "".join(f"<loc_{index}>" for index in bins)


# --- what an annotation says


def test_one_task(processor: Processor) -> None:
    answer = parrot(processor, OD="cat" + locations(100, 200, 499, 799)).predict(picture(), "<OD>")
    assert isinstance(answer, Annotation)
    (region,) = answer.regions
    assert region.label == "cat"
    assert np.array(region.parts[0]) == pytest.approx(np.array([[10.05, 10.025], [49.95, 39.975]]))  # of 100 x 50
    assert region.score == pytest.approx(1, abs=1e-4)
    assert region.label_score == pytest.approx(1, abs=1e-4)
    assert (answer.task, answer.source, answer.complete) == ("<OD>", "parrot", True)


def test_every_task_of_a_list_from_one_encoding(processor: Processor) -> None:
    asked = parrot(processor, OD="cat" + locations(1, 2, 3, 4), CAPTION="a cat on a mat", say="cat")
    answers = asked.predict(picture(), ["<CAPTION>", "od", "Say it."])
    assert [answer.task for answer in answers] == ["<CAPTION>", "<OD>", "Say it."]
    assert [answer.text for answer in answers] == ["a cat on a mat", "", "cat"]
    assert asked.model.images_encoded == 1  # type: ignore[attr-defined]
    assert asked.model.rows_encoded == [3]  # type: ignore[attr-defined]


def test_many_images_are_each_encoded_once(processor: Processor) -> None:
    asked = parrot(processor, OD="dog" + locations(0, 0, 999, 999), CAPTION="a dog")
    sizes = [(40, 30), (64, 64), (90, 10)]
    answers = asked.predict_batch([picture(0, size) for size in sizes], ["<OD>", "<CAPTION>"])
    assert [[answer.task for answer in row] for row in answers] == [["<OD>", "<CAPTION>"]] * 3
    assert asked.model.images_encoded == 3  # type: ignore[attr-defined]
    assert asked.model.rows_encoded == [6]  # type: ignore[attr-defined]
    for size, (found, _) in zip(sizes, answers, strict=True):
        assert found.regions[0].parts[0][1] == pytest.approx((size[0] * 0.9995, size[1] * 0.9995))


@pytest.mark.parametrize(
    ("ask", "said", "regions"),
    [
        ("<OD>", "cat" + locations(1, 2, 3, 4, 5, 6, 7, 8) + "dog" + locations(1, 1, 2, 2), 3),
        ("<DENSE_REGION_CAPTION>", "a cat on a red mat" + locations(1, 2, 3, 4), 1),
        ("<REGION_PROPOSAL>", locations(1, 2, 3, 4, 5, 6, 7, 8), 2),
        ("<OCR_WITH_REGION>", "red" + locations(1, 1, 9, 1, 9, 3, 1, 3), 1),
        (("<CAPTION_TO_PHRASE_GROUNDING>", "a cat on a red mat"), "a red mat" + locations(1, 2, 3, 4), 1),
        (("<OPEN_VOCABULARY_DETECTION>", "cat"), "cat<poly>" + locations(1, 1, 9, 1, 9, 9) + "</poly>", 1),
        (("<REFERRING_EXPRESSION_SEGMENTATION>", "the cat"), locations(1, 1, 9, 1, 9, 9, 1, 9), 1),
        (("<REGION_TO_SEGMENTATION>", locations(1, 1, 9, 9)), locations(1, 1, 9, 1, 9, 9) + "<sep>", 1),
    ],
)
def test_every_region_carries_its_scores(processor: Processor, ask: Any, said: str, regions: int) -> None:
    name, query = ask if isinstance(ask, tuple) else (ask, "")
    asked = Predictor(Parrot(processor, {TASKS[name].prompt.replace("{input}", query): said}), processor)
    answer = asked.predict(picture(), ask)
    assert len(answer.regions) == regions
    for region in answer.regions:
        assert region.score == pytest.approx(1, abs=1e-4)
        assert region.label_score == (pytest.approx(1, abs=1e-4) if region.label and region.label in said else None)


def test_repetition_survives_our_default_and_not_the_published_one(processor: Processor) -> None:
    """A row of equal objects: their labels and half their coordinates repeat, as in any shelf or crowd."""
    boxes = [(10 * k, 500, 10 * k + 9, 600) for k in range(12)]
    asked = parrot(processor, OD="".join("red wheel" + locations(*box) for box in boxes))
    ours = asked.predict(picture(), "<OD>")
    assert [region.label for region in ours.regions] == ["red wheel"] * 12
    assert ours.complete
    published = asked.predict(picture(), "<OD>", published=True)
    assert [region.label for region in published.regions] != ["red wheel"] * 12


def test_a_cut_answer_says_so(processor: Processor) -> None:
    asked = parrot(processor, OD="cat" + locations(1, 2, 3, 4) + "dog" + locations(5, 6, 7, 8))
    whole = asked.predict(picture(), "<OD>", generation=GenerationConfig(max_new_tokens=40))
    cut = asked.predict(picture(), "<OD>", generation=GenerationConfig(max_new_tokens=9))
    assert whole.complete
    assert len(whole.regions) == 2
    assert not cut.complete
    assert [region.label for region in cut.regions] == ["cat"]


# --- queries


def test_a_region_is_asked_about_in_pixels(processor: Processor) -> None:
    question = TASKS["<REGION_TO_CATEGORY>"].prompt.replace("{input}", locations(100, 200, 500, 800))
    asked = Predictor(Parrot(processor, {question: "dog" + locations(100, 200, 500, 800)}), processor)
    box = Region.box(10.01, 10.01, 50.01, 40.01)
    queries: list[Any] = [
        box,
        (10.01, 10.01, 50.01, 40.01),
        [10.01, 10.01, 50.01, 40.01],
        np.array([10.01, 10.01, 50.01, 40.01]),
    ]
    for query in queries:
        answer = asked.predict(picture(), ("<REGION_TO_CATEGORY>", query))
        assert answer.text == "dog"
        assert answer.query == box


def test_phrases_can_be_a_list(processor: Processor) -> None:
    question = TASKS["<OPEN_VOCABULARY_DETECTION>"].prompt.replace("{input}", "cat<and>dog")
    asked = Predictor(Parrot(processor, {question: "dog" + locations(1, 2, 3, 4)}), processor)
    for query in ("cat<and>dog", ["cat", "dog"]):
        (region,) = asked.predict(picture(), ("<OPEN_VOCABULARY_DETECTION>", query)).regions
        assert region.label == "dog"


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ("<ODD>", "<OD>"),
        ("<OPEN_VOCABULARY_DETECTION>", "needs words"),
        (("<OD>", "cat"), "no query"),
        ("<REGION_TO_CATEGORY>", "needs a region"),
        (("<REGION_TO_CATEGORY>", (1, 2, 3)), "words, a Region or"),
        (("<REGION_TO_CATEGORY>", ["a", 2]), "words, a Region or"),
        ("<CLASSIFICATION>", "needs words"),
        (("<CLASSIFICATION>", " <and> "), "labels to choose from"),
        (("<VQA>", "what " * 200 + "?"), "tokens"),
        (("<CLASSIFICATION>", ["cat", "dog " * 200]), "too long"),
    ],
)
def test_mistakes_are_one_sentence(predictor: Predictor, ask: Any, says: str) -> None:
    with pytest.raises(OpenFlorenceError, match=says) as caught:
        predictor.predict(picture(), ask)
    assert "\n" not in str(caught.value)


def test_settings_that_contradict(predictor: Predictor) -> None:
    with pytest.raises(OpenFlorenceError):
        predictor.predict(picture(), "<OD>", published=True, generation=GenerationConfig())
    with pytest.raises(OpenFlorenceError):
        predictor.predict(picture(), "<OD>", generation=GenerationConfig(num_beams=2, num_return_sequences=2))
    with pytest.raises(OpenFlorenceError):
        predictor.predict("no such file.jpg", "<OD>")


# --- classification


def test_classification_is_the_probability_of_whole_answers(predictor: Predictor) -> None:
    labels = ["cat", "dog", "a red mat", "wheel"]
    found = predictor.classify(picture(), labels)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)
    with torch.inference_mode():
        features = predictor.model.encode_image(torch.from_numpy(predictor.processor.pixels([picture()])))
        memory = predictor.model.encode(
            features, *map(torch.from_numpy, predictor.processor.prompts([TASKS["<CAPTION>"].prompt]))
        )
        totals = []
        for label in labels:  # one at a time, token by token
            ids = predictor.processor.tokenizer.encode(label)
            logprobs = predictor.model.decode(torch.tensor([[2, *ids[:-1]]]), memory)[0].log_softmax(-1)
            totals.append(sum(logprobs[place, token] for place, token in enumerate(ids) if place > 0))
    expected = torch.stack(totals).softmax(0)  # type: ignore[arg-type]
    assert [found[label] for label in labels] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("query", ["cat<and>dog<and> cat", ["cat", "dog"]])
def test_classification_answers_with_the_likeliest_label(predictor: Predictor, query: Any) -> None:
    answer = predictor.predict(picture(), ("<CLASSIFICATION>", query))
    label, probability = next(iter(predictor.classify(picture(), "cat<and>dog").items()))
    assert (answer.text, answer.score) == (label, pytest.approx(probability))
    assert (answer.task, answer.source, answer.regions) == ("<CLASSIFICATION>", "random", ())


def test_labels_are_scored_in_bounded_batches(predictor: Predictor, processor: Processor) -> None:
    labels = [f"cat {k}" for k in range(7)]
    few = Predictor(predictor.model, processor, max_rows=2).classify(picture(), labels)
    assert few == pytest.approx(predictor.classify(picture(), labels), abs=1e-6)


# --- the model's batches change nothing


@pytest.mark.parametrize("published", [False, True])
def test_batches_are_one_by_one(predictor: Predictor, processor: Processor, published: bool) -> None:
    images = [picture(seed, (30 + seed, 40)) for seed in range(3)]
    tasks: list[Any] = ["<OD>", ("<VQA>", "what is red?"), ("<CLASSIFICATION>", "cat<and>dog"), "<CAPTION>"]
    small = Predictor(predictor.model, processor, "random", max_rows=4, max_images=2)
    settings = GenerationConfig.published(max_new_tokens=20) if published else GenerationConfig(max_new_tokens=20)
    batched = predictor.predict_batch(images, tasks, generation=settings)
    chunked = small.predict_batch(images, tasks, generation=settings)
    single = [[small.predict(image, task, generation=settings) for task in tasks] for image in images]
    for one, two, three in zip(flat(batched), flat(chunked), flat(single), strict=True):
        assert same(one, two)
        assert same(one, three)
    assert len({str(answer) for answer in flat(batched)}) > 6


def flat(rows: list[list[Annotation]]) -> Iterator[Annotation]:
    return (answer for row in rows for answer in row)


def same(one: Annotation, other: Annotation) -> bool:
    """Equal, scores up to float noise."""
    numbers = [[a.score, *(s for r in a.regions for s in (r.score, r.label_score))] for a in (one, other)]
    assert [n or 0 for n in numbers[0]] == pytest.approx([n or 0 for n in numbers[1]], abs=1e-4)
    plain = [(a.task, a.text, a.query, a.complete, [(r.parts, r.label) for r in a.regions]) for a in (one, other)]
    return plain[0] == plain[1]


def test_every_task_runs_and_every_region_is_scored(predictor: Predictor) -> None:
    for name, task in TASKS.items():
        query = {"none": None, "text": "cat<and>dog", "region": (1, 2, 30, 40)}[task.query]
        answer = predictor.predict(picture(), (name, query), generation=GenerationConfig(max_new_tokens=60))
        assert answer.task == name
        for region in answer.regions:
            assert region.score is not None
            assert 0 < region.score <= 1
            assert region.label_score is not None or not region.label


def test_no_image_no_answers(predictor: Predictor) -> None:
    assert predictor.predict_batch([], ["<OD>"]) == []
    assert predictor.predict(picture(), []) == []


# --- where images and models come from


def test_images_of_every_kind(processor: Processor, tmp_path: Path) -> None:
    asked = parrot(processor, CAPTION="a cat")
    path = tmp_path / "cat.png"
    picture().save(path)
    for image in (path, str(path), picture(), np.asarray(picture()), path.read_bytes()):
        assert asked.predict(image, "<CAPTION>").text == "a cat"


def test_from_a_folder(predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    save_model(predictor.model, predictor.processor, folder)
    loaded = Predictor.from_pretrained(folder)
    settings = GenerationConfig(max_new_tokens=20)
    answer = loaded.predict(picture(), "<OD>", generation=settings)
    assert answer.source == "my-model"
    assert source_name("microsoft/Florence-2-base") == "microsoft/Florence-2-base"
    assert same(answer, predictor.predict(picture(), "<OD>", generation=settings))


def test_the_page_of_documentation_runs(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every Python block of docs/predict.md, in order; random weights stand in for the shipped model."""
    save_model(predictor.model, predictor.processor, tmp_path / "tiny")
    picture().save(tmp_path / "photo.jpg")
    for module in ("pretrained", "predictor"):
        monkeypatch.setattr(f"open_florence.inference.{module}.SHIPPED", tmp_path)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/predict.md", "exec"), names)
    assert len(blocks) == 6
    assert names["annotation"].source == "open-florence-tiny"
    assert str(names["generation"].stopped) in capsys.readouterr().out


def test_bfloat16(predictor: Predictor) -> None:
    predictor.model.bfloat16()
    answers = predictor.predict(
        picture(), ["<CAPTION>", ("<CLASSIFICATION>", "cat<and>dog")], generation=GenerationConfig(max_new_tokens=8)
    )
    assert answers[1].score is not None
    assert 0.5 <= answers[1].score <= 1


def test_a_run_gives_its_checkpoint_its_name(tmp_path):
    (tmp_path / "cells" / "checkpoint").mkdir(parents=True)
    assert source_name(tmp_path / "cells" / "checkpoint") == "cells"
    assert source_name(tmp_path / "cells") == "cells"


# --- coordinates between the bins, and calibrated scores


class Unsure(Parrot):
    """Says the same, and half believes in the bin after each that it says."""

    def decode(self, ids: Tensor, memory: Memory, cache: KVCache | None = None) -> Tensor:
        logits = super().decode(ids, memory, cache)
        return torch.maximum(logits, logits.roll(1, dims=-1) - 1e-3)


def test_the_checkpoint_decides_how_coordinates_are_read_and_a_setting_decides_otherwise(processor: Processor) -> None:
    bins = np.array([100, 200, 499, 799])
    model = Unsure(processor, {TASKS["<OD>"].prompt: "cat" + locations(*bins)})
    answers = {}
    for name, window, setting in (("plain", 0, None), ("own", 3, None), ("asked", 0, 3), ("refused", 3, 0)):
        predictor = Predictor(model, replace(processor, location_window=window))
        for beams in (1, 2):
            config = GenerationConfig(location_window=setting, num_beams=beams)
            (region,) = predictor.predict(picture(size=(1000, 1000)), "<OD>", generation=config).regions
            answers[name, beams] = np.array(region.parts).ravel()
    for beams in (1, 2):
        assert answers["plain", beams] == pytest.approx(bins + 0.5)
        assert answers["own", beams] == pytest.approx(bins + 1, abs=0.01)
        assert np.array_equal(answers["own", beams], answers["asked", beams])
        assert np.array_equal(answers["refused", beams], answers["plain", beams])


def test_a_calibrated_predictor_gives_probabilities_where_it_has_a_curve(processor: Processor) -> None:
    said = "cat" + locations(100, 200, 499, 799)
    predictor = parrot(processor, OD=said, DENSE_REGION_CAPTION=said)
    plain = predictor.predict(picture(), ["<OD>", "<DENSE_REGION_CAPTION>"])
    predictor.calibration = Calibration({"<OD>": Curve((0.0, 1.0), (0.0, 0.25))})
    (region,), others = (a.regions for a in predictor.predict(picture(), ["<OD>", "<DENSE_REGION_CAPTION>"]))
    assert region.score == pytest.approx(0.25, abs=1e-3)
    assert region.label_score is None
    assert others == plain[1].regions
