"""The table of specialists, third parties by entry point, and what is said of those that cannot be loaded."""

import ast
import inspect
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from open_florence import specialists
from open_florence.data.ignored import IGNORED
from open_florence.errors import OpenFlorenceError
from open_florence.specialists import SPECIALISTS, load_specialist, options_of, source_of
from open_florence.tasks import TASKS

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "specialist_package"
CHEAP = ("people", "proposals", "grabcut", "attributes", "tesseract", "florence")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes entry points as an installer does: a folder beside the code that names them."""

    def install(entries: dict[str, str], code: Path | None = None) -> None:
        folder = tmp_path / "somebody-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in entries.items()]
        (folder / "entry_points.txt").write_text("\n".join([f"[{specialists.ENTRY_POINTS}]", *lines]) + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        if code is not None:
            monkeypatch.syspath_prepend(str(code))

    yield install
    sys.modules.pop("qr_codes", None)
    sys.modules.pop("theirs", None)


@pytest.mark.parametrize("name", SPECIALISTS)
def test_every_row_leads_to_a_class_of_that_name(name):
    module, _, attribute = SPECIALISTS[name].partition(":")
    path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text("utf-8"))  # without importing what a module of the hub imports
    assert attribute in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_the_docstring_is_the_table():
    rows = re.findall(r"^\| (\w+) \|", specialists.__doc__, flags=re.MULTILINE)
    assert set(rows) - {"name"} == set(SPECIALISTS)


@pytest.mark.parametrize("name", CHEAP)
def test_what_each_declares(name):
    try:
        specialist = load_specialist(name)
    except OpenFlorenceError as error:
        pytest.skip(str(error))
    assert specialist.name == name
    assert source_of(specialist) == f"{name}@{specialist.version}"
    assert set(specialist.tasks) <= {*TASKS, IGNORED}
    assert set(specialist.needs) <= TASKS.keys()
    assert specialist.version == load_specialist(name).version
    assert specialist.annotate([]) == []


def test_the_package_imports_nothing_slow():
    code = "import sys, open_florence.specialists as s; print(*{'torch', 'cv2', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", ["people", "proposals", "grabcut"])
def test_opencv_is_missing(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(OpenFlorenceError, match=rf"the specialist {name} needs OpenCV: pip install"):
        load_specialist(name)


def test_an_opencv_without_its_extra_parts(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace())
    with pytest.raises(OpenFlorenceError, match="needs the part ximgproc of OpenCV"):
        load_specialist("proposals")


def test_names_and_options_there_are_not():
    with pytest.raises(OpenFlorenceError, match="no specialist 'teseract'; did you mean tesseract"):
        load_specialist("teseract")
    with pytest.raises(OpenFlorenceError, match=r"options of the specialist grabcut are iterations: .*'speed'"):
        load_specialist("grabcut", speed=3)
    with pytest.raises(OpenFlorenceError, match=r"options of the specialist labels are labels, .*'labels'"):
        load_specialist("labels")
    assert options_of("grabcut") == ("iterations",)
    assert "classes" in options_of("florence")


def test_the_example_package(installed, monkeypatch, tmp_path):
    pytest.importorskip("cv2")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    installed(project["entry-points"][specialists.ENTRY_POINTS], EXAMPLE / "src")
    specialist = load_specialist("qr_codes", label="code")
    assert (specialist.name, specialist.tasks) == ("qr_codes", ("<OD>", "<OCR_WITH_REGION>"))
    assert inspect.getmodule(type(specialist)).__file__.startswith(str(EXAMPLE))
    tests = runpy.run_path(str(EXAMPLE / "tests" / "test_qr_codes.py"))
    tests["test_a_code_at_a_known_place"](tmp_path)
    with pytest.raises(OpenFlorenceError, match="did you mean qr_codes"):
        load_specialist("qr_code")


GOOD = {"name": "x", "version": "1", "tasks": ("<OD>",), "needs": (), "annotate": lambda samples: []}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "the name of the specialist theirs is"),
        ("name", "a@b", "the name of the specialist theirs is"),
        ("version", 3, "the version of the specialist theirs is"),
        ("tasks", "<OD>", "the tasks of the specialist theirs are a tuple"),
        ("tasks", (1,), "the tasks of the specialist theirs are a tuple"),
        ("needs", None, "the needs of the specialist theirs are a tuple"),
        ("annotate", None, "the specialist theirs has no method annotate"),
    ],
)
def test_objects_that_are_no_specialist(monkeypatch, field, value, message):
    module = SimpleNamespace(make=lambda: SimpleNamespace(**{**GOOD, field: value}))
    monkeypatch.setitem(sys.modules, "theirs", module)
    monkeypatch.setitem(SPECIALISTS, "theirs", "theirs:make")
    with pytest.raises(OpenFlorenceError, match=message):
        load_specialist("theirs")
    module.make = lambda: SimpleNamespace(**GOOD)
    assert source_of(load_specialist("theirs")) == "x@1"


def test_a_package_that_cannot_be_imported(installed, tmp_path):
    (tmp_path / "theirs.py").write_text("raise RuntimeError('no licence')\n")
    installed({"broken": "theirs:Theirs", "absent": "no_such_module:Theirs"})
    with pytest.raises(
        OpenFlorenceError, match="broken cannot be imported from theirs:Theirs: RuntimeError: no licence"
    ):
        load_specialist("broken")
    with pytest.raises(OpenFlorenceError, match="absent cannot be imported"):
        load_specialist("absent")


def test_the_page_on_adding_one():
    """The code of the page runs, in the order in which it stands there."""
    page = (ROOT / "docs" / "add_a_specialist.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "add_a_specialist.md", "exec"), names)
