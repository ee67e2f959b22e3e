"""What docs/evaluate.md shows is what comes out, and it shows every metric there is."""

import doctest
import inspect
from pathlib import Path

from open_florence import evaluation
from open_florence.evaluation.metrics import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "evaluate.md"


def test_the_examples_give_what_they_show():
    outcome = doctest.testfile(str(PAGE), module_relative=False)
    assert outcome.attempted > 25
    assert outcome.failed == 0


def test_every_function_is_shown_and_described():
    page = PAGE.read_text("utf-8")
    functions = [name for name in evaluation.__all__ if inspect.isfunction(getattr(evaluation, name))]
    assert len(functions) > 20
    assert [name for name in functions if f"{name}(" not in page] == []
    assert [name for name in functions if not inspect.getdoc(getattr(evaluation, name))] == []


def test_every_task_is_in_the_table_of_numbers():
    page = PAGE.read_text("utf-8")
    named_together = {"<CAPTION>", "<MORE_DETAILED_CAPTION>", "<REGION_TO_SEGMENTATION>"}
    assert [task for task in METRICS if f"`{task}`" not in page and task not in named_together] == []
