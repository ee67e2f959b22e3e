"""The grammars token by token: all that is written is allowed, and all that is allowed is read completely."""

import random
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.inference.pretrained import SHIPPED
from open_florence.legal_tokens import automaton
from open_florence.schema import Annotation, Region
from open_florence.tasks import TASKS, PhraseGrammar, RegionGrammar, Task, TextGrammar
from open_florence.tasks.grammar import Grammar
from open_florence.tokenizer import FLORENCE_TOKENS, Tokenizer

SIZE = (1000, 1000)  # a bin a pixel
NAMED, GROUNDED = "<OPEN_VOCABULARY_DETECTION>", "<CAPTION_TO_PHRASE_GROUNDING>"
LABELS = ["cat", "cat flap", "Dög", "a", "車", "x<y", "three blind mice"]
CAPTION = "A red car, a cart and a Dög's bone (3D) beside a red car."
PHRASES = ["A red car", "a red car", "red", "car", "a cart and a Dög's bone", "Dög", "(3D)", "3D", "bone", "beside a"]
FORMS = {str(replace(TASKS[row].grammar, task=NAMED * (row == NAMED))): row for row in TASKS}.values()  # one of each
QUERIES = {NAMED: "<and>".join(LABELS), GROUNDED: CAPTION}
SPECIAL = re.compile("|".join(map(re.escape, (*FLORENCE_TOKENS, "<s>", "</s>", "<pad>", "<unk>", "<mask>", "<image>"))))
TOKEN = re.compile(r"<loc_[0-9]{1,6}>")

pieces = st.one_of(st.text(max_size=6), st.sampled_from(["<", ">", "<loc_12", "</", "<po", "ly>", "\u00a0", "猫", " "]))
words = (
    st.lists(pieces, max_size=6)
    .map(lambda parts: "".join(parts).strip())
    .filter(lambda text: text and not SPECIAL.search(text) and not TOKEN.search(text))
)
points = st.tuples(st.integers(0, 999), st.integers(0, 999)).map(lambda bins: (bins[0] + 0.5, bins[1] + 0.5))


@cache
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module", params=["bytes", "tiny", "published"])
def known(request) -> Tokenizer:
    """One of few tokens, nearly all of them bytes; that of the shipped model; the published one."""
    if request.param == "bytes":
        return Tokenizer.train(["a red car and a blue car", "Two cafés beside 日本", "<lo loc_ poly> sep>"] * 20, 320)
    if request.param == "tiny":
        return tokenizer(SHIPPED / "tiny")
    return tokenizer(request.getfixturevalue("data_folder") / "florence2_tokenizer")


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return tokenizer(SHIPPED / "tiny")


def automaton_of(token: str, known: Tokenizer):
    return automaton(TASKS[token], QUERIES.get(token), known, len(known))


def regions(kind: str, label):
    count = {"box": (2, 2), "quad": (4, 4), "polygon": (1, 5)}[kind]
    part = st.lists(points, min_size=count[0], max_size=count[1]).map(tuple)
    parts = st.lists(part, min_size=1, max_size=3 if kind == "polygon" else 1).map(tuple)
    return st.builds(Region, st.just(kind), parts, label)


@st.composite
def answers(draw, token: str) -> Annotation:
    """Anything that a task may be answered; of a query with labels or phrases, with those."""
    grammar: Grammar = TASKS[token].grammar
    if isinstance(grammar, TextGrammar):
        echoed = draw(st.none() | regions("box", st.just(""))) if grammar.echo else None
        return Annotation(token, draw(words | st.just("")), query=echoed)
    if isinstance(grammar, PhraseGrammar):
        label, kind = st.sampled_from(PHRASES), "box"
    elif isinstance(grammar, RegionGrammar):
        kind = draw(st.sampled_from(grammar.kinds))
        label = st.sampled_from(LABELS) if token == NAMED else words if grammar.labelled else st.just("")
    else:
        pytest.fail(f"say here what the answers to {token} look like")
    return Annotation(token, regions=tuple(draw(st.lists(regions(kind, label), max_size=5))))


@pytest.mark.parametrize("token", FORMS)
@given(data=st.data())
@settings(max_examples=15)
def test_what_is_written_is_allowed(token: str, known: Tokenizer, data) -> None:
    """Whatever else it may say, and even where the limit leaves it not one token more than it takes."""
    ids = known.encode(TASKS[token].grammar.serialize(data.draw(answers(token)), SIZE), wrap=False)
    found = automaton_of(token, known)
    state = found.start
    for left, id_ in zip(range(len(ids) + 1, 0, -1), [*ids, 2], strict=True):
        assert found.allowed(state).mask[id_], (ids, left)
        assert found.allowed(state, left).mask[id_], (ids, left)
        state = found.advance(state, id_)
    assert state is None


