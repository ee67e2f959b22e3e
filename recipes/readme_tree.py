"""Writes the tree in README.md from the first line of every module, so that it stays true: `make format` calls it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tree: recipes/readme_tree.py -->\n", "<!-- end of tree -->\n"
WIDTH = 30
OTHERS = {
    "recipes/": "one runnable file per run: the shipped checkpoint, the demo, this tree",
    "benchmarks/": "one short script per claim of speed, and RESULTS.md",
    "tests/": "mirrors src; tests/reference compares with transformers, timm and Microsoft's original code",
    "docs/": "a page per question",
}


def tree() -> str:
    """The tree as one fenced block: a line per folder and module."""
    lines = []
    package = ROOT / "src" / "open_florence"
    files = [file for file in package.rglob("*.py") if file.name not in ("__main__.py", "__init__.py")]
    modules = [file for file in files if file.parent == package]
    lines += [_line(f"  {file.name}", _summary(file)) for file in sorted(modules)]
    for folder in sorted({file.parent for file in files} - {package}):
        lines.append(_line(f"  {folder.name}/", _summary(folder / "__init__.py")))
        inside = sorted(file for file in files if file.parent == folder)
        lines += [_line(f"    {file.name}", _summary(file)) for file in inside]
    lines.append(
        _line(
            "  checkpoints/tiny/", "The checkpoint that ships: a plain Florence-2 of 4 M parameters, trained on scenes"
        )
    )
    lines += [_line(name, what) for name, what in OTHERS.items()]
    return "```\nsrc/open_florence/\n" + "\n".join(lines) + "\n```\n"


def _summary(file: Path) -> str:
    """The first sentence of a module's docstring, cut at a clause where it is long."""
    doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(doc.split("\n\n")[0].split()).split(". ")[0].rstrip(".").replace("`", "")


def _line(name: str, what: str) -> str:
    return f"{name:<{WIDTH}}{what}".rstrip()


def main() -> None:
    """Rewrites the part of README.md between the two marks."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    readme.write_text(before + BEGIN + tree() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
