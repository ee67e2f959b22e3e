import numpy as np
import torch

from open_florence.schema import Region
from open_florence.training.dense import DISTANCE_WEIGHT, DenseHeads, box_heads, cells_from_boxes, grid_of


def test_cells_say_what_covers_their_centre() -> None:
    big = Region.box(0, 0, 100, 100, label="plate")
    small = Region.box(50, 0, 100, 50, label="cell")
    labels = cells_from_boxes([small, big], (200.0, 100.0), (4, 8), ["plate", "cell"])
    assert labels["object"][:, :4].all()
    assert not labels["object"][:, 4:].any()
    assert (labels["class"][:2, 2:4] == 1).all(), "the smaller region wins, whatever the order"
    assert (labels["class"][2:, :4] == 0).all()
    assert (labels["class"][:, 4:] == -100).all()
    assert np.isnan(labels["box"][:, 4:]).all()
    left, top, right, bottom = labels["box"][3, 0]  # the cell's centre is at (12.5, 87.5) of 200 x 100 pixels
    assert np.allclose([left, top, right, bottom], [0.0625, 0.875, 0.4375, 0.125])


def test_cells_without_a_label_cost_nothing() -> None:
    heads = DenseHeads(box_heads(["a", "b"]), channels=6)
    torch.manual_seed(0)
    grid = torch.randn(2, 6, 3, 3)
    nothing = {
        "object": torch.full((2, 3, 3), float("nan")),
        "class": torch.full((2, 3, 3), -100),
        "box": torch.full((2, 3, 3, 4), float("nan")),
    }
    assert all(loss == 0 for loss in heads.losses(grid, nothing).values())
    one = {name: label.clone() for name, label in nothing.items()}
    one["box"][0, 1, 2] = torch.tensor([0.1, 0.2, 0.3, 0.4])
    expected = DISTANCE_WEIGHT * (heads(grid)["box"][0, 1, 2] - one["box"][0, 1, 2]).abs().mean()
    assert torch.allclose(heads.losses(grid, one)["box"], expected)


def test_several_classifications_a_cell_and_one_for_the_image() -> None:
    heads = DenseHeads({"characters": ("class", 4 * 36), "background": ("global_class", 5)}, channels=6)
    grid = torch.randn(2, 6, 3, 3)
    labels = {"characters": torch.randint(0, 36, (2, 3, 3, 4)), "background": torch.tensor([1, 4])}
    outputs = heads(grid)
    assert outputs["characters"].shape == (2, 3, 3, 144)
    assert outputs["background"].shape == (2, 5)
    assert all(loss > 0 for loss in heads.losses(grid, labels).values())


def test_the_grid_of_a_tower(model) -> None:
    assert grid_of(model.vision_tower, 32) == (4, 4)
    assert model.vision_tower.training
