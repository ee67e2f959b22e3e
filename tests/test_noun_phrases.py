"""Noun phrases and complexity: captions read by eye, the scenes' own, and a document in spaCy's shape."""

import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence import noun_phrases as module
from open_florence.noun_phrases import Complexity, complexity, is_blacklisted, noun_phrases, parser_name, singular
from open_florence.scenes import make_scene
from open_florence.scenes.captions import brief, detailed, more_detailed
from open_florence.scenes.phrases import plural
from open_florence.scenes.vocabulary import SHAPES


@pytest.fixture(autouse=True)
def _rules(monkeypatch):
    """The rules, also where spaCy and a model are installed."""
    monkeypatch.setattr(module, "_spacy", lambda: None)


EXAMPLES = {
    "The image shows two red striped stars and a blue ring on a noisy grey background.": [
        "two red striped stars",
        "a blue ring",
        "a noisy grey background",
    ],
    "A black and white cat that is standing on all fours and has an elephant hat.": [
        "A black and white cat",
        "all fours",
        "an elephant hat",
    ],
    "Several men stand outside around a motorcycle.": ["Several men", "a motorcycle"],
    "A smiling man holds a bunch of freshly picked bananas": ["A smiling man", "a bunch of freshly picked bananas"],
    "A man standing with his motorcycle outside of a repair shop.": ["A man", "his motorcycle", "a repair shop"],
    "two covered motorcycles in a parking lot": ["two covered motorcycles", "a parking lot"],
    "an image of a car in the snow that hit a pole": ["a car", "the snow", "a pole"],
    "A car that has slid into a light pole on a snow covered road.": ["A car", "a light pole", "a snow covered road"],
    "A bowl of soup next to a trash can": ["A bowl", "soup", "a trash can"],
    "A tall stack of suitcases rests against a wall": ["A tall stack of suitcases", "a wall"],
    "An old toilet painted red with a wooden lid.": ["An old toilet", "a wooden lid"],
    "an orange and white cat next to an orange": ["an orange and white cat", "an orange"],
    "a fish on a table with a cable": ["a fish", "a table", "a cable"],
    "An orange and a very small, dark bathroom": ["An orange", "a very small, dark bathroom"],
    'A sign that says "two dogs for sale" on the left': ["A sign"],
    "It is next to them.": [],
    "": [],
}


@pytest.mark.parametrize(("text", "phrases"), EXAMPLES.items())
def test_phrases_of_captions(text, phrases):
    assert [phrase.text for phrase in noun_phrases(text)] == phrases


def test_the_head_is_what_the_phrase_is_about():
    heads = {
        phrase.text: phrase.head for phrase in noun_phrases("A row of parked motorcycles near the green stop sign")
    }
    assert heads == {"A row of parked motorcycles": "motorcycles", "the green stop sign": "sign"}


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_every_object_that_a_scenes_caption_names_is_found(seed):
    scene = make_scene(seed)
    for caption in (brief, detailed, more_detailed):
        passage = caption(scene)
        found = [phrase.span for phrase in noun_phrases(passage.text)]
        assert {span for span, _ in passage.phrases} <= set(found)
        assert len(found) <= len(passage.phrases) + 4  # the background, the relation's two, "another object"


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_any_text_is_read(text):
    _check_spans(text)


_WORDS = [
    "a",
    "the",
    "two",
    "3",
    "black",
    "red",
    "orange",
    "and",
    ",",
    ".",
    "cat",
    "cats",
    "can",
    "bunch",
    "of",
    "next",
]
_WORDS += ["sitting", "parked", "stands", "is", "that", "which", "on", "to", "quickly", "'s", '"stop"']


@given(st.lists(st.sampled_from(_WORDS), max_size=20).map(" ".join))
def test_phrases_are_parts_of_the_text_in_order(text):
    _check_spans(text)


def _check_spans(text):
    end = 0
    for phrase in noun_phrases(text):
        assert end <= phrase.span[0] < phrase.span[1] <= len(text)
        assert text[slice(*phrase.span)] == phrase.text
        assert phrase.head in phrase.text
        end = phrase.span[1]
    measured = complexity(text)
    assert measured.objects == len(noun_phrases(text))
    assert (measured.action_degree == 0) <= (measured.actions <= 1)


def test_complexity_counts_objects_actions_and_edges():
    assert complexity("cat") == Complexity(1, 0, 0, 0)
    assert complexity("a cat") == Complexity(1, 0, 1, 0)
    plain, rich = (
        complexity("a cat on a mat"),
        complexity("a black cat with a hat sitting on a red mat and holding a fish"),
    )
    assert plain == Complexity(2, 0, 2, 0)  # cat: a, on; mat: a, on
    assert (rich.objects, rich.actions) == (4, 2)
    assert rich.object_degree > plain.object_degree
    assert rich.action_degree >= 2


