"""What the README says is true: its tree is the code's, its commands exist, its links lead somewhere."""

import re
import runpy
from pathlib import Path

import typer.main

import open_florence as of
from open_florence.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_is_that_of_the_code() -> None:
    module = runpy.run_path(str(ROOT / "recipes" / "readme_tree.py"))
    assert module["tree"]() in README, "run recipes/readme_tree.py (make format does)"


def test_every_command_and_option_exists() -> None:
    commands = typer.main.get_command(app).commands
    shown = [line for line in README.splitlines() if line.startswith("open-florence ")]
    assert len(shown) >= 6
    for line in shown:
        _, name, *words = line.split("#")[0].split()
        command = commands[name]
        if hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_every_public_name_it_uses_exists() -> None:
    assert all(hasattr(of, name) for name in re.findall(r"\bof\.(\w+)", README))


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", README, flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()]
    assert not missing
