"""timm's independent port of the image tower, given our weights through its own reading of Microsoft's layout."""

from dataclasses import replace

import pytest
import torch

from open_florence.model.checkpoint import to_layout
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence

SMALL = replace(
    PRESETS["base"].vision, dims=(32, 64, 96, 128), depths=(1, 1, 2, 1), heads=(1, 2, 3, 4), groups=(1, 2, 3, 4)
)


@pytest.mark.parametrize(
    ("vision", "size"),
    [
        pytest.param(SMALL, 200, id="small"),  # every window is padded
        pytest.param(PRESETS["base"].vision, 768, id="base", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)
def test_the_tower_equals_davit_base_fl(vision, size, timm, spread, relative_error):
    davit = pytest.importorskip("timm.models.davit")
    config = replace(PRESETS["tiny"].with_vocabulary(8), vision=replace(vision, projection_dim=128))
    ours = Florence(config).eval()
    spread(ours.vision_tower, 0)
    sizes = {"embed_dims": vision.dims, "depths": vision.depths, "num_heads": vision.heads}
    reference = davit.davit_base_fl(num_classes=0, **sizes).eval()
    microsoft = dict(to_layout(config, ours.state_dict(), "microsoft"))
    report = reference.load_state_dict(davit.checkpoint_filter_fn(microsoft, reference), strict=False)
    assert not report.unexpected_keys
    assert all(name.startswith("head.") for name in report.missing_keys)  # Florence-2 has no head
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    stages = []
    for stage in range(4):
        ours.vision_tower.blocks[stage][-1].register_forward_hook(lambda _m, _i, out: stages.append(out.flatten(1, 2)))
    with torch.inference_mode():
        ours.vision_tower(pixels)
        theirs = reference.forward_intermediates(pixels, intermediates_only=True)
    for mine, other in zip(stages, theirs, strict=True):
        assert relative_error(mine, other.flatten(2).transpose(1, 2)) < 1e-5
