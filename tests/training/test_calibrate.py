import torch

from open_florence.model.florence import Florence
from open_florence.training.calibrate import POSITION_SHARE, calibrate_projector


def test_every_direction_and_the_position_start_out_audible(model: Florence) -> None:
    torch.manual_seed(0)
    with torch.no_grad():  # a tower as the dense stage leaves it: one loud channel, one that is never zero
        conv = model.vision_tower.convs[-1].conv
        conv.weight[0] *= 5
        conv.bias[1] = 1.0
    pixels = torch.randn(64, 3, 32, 32)
    calibrate_projector(model, pixels)
    with torch.no_grad():
        x = model.vision_tower(pixels).permute(0, 2, 3, 1).flatten(0, 2)  # (N, C)
        seen = x @ model.projector.image_projection.weight.T  # (N, P)
        energy = torch.linalg.eigvalsh(seen.T @ seen / len(seen))
        assert 0.9 < energy.max() < 1.1, "no direction is louder than the others"
        assert (energy > 0.5).float().mean() > 0.4
        places = torch.cat(
            [
                model.projector.column_embeddings.weight[:4].expand(4, 4, -1),
                model.projector.row_embeddings.weight[:4, None].expand(4, 4, -1),
            ],
            dim=-1,
        )
        assert torch.allclose((places @ model.projector.image_projection.weight.T).std(), torch.tensor(POSITION_SHARE))


def test_calibrating_leaves_the_tower_and_its_mode_alone(model: Florence) -> None:
    before = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("projector")}
    model.train()
    calibrate_projector(model, torch.randn(4, 3, 32, 32))
    assert model.training
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name in before)
