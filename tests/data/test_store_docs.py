"""Every piece of Python and every query of docs/store.md runs, on the store itself and on its Parquet files alike."""

import re
from pathlib import Path

import pytest

from open_florence.data.store import ImageRow, Row, Store
from open_florence.schema import Annotation, Region

duckdb = pytest.importorskip("duckdb")
lance = pytest.importorskip("lance")

PAGE = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store with something to be found by every query, and its Parquet files."""
    folder = tmp_path_factory.mktemp("docs")
    store = Store(folder / "LABELS" / "store", create=True)
    images = [
        ImageRow("a", "a.png", (9.0, 9.0), 2**64 - 1),
        ImageRow("b", "b.png", (9.0, 9.0), 2**64 - 8),
        ImageRow("c", "c.png", status="quarantined", reason="it is no image"),
        ImageRow("d", "d.png", (9.0, 9.0), 2**20 - 1),
    ]
    store.add_images("images/0", images)
    cat, dog = Region.box(0, 0, 4, 2, label="cat", score=0.5), Region.box(0, 0, 4, 3, label="dog", score=0.7)

    def found(source, *regions, round=1):
        return Annotation("<OD>", regions=regions, source=source, round=round)

    caption = Row("a", Annotation("<CAPTION>", "a cat and a dog", source="captioner@2"), "text", "annotate")
    store.commit("1/annotate/x@1/0", [Row("a", found("x@1", cat, cat), "region-text", "annotate"), caption])
    store.commit("1/annotate/y@1/0", [Row("a", found("y@1", dog), "region-text", "annotate")])
    parents = ("1/annotate/x@1/0#0", "1/annotate/y@1/0#0")
    store.commit(
        "1/filter/0",
        [
            Row("a", found("x@1", cat), "region-text", "filter", "kept", parents=parents),
            Row("a", found("y@1", dog), "region-text", "filter", "dropped", "a score below 0.8", parents[1:]),
        ],
    )
    store.commit("2/filter/0", [Row("b", found("x@1", dog, dog, round=2), "region-text", "filter", "kept")])
    store.tag("round-001")
    store.to_parquet(folder / "exported")
    return folder


@pytest.fixture(scope="module")
def connections(folder):
    """DuckDB with `annotations` and `images`: from the store as the page says it, and from Parquet."""
    on_store, on_parquet = duckdb.connect(), duckdb.connect()
    for name in ("annotations", "images"):
        table = lance.dataset(str(folder / "LABELS" / "store" / f"{name}.lance"), version="round-001")
        on_store.register(f"{name}_table", table)
        (query,) = re.findall(rf'{name} = duckdb\.sql\("(.*)"\)', PAGE)
        on_store.execute(f"CREATE VIEW {name} AS {query}")
        on_parquet.execute(f"CREATE VIEW {name} AS FROM '{folder}/exported/{name}.parquet'")
    yield on_store, on_parquet
    on_store.close()
    on_parquet.close()


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: " ".join(query.split())[:40])
def test_a_query_finds_the_same_in_both(connections, query):
    found, expected = (connection.sql(query).fetchall() for connection in connections)
    assert found
    assert found == expected


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        (
            "made_from",
            [("1/filter/0#0", "1/annotate/x@1/0#0", "x@1", 2), ("1/filter/0#0", "1/annotate/y@1/0#0", "y@1", 1)],
        ),
        ("AS area\n", [("x@1", "cat", 2, 0.5, 8.0), ("y@1", "dog", 1, 0.7, 12.0)]),
        ("AS share\n", [("cat", 1, 1.0), ("dog", 2, 1.0)]),
        ("AS iou", [("a", "x@1", "cat", "y@1", "dog", 8 / 12)] * 2),
        ("AS bits", [("a.png", "b.png", 3)]),
        ("NOT IN", [("d.png",)]),
    ],
)
def test_what_queries_find(connections, said, rows):
    (query,) = [query for query in QUERIES if said in query]
    assert connections[0].sql(query).fetchall() == rows


def test_the_python_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(code, "docs/store.md", "exec"), {})
    said = capsys.readouterr().out
    assert "Counter({('<OD>', 'candidate'): 1})" in said
    assert "001/annotate/detector@1.2/000000#0 3f2a" in said


def test_the_page_names_every_column():
    from open_florence.data.store_images import image_schema
    from open_florence.data.store_rows import annotation_schema, region_type

    columns = [*annotation_schema().names, *image_schema().names, *(field.name for field in region_type())]
    assert [name for name in columns if f"`{name}`" not in PAGE] == []