AWKWARD = [b"<", b">", b"/", b"s", b"p", b"l", b"o", b"c", b"_", b"7", b" ", b"\n", b"\xc2", b"\xa0", b"\xe3", b"\x80"]


@cache
def awkward(known: Tokenizer) -> list[int]:
    return [id_ for id_, said in known.word_bytes.items() if said in AWKWARD]


def walk(found, known: Tokenizer, dice: random.Random, limit: int) -> list[int]:
    """Any answer: places as often as words, and of those many that are made to be misread."""
    state, ids = found.start, []
    while state is not None:
        mask = found.allowed(state, limit - len(ids)).mask
        marks = [id_ for id_ in found.lexicon.marks.values() if mask[id_]]
        kinds = [np.flatnonzero(mask), [id_ for id_ in awkward(known) if mask[id_]], marks]
        kinds += [known.location_ids] * bool(mask[known.location_start]) + [[2]] * bool(mask[2] and dice.random() < 0.2)
        some = dice.choice([kind for kind in kinds if len(kind)])  # there has to be a way on
        ids.append(int(some[dice.randrange(len(some))]))
        state = found.advance(state, ids[-1])
    return ids


@pytest.mark.parametrize("token", FORMS)
@given(seed=st.integers(0, 2**32), limit=st.integers(1, 60))
@settings(max_examples=25)
def test_what_is_allowed_is_read_completely(token: str, known: Tokenizer, seed: int, limit: int) -> None:
    ids = walk(automaton_of(token, known), known, random.Random(seed), limit)
    assert len(ids) <= limit
    assert ids[-1] == 2
    text = known.decode(ids)
    read = TASKS[token].grammar.parse(text, SIZE, QUERIES.get(token))
    assert read.complete, text
    assert not read.dropped, text
    if token == NAMED:
        assert {region.label for region in read.regions} <= set(LABELS)
    if token == GROUNDED:
        assert all(region.label.lower() in CAPTION.lower() for region in read.regions)


@pytest.mark.parametrize(
    ("token", "text", "length"),  # how much of the text is allowed, in characters; None: all, and the end
    [
        ("<OD>", "", None),
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_4>", None),
        ("<OD>", "cat<loc_1><loc_2><loc_3><loc_4><loc_1><loc_2><loc_3><loc_4>dog<loc_1><loc_2><loc_3><loc_4>", None),
        ("<OD>", "<loc_1>", 0),  # a label is due
        ("<OD>", " <loc_1>", 1),  # a visible one
        ("<OD>", "cat", 3),  # and then a place
        ("<OD>", "cat<loc_1><loc_2>dog", 3 + 14),  # half a box
        ("<OD>", "cat<poly>", 3),
        ("<OD>", "cat<s>", 3),
        ("<OD>", "<od>", 0),
        ("<REGION_PROPOSAL>", "cat", 0),
        ("<REGION_PROPOSAL>", "<loc_1><loc_2><loc_3><loc_4><loc_1><loc_2><loc_3><loc_4>", None),
        ("<OCR_WITH_REGION>", "GO" + "<loc_1>" * 9, 2 + 56),  # a quad has its own words
        ("<OCR_WITH_REGION>", "GO" + "<loc_1>" * 8 + "GO" + "<loc_1>" * 8, None),
        (NAMED, "cat<loc_1><loc_2><loc_3><loc_4><poly>", 3 + 28),  # boxes or polygons, not both
        (NAMED, "cat<poly><loc_1><loc_2></poly>cat flap<poly><loc_1><loc_2></poly>", None),
        (NAMED, "cat<poly><loc_1></poly>", 3 + 6 + 7),  # half a point
        (NAMED, "cat<poly></poly>", 3 + 6),
        (NAMED, "dog<loc_1>", 0),
        (NAMED, "three<loc_1>", 5),  # one of the labels, the whole of it
        (NAMED, "a<and>", 1),
        ("<REGION_TO_SEGMENTATION>", "<loc_1><loc_2><sep><loc_1><loc_2>", None),
        ("<REGION_TO_SEGMENTATION>", "<loc_1><loc_2></poly>", 14),
        ("<REGION_TO_SEGMENTATION>", "<poly><loc_1><loc_2></poly><loc_1>", 6 + 14 + 7),
        ("<REGION_TO_CATEGORY>", "a cat<loc_1><loc_2><loc_3><loc_4>", None),
        ("<REGION_TO_CATEGORY>", "a cat<loc_1><loc_2><loc_3><loc_4>a", 5 + 28),
        ("<REGION_TO_CATEGORY>", "a cat<loc_1><loc_2>", 5 + 14),  # half an echo
        ("<CAPTION>", "a <b> c < d", None),
        ("<CAPTION>", "a cat<loc_1>", 5),
        (GROUNDED, "red car<loc_1><loc_2><loc_3><loc_4>", None),
        (GROUNDED, "re<loc_1>", 0),  # half a word
        (GROUNDED, "blue", 0),
    ],
)  # fmt: skip
def test_how_much_of_a_text_is_allowed(token: str, text: str, length: int | None, tiny: Tokenizer) -> None:
    found = automaton_of(token, tiny)
    state, said = found.start, []
    for id_ in [*tiny.encode(text, wrap=False), tiny.eos]:
        if not found.allowed(state).mask[id_]:
            assert found.advance(state, id_) is None
            break
        said.append(id_)
        state = found.advance(state, id_)
    assert tiny.decode(said) == (text + "</s>" if length is None else text[:length])