def test_a_caption_says_more_the_more_detailed_it_is():
    scene = make_scene(4)
    measured = [complexity(caption(scene).text) for caption in (brief, detailed, more_detailed)]
    assert measured[0].objects <= measured[1].objects < measured[2].objects


def test_most_captions_of_people_name_something(data_folder):
    path = data_folder / "coco_captions_val2017" / "captions.jsonl"
    if not path.exists():
        pytest.skip(f"no captions at {path}")
    with path.open("rb") as file:
        captions = [json.loads(line)["caption"] for line, _ in zip(file, range(1000), strict=False)]
    measured = [complexity(caption) for caption in captions]
    assert sum(one.objects >= 2 for one in measured) > 930
    assert 2.5 < sum(one.objects for one in measured) / len(measured) < 3.8
    assert 0.5 < sum(one.actions for one in measured) / len(measured) < 1.3


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("Crosses", "cross"),
        ("boxes", "box"),
        ("berries", "berry"),
        ("knives", "knife"),
        ("leaves", "leaf"),
        ("houses", "house"),
        ("buses", "bus"),
        ("men", "man"),
        ("people", "person"),
        ("glass", "glass"),
        ("bus", "bus"),
        ("tomatoes", "tomato"),
        ("ties", "tie"),
        ("sheep", "sheep"),
        ("cactus", "cactus"),
    ],
)
def test_singular(word, one):
    assert singular(word) == one
    assert singular(one) == one


@pytest.mark.parametrize("name", SHAPES)
def test_the_scenes_plurals_go_back(name):
    assert singular(plural(name)) == name


def test_the_blacklist_is_read_without_determiners():
    assert is_blacklisted("The image")
    assert is_blacklisted("it")
    assert is_blacklisted("each other")
    assert is_blacklisted("the other objects")
    assert not is_blacklisted("an image sensor")
    assert is_blacklisted("the thing", frozenset({"thing"}))


def test_a_parser_of_spacys_is_used_where_there_is_one(monkeypatch):
    """The same answers from a document in spaCy's shape: "a cat sits", parsed as it would parse it."""
    cat, sits, mark = (SimpleNamespace(i=i, is_punct=i == 3, pos_=p, text=t, children=[]) for i, p, t in _PARSED)
    article = SimpleNamespace(i=0, is_punct=False, pos_="DET", text="a", children=[], head=cat)
    cat.children, cat.head, sits.children, sits.head, mark.head = [article], sits, [cat, mark], sits, sits
    document = type("Document", (list,), {"noun_chunks": property(lambda self: self.chunks)})(
        [article, cat, sits, mark]
    )
    document.chunks = [SimpleNamespace(text="a cat", start_char=0, end_char=5, root=cat)]
    parser = type("Parser", (), {"__call__": lambda self, text: document})()
    parser.meta, parser.pipe_names = {"lang": "en", "name": "core_web_sm", "version": "3.8.0"}, ["parser"]
    models = ["de_core_news_sm", "en_core_web_sm"]
    fake = SimpleNamespace(
        util=SimpleNamespace(get_installed_models=lambda: models),
        load=lambda name, exclude: parser if name == models[1] else None,
    )
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "spacy", fake)
    module._spacy.cache_clear()
    try:
        assert parser_name() == "spacy:en_core_web_sm@3.8.0"
        assert [(p.text, p.span, p.head) for p in noun_phrases("a cat sits.")] == [("a cat", (0, 5), "cat")]
        assert complexity("a cat sits.") == Complexity(1, 1, 2, 1)
    finally:
        module._spacy.cache_clear()


_PARSED = ((1, "NOUN", "cat"), (2, "VERB", "sits"), (3, "PUNCT", "."))


def test_without_spacy_the_rules_read(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "spacy", None)
    module._spacy.cache_clear()
    try:
        assert parser_name() == "rules"
        assert noun_phrases("a cat")
    finally:
        module._spacy.cache_clear()


@given(st.from_regex(r"[a-z]{0,6}(s|es|ses|uses|ies|ves)?", fullmatch=True))
def test_any_word_has_a_singular(word: str) -> None:
    assert len(singular(word)) <= len(word) + 2


def test_short_words_that_look_like_plurals() -> None:
    assert [singular(w) for w in ("uses", "buses", "houses", "causes")] == ["use", "bus", "house", "cause"]
