import pytest
import torch

from open_florence.model.florence import Florence
from open_florence.training.positions import stretch_positions


def test_a_place_keeps_its_positions_when_the_grid_grows(model: Florence) -> None:
    column, row = model.projector.column_embeddings.weight, model.projector.row_embeddings.weight
    places = (torch.arange(len(column)) + 0.5) / 8
    with torch.no_grad():
        column.copy_(places[:, None].expand_as(column))  # the share of the image from the left, on a grid of 8
        row.copy_(places[:, None].expand_as(row))
    untouched = column[20:].clone()
    stretch_positions(model, (8, 8), (8, 20))
    torch.testing.assert_close(column[:20, 0], (torch.arange(20) + 0.5) / 20)
    assert torch.equal(column[20:], untouched)
    torch.testing.assert_close(row[:, 0], places)


@pytest.mark.parametrize("size", [3, 8, 13])
def test_there_and_back_is_the_same(model: Florence, size: int) -> None:
    column = model.projector.column_embeddings.weight
    with torch.no_grad():
        column.copy_(torch.linspace(-1, 1, len(column))[:, None].expand_as(column))
    before = column[:8].clone()
    stretch_positions(model, (8, 8), (8, size))
    stretch_positions(model, (8, size), (8, 8))
    torch.testing.assert_close(column[:8], before)


def test_one_cell_becomes_many_alike(model: Florence) -> None:
    first = model.projector.column_embeddings.weight[0].clone()
    stretch_positions(model, (1, 1), (1, 3))
    for column in model.projector.column_embeddings.weight[:3]:
        torch.testing.assert_close(column, first)
