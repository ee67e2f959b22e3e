"""Which part of the package may import which: only from lower layers or from its own folder, never upward.

Read with `ast`, so imports inside functions count too. A new file or folder needs a line in LAYERS.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "open_florence"

LAYERS = {
    "__init__": 8,
    "__main__": 9,
    "cli": 8,
    "annotate": 7,
    "annotated_folder": 4,
    "report": 7,
    "export": 7,
    "data_engine": 7,
    "specialists": 6,
    "edge": 6,
    "evaluation": 6,
    "inference": 5,
    "training": 5,
    "processor": 4,
    "questions": 4,
    "legal_tokens": 4,
    "generation": 1,
    "selection": 3,
    "tasks": 3,
    "data": 3,
    "scenes": 3,
    "tiles": 3,
    "reading_order": 3,
    "schema": 2,
    "tokenizer": 2,
    "images": 2,
    "masks": 2,
    "model": 2,
    "noun_phrases": 1,
    "geometry": 1,
    "locations": 1,
    "errors": 0,
}
FORBIDDEN = {  # although they are lower
    "inference": {"data", "scenes"},
    "training": {"data"},
    "model": {"errors", "geometry", "locations"},  # so that the folder can be lifted out as it is
}
WITHOUT_TORCH = {
    "annotated_folder",
    "tasks",
    "data",
    "scenes",
    "tiles",
    "reading_order",
    "masks",
    "schema",
    "images",
    "geometry",
    "locations",
    "selection",
    "noun_phrases",
    "processor",
    "questions",
    "legal_tokens",
    "generation",
    "edge",
    "errors",
}
ONLY_IN = {
    "cv2": {"scenes", "specialists"},
    "openvino": {"inference"},
    "nncf": {"inference"},
    "lance": {"data"},
    "transformers": {"specialists"},
    "spacy": {"noun_phrases"},
    "supervision": {"report", "data"},
    "fiftyone": {"data"},
    "jinja2": {"report"},
    "faster_coco_eval": {"evaluation"},
    "onnx": {"export"},
    "onnxscript": {"export"},
    "onnxruntime": {"edge", "export"},
}
NEVER = {"timm", "einops"}


def imports(path):
    """The dotted names of all modules that a file imports, relative ones made absolute."""
    inside = ["open_florence", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from open_florence import tasks` imports a part; `from open_florence import Region` the public names
            if module == "open_florence":
                yield from (
                    f"open_florence.{alias.name if alias.name in LAYERS else '__init__'}" for alias in node.names
                )
            else:
                yield module


def mistakes(part, module):
    """Why a part of the package may not import a module; empty when it may."""
    top, *rest = module.split(".")
    if top != "open_florence":
        if top in NEVER or (top == "torch" and part in WITHOUT_TORCH) or part not in ONLY_IN.get(top, {part}):
            return f"{part} must not import {top}"
        return ""
    target = rest[0] if rest else "__init__"
    if target == part:
        return ""
    if LAYERS[target] >= LAYERS[part] or target in FORBIDDEN.get(part, set()):
        return f"{part} must not import {target}"
    return ""


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_has_a_layer():
    assert FILES
    assert {part_of(path) for path in FILES} <= LAYERS.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    found = {mistakes(part_of(path), module) for module in imports(path)}
    assert found - {""} == set()


@pytest.mark.parametrize(
    ("part", "module", "allowed"),
    [
        ("tasks", "open_florence.tasks.grammar", True),
        ("tasks", "open_florence.locations", True),
        ("tasks", "open_florence.data", False),
        ("tasks", "torch.nn", False),
        ("geometry", "open_florence.schema", False),
        ("geometry", "open_florence", False),
        ("model", "open_florence.errors", False),
        ("model", "torch", True),
        ("training", "open_florence.inference.generate", False),
        ("training", "open_florence.data.voc", False),
        ("inference", "timm", False),
        ("report", "supervision", True),
        ("evaluation", "cv2", False),
        ("cli", "open_florence.report", True),
    ],
)
def test_the_rules_themselves(part, module, allowed):
    assert (mistakes(part, module) == "") == allowed
