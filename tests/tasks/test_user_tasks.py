"""Tasks added at run time: what the documentation says is run."""

import re
from pathlib import Path

import pytest

from open_florence.errors import OpenFlorenceError
from open_florence.tasks import TASKS, find_task

PAGE = Path(__file__).parents[2] / "docs" / "add_a_task.md"


@pytest.fixture
def tasks():
    """The table, as it was again afterwards."""
    before = dict(TASKS)
    yield TASKS
    TASKS.clear()
    TASKS.update(before)


def test_the_page_on_adding_a_task(tasks):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), PAGE.name, "exec"), {"__name__": "add_a_task"})
    assert find_task("plates") is tasks["<PLATES>"]
    with pytest.raises(OpenFlorenceError, match="did you mean <PLATES>"):
        find_task("plate")
    grammar = find_task("points").grammar
    trace = grammar.trace("</s><s>cat<loc_1><loc_2>dog<loc_3>", (1000, 1000))
    assert [region.label for region in trace.annotation.regions] == ["cat"]
    assert (trace.annotation.dropped, trace.annotation.complete) == (1, False)
    assert grammar.parse("cat", (1000, 1000)).complete is False
    assert grammar.parse("", (1000, 1000)).complete is True


def test_the_table_was_left_as_it_was():
    assert len(TASKS) == 17
