"""The tokenizer against the published ids, against recorded tokenizations, and against the library's own decoder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.tokenizer import BASE_TOKENS, FLORENCE_TOKENS, Tokenizer

WORDS = st.text(st.characters(codec="utf-8"), max_size=40)
TEXTS = ["a red car and a blue car", "Two cafés beside 日本 <loc_5><loc_6>", "What is the text in the image?"] * 20


@pytest.fixture(scope="module")
def folder(data_folder: Path) -> Path:
    return data_folder / "florence2_tokenizer"


@pytest.fixture(scope="module")
def published(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder / "microsoft_florence2_large")


@pytest.fixture(scope="module")
def pieces(folder: Path) -> Tokenizer:
    """The same vocabulary read from vocab.json, merges.txt and added_tokens.json."""
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return Tokenizer.train(TEXTS, 400)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_ids_are_the_published_ones(published, pieces, folder):
    added = json.loads((folder / "added_tokens.json").read_text())
    for tokenizer in (published, pieces):
        assert (tokenizer.bos, tokenizer.pad, tokenizer.eos, tokenizer.location_start) == (0, 1, 2, 50269)
        assert len(tokenizer) == 51289
        assert tokenizer.image_token_id is None
        assert tokenizer.encode("".join(FLORENCE_TOKENS), wrap=False) == list(range(50265, 51289))
        assert all(tokenizer.encode(token, wrap=False) == [id_] for token, id_ in added.items())
        assert tokenizer.encode("<s><pad></s><unk><mask>", wrap=False) == [0, 1, 2, 3, 50264]
        assert tokenizer.location_ids == range(50269, 51269)


def test_recorded_tokenizations(published, pieces, folder):
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    cases = lines(folder / "tokenization_cases.jsonl")
    assert len(cases) == 17
    for case in cases:
        assert case["text_pair"] is None  # pairs of texts never occur in this model
        ids = [vocabulary[token] for token in case["tokens"]]
        for tokenizer in (published, pieces):
            assert tokenizer.encode(case["text"], wrap=False) == ids
            assert tokenizer.encode(case["text"]) == case.get("bart_ids", [0, *ids, 2])
            assert tokenizer.decode(ids) == case["text"]
            if "bart_ids" in case:
                assert tokenizer.decode(case["bart_ids"]) == case["decoded"]


def test_prompts_and_texts_of_the_original_processor(published, data_folder):
    recorded = json.loads((data_folder / "florence2_original_reference" / "prompts.json").read_text(encoding="utf-8"))
    prompts = [row for row in recorded["prompts"] if "prompt" in row]
    assert len(prompts) > 60
    for row in prompts:
        assert published.encode(row["prompt"]) == row["input_ids"]
    for row in recorded["decode"]:
        text, spans = published.decode_with_spans(row["ids"])
        assert (text, [list(span) for span in spans]) == tuple(row["with_spans"])
        assert published.decode(row["ids"]) == row["text_no_cleanup"]


@pytest.mark.parametrize("name", ["published", "pieces", "trained"])
def test_text_comes_back(name, request):
    tokenizer = request.getfixturevalue(name)

    @settings(max_examples=200, deadline=None)
    @given(WORDS)
    def comes_back(text: str) -> None:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == f"<s>{text}</s>"
        assert tokenizer.decode(tokenizer.encode(text, wrap=False)) == text
        assert tokenizer.decode_with_spans(ids)[0] == f"<s>{text}</s>"

    comes_back()


@pytest.mark.parametrize("name", ["published", "trained"])
def test_any_ids_decode_as_the_library_decodes_them(name, request, tmp_path):
    """And each id's span is exactly its characters: wherever two ids share none, the text falls apart there."""
    tokenizer = request.getfixturevalue(name)
    tokenizer.save(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    # bytes that are no character by themselves are frequent among the ids drawn, so that some join and some do not
    broken = [id_ for id_ in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([id_])]
    ids_of_all_kinds = st.lists(st.integers(0, len(tokenizer) - 1) | st.sampled_from(broken), max_size=12)

    @settings(max_examples=300, deadline=None)
    @given(ids_of_all_kinds)
    def decodes(ids: list[int]) -> None:
        text, spans = tokenizer.decode_with_spans(ids)
        assert text == tokenizer.decode(ids) == library.decode(ids, skip_special_tokens=False)
        reached = 0
        for place, (start, end) in enumerate(spans):
            assert start < end
            assert start in (reached, reached - 1)  # nothing is left out; one character at most is shared
            if start == reached:
                assert tokenizer.decode(ids[:place]) == text[:start]
                assert tokenizer.decode(ids[place:]) == text[start:]
            reached = end
        assert reached == len(text)

    decodes()


def test_a_character_belongs_to_each_id_that_holds_its_bytes(published):
    ids = published.encode("ah博推zz", wrap=False)  # ah, 2 + 1 bytes, 3 single bytes, zz
    assert published.decode_with_spans(ids) == ("ah博推zz", [(0, 2), (2, 3), (2, 3), (3, 4), (3, 4), (3, 4), (4, 6)])
    cut = published.decode_with_spans([*ids[:5], published.eos])
    assert cut == ("ah博\ufffd</s>", [(0, 2), (2, 3), (2, 3), (3, 4), (3, 4), (4, 8)])


def test_ids_beyond_the_vocabulary_stand_for_nothing(published):
    assert published.decode([0, 51327, 102, 2]) == "<s>a</s>"
    assert published.decode_with_spans([0, 51327, 102, 2])[1] == [(0, 3), (3, 3), (3, 4), (4, 8)]
    assert published.decode_with_spans([]) == ("", [])


def test_native_upload_knows_its_image_token(published, tmp_path):
    published.save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.add_special_tokens(["<image>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    native = Tokenizer.from_folder(tmp_path)
    assert (native.image_token_id, len(native)) == (51289, 51290)
    assert native.encode("What?<image>") == [0, 2264, 116, 51289, 2]


def test_vocabulary_files_without_the_added_ones(folder, tmp_path, published):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(folder / name)
    bare = Tokenizer.from_folder(tmp_path)
    assert len(bare) == 51289
    assert bare.encode("a car<loc_7><poly>") == published.encode("a car<loc_7><poly>")


def test_settings_left_by_a_training_script_are_ignored(published, tmp_path):
    published.save(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_padding(length=32)
    backend.enable_truncation(4)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = "What is the text in the image?"
    assert Tokenizer.from_folder(tmp_path).encode(text) == published.encode(text)


def test_trained_vocabulary_has_the_published_form(trained):
    assert trained.encode("".join(BASE_TOKENS), wrap=False) == [0, 1, 2, 3]
    mask = trained.encode("<mask>", wrap=False)[0]
    assert trained.encode("".join(FLORENCE_TOKENS), wrap=False) == list(range(mask + 1, mask + 1025))
    assert len(trained) == mask + 1025 <= 400 + 1024
    assert len(trained.encode(" a red car", wrap=False)) == 3  # frequent words are one token
    assert "loc" not in {trained.decode([id_]).strip("_") for id_ in range(4, mask)}  # markup is not learnt from


def test_training_is_deterministic(trained, tmp_path):
    """The same in another process, with another hash seed and more threads."""
    script = f"""
from open_florence.tokenizer import Tokenizer
Tokenizer.train({TEXTS!r}, 400).save({str(tmp_path / "other")!r})
"""
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "4"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    Tokenizer.train(iter(TEXTS), 400).save(tmp_path)
    again = (tmp_path / "tokenizer.json").read_bytes()
    assert (tmp_path / "other" / "tokenizer.json").read_bytes() == again
    assert Tokenizer.from_folder(tmp_path).encode("a red car", wrap=False) == trained.encode("a red car", wrap=False)


@pytest.mark.parametrize("name", ["published", "trained"])
def test_transformers_reads_what_is_saved(name, request, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = request.getfixturevalue(name)
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a red car<loc_5>", " Two  cafés, 日本\n", "<poly>x<sep></poly>", ""):
        assert theirs(text).input_ids == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == tokenizer.decode(tokenizer.encode(text))
    assert theirs.image_token_id == len(tokenizer)  # it appends the token it needs


def broken(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def with_vocabulary(folder: Path, tokens: list[str]) -> Path:
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return broken(folder, "vocab.json", json.dumps({token: id_ for id_, token in enumerate(tokens)}))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path, "holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt"),
        (lambda path: path / "absent", "holds no tokenizer"),
        (lambda path: broken(path, "tokenizer.json", "{}"), "cannot be used"),
        (lambda path: broken(path, "tokenizer.json", "not JSON"), "cannot be used"),
        (lambda path: broken(path, "vocab.json", "{}"), "holds no tokenizer"),
        (lambda path: with_vocabulary(path, ["<pad>", "<s>", "</s>", "<unk>", "a"]), "not its ids 0, 1 and 2"),
        (lambda path: with_vocabulary(path, [*BASE_TOKENS, "<loc_3>", "a"]), "do not follow each other"),
        (
            lambda path: broken(with_vocabulary(path, [*BASE_TOKENS, "a"]), "added_tokens.json", '{"<od>": 90}'),
            "wants id 90 for <od>",
        ),
    ],
)
def test_folders_without_a_tokenizer_are_refused_in_a_sentence(prepare, message, tmp_path):
    folder = prepare(tmp_path)
    with pytest.raises(OpenFlorenceError, match=message) as refusal:
        Tokenizer.from_folder(folder)
    assert str(folder) in str(refusal.value)


def test_what_cannot_be_done_is_said(trained):
    with pytest.raises(OpenFlorenceError, match="at least 261 ids, not 260"):
        Tokenizer.train(TEXTS, 260)
    with pytest.raises(OpenFlorenceError, match="lone surrogate"):
        trained.encode("half a \ud83d")
    with pytest.raises(OpenFlorenceError, match="lone surrogate"):
        Tokenizer.train(["half a \ud83d"], 300)
