"""The dual encoder: Florence-2's own parts, unit vectors, and files that give back the same numbers."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from open_florence.errors import OpenFlorenceError
from open_florence.inference.pretrained import load_model
from open_florence.model.checkpoint import CheckpointError
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.embedding import (
    FIRST_SCALE,
    DualEncoder,
    is_dual_encoder,
    read_dual_encoder,
    write_dual_encoder,
)
from open_florence.model.florence import Florence

VISION = VisionConfig((16, 32), (1, 1), (1, 2), (1, 2), 32, 4, (7, 3), (4, 2), (3, 1), (False, True), drop_path=0.0)
CONFIG = FlorenceConfig(VISION, TextConfig(50, 32, 2, 1, 2, 2, 64, 64, max_positions=20), image_size=32)
IDS = torch.tensor([[0, 7, 9, 2, 1, 1], [0, 5, 6, 7, 8, 2]])
MASK = (IDS != 1).long()


@pytest.fixture
def model() -> DualEncoder:
    torch.manual_seed(0)
    return DualEncoder(CONFIG, 12).eval()


def test_both_sides_give_unit_vectors_of_one_width(model: DualEncoder) -> None:
    images, texts = model.encode_image(torch.randn(3, 3, 32, 32)), model.encode_text(IDS, MASK)
    assert (images.shape, texts.shape) == ((3, 12), (2, 12))
    assert torch.allclose(torch.cat([images, texts]).norm(dim=1), torch.ones(5))


def test_vectors_stay_float32_in_half_precision(model: DualEncoder) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.encode_image(torch.randn(1, 3, 32, 32)).dtype == torch.float32
        assert model.encode_text(IDS, MASK).dtype == torch.float32


def test_padding_says_nothing(model: DualEncoder) -> None:
    alone = model.encode_text(IDS[:1, :4], MASK[:1, :4])
    assert torch.allclose(model.encode_text(IDS, MASK)[:1], alone, atol=1e-6)


def test_a_text_is_the_mean_of_what_barts_encoder_makes_of_it() -> None:
    torch.manual_seed(1)
    florence = Florence(CONFIG).eval()
    model = DualEncoder.from_florence(florence, 12).eval()
    bart = florence.language_model
    hidden = bart.encoder(bart.embed(IDS[1:]), torch.ones(1, 6, dtype=torch.bool))[0]
    expected = F.normalize(model.text_projection.weight @ hidden.mean(0), dim=0)
    assert torch.allclose(model.encode_text(IDS, MASK)[1], expected, atol=1e-6)


def test_an_image_is_the_mean_of_the_towers_normed_cells(model: DualEncoder) -> None:
    pixels = torch.randn(1, 3, 32, 32)
    cells = model.image_norm(model.vision_tower(pixels)[0].flatten(1).T)  # (N, C)
    expected = F.normalize(model.image_projection.weight @ cells.mean(0), dim=0)
    assert torch.allclose(model.encode_image(pixels)[0], expected, atol=1e-6)


def test_around_a_florence_it_is_the_florences_own_parts() -> None:
    florence = Florence(CONFIG)
    model = DualEncoder.from_florence(florence, 12)
    assert model.vision_tower is florence.vision_tower
    assert model.language_model.encoder is florence.language_model.encoder


def test_what_is_common_has_florences_names_and_shapes(model: DualEncoder) -> None:
    florence = {name: tensor.shape for name, tensor in Florence(CONFIG).state_dict().items()}
    own = {"image_norm.weight", "image_norm.bias", "image_projection.weight", "text_projection.weight", "logit_scale"}
    common = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in own}
    assert common.items() <= florence.items()
    assert len(common) == len(model.state_dict()) - len(own)


def test_the_scale_starts_as_clips_does(model: DualEncoder) -> None:
    assert model.scale.item() == pytest.approx(FIRST_SCALE)


def test_what_is_written_is_read_back_to_the_bit(model: DualEncoder, tmp_path: Path) -> None:
    write_dual_encoder(tmp_path, model.config, model.state_dict())
    assert is_dual_encoder(tmp_path)
    again = read_dual_encoder(tmp_path)
    assert (again.config, again.embedding_dim) == (model.config, 12)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert not again.training


def test_what_is_no_such_folder_is_refused_in_a_sentence(model: DualEncoder, tmp_path: Path) -> None:
    state = model.state_dict()
    write_dual_encoder(tmp_path, model.config, {k: v for k, v in state.items() if k != "logit_scale"})
    with pytest.raises(CheckpointError, match="logit_scale is missing"):
        read_dual_encoder(tmp_path)
    write_dual_encoder(tmp_path, model.config, state | {"image_norm.bias": torch.zeros(5)})
    with pytest.raises(CheckpointError, match=r"image_norm.bias has shape \(5,\), and \(32,\) is wanted"):
        read_dual_encoder(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(record | {"embedding_dim": "wide"}))
    with pytest.raises(CheckpointError, match=r"config.json cannot be used: .*'wide'"):
        read_dual_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(record | {"model_type": "florence2"}))
    assert not is_dual_encoder(tmp_path)
    with pytest.raises(CheckpointError, match="holds no model that gives embeddings"):
        read_dual_encoder(tmp_path)


def test_it_is_not_taken_for_a_florence(model: DualEncoder, tmp_path: Path) -> None:
    write_dual_encoder(tmp_path, model.config, model.state_dict())
    with pytest.raises(OpenFlorenceError, match="so it is not a Florence-2's"):
        load_model(tmp_path)
