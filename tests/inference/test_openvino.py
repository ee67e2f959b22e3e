"""OpenVINO answers what PyTorch answers: the same numbers, tokens and scores, each request by itself."""

import gc
import sys
import threading
from dataclasses import replace
from itertools import chain

import pytest
import torch

from open_florence.errors import OpenFlorenceError
from open_florence.generation import GenerationConfig
from open_florence.inference.generate import generate
from open_florence.inference.openvino import OpenVinoFlorence, check_request, load_openvino, read_graphs
from open_florence.inference.openvino_graphs import compress, convert
from open_florence.inference.predictor import Predictor
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence, Memory
from open_florence.scenes import VALIDATION_SEEDS, make_scene
from open_florence.selection import region_score

pytest.importorskip("openvino")

SIDE = 64  # pixels: a grid of 2 x 2, after grids that the window of 3 does not divide
EXACT = 1e-5


@pytest.fixture(scope="module")
def graphs(pair):
    return convert(pair.ours, SIDE)


@pytest.fixture(scope="module")
def compiled(pair, graphs):
    return OpenVinoFlorence(pair.ours.config, graphs)


def error(found, wanted):
    """The largest difference over the largest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_features_states_and_logits_are_those_of_the_model(pair, compiled):
    features = compiled.encode_image(pair.pixels)
    memory = compiled.encode(features, pair.input_ids, pair.attention_mask)
    ids = torch.randint(3, 100, (len(features), 5))
    with torch.inference_mode():
        assert error(features, pair.ours.encode_image(pair.pixels)) < EXACT
        wanted = pair.ours.encode(features, pair.input_ids, pair.attention_mask)
        assert error(memory.hidden, wanted.hidden) < EXACT
        assert torch.equal(memory.mask, wanted.mask)
        assert error(compiled.decode(ids, memory), pair.ours.decode(ids, wanted)) < EXACT
        hidden = pair.ours.hidden(ids, wanted)
        assert error(compiled.hidden(ids, wanted), hidden) < EXACT
        some = range(20, 50)
        assert error(compiled.logits(hidden[:, 0], some), pair.ours.logits(hidden[:, 0], some)) < EXACT


def test_steps_with_rows_that_change_places_and_grow_in_number(pair, compiled):
    memory = pair.memory(slice(0, 2))
    ours, theirs = compiled.new_cache(), pair.ours.new_cache()
    first = torch.tensor([[2, 0], [2, 0]])
    orders = [[0, 0, 0, 1, 1, 1], [2, 0, 1, 5, 5, 3], [1, 1, 1, 3, 4, 5]]
    with torch.inference_mode():
        assert error(compiled.decode(first, memory, ours), pair.ours.decode(first, memory, theirs)) < EXACT
        for order in map(torch.tensor, orders):
            ours.reorder(order)
            theirs.reorder(order)
            ids = torch.randint(3, 100, (6, 1))
            assert error(compiled.decode(ids, memory, ours), pair.ours.decode(ids, memory, theirs)) < EXACT
        for order in map(torch.tensor, orders[1:]):  # two changes before one step
            ours.reorder(order)
            theirs.reorder(order)
        assert error(compiled.decode(ids, memory, ours), pair.ours.decode(ids, memory, theirs)) < EXACT
    assert ours.length == theirs.length == 6


SETTINGS = [
    GenerationConfig(max_new_tokens=20),
    GenerationConfig.published(max_new_tokens=20),
    GenerationConfig(max_new_tokens=12, num_beams=4, num_return_sequences=2, early_stopping=False),
    GenerationConfig(max_new_tokens=9, do_sample=True, seed=3, num_return_sequences=3),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "published", "beams", "draws"])
def test_the_same_tokens_and_scores(pair, compiled, settings):
    settings = replace(settings, vocabulary=pair.image_token)
    wanted, found = (generate(model, pair.memory(), settings) for model in (pair.ours, compiled))
    assert found.ids == wanted.ids
    assert (found.stopped, found.beams) == (wanted.stopped, wanted.beams)
    assert found.sequence_scores == pytest.approx(wanted.sequence_scores, abs=1e-4)


def test_requests_do_not_hear_one_another(pair, compiled):
    memories = [pair.memory(slice(k, k + 1)) for k in range(2)]
    ids = torch.tensor([[7]])
    alone = [list(steps(compiled, memory, ids)) for memory in memories]
    together = list(zip(*(steps(compiled, memory, ids) for memory in memories), strict=True))
    for k in range(2):
        assert all(torch.equal(a, b) for a, b in zip(alone[k], (step[k] for step in together), strict=True))


def steps(model, memory, ids):
    cache = model.new_cache()
    for _ in range(4):
        yield model.decode(ids, memory, cache)


def test_what_a_finished_request_held_is_used_again_and_empty(pair, graphs):
    compiled = OpenVinoFlorence(pair.ours.config, graphs)
    made = count_requests(compiled)
    answers = []
    for _ in range(3):
        answers.append(generate(compiled, pair.memory(), GenerationConfig.published(max_new_tokens=8)).ids)
        gc.collect()
    assert answers[0] == answers[1] == answers[2]
    assert made == {"memory": 1, "decoder": 1, "head": 1}


def count_requests(compiled):
    """How many requests each graph is asked to make from here on."""
    made = {}
    for name, graph in compiled._graphs.items():
        graph.compiled = Counted(name, graph.compiled, made)
    return made


class Counted:
    """A compiled graph that counts the requests it makes."""

    def __init__(self, name, compiled, made):
        self.name, self.compiled, self.made = name, compiled, made
        self.outputs = compiled.outputs

    def create_infer_request(self):
        self.made[self.name] = self.made.get(self.name, 0) + 1
        return self.compiled.create_infer_request()


def test_threads_get_their_own_answers(pair, compiled):
    settings = GenerationConfig(max_new_tokens=16)
    memories = [pair.memory(slice(k, k + 1)) for k in range(4)]
    wanted = [generate(compiled, memory, settings).ids for memory in memories]
    found = [None] * 4

    def ask(k):
        for _ in range(5):
            found[k] = generate(compiled, memories[k], settings).ids

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


def test_an_answer_longer_than_the_table_of_positions(pair, compiled):
    with pytest.raises(ValueError, match=f"65 tokens does not fit this model's {pair.positions} positions"):
        compiled.decode(torch.full((4, pair.positions + 1), 5), pair.memory())


def test_int8_weights_are_near_the_models(pair, graphs, compiled):
    small = OpenVinoFlorence(pair.ours.config, compress(graphs))
    apart = error(small.encode_image(pair.pixels), compiled.encode_image(pair.pixels))
    assert 1e-4 < apart < 0.1
    ids = torch.randint(3, 100, (4, 3))
    assert 1e-4 < error(small.decode(ids, pair.memory()), compiled.decode(ids, pair.memory())) < 0.1


def test_bfloat16_where_the_processor_has_it(pair, graphs):
    needs_bfloat16()
    half = OpenVinoFlorence(pair.ours.config, graphs, bfloat16=True)
    features = half.encode_image(pair.pixels)
    assert features.dtype == torch.float32
    with torch.inference_mode():
        assert 1e-4 < error(features, pair.ours.encode_image(pair.pixels)) < 0.05


def test_auto_is_bfloat16_where_the_processor_has_it():
    needs_bfloat16()
    assert check_request("auto", "cpu") == "bfloat16"


def needs_bfloat16():
    try:
        check_request("bfloat16", None)
    except OpenFlorenceError as reason:
        pytest.skip(str(reason))


def test_as_many_threads_as_pytorch_has(pair, graphs):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        compiled = OpenVinoFlorence(pair.ours.config, graphs)
    finally:
        torch.set_num_threads(before)
    assert compiled._graphs["decoder"].compiled.get_property("INFERENCE_NUM_THREADS") == 2


@pytest.fixture(scope="module")
def tiny():
    return Predictor.from_pretrained("tiny"), Predictor.from_pretrained("tiny", backend="openvino")


TASKS = [
    "<OD>",
    "<CAPTION>",
    "<OCR>",
    ("<CAPTION_TO_PHRASE_GROUNDING>", "a red circle"),
    ("<CLASSIFICATION>", "circle<and>square"),
]
WAYS = {
    "greedy": GenerationConfig(max_new_tokens=64),
    "published": GenerationConfig.published(max_new_tokens=40),
    "constrained": GenerationConfig(max_new_tokens=64, constrained=True),
}


def points(annotation):
    return [number for region in annotation.regions for part in region.parts for point in part for number in point]


def pictures():
    return [make_scene(VALIDATION_SEEDS[number]).image for number in range(3)]


@pytest.mark.parametrize("way", WAYS)
def test_the_shipped_checkpoint_answers_alike(tiny, way):
    torches, vinos = (predictor.predict_batch(pictures(), TASKS, generation=WAYS[way]) for predictor in tiny)
    for wanted, found in zip(chain(*torches), chain(*vinos), strict=True):
        assert (found.task, found.text, found.source) == (wanted.task, wanted.text, wanted.source)
        assert points(found) == pytest.approx(points(wanted), abs=0.01)  # pixels: they are means over bins
        assert [region_score(region) for region in found.regions] == pytest.approx(
            [region_score(region) for region in wanted.regions], abs=1e-4
        )
        assert found.score == pytest.approx(wanted.score, abs=1e-4)


def test_a_stream_of_requests(tiny):
    wanted, found = (list(predictor.predict_many((image, ["<OD>"]) for image in pictures())) for predictor in tiny)
    assert [len(answered.annotations[0].regions) for answered in found] == [
        len(answered.annotations[0].regions) for answered in wanted
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"backend": "tensorrt"}, "a backend is one of torch, openvino, not 'tensorrt'"),
        (
            {"backend": "openvino", "dtype": "float16"},
            "with OpenVINO the dtype is one of auto, float32, bfloat16, int8",
        ),
        ({"backend": "openvino", "device": "cuda"}, "runs on the CPU, not on cuda"),
        ({"dtype": "int8"}, "a model's dtype is one of .*, not int8"),
    ],
)
def test_what_cannot_be(asked, said):
    with pytest.raises(OpenFlorenceError, match=said):
        Predictor.from_pretrained("tiny", **asked)


def test_a_processor_without_bfloat16(monkeypatch):
    import openvino

    monkeypatch.setattr(openvino, "Core", lambda: type("Core", (), {"get_property": lambda *_: ["FP32"]})())
    with pytest.raises(OpenFlorenceError, match="does not compute in bfloat16"):
        check_request("bfloat16", None)
    assert check_request("auto", None) == "float32"


def test_without_openvino(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OpenFlorenceError, match=r"pip install 'open-florence\[openvino\]'"):
        Predictor.from_pretrained("tiny", backend="openvino")


def test_without_nncf(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(OpenFlorenceError, match=r"pip install 'open-florence\[openvino\]'"):
        compress({})


def test_a_folder_without_its_files(tmp_path):
    (tmp_path / "openvino").mkdir()
    with pytest.raises(OpenFlorenceError, match="holds no OpenVINO model"):
        load_openvino(tmp_path)
    (tmp_path / "openvino" / "vision.xml").write_text("<net/>")
    with pytest.raises(OpenFlorenceError, match=r"vision\.xml or its \.bin is missing, damaged"):
        read_graphs(tmp_path, "float32")


@pytest.mark.slow
def test_the_published_shape():
    torch.manual_seed(0)
    model = Florence(PRESETS["base"]).eval()
    compiled = OpenVinoFlorence(model.config, convert(model, 768))
    pixels, ids = torch.randn(1, 3, 768, 768), torch.randint(3, 50_000, (2, 10))
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 6:] = 0
    with torch.inference_mode():
        wanted = model.encode_image(pixels)
        features = compiled.encode_image(pixels)
        assert error(features, wanted) < EXACT
        memory = model.encode(wanted.expand(2, -1, -1), ids, mask)
        found = compiled.encode(wanted.expand(2, -1, -1), ids, mask)
        assert error(found.hidden, memory.hidden) < EXACT
        memory = Memory(memory.hidden.clone(), memory.mask)
        ours, theirs = compiled.new_cache(), model.new_cache()
        for order in ([0, 0, 0, 1, 1, 1], [2, 1, 0, 4, 4, 3]):
            said = torch.randint(3, 50_000, (2 if ours.length == 0 else 6, 1))
            assert error(compiled.decode(said, memory, ours), model.decode(said, memory, theirs)) < EXACT
            ours.reorder(torch.tensor(order))
            theirs.reorder(torch.tensor(order))
