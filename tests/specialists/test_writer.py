import base64
import io
import json
import logging
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region
from open_florence.specialists import endpoint as endpoint_module
from open_florence.specialists.endpoint import Endpoint
from open_florence.specialists.writer import MOST_OBJECTS, PROMPT, SYSTEM, Writer, unsupported

GOOD = "A red dog lies on a sofa."


def said(text, reason="stop"):
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}


class Stub:
    """A server that gives the answers of `script` in turn, the last one for ever, and keeps what it was asked.

    An answer is a body (dict or bytes), (status, body), (status, body, headers), or a function that is called first.
    """

    def __init__(self):
        self.script, self.asked, self.lock = [said(GOOD)], [], threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
                with stub.lock:
                    stub.asked.append((self.path, dict(self.headers), body))
                    answer = stub.script.pop(0) if len(stub.script) > 1 else stub.script[0]
                if callable(answer):
                    answer = answer(body)
                status, content, headers = (*answer, {})[:3] if isinstance(answer, tuple) else (200, answer, {})
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the other side did not wait

            def do_GET(self):
                self.do_POST()  # a redirect that was followed

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @property
    def bodies(self):
        return [body for _, _, body in self.asked]


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    stub = Stub()
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield stub
    stub.server.shutdown()
    thread.join()
    stub.server.server_close()


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that were made, in seconds; none takes any time."""
    made = []
    monkeypatch.setattr(endpoint_module.time, "sleep", made.append)
    return made


def ask(stub, **options):
    return Endpoint(stub.url, "tiny", **options).ask([{"role": "user", "content": "hello"}])


def test_a_question_and_its_answer(stub, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret-1")
    stub.script = [said("  Two\nlines. ")]
    assert ask(stub, key_variable="TEST_KEY") == ("Two lines.", True)
    [(path, headers, body)] = stub.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret-1"
    assert body == {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
    stub.script = [said("cut", "length")]
    assert ask(stub) == ("cut", False)
    assert "Authorization" not in stub.asked[1][1]


@pytest.mark.parametrize(
    "failure",
    [
        (500, {"error": "broken"}),
        (503, b""),
        (408, b""),
        b"<html>not json",
        b"[]",
        {"choices": []},
        {"choices": [{"message": {"content": None}}]},
        said("  "),
        {"choices": "no"},
    ],
)
def test_a_failure_that_passes_is_tried_again(failure, stub, pauses):
    stub.script = [failure, failure, said(GOOD)]
    assert ask(stub).text == GOOD
    assert pauses == [1, 2]


def test_a_busy_server_says_how_long_to_wait(stub, pauses):
    busy = {"error": "slow down"}
    stub.script = [(429, busy, {"Retry-After": "7"}), (429, busy, {"Retry-After": "9999"}), (429, busy), said(GOOD)]
    assert ask(stub).text == GOOD
    assert pauses == [7, 60, 4]


def test_a_server_that_stays_broken_is_one_sentence(stub, pauses):
    stub.script = [(500, {"error": "the disk is full"})]
    with pytest.raises(OpenFlorenceError, match=r"gave no answer in 3 attempts: it answered 500.*the disk is full"):
        ask(stub, retries=2)
    assert len(stub.asked) == 3
    assert pauses == [1, 2]


def test_a_refusal_is_not_tried_again_and_does_not_repeat_the_key(stub, pauses, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret-2")
    stub.script = [(401, {"error": "wrong key secret-2"})]
    with pytest.raises(OpenFlorenceError, match=r"refused the question: it answered 401.*wrong key \*\*\*"):
        ask(stub, key_variable="TEST_KEY")
    assert (len(stub.asked), pauses) == (1, [])


def test_a_silent_server_is_left_after_the_time_given(stub, pauses):
    def slow(body):
        released.wait(10)
        return said(GOOD)

    released = threading.Event()
    stub.script = [slow]
    with pytest.raises(OpenFlorenceError, match=r"gave no answer in 2 attempts: .*timed out"):
        ask(stub, request_timeout=0.1, retries=1)
    released.set()
    assert pauses == [1]


def test_a_redirect_is_not_followed_with_the_key(stub, monkeypatch):
    monkeypatch.setenv("TEST_KEY", "secret-3")
    stub.script = [(302, b"", {"Location": f"{stub.url}/elsewhere"}), said(GOOD)]
    with pytest.raises(OpenFlorenceError, match="it answered 302"):
        ask(stub, key_variable="TEST_KEY")
    assert [path for path, _, _ in stub.asked] == ["/v1/chat/completions"]


def test_an_answer_without_an_end_is_refused(stub, pauses, monkeypatch):
    monkeypatch.setattr(endpoint_module, "MOST_BYTES", 1000)
    stub.script = [said("x" * 2000)]
    with pytest.raises(OpenFlorenceError, match="longer than 1000 bytes"):
        ask(stub, retries=0)


def test_nobody_there(pauses, stub):
    with pytest.raises(OpenFlorenceError, match="gave no answer in 1 attempts"):
        Endpoint("http://127.0.0.1:9/v1", "tiny", retries=0).ask([])


@pytest.mark.parametrize(
    ("url", "variable", "message"),
    [
        ("ftp://host", "", "begins with http:// or https://"),
        ("localhost:8000", "", "begins with http:// or https://"),
        ("http://host", "NO_SUCH_KEY", "the environment variable NO_SUCH_KEY holds no key"),
    ],
)
def test_settings_that_cannot_be(url, variable, message, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(OpenFlorenceError, match=message):
        Writer(url, "tiny", key_variable=variable)


def writer(stub, **options):
    return Writer(stub.url, "org/tiny:8b", **{"tasks": ["<DETAILED_CAPTION>"], **options})


def test_the_model_is_told_captions_labels_and_places(stub, samples):
    [[annotation]] = writer(stub).annotate(samples[:1])
    assert annotation == Annotation("<DETAILED_CAPTION>", GOOD, score=1.0)
    [body] = stub.bodies
    system, user = body["messages"]
    assert system["role"] == "system"
    assert "- A red dog on the sofa\n" in user["content"]
    assert "- sofa: 12, 10, 31, 56\n- dog: 4, 8, 38, 40\n" in user["content"]  # without a score is surest
    assert "two or three sentences" in user["content"]


def test_both_tasks_for_every_sample_in_order(stub, make_sample):
    def echo(body):
        question = body["messages"][1]["content"]
        caption = question.split("- ")[1].split("\n")[0]
        return said(f"{caption} {'long' if 'paragraph' in question else 'short'}")

    stub.script = [echo]
    samples = [make_sample((20, 20), Annotation("<CAPTION>", f"a dog {number}")) for number in range(5)]
    bare = make_sample((20, 20), Annotation("<CAPTION>", " "), Annotation("<OD>", regions=(Region.box(0, 0, 1, 1),)))
    answers = Writer(stub.url, "tiny", parallel=3).annotate([*samples, bare, samples[0]])
    expected = [
        [("<DETAILED_CAPTION>", f"a dog {number} short"), ("<MORE_DETAILED_CAPTION>", f"a dog {number} long")]
        for number in range(5)
    ]
    assert [[(a.task, a.text) for a in answer] for answer in answers] == [*expected, [], expected[0]]


def test_an_absent_object_is_held_against_it_once(stub, samples):
    stub.script = [said("A red dog chases a cat and two birds."), said(GOOD)]
    [[annotation]] = writer(stub).annotate(samples[:1])
    assert (annotation.text, annotation.score, annotation.complete) == (GOOD, 1.0, True)
    first, second = stub.bodies
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": "A red dog chases a cat and two birds."}
    assert "do not name: cat, bird." in second["messages"][3]["content"]


def test_an_object_that_stays_absent_costs_the_score_and_is_logged(stub, samples, caplog):
    stub.script = [said("A red dog chases a cat.")]
    with caplog.at_level(logging.WARNING):
        [[annotation]] = writer(stub).annotate(samples[:1])
    assert (annotation.text, annotation.score, annotation.complete) == ("A red dog chases a cat.", None, False)
    assert len(stub.asked) == 2
    assert f"{samples[0].path}: <DETAILED_CAPTION> names what nobody found: cat" in caplog.text


def test_a_description_that_was_cut_is_not_complete(stub, samples):
    stub.script = [said(GOOD, "length")]
    [[annotation]] = writer(stub).annotate(samples[:1])
    assert (annotation.score, annotation.complete) == (1.0, False)


def test_synonyms_of_a_label_may_be_used(stub, samples):
    stub.script = [said("Two puppies sit on a couch.")]
    with_them = writer(stub, synonyms={"Dog": ["puppy"], "sofa": ["couch"], "cat": ["kitten"]})
    assert with_them.annotate(samples[:1])[0][0].score == 1.0
    assert writer(stub).annotate(samples[:1])[0][0].score is None
    assert with_them.version != writer(stub).version


@pytest.mark.parametrize(
    ("text", "known", "absent"),
    [
        ("Two dogs are on the left side of the image.", {"dog"}, []),
        ("The dogs sit beside a tree and a bench.", {"dog"}, ["tree", "bench"]),
        ("It is the only one.", set(), []),
        ("", set(), []),
        ("A bench, a bench and three benches.", set(), ["bench"]),
    ],
)
def test_what_a_text_names(text, known, absent):
    assert unsupported(text, known) == absent


def test_the_picture_goes_along_when_it_is_asked_for(stub, make_sample):
    sample = make_sample((1000, 500), Annotation("<CAPTION>", "a red dog on a sofa"))
    writer(stub, image=True).annotate([sample])
    text, picture = stub.bodies[0]["messages"][1]["content"]
    assert text["type"] == "text"
    kind, data = picture["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (768, 384)


def test_other_regions_can_be_shown_and_only_the_surest(stub, make_sample):
    regions = tuple(Region.box(0, 0, 9, 9, label=f"dog {i}", score=i / 100) for i in range(100))
    sample = make_sample((20, 20), Annotation("<DENSE_REGION_CAPTION>", regions=regions))
    stub.script = [said("Some dogs.")]
    other = writer(stub, regions="<DENSE_REGION_CAPTION>")
    assert other.needs == ("<CAPTION>", "<DENSE_REGION_CAPTION>")
    assert other.annotate([sample])[0][0].score == 1.0
    question = stub.bodies[0]["messages"][1]["content"]
    assert question.count("- dog") == MOST_OBJECTS
    assert "- dog 99:" in question
    assert "- dog 39:" not in question
    assert "Captions of the image:\n- none\n" in question


def test_an_endpoint_that_fails_is_an_error_of_the_batch(stub, samples, pauses):
    stub.script = [(500, b"")]
    with pytest.raises(OpenFlorenceError, match="gave no answer"):
        writer(stub).annotate(samples)
    assert writer(stub).annotate([]) == []


def test_it_declares_what_it_is(stub):
    one = writer(stub)
    assert (one.name, one.tasks, one.needs) == ("writer", ("<DETAILED_CAPTION>",), ("<CAPTION>", "<OD>"))
    assert one.version.startswith("tiny-8b-")
    assert "/" not in one.version


def test_the_docs_show_the_prompt():
    docs = (Path(__file__).parents[2] / "docs" / "specialists.md").read_text("utf-8")
    shown = " ".join(docs.replace("\n> ", " ").split())
    assert SYSTEM in shown
    for part in re.split(r"\{\w+\}", PROMPT):
        assert " ".join(part.split()).rstrip(".") in shown
