"""A specialist may raise, hang, lie or die: every image gets an answer or a reason, and nobody is left behind."""

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from engine_fakes import Troubled, box, broken, dead, sample, unloadable
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.answers import Failed, checked
from open_florence.data_engine.isolation import Runner
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region


@pytest.fixture(scope="module")
def runner():
    with Runner(Troubled, timeout=1.5, batch=3, proven=True) as started:
        yield started


def says(answers):
    return [answer.reason if isinstance(answer, Failed) else len(answer) for answer in answers]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raise", "RuntimeError: cannot look"),
        ("hang", "no answer within 1.5 seconds"),
        ("die", "its process was killed (SIGKILL)"),
        ("exit", "its process ended (7)"),
        ("short", "1 images were asked about and 0 answers came back"),
        ("far", "the answer about <OD> is refused: region 1: the coordinate -1e+09 lies far outside an image"),
    ],
)
def test_only_the_image_itself_has_no_answer(runner, name, reason):
    first, troubled, last = says(runner.annotate([sample("a"), sample(name), sample("b")]))
    assert (first, last) == (1, 1)
    assert troubled.startswith(reason)
    assert says(runner.annotate([sample("c")])) == [1]


def test_answers_carry_the_source(runner):
    ((annotation,),) = runner.annotate([sample("a")])
    assert annotation.source == runner.source == "troubled@1"


def test_the_same_in_this_process():
    with Runner(Troubled, isolate=False, batch=2, proven=True) as here:
        assert says(here.annotate([sample("a"), sample("raise"), sample("far"), sample("b")]))[::3] == [1, 1]


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize(("make", "reason"), [(unloadable, "it needs a program"), (broken, "ZeroDivisionError")])
def test_what_cannot_be_loaded_is_one_sentence(make, reason, isolate):
    with pytest.raises(OpenFlorenceError, match=f"the specialist sight cannot be loaded: {reason}"):
        Runner(make, isolate=isolate, name="sight")


def test_a_death_while_loading():
    with pytest.raises(OpenFlorenceError, match=r"its process ended \(3\)"):
        Runner(dead)


def test_what_cannot_be_sent():
    with pytest.raises(OpenFlorenceError, match="process of its own"):
        Runner(lambda: Troubled())


def test_what_is_no_specialist():
    with pytest.raises(OpenFlorenceError, match="int is no specialist"):
        Runner(int, isolate=False)


def test_a_mistake_of_configuration_stops_after_three_batches():
    asked = []

    class Stubborn(Troubled):
        def annotate(self, samples):
            asked.append(len(samples))
            raise ValueError("no such label")

    runner = Runner(Stubborn, isolate=False, batch=2)
    with pytest.raises(OpenFlorenceError, match=r"troubled@1 failed on every one of the first images: .*no such label"):
        runner.annotate([sample(str(n)) for n in range(100)])
    assert asked == [2, 1, 1] * 3


def test_few_images_that_all_fail_stop_it_too():
    runner = Runner(Troubled, isolate=False, batch=16)
    with pytest.raises(OpenFlorenceError, match="cannot look"):
        runner.annotate([sample("raise1"), sample("raise2"), sample("raise3")])
    assert says(Runner(Troubled, isolate=False).annotate([sample("raise1")])) == ["RuntimeError: cannot look"]


def test_one_that_always_hangs_is_given_up_soon():
    with Runner(Troubled, timeout=0.3, batch=50) as runner, pytest.raises(OpenFlorenceError, match="no answer within"):
        runner.annotate([sample(f"hang{n}") for n in range(50)])


def test_nobody_is_left_behind_when_the_engine_is_killed(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import engine_fakes as t\n"
        "from open_florence.data_engine.isolation import Runner\n"
        "from functools import partial\n"
        f"Runner(partial(t.Troubled, {str(tmp_path)!r})).annotate([t.sample('note')])"
    )
    engine = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 30
        while not (noted := list(tmp_path.iterdir())) and time.monotonic() < until:
            time.sleep(0.02)
        assert noted
    finally:
        engine.kill()
        engine.wait()
    child = int(noted[0].name)
    while time.monotonic() < until:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.02)
    pytest.fail("the child lives on")


GOOD = box(1, 2, 3, 4)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (None, "the answer is nothing, not a list"),
        ("text", "the answer is of the type str"),
        ([], "1 images were asked about and 0"),
        ([None], "the answer about the image is nothing"),
        ([["cat"]], "holds of the type str, not an annotation"),
        ([[Annotation("<OCR>")]], "<OCR> is refused: it is not among the tasks <OD>"),
        ([[box(float("nan"), 2, 3, 4)]], "the coordinate nan is no number"),
        ([[box(1, 2, float("inf"), 4)]], "the coordinate inf is no number"),
        ([[box(1, 2, 3, 56)]], "the coordinate 56 lies far outside an image of 50 pixels"),
        ([[box(1, 2)]], "the point (1.0,) has not 2 coordinates"),
        ([[box(1, 2, 3, 4, score=1.5)]], "the score 1.5 is not between 0 and 1"),
        ([[box(1, 2, 3, 4, score=float("nan"))]], "the score nan"),
        ([[Annotation("<OD>", text="\ud800")]], "half a character"),
        ([[Annotation("<OD>", text=None)]], "nothing stands where text belongs"),
        ([[Annotation("<OD>", query=3)]], "its query: of the type int stands where text belongs"),
        ([[Annotation("<OD>", query=Region.box(0, 0, 900, 9))]], "its query: the coordinate 900"),
        ([[Annotation("<OD>", regions=("cat",))]], "region 1 is of the type str"),
        ([[Annotation("<OD>", "a", (Region("box", (((0.0, 0.0), (1.0, 1.0)),), span=(0, 2)),))]], "the span (0, 2)"),
        ([[Annotation("<OD>", regions=(Region("polygon", ()),))]], "it has no points"),
    ],
)
def test_garbage_is_refused_with_a_reason(answers, reason):
    found = checked([sample("a")], answers, ("<OD>",), "x@1")
    failed = found if isinstance(found, Failed) else found[0]
    assert isinstance(failed, Failed)
    assert reason in failed.reason


def test_what_is_good_passes_beside_what_is_not():
    found = checked([sample("a"), sample("b")], [[GOOD], [None]], ("<OD>",), "x@1")
    assert found[0][0].regions == GOOD.regions
    assert isinstance(found[1], Failed)


@given(st.lists(st.floats(-5, 105), min_size=2, max_size=2), st.lists(st.floats(-2, 52), min_size=2, max_size=2))
def test_boxes_that_reach_a_little_beyond_the_image_pass(xs, ys):
    assert says(checked([sample("a")], [[box(xs[0], ys[0], xs[1], ys[1])]], ("<OD>",), "x@1")) == [1]


@given(st.recursive(st.none() | st.integers() | st.text(max_size=3) | st.just(GOOD), st.lists, max_leaves=6))
def test_whatever_comes_back_is_answered_or_refused(answers):
    found = checked([sample("a")], answers, ("<OD>",), "x@1")
    for answer in [found] if isinstance(found, Failed) else found:
        assert isinstance(answer, Failed) or all(isinstance(one, Annotation) for one in answer)


def test_factories_with_options_travel(tmp_path):
    with Runner(partial(Troubled, str(tmp_path)), timeout=30) as runner:
        assert says(runner.annotate([sample("a")])) == [1]
