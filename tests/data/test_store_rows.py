"""Rows of the store and their columns: exact inverses, for whatever an annotation can hold."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.data.store import LEVELS, STATUSES, Row, Store
from open_florence.data.store_rows import annotation_rows, annotation_table
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(allow_nan=False)
scores = st.none() | st.floats(0, 1)
whole = st.integers(-(2**31), 2**31 - 1)
spans = st.none() | st.tuples(whole, whole)


@st.composite
def regions(draw, axes=None):
    axes = axes or draw(st.sampled_from([1, 2]))
    point = st.tuples(*[numbers] * axes)
    kind = draw(st.sampled_from(["box", "quad", "polygon"]))
    if kind == "polygon":
        parts = tuple(tuple(part) for part in draw(st.lists(st.lists(point, max_size=5), max_size=3)))
    else:
        count = {"box": 2, "quad": 4}[kind]
        parts = (tuple(draw(st.lists(point, min_size=count, max_size=count))),)
    return Region(kind, parts, draw(texts), draw(scores), draw(scores), draw(spans))


annotations = st.builds(
    Annotation,
    texts,
    texts,
    st.lists(regions(), max_size=4).map(tuple),
    st.none() | texts | regions(),
    texts,
    whole,
    scores,
    st.booleans(),
    whole,
)
rows = st.builds(
    Row,
    texts.filter(bool),
    annotations,
    st.sampled_from(LEVELS),
    texts,
    st.sampled_from(STATUSES),
    texts,
    st.lists(texts, max_size=3).map(tuple),
)


@settings(max_examples=40)
@given(st.lists(rows, max_size=6))
def test_columns_are_the_exact_inverse(several):
    table = annotation_table("s", several, None)
    read = [row for batch in table.slice(0, len(several)).to_batches() for row in annotation_rows(batch)]
    assert [repr(replace(row, id="")) for row in read] == [repr(row) for row in several]  # -0.0 is not 0.0
    assert [row.id for row in read] == [f"s#{place}" for place in range(len(several))]
    assert table.num_rows == len(several) + 1


@settings(max_examples=15)
@given(st.lists(st.lists(rows, max_size=4), min_size=1, max_size=4), st.integers(0, 4))
def test_what_is_committed_is_read_the_same_before_and_after_files_are_merged(tmp_path_factory, shards, merge_after):
    store = Store(tmp_path_factory.mktemp("store"), create=True)
    for number, several in enumerate(shards):
        assert store.commit(str(number), several)
        if number == merge_after:
            store.compact()
    expected = {f"{n}#{place}": repr(replace(row, id="")) for n, s in enumerate(shards) for place, row in enumerate(s)}
    assert {row.id: repr(replace(row, id="")) for row in store.rows()} == expected
    store.compact()
    assert {row.id: repr(replace(row, id="")) for row in store.rows()} == expected
    for name in {row.image for several in shards for row in several}:
        found = [row.id for row in store.rows(image=name)]
        assert sorted(found) == sorted(
            f"{n}#{p}" for n, s in enumerate(shards) for p, r in enumerate(s) if r.image == name
        )


def test_a_box_is_four_columns_and_every_other_region_has_its_box_beside_it():
    shapes = (
        Region.box(1, 2, 3, 4),
        Region.box(5, 6),
        Region("polygon", (((1.0, 9.0), (3.0, 2.0), (2.0, 4.0)), ((8.0, 5.0),))),
        Region("polygon", ()),
    )
    table = annotation_table("s", [Row("a", Annotation("<OD>", regions=shapes), "region-text", "annotate")], None)
    lines = table["regions"][0].as_py()
    assert [[line[name] for name in ("x1", "y1", "x2", "y2")] for line in lines] == [
        [1, 2, 3, 4],
        [5, None, 6, None],
        [1, 2, 8, 9],
        [None] * 4,
    ]
    assert [line["parts"] for line in lines] == [None, None, [[1, 9, 3, 2, 2, 4], [8, 5]], []]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("a", Annotation("<OD>"), "regions", "annotate"), "the level of a row about a is one of text"),
        (Row("a", Annotation("<OD>"), "text", "annotate", "good"), "the status of a row about a is one of candidate"),
        (Row("", Annotation("<OD>"), "text", "annotate"), "names none"),
        (Row("a", Annotation("<OD>", "\ud800"), "text", "annotate"), "the shard s cannot be written"),
        (Row("a", Annotation("<OD>", round=2**40), "text", "annotate"), "the shard s cannot be written"),
        (
            Row("a", Annotation("<OD>", regions=(Region("polygon", (((1.0,), (1.0, 2.0)),)),)), "text", "annotate"),
            "as many numbers as each other",
        ),
    ],
)
def test_a_row_that_cannot_be_kept_is_one_sentence_and_nothing_is_written(tmp_path, row, said):
    store = Store(tmp_path, create=True)
    with pytest.raises(OpenFlorenceError, match=said):
        store.commit("s", [Row("b", Annotation("<OD>"), "text", "annotate"), row])
    assert store.notes() == {}
