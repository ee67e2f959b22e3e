"""timm's independent port of the image tower, given our weights through its own reading of Microsoft's layout."""

import pytest
import torch

from open_florence.model.checkpoint import to_layout
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence


@pytest.mark.parametrize(
    "size", [pytest.param(200, id="200px"), pytest.param(768, id="768px", marks=[pytest.mark.slow])]
)
def test_base_tower_equals_davit_base_fl(size, timm, spread, relative_error):
    davit = pytest.importorskip("timm.models.davit")
    config = PRESETS["base"].with_vocabulary(8)
    ours = Florence(config).eval()
    spread(ours, 0)
    reference = davit.davit_base_fl(num_classes=0).eval()
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
