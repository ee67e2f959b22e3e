"""The store: shards, notes, tags, selections and counts. Faults are in test_store_faults.py."""

import os
import shutil
from dataclasses import replace

import pytest

from open_florence.data import store_table
from open_florence.data.store import ImageRow, Row, Store
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", create=True)


def row(image="a", task="<OD>", labels=(), **more):
    said = {name: more.pop(name) for name in ("source", "round") if name in more}
    boxes = tuple(Region.box(0, 0, 1, 1, label=label) for label in labels)
    return Row(
        image,
        Annotation(task, regions=boxes, **said),
        **{"level": "region-text" if labels else "text", "step": "annotate", **more},
    )


def ids(rows):
    return sorted(one.id for one in rows)


def test_a_shard_is_committed_once(store):
    assert store.commit("1/annotate/x/0", [row("a"), row("b")], {"failed": {"c": "it's broken"}})
    assert not store.commit("1/annotate/x/0", [row("z")])
    assert not Store(store.folder).commit("1/annotate/x/0", [row("z")])
    assert [(one.id, one.image) for one in store.rows()] == [("1/annotate/x/0#0", "a"), ("1/annotate/x/0#1", "b")]
    assert store.notes() == {"1/annotate/x/0": {"failed": {"c": "it's broken"}}}


def test_a_shard_without_rows_is_known_and_notes_are_no_rows(store):
    assert store.commit("empty", [])
    assert not store.commit("empty", [row()])
    assert (list(store.rows()), store.tally(), store.notes()) == ([], {}, {"empty": {}})


def test_what_others_commit_is_seen_at_once(store):
    other = Store(store.folder)
    other.commit("a", [row("a")])
    assert [one.image for one in store.rows()] == ["a"]
    assert not store.commit("a", [])
    other.compact()
    store.commit("b", [row("b")])
    assert sorted(one.image for one in other.rows()) == ["a", "b"]


@pytest.mark.parametrize("merged", [False, True])
def test_rows_are_selected_by_values_one_of_which_must_hold(store, merged):
    store.commit("s/0", [row("a", source="x@1", round=1), row("it's", "<CAPTION>", status="dropped")])
    store.commit("s/1", [row("a", step="filter", labels=["cat"], round=2)])
    if merged:
        store.compact()
    cases = {
        ("s/0#0", "s/1#0"): {"image": "a"},
        ("s/0#0",): {"image": {"a"}, "source": "x@1"},
        ("s/0#1",): {"image": ("it's", "nobody")},
        ("s/1#0",): {"step": "filter", "level": "region-text", "round": 2},
        ("s/0#0", "s/0#1"): {"shard": "s/0"},
        ("s/0#0", "s/0#1", "s/1#0"): {"round": [0, 1, 2], "status": ["candidate", "dropped"]},
        (): {"image": []},
    }
    for expected, where in cases.items():
        assert ids(store.rows(**where)) == list(expected), where
        assert store.tally(**where).total() == len(expected)
    assert ids(store.rows(shard=(name for name in ("s/1", "s/2")))) == ["s/1#0"]
    assert ids(store.rows(shard="s/2")) == []


def test_an_unknown_column_is_one_sentence(store):
    with pytest.raises(OpenFlorenceError, match=r"rows are selected by image, .*not by picture"):
        store.rows(picture="a")
    with pytest.raises(OpenFlorenceError, match=r"rows are counted by image, .*not by colour"):
        store.tally("task", "colour")


def test_counts(store):
    store.commit(
        "0", [row("a", labels=["cat", "cat", "dog"]), row("a", "<CAPTION>"), row("b", labels=["cat"], round=1)]
    )
    store.commit("1", [row("b", "<CAPTION>", status="dropped", reason="too long")])
    assert store.tally() == {(): 4}
    assert store.tally("task") == {("<OD>",): 2, ("<CAPTION>",): 2}
    assert store.tally("image", "round") == {("a", 0): 2, ("b", 1): 1, ("b", 0): 1}
    assert store.tally("reason", status="dropped") == {("too long",): 1}
    assert store.tally("label") == {("cat",): 3, ("dog",): 1}
    assert store.tally("round", "label", image="a") == {(0, "cat"): 2, (0, "dog"): 1}


def test_a_tag_is_both_tables_as_they_were(store):
    store.commit("0", [row("a")])
    store.add_images("i0", [ImageRow("a", "a.png")])
    store.tag("round-1")
    store.commit("1", [row("b")])
    store.add_images("i1", [ImageRow("b", "b.png")])
    for _ in range(2):
        assert ids(store.rows(at="round-1")) == ["0#0"]
        assert ids(store.rows(at="round-1", shard=["0", "1"])) == ["0#0"]
        assert store.tally("image", at="round-1") == {("a",): 1}
        assert [image.id for image in store.images(at="round-1")] == ["a"]
        store.compact()
        store = Store(store.folder)
    store.tag("round-2")
    assert store.tags() == ["round-1", "round-2"]
    assert ids(store.rows(at="round-2")) == ["0#0", "1#0"]


