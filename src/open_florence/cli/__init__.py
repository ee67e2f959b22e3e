"""The `open-florence` command: each subcommand parses its arguments and calls one function.

A subcommand is a function in a file of this folder and a row in `COMMANDS`. Modules here import nothing slow at their
top, so that `--help` is immediate; torch comes in when a model is loaded.

A mistake a person can mend is one sentence on stderr and exit code 2; Ctrl-C is exit code 130.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from open_florence.cli.annotate import annotate, report
from open_florence.cli.calibrate import calibrate
from open_florence.cli.data import data
from open_florence.cli.embed import embed
from open_florence.cli.engine import engine
from open_florence.cli.export import export
from open_florence.cli.finetune import finetune
from open_florence.cli.models import convert, evaluate
from open_florence.cli.predict import predict
from open_florence.cli.scenes import scenes
from open_florence.cli.tasks import tasks
from open_florence.cli.train import train
from open_florence.errors import OpenFlorenceError

__all__ = ["COMMANDS", "app", "main", "run"]

COMMANDS: tuple[Callable[..., None], ...] = (
    predict,
    annotate,
    report,
    embed,
    tasks,
    finetune,
    train,
    evaluate,
    calibrate,
    convert,
    export,
    data,
    scenes,
)
"""Every subcommand, in the order of the help page; the name of the function is the name of the command. `engine` has
subcommands of its own and comes last."""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Describe images, find what is in them and say where, with Florence-2. Start with: open-florence tasks",
)
for _command in COMMANDS:
    app.command()(_command)
app.add_typer(engine)


def _print_version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        print(f"open-florence {importlib.metadata.version('open-florence')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What typer raises for a missing argument or an unknown option; where it lives differs between versions of typer."""


def main() -> None:
    """The console entry point."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs a command line, without the program's name, and returns the exit code."""
    try:
        code = app(list(arguments) or ["--help"], prog_name="open-florence", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except OpenFlorenceError as error:
        return _complain(str(error))
    except USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "open-florence"
        return _complain(f"{error.format_message().rstrip('.')} (see {command} --help)")
    except ValueError as error:
        if not _is_models_own(error):
            raise
        return _complain(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has left: nothing more to flush
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130


def _is_models_own(error: ValueError) -> bool:
    """Whether it is a user mistake that `model/`, which imports nothing of ours, has an exception of its own for."""
    if "torch" not in sys.modules:
        return False
    from open_florence.model.checkpoint import CheckpointError
    from open_florence.model.config import ConfigError

    return isinstance(error, CheckpointError | ConfigError)


def _complain(sentence: str) -> int:
    print(f"open-florence: {' '.join(sentence.split())}", file=sys.stderr)
    return 2
