"""Records of large JSON files: as far as the file is whole."""

import json
from pathlib import Path

import pytest

from open_florence.data.json_items import json_items
from open_florence.errors import OpenFlorenceError


def write(path: Path, text: str) -> Path:
    """A file of text."""
    path.write_text(text, encoding="utf-8")
    return path


def test_records_are_numbered_and_other_keys_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"info": {"a": [1]}, "a": ["x", {"y": 1}], "b": [3]}))
    problems: list[str] = []
    assert list(json_items(path, "a", problems.append)) == [(1, "x"), (2, {"y": 1})]
    assert list(json_items(write(path, '["x", "y"]'), None, problems.append)) == [(1, "x"), (2, "y")]
    assert problems == []


@pytest.mark.parametrize(
    ("text", "key", "count"),
    [
        ('{"a": [1, 2', "a", 2),
        ('{"a": [1, 2,', "a", 2),
        ('{"a": [1, 2, {"b": "c', "a", 2),
        ('{"a": [1, 2, nonsense]}', "a", 2),
        ('[{"b": 1}, {"b"', None, 1),
        ("", None, 0),
        ('{"a": 1}', None, 0),  # an object for a list
        ("[1]", "a", 0),  # a list for an object
    ],
)
def test_what_stands_before_the_damage_is_read(tmp_path: Path, text: str, key: str | None, count: int) -> None:
    path = write(tmp_path / "a.json", text)
    problems: list[str] = []
    assert len(list(json_items(path, key, problems.append))) == count
    assert len(problems) == 1
    assert problems[0].startswith(f"{path} is left out after record {count}: ")
    assert "\n" not in problems[0]


def test_no_records_is_worth_a_word(tmp_path: Path) -> None:
    problems: list[str] = []
    assert list(json_items(write(tmp_path / "a.json", '{"b": []}'), "a", problems.append)) == []
    assert list(json_items(write(tmp_path / "b.json", "[]"), None, problems.append)) == []
    assert problems == [f"{tmp_path / 'a.json'} holds no records at 'a'", f"{tmp_path / 'b.json'} holds no records"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match=r"nowhere\.json cannot be read: No such file"):
        list(json_items(tmp_path / "nowhere.json", None, print))
