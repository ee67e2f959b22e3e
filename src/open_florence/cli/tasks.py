"""`open-florence tasks`: everything the model can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from open_florence.tasks import Task

QUERIES = {"none": "", "text": "words", "region": "x1,y1,x2,y2"}


def tasks() -> None:
    """List the tasks: what to ask for, what each needs, and what comes back."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from open_florence.tasks import TASKS

    table = Table("task", "query", "question sent to the model", "what comes back")
    for task in TASKS.values():
        table.add_row(*(Text(cell) for cell in (task.token, QUERIES[task.query], task.prompt, what_comes_back(task))))
    console = Console()
    console.width = console.width if console.is_terminal else 140
    console.print(table)
    console.print(
        "Names are taken in any case, with or without brackets. A query follows a colon, as in "
        '"OPEN_VOCABULARY_DETECTION:red car". A sentence ending in "?" or "." is asked as it stands.',
        highlight=False,
        markup=False,
    )


def what_comes_back(task: Task) -> str:
    """The form of a task's answer, in words."""
    from open_florence.tasks import PhraseGrammar, RegionGrammar, TextGrammar

    grammar = task.grammar
    if task.token == "<CLASSIFICATION>":
        return "the likeliest of the labels in the query (cat<and>dog)"
    if isinstance(grammar, PhraseGrammar):
        return "the phrases of the query, with boxes"
    if isinstance(grammar, RegionGrammar):
        kinds = {"box": "boxes", "quad": "quads", "polygon": "polygons"}
        places = " or ".join(kinds[kind] for kind in grammar.kinds)
        return f"{places} with {'words' if 'quad' in grammar.kinds else 'labels'}" if grammar.labelled else places
    return "text" if isinstance(grammar, TextGrammar) else type(grammar).__name__
