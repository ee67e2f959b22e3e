"""Pickles as data: what Python 2 wrote is read, and nothing in a file is ever run."""

import datetime
import functools
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.data.plain_pickle import load_plain_pickle
from open_florence.errors import OpenFlorenceError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50)
@given(PLAIN, st.integers(0, 5))
def test_plain_data_comes_back(tmp_path_factory: pytest.TempPathFactory, value: object, protocol: int) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.p"
    path.write_bytes(pickle.dumps(value, protocol))
    assert load_plain_pickle(path) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (b"(lp0\n(dp1\nS'sent'\np2\nS'a caf\\xe9'\np3\nsS'ids'\np4\n(lp5\nI1\naL2L\naI01\naNasa.", "protocol 0"),
        (b"\x80\x02]q\x01}q\x02(U\x04sentq\x03U\x06a caf\xe9q\x04U\x03idsq\x05]q\x06(K\x01\x8a\x01\x02\x88Neua.", "2"),
    ],
)
def test_strings_of_python_2(tmp_path: Path, written: bytes, value: str) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(written)
    assert load_plain_pickle(path) == [{"sent": "a café", "ids": [1, 2, True, None]}], value


class Runs:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs(tmp_path: Path, protocol: int) -> None:
    ran = tmp_path / "ran"
    calls = [
        Runs(os.system, f"touch {ran}"),
        Runs(eval, f"open({str(ran)!r}, 'w').close()"),
        Runs(Path.touch, ran),
        Runs(functools.partial, open, str(ran), "w"),
        Runs(getattr, str, "upper"),
    ]
    for number, call in enumerate(calls):
        path = tmp_path / f"{number}.p"
        path.write_bytes(pickle.dumps([{"split": "train"}, call], protocol))
        with pytest.raises(OpenFlorenceError, match=r"\.p is refused: it asks for .*, and only plain data is read"):
            load_plain_pickle(path)
    assert not ran.exists()
    pickle.loads((tmp_path / "1.p").read_bytes())
    assert ran.exists(), "the file was harmless, so this test showed nothing"


HAND_MADE = [
    b"cos\nsystem\n(S'touch ran'\ntR.",  # GLOBAL, REDUCE
    b"(S'touch ran'\nios\nsystem\n.",  # INST
    b"(cos\nsystem\nS'touch ran'\no.",  # OBJ
    b"\x80\x04\x8c\x02os\x8c\x06system\x93(\x8c\x09touch rant\x81.",  # STACK_GLOBAL, NEWOBJ
    b"c__builtin__\nset\n((lI1\natR.",  # harmless, and not needed
    b"Pan id\n.",  # an object that lies outside
    b"\x80\x02U\x02idQ.",
]


@pytest.mark.parametrize("written", HAND_MADE)
def test_every_way_to_name_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs.p"
    path.write_bytes(written)
    with pytest.raises(OpenFlorenceError, match="is refused: it asks for "):
        load_plain_pickle(path)
    assert os.listdir(tmp_path) == ["refs.p"]


@pytest.mark.parametrize("value", [np.int64(1), np.zeros(2), datetime.date(2020, 1, 1), OrderedDict(a=1), print, int])
def test_other_objects_are_refused_by_name(tmp_path: Path, value: object) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps([value]))
    with pytest.raises(OpenFlorenceError, match=r"it asks for [a-z_.]+"):
        load_plain_pickle(path)


def test_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    whole = pickle.dumps([{"sent": "a cat", "ids": [1, 2**70, 1.5]}], 2)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(OpenFlorenceError, match=r"is no pickle of plain data: .+") as raised:
            load_plain_pickle(path)
        assert "\n" not in str(raised.value)
    for nonsense in (b"{}", b'[{"sent": "json"}]', b"\x80\xff.", b"K\x01K\x02R.", b"}}b.", b"]K\x01b."):
        path.write_bytes(nonsense)
        with pytest.raises(OpenFlorenceError, match="is no pickle of plain data"):
            load_plain_pickle(path)
    with pytest.raises(OpenFlorenceError, match="cannot be read: No such file"):
        load_plain_pickle(tmp_path / "nowhere.p")
