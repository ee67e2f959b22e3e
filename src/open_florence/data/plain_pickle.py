"""Pickles that hold data alone, read without the danger of pickles: nothing in the file is ever called or imported."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from open_florence.errors import OpenFlorenceError


def load_plain_pickle(path: Path) -> Any:
    """The lists, dicts, tuples, sets, strings, numbers, booleans and None of a pickle, Python 2's too.

    A pickle is a program that builds its objects, and whatever it builds beyond these it must first ask for by name:
    there it is refused, so no code of its own or of any module can run. Python 2's strings are read as latin-1. Raises
    OpenFlorenceError for a refused, damaged or missing file.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be read: {error.strerror or error}") from None
    except _RefusedError as error:
        raise OpenFlorenceError(f"{path} is refused: it asks for {error}, and only plain data is read") from None
    except Exception as error:  # a damaged pickle raises anything: EOFError, KeyError, TypeError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OpenFlorenceError(f"{path} is no pickle of plain data: {reason:.200}") from None


class _RefusedError(Exception):
    """The file names something that is not plain data."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> NoReturn:
        raise _RefusedError(f"{module}.{name}"[:100])

    def persistent_load(self, pid: object, /) -> NoReturn:
        raise _RefusedError("an object outside of it")
