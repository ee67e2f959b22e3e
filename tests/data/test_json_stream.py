"""JSON read in pieces: the same values as `json` gives, whatever the size of the pieces, and errors that say where."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data import json_stream
from open_florence.data.json_stream import stream, stream_list

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def pairs(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """What `stream` should give."""
    return [
        (key, element) for key, value in document.items() for element in (value if isinstance(value, list) else [value])
    ]


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.sampled_from([1, 2, 7, 1000]), st.sampled_from([None, 2]))
def test_the_same_values_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], chunk: int, indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.json"
    path.write_text(json.dumps(document, indent=indent), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        assert list(stream(path)) == pairs(document)
        path.write_text(json.dumps(list(document.values()), indent=indent), encoding="utf-8")
        assert list(stream_list(path)) == list(document.values())


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_what_other_programs_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf\n{"a": [NaN, -Infinity, 1e400], "b" :[ ], "c":-12.5e-1\r\n}\n')
    values = list(stream(path))
    assert values[1:] == [("a", float("-inf")), ("a", float("inf")), ("c", -1.25)]
    assert values[0][1] != values[0][1]


BROKEN = [
    ("", "the end of the file at character 0"),
    ("[1]", "'[' at character 0"),
    ('{"a": [1, 2', "the end of the file at character 11"),
    ('{"a": [1 2]}', "'2' at character 9"),
    ('{"a": [1, }', "Expecting value at character 10"),
    ('{"a" 1}', "'1' at character 5"),
    ('{1: 2}', "no key before character 2"),
    ('{"a": "b', "Unterminated string"),
    ('{"a": tru}', "Expecting value at character 6"),
    ('{"a": 1} x', "'x' after its end, at character 9"),
    ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BROKEN, ids=range(len(BROKEN)))
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=said.replace("[", r"\[")):
        list(stream(path))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="decode"):
        list(stream(path))


def test_a_mistake_early_in_a_large_file_is_found_without_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b" 1}, ' + ", ".join(["123456789"] * 2_000_000) + "]}")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="Expecting ':' delimiter at character 12"):
            list(stream(path))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000  # the file has 22 MB
    finally:
        tracemalloc.stop()


def test_a_look_at_the_head(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [' + ", ".join(["123456789"] * 500_000) + "], 'b': nonsense}")
    count = sum(1 for _ in stream(path, characters=10_000))
    assert 0 < count < 200_000