@pytest.mark.parametrize("token", ["<OD>", "<CAPTION>"])
@pytest.mark.parametrize("spelt", ["<s>", "</s>", "<pad>", "<sep>", "<poly>", "</poly>", "<loc_7>", "<loc_123456>"])
def test_words_never_spell_markup(token: str, spelt: str, tiny: Tokenizer) -> None:
    """Each character is a token of words, and only together they would be read as something else."""
    found = automaton_of(token, tiny)
    state = found.start
    characters = [next(id_ for id_, said in tiny.word_bytes.items() if said == c.encode()) for c in "a<" + spelt]
    for id_ in characters[:-1]:
        assert found.allowed(state).mask[id_]
        state = found.advance(state, id_)
    assert not found.allowed(state).mask[characters[-1]]
    assert found.advance(state, characters[-1]) is None
    state = found.advance(state, characters[0])  # "<sa" is nothing
    assert found.allowed(state).mask[characters[-1]]


def test_only_locations_says_so(tiny: Tokenizer) -> None:
    found = automaton_of("<OD>", tiny)
    state = found.advance(found.start, tiny.encode("a", wrap=False)[0])
    assert not found.allowed(state).only_locations  # the label may go on
    for only in (True, True, True, False):
        state = found.advance(state, tiny.location_start)
        assert found.allowed(state).only_locations is only
        assert found.allowed(state) is found.allowed(state, found.slack)


def test_nothing_is_begun_that_cannot_be_finished(tiny: Tokenizer) -> None:
    """A box with its label takes five tokens, and the end one."""
    found = automaton_of("<OD>", tiny)
    counts = [int(found.allowed(found.start, left).mask.sum()) for left in range(1, 8)]
    assert counts[:5] == [1] * 5
    assert counts[5] == counts[6] == int(found.allowed(found.start).mask.sum())


def test_an_answer_that_had_to_stop_is_cut(tiny: Tokenizer) -> None:
    found = automaton_of("<OD>", tiny)
    ids = [*tiny.encode("cat" + "<loc_1>" * 4, wrap=False), tiny.eos]
    assert [found.cut(ids, len(ids) + more) for more in range(6)] == [True] * 5 + [False]


@dataclass(frozen=True)
class Unknown(TextGrammar):
    """A grammar of one's own: it may read anything."""


def test_which_questions_share_an_automaton(tiny: Tokenizer) -> None:
    known, size = tiny, len(tiny)
    assert automaton(Task("<X>", "x", Unknown("<X>")), None, known, size) is None
    assert automaton(TASKS["<OD>"], None, known, size) is automaton(TASKS["<DENSE_REGION_CAPTION>"], None, known, size)
    assert automaton(TASKS["<VQA>"], "why?", known, size) is automaton(TASKS["<CAPTION>"], None, known, size)
    boxes = automaton(TASKS["<OD>"], None, known, size)
    for caption in (None, "", "a <loc_5> b", "日本の車"):  # phrases that cannot be told are any words
        assert automaton(TASKS[GROUNDED], caption, known, size) is boxes


@pytest.mark.parametrize("query", ["<loc_5>", "<and>", "<loc_1000><and><s>"])
def test_a_list_without_labels_leaves_nothing_to_say(query: str, tiny: Tokenizer) -> None:
    found = automaton(TASKS[NAMED], query, tiny, len(tiny))
    assert np.flatnonzero(found.allowed(found.start).mask).tolist() == [tiny.eos]


def test_few_masks_are_kept(known: Tokenizer) -> None:
    """Answers may be written for ever, in any script."""
    found = automaton_of("<OD>", known)
    halves = [id_ for id_, said in known.word_bytes.items() if said[0] >= 0x80]
    masks = {id(found.allowed(found.advance(found.start, id_))) for id_ in halves}
    assert len(halves) > 60
    assert len(masks) <= 3  # visible, half a character, or a blank
