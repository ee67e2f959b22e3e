"""The benchmarks of speed run, on a shape on which they take seconds, and what they measure is what they say."""

import functools
import importlib
import json
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
FOLDER = Path(__file__).parents[1] / "benchmarks" / "speed"
MODULES = [path.stem for path in FOLDER.glob("*.py")]


@pytest.fixture(scope="module")
def bench():
    """A script by its name, imported as it is when it is run: its neighbours are on the path."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoint")


@pytest.fixture(scope="module")
def load(bench, toy):
    """`Pair.load`, which loads once what several scripts ask for."""
    return functools.cache(bench("pair").Pair.load)


@pytest.fixture
def run(bench, toy, load, tmp_path, monkeypatch):
    """The lines that a script's main writes."""
    monkeypatch.setattr(bench("pair").Pair, "load", load)
    monkeypatch.setattr(bench("floor"), "_matrix_rate", lambda dtype: 1e11)
    monkeypatch.setattr(bench("floor"), "_read_rate", lambda dtype: 1e10)

    for script, name in (("caption", "LENGTH"), ("eight_tasks", "LENGTH"), ("decode_step", "LONG")):
        monkeypatch.setattr(bench(script), name, 6)

    def measured(script, **options):
        out = tmp_path / "out.jsonl"
        bench(script).main(shape="toy", work=toy, out=out, threads=1, **options)
        return [json.loads(line) for line in out.read_text().splitlines()]

    return measured


@pytest.mark.parametrize(("script", "lines"), [("vision", 1), ("decode_step", 3), ("caption", 1), ("eight_tasks", 2)])
def test_every_comparison_has_both_times(run, script, lines, capsys):
    found = run(script, dtype="bf16", runs=1)
    assert len(found) == lines
    for line in found:
        assert line["ratio"] == pytest.approx(line["transformers"]["best"] / line["ours"]["best"])
        assert line["machine"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert all(f"| {line['workload']} | bf16 |" in printed for line in found)


def test_many_images(run, bench, monkeypatch):
    monkeypatch.setattr(bench("many_images"), "BATCHES", (8,))
    monkeypatch.setattr(bench("many_images"), "LIMIT", 12)
    (line,) = run("many_images", dtype="fp32", images=2)
    assert line["workload"] == "2 images x 4 tasks, in batches of 8"


def test_memory(run, bench, toy, monkeypatch, capsys):
    memory = bench("memory")
    memory.main(shape="toy", dtype="bf16", work=toy, side="image shared")
    peak = int(capsys.readouterr().out)
    assert peak > 2**20
    monkeypatch.setattr(memory, "started", lambda side, options: peak // (2 if side == "ours" else 1))
    lines = run("memory", dtype="bf16")
    assert [line["workload"] for line in lines] == ["8 tasks, 8 calls", "8 tasks, image shared"]
    assert lines[0]["ratio"] == pytest.approx(2)


def test_waiting_threads(run, bench, toy, monkeypatch, capsys):
    threads = bench("threads")
    threads.main(shape="toy", work=toy, runs=1, threads=1, alone=True)
    best, median = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(threads, "measured", lambda command, policy, neighbour: threads.Time(best, median))
    lines = run("threads")
    assert [line["neighbour"] for line in lines] == ["none", "none", "busy", "busy", "busy"]
    assert lines[0]["best"] == best


def test_the_question_says_how_long_the_answer_is(bench, toy, load):
    pair = load("toy", "fp32", toy)
    (image,) = bench("pair").photo_files(pair.folder, 1)
    lengths = []
    for bin_ in (100, 400, 700):
        question = f"<REGION_TO_CATEGORY>{f'<loc_{bin_}>' * 4}"
        with bench("many_images").counting(pair) as counts:
            pair.ours.predict(image, [("<REGION_TO_CATEGORY>", f"<loc_{bin_}>" * 4)])
        written = pair.theirs.answers([image], [question], {"max_new_tokens": 60})
        assert counts == [written.shape[1] - 1]  # less the start token
        lengths += counts
    assert lengths == sorted(set(lengths))
    assert lengths[-1] - lengths[0] > 15


def test_models_that_differ_are_not_compared(bench, toy):
    pair = bench("pair").Pair.load("toy", "fp32", toy)
    with torch.no_grad():
        pair.theirs.model.model.language_model.decoder.layers[0].fc1.bias += 0.5
    with pytest.raises(ValueError, match="the two models differ"):
        pair.check()


def test_turns_are_taken_and_the_first_round_does_not_count(bench):
    timing, order = bench("timing"), []

    def slow_at_first():
        order.append("a")
        time.sleep(0.05 * (len(order) == 1))

    times = timing.in_turns({"a": slow_at_first, "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b"] * 3
    assert times["a"].median < 0.05


def test_a_time_less_another_divided(bench):
    timing = bench("timing")
    long, short = timing.Time.of([3.0, 1.0, 2.0]), timing.Time(0.5, 1.0)
    assert (long.best, long.median) == (1.0, 2.0)
    assert long.per(2, less=short) == timing.Time(0.25, 0.5)


def test_the_floor_is_the_best_that_was_seen(bench, monkeypatch):
    floor = bench("floor")
    rates = iter([2.0, 3.0, 1.0])
    monkeypatch.setattr(floor, "_SEEN", {})
    monkeypatch.setattr(floor, "_matrix_rate", lambda dtype: next(rates))
    monkeypatch.setattr(floor, "_read_rate", lambda dtype: 5.0)
    assert [floor.measure("fp32", 1).flops for _ in range(3)] == [2.0, 3.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_products_that_are_timed_are_products(bench, dtype):
    x, weight = torch.eye(8, dtype=dtype), torch.randn(16, 8).to(dtype)
    for way in bench("floor")._products(x, weight):
        assert torch.equal(way(), weight.T)


def test_the_published_shape_costs_what_is_known_of_it(bench):
    cost = bench("floor").cost("base")
    assert cost.vision == pytest.approx(370e9, rel=0.05)
    assert cost.weights == pytest.approx(89e6, rel=0.01)
    machine = bench("floor").Machine(flops=1e11, bandwidth=1e10)
    assert cost.vision_seconds(machine) == pytest.approx(3.7, rel=0.05)
    assert cost.step_seconds(machine, "bf16") == pytest.approx(2 * cost.weights / 1e10)
    assert cost.step_seconds(machine, "bf16", rows=1000) == pytest.approx(1000 * cost.step / 1e11)


def test_words_of_questions_are_tokens_and_the_vocabulary_has_the_published_size(bench):
    tokenizer = bench("checkpoint").made_up_tokenizer()
    assert len(tokenizer) == 51289
    assert len(tokenizer.encode("What does the image describe?")) == 2 + 6
    assert tokenizer.location_ids == range(50269, 51269)
    with pytest.raises(ValueError, match="a shape is one of base, large, toy"):
        bench("checkpoint").config_of("small")
