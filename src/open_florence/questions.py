"""Questions as people put them -> the task's row and its query, for every predictor, with PyTorch or without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Region
from open_florence.tasks import Task, find_task

Query = str | Region | Sequence[float] | Sequence[str] | None
"""What is asked with a task: words; several phrases; or a region, also as (x1, y1, x2, y2) in pixels of the image."""

Ask = str | tuple[str, Query]
"""A task, or a task and its query."""

Asks = list[str] | list[tuple[str, Query]] | list[Ask]

CLASSIFICATION = "<CLASSIFICATION>"
SEPARATOR = "<and>"
"""What the published model reads between several phrases of one query."""


def read_ask(ask: Ask) -> tuple[Task, str | Region | None]:
    """The task's row, and the query as words or a region. Raises OpenFlorenceError for a task or query that is none."""
    name, query = ask if isinstance(ask, tuple) else (ask, None)
    task = find_task(name)
    if query is None or isinstance(query, str | Region):
        return task, query
    values: list[Any] = list(query)
    if values and all(isinstance(value, str) for value in values):
        return task, SEPARATOR.join(values)
    if len(values) == 4 and all(isinstance(value, int | float | np.number) for value in values):
        return task, Region.box(*values)
    raise OpenFlorenceError(f"the query of {task.token} is words, a Region or (x1, y1, x2, y2), not {query!r:.80}")


def read_labels(labels: str | Sequence[str]) -> list[str]:
    """Each label of a list, or of "cat<and>dog", once and without spaces at its ends.

    Raises OpenFlorenceError when none is left.
    """
    labels = labels.split(SEPARATOR) if isinstance(labels, str) else labels
    found = list(dict.fromkeys(label.strip() for label in labels if label.strip()))
    if not found:
        raise OpenFlorenceError(f'{CLASSIFICATION} needs the labels to choose from, as "cat{SEPARATOR}dog" or a list')
    return found