def test_a_tag_keeps_its_state(store):
    store.commit("0", [row()])
    store.tag("r")
    store.tag("r")
    store.commit("1", [row()])
    with pytest.raises(OpenFlorenceError, match="a tag r already"):
        store.tag("r")
    with pytest.raises(OpenFlorenceError, match="no tag s; there are: r"):
        list(store.rows(at="s"))
    for name in ("", "a b", "../r", ".r"):
        with pytest.raises(OpenFlorenceError, match="a tag is made of"):
            store.tag(name)


def test_a_tag_that_was_not_finished_is_none_and_can_be_given_again(store):
    store.commit("0", [row()])
    store.tag("r")
    (store.folder / "tags" / "r.json").unlink()  # what a process leaves that is killed before the last step
    store.commit("1", [row()])
    assert store.tags() == []
    store.tag("r")
    assert ids(store.rows(at="r")) == ["0#0", "1#0"]


def test_many_commits_merge_their_files(store, monkeypatch):
    monkeypatch.setattr("open_florence.data.store.LOOSE", 5)
    reading = None
    for number in range(12):
        store.commit(str(number), [row(str(number))])
        if number == 2:
            reading = store.rows()
            next(reading)
    versions = store.folder / "annotations.lance" / "_versions"
    assert len(list(versions.glob("*.manifest"))) > 12  # somebody is reading, so all are kept
    assert len(list(reading)) == 2
    assert ids(store.rows()) == ids(Store(store.folder).rows()) == sorted(f"{number}#0" for number in range(12))
    store.compact()
    files = list((store.folder / "annotations.lance" / "data").iterdir())
    assert len(files) < 5
    assert len(list(versions.glob("*.manifest"))) < 3


def test_a_store_can_be_read_where_nothing_can_be_written(store, monkeypatch):
    store.commit("0", [row()])

    def refuse(path, flags, *_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store_table.os, "open", refuse)
    assert len(list(Store(store.folder).rows())) == 1
    with pytest.raises(OpenFlorenceError, match="cannot be written: Permission denied"):
        store.commit("1", [])


def test_no_store_and_a_damaged_store(store, tmp_path):
    with pytest.raises(OpenFlorenceError, match="there is no store in"):
        Store(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(OpenFlorenceError, match="file/store cannot be made"):
        Store(tmp_path / "file" / "store", create=True)
    store.commit("0", [row()])
    for path in (store.folder / "annotations.lance" / "data").iterdir():
        os.truncate(path, 10)
    with pytest.raises(OpenFlorenceError, match=r"annotations\.lance cannot be read") as caught:
        list(Store(store.folder).rows())
    assert "\n" not in str(caught.value)


def test_a_store_that_was_made_by_half_is_finished(store):
    shutil.rmtree(store.folder / "annotations.lance")
    (store.folder / "annotations.lance").mkdir()
    again = Store(store.folder, create=True)
    assert again.commit("0", [row()])
    assert ids(Store(store.folder, create=True).rows()) == ["0#0"]


def test_parquet(store, tmp_path):
    import pyarrow.parquet

    store.to_parquet(tmp_path / "empty")
    store.commit("0", [row("a", labels=["cat"]), row("b")])
    store.add_images("i", [ImageRow("a", "a.png", (4.0, 3.0), 2**63)])
    store.tag("t")
    store.commit("1", [row("c")])
    for folder, tag, expected in (
        ("empty", None, []),
        ("t", "t", ["0#0", "0#1"]),
        ("now", None, ["0#0", "0#1", "1#0"]),
    ):
        if folder != "empty":
            store.to_parquet(tmp_path / folder, at=tag)
        table = pyarrow.parquet.read_table(tmp_path / folder / "annotations.parquet")
        assert table["id"].to_pylist() == expected
        assert "note" not in table.column_names
        images = pyarrow.parquet.read_table(tmp_path / folder / "images.parquet")
        assert images["phash"].to_pylist() == ([2**63] if expected else [])
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["annotations.parquet", "images.parquet"]


def test_parents_are_found_by_their_ids(store):
    store.commit("c", [row("a"), row("a")])
    found = ids(store.rows(shard="c"))
    store.commit("k", [replace(row("a"), parents=tuple(found), status="kept")])
    assert [one.parents for one in store.rows(status="kept")] == [("c#0", "c#1")]
