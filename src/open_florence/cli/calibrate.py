"""`open-florence calibrate`: scores of a checkpoint that are probabilities, fitted on data whose answers are known."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from open_florence.cli.options import DeviceOption, DTypeOption, ModelOption
from open_florence.errors import OpenFlorenceError


def calibrate(
    data: Annotated[
        str, typer.Option("--data", "-d", help="Known answers, not those it was trained on: as `evaluate` takes them.")
    ],
    model: ModelOption = "tiny",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A folder for a copy with calibration.json; a local folder gets it itself."),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=2, help="Only the first so many images.")] = None,
    device: DeviceOption = None,
    dtype: DTypeOption = None,
) -> None:
    """Make probabilities of a checkpoint's scores: regions with a score of 0.8 are right in 8 of 10 cases.

    open-florence calibrate --model my-cells --data cells/validation.jsonl
    """
    from rich.console import Console
    from rich.table import Table

    from open_florence.evaluation.calibration import calibrate as fit
    from open_florence.evaluation.evaluate import ask
    from open_florence.inference.predictor import Predictor, source_name
    from open_florence.inference.pretrained import SHIPPED, find_folder, load_model
    from open_florence.tasks import TASKS, TextGrammar

    folder = find_folder(model)
    if out is None and (folder.parent == SHIPPED or not Path(model).expanduser().is_dir()):
        raise OpenFlorenceError(f"{model} is not a folder of yours: name one with --out for a calibrated copy")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OpenFlorenceError(f"{out} exists and is not an empty folder: choose another")
    loaded = load_model(folder, dtype=dtype.value if dtype else None, device=device)
    predictor = Predictor(*loaded, source=source_name(model))  # without a calibration of before
    tasks = [token for token, task in TASKS.items() if not isinstance(task.grammar, TextGrammar)]
    asked = ask(predictor, data, limit, tasks=tasks)
    calibration, fitted, problems = fit(asked.answers)
    title = f"{source_name(model)}, {data}, {asked.images} images: expected calibration error"
    table = Table("task", "regions", "right", "ECE before", "ECE after, on the other half", title=title)
    for row in fitted:
        right = f"{row.judged.right.mean():.3f}"
        table.add_row(row.task, str(len(row.judged.right)), right, f"{row.before:.3f}", f"{row.after:.3f}")
    console = Console()
    console.width = console.width if console.is_terminal else 120
    console.print(table)
    for problem in [*asked.problems, *problems]:
        typer.echo(problem, err=True)
    target = folder if out is None else out
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for path in folder.iterdir():
                if path.is_file():
                    shutil.copyfile(path, out / path.name)
        calibration.save(target)
    except OSError as error:
        raise OpenFlorenceError(f"{target} cannot be written: {error.strerror or error}") from error
    print(
        f"{target} holds {model} and its calibration.json: scores of {', '.join(calibration.curves)} are probabilities"
    )
