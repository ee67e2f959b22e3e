"""Answers from ONNX files against those of `Predictor` with the same weights."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from open_florence.edge import EdgePredictor
from open_florence.edge.network import Network
from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.inference.calibration import Calibration, Curve
from open_florence.inference.predictor import Predictor
from open_florence.model.config import FlorenceConfig
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.scenes import make_scene
from open_florence.schema import Region

from .conftest import toy_config

ASKS: list[Any] = [
    "<CAPTION>",
    "<OD>",
    "<OCR_WITH_REGION>",
    ("<OPEN_VOCABULARY_DETECTION>", "red circle"),
    ("<REGION_TO_CATEGORY>", (10, 10, 80, 80)),
    ("<CLASSIFICATION>", ["a red circle", "two squares", "text"]),
    "What is in the middle?",
]


@pytest.fixture(scope="module")
def edge(exported: Path) -> EdgePredictor:
    return EdgePredictor.from_folder(exported, threads=1)


@pytest.fixture(scope="module")
def torch_predictor(exported: Path) -> Predictor:
    predictor = Predictor.from_pretrained("tiny")
    predictor.source = exported.name
    return predictor


def image(seed: int) -> NDArray[np.uint8]:
    return make_scene(seed).image


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal, numbers to 1e-4; what may differ is the last digit of a score or a coordinate."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert_same(ours[name], theirs[name])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-4, rel=1e-4)
    else:
        assert ours == theirs


def check(edge: EdgePredictor, predictor: Predictor, seed: int, asks: list[Any], **settings: Any) -> None:
    ours, theirs = (one.predict(image(seed), list(asks), **settings) for one in (edge, predictor))
    assert_same([one.to_json() for one in ours], [one.to_json() for one in theirs])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"published": True},
        {"generation": GenerationConfig(location_window=0, max_new_tokens=12)},
        {"generation": GenerationConfig(num_beams=4, early_stopping="never", max_new_tokens=40)},
    ],
    ids=["default", "published", "cut, without window", "four beams"],
)
def test_answers_are_those_of_pytorch(edge: EdgePredictor, torch_predictor: Predictor, settings: Any) -> None:
    for seed in (1, 2):
        check(edge, torch_predictor, seed, ASKS, **settings)


def test_the_answers_compared_say_something(edge: EdgePredictor) -> None:
    caption, found, *_ = edge.predict(image(1), ASKS)
    assert len(caption.text.split()) > 2
    assert found.regions
    assert (
        found.regions[0].parts
        != edge.predict(image(1), "<OD>", generation=GenerationConfig(location_window=0)).regions[0].parts
    )  # the window is in use


def test_the_image_is_encoded_once(edge: EdgePredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = Network.encode_image
    monkeypatch.setattr(Network, "encode_image", lambda self, pixels: seen.append(len(pixels)) or plain(self, pixels))
    edge.predict(image(1), ASKS)
    assert seen == [1]


def test_few_rows_at_a_time(exported: Path, edge: EdgePredictor) -> None:
    few = EdgePredictor.from_folder(exported, threads=1)
    few.max_rows = 2
    for ours, theirs in zip(few.predict(image(3), ASKS), edge.predict(image(3), ASKS), strict=True):
        assert_same(ours.to_json(), theirs.to_json())


def test_one_task_many_images_and_each_its_own(edge: EdgePredictor) -> None:
    one = edge.predict(image(1), "<CAPTION>")
    (first,), (second,) = edge.predict_batch([image(1), image(2)], "<CAPTION>")
    assert first == one
    assert second.text != one.text
    assert edge.predict_each([(image(2), ["<CAPTION>"]), (image(1), [])]) == [[second], []]


def test_labels_are_ranked_as_by_pytorch(edge: EdgePredictor, torch_predictor: Predictor) -> None:
    labels = ["a ring", "two squares and a star", "text", "a ring and a square"]
    ours, theirs = (one.classify(image(4), labels) for one in (edge, torch_predictor))
    assert list(ours) == list(theirs)
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_calibration_is_applied(exported: Path, edge: EdgePredictor, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "calibrated")
    Calibration({"<OD>": Curve((0.0, 1.0), (0.25, 0.25))}).save(folder)
    found = EdgePredictor.from_folder(folder, threads=1).predict(image(1), "<OD>")
    assert [region.score for region in found.regions] == [0.25] * len(edge.predict(image(1), "<OD>").regions)


@pytest.mark.parametrize(
    ("vocabulary", "image_token", "known"),
    [
        (1400, None, 1400),
        (1400, None, 1350),  # rows beyond the tokenizer
        (1408, 1340, 1340),  # the native layout: placeholder, then rows that only pad
        (1408, 1340, 1400),  # tokens added after the placeholder
        (1408, 600, 1408),  # a placeholder amid the vocabulary
    ],
)
def test_the_same_ids_have_a_meaning(vocabulary: int, image_token: int | None, known: int) -> None:
    config = toy_config(vocabulary)
    config = FlorenceConfig(config.vision, config.text, 64, image_token)
    processor = Processor(_Known(known), image_size=64)  # type: ignore[arg-type]
    asked = GenerationConfig(suppressed=(7,), location_window=3)
    ours = EdgePredictor(None, processor, config)._settings(False, asked)  # type: ignore[arg-type]
    assert ours == Predictor(Florence(config), processor).settings(False, asked)


class _Known:
    """A tokenizer of so many ids."""

    location_start, location_count = 300, 1000

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count


@pytest.mark.parametrize(
    ("ask", "settings", "says"),
    [
        ("<ODD>", {}, "<OD>"),
        ("<OPEN_VOCABULARY_DETECTION>", {}, "needs words"),
        (("<VQA>", "what " * 1000 + "?"), {}, "reads only"),
        (("<CLASSIFICATION>", ["cat", "dog " * 1100]), {}, "too long"),
        ("<OD>", {"generation": GenerationConfig(do_sample=True)}, "sampling"),
        ("<OD>", {"generation": GenerationConfig(num_beams=2, num_return_sequences=2)}, "one answer"),
        ("<OD>", {"generation": GenerationConfig(), "published": True}, "one of the two"),
    ],
)
def test_what_cannot_be_asked(edge: EdgePredictor, ask: Any, settings: Any, says: str) -> None:
    with pytest.raises(OpenFlorenceError, match=says):
        edge.predict(image(1), ask, **settings)
    with pytest.raises(OpenFlorenceError, match="there is no file"):
        edge.predict("nowhere.png", "<OD>")


# --- the folder


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def holding(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


@pytest.mark.parametrize(
    ("spoil", "settings", "says"),
    [
        (without("config.json"), {}, "holds no config.json"),
        (holding("config.json", "[]"), {}, "config.json is damaged"),
        (holding("config.json", "{}"), {}, "no vision_config"),
        (without("tokenizer.json"), {}, "holds no tokenizer"),
        (without("onnx/encoder_model.onnx"), {}, "open-florence export --format onnx"),
        (lambda folder: None, {"dtype": "float16"}, "is in float32, not in float16"),
        (lambda folder: None, {"dtype": "bfloat16"}, "one of float32, float16, int8, not bfloat16"),
        (lambda folder: None, {"threads": 0}, "at least 1"),
    ],
)
def test_folders_that_hold_no_model(exported: Path, tmp_path: Path, spoil: Any, settings: Any, says: str) -> None:
    folder = shutil.copytree(exported, tmp_path / "copy")
    spoil(folder)
    with pytest.raises(OpenFlorenceError, match=says):
        EdgePredictor.from_folder(folder, **settings)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="there is no folder"):
        EdgePredictor.from_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("embed_tokens", b"not a model", "cannot open .*embed_tokens.onnx"), ("encoder_model", None, "cannot be run")],
)
def test_files_that_are_something_else(
    exported: Path, tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    folder = shutil.copytree(exported, tmp_path / "copy")
    other = (folder / "onnx" / "embed_tokens.onnx").read_bytes()
    (folder / "onnx" / f"{name}.onnx").write_bytes(other if content is None else content)
    with pytest.raises(OpenFlorenceError, match=says):
        EdgePredictor.from_folder(folder, threads=1).predict(image(1), "<CAPTION>")


def test_the_number_format_that_is_there(exported: Path, edge: EdgePredictor, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "half")
    for path in list((folder / "onnx").iterdir()):
        path.rename(path.with_name(f"{path.stem}_fp16.onnx"))
    half = EdgePredictor.from_folder(folder, threads=1)
    answer = half.predict(image(1), "<CAPTION>")
    assert answer == replace(edge.predict(image(1), "<CAPTION>"), source="half")
    assert EdgePredictor.from_folder(folder, dtype="float16").network.vision.path == half.network.vision.path


def test_regions_as_queries_come_back(edge: EdgePredictor) -> None:
    answer = edge.predict(image(1), ("<REGION_TO_CATEGORY>", [10, 10, 80, 80]))
    assert answer.query == Region.box(10, 10, 80, 80)
    assert json.loads(json.dumps(answer.to_json()))["query"]["kind"] == "box"
