import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.specialists.similarity import Similarity

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}


@pytest.fixture(scope="module")
def folders(save, clip_text, clip_tokens):
    torch.manual_seed(0)
    clip = transformers.CLIPConfig(text_config=clip_text, vision_config=VISION, projection_dim=8)
    siglip = transformers.SiglipConfig(text_config={**clip_text, "projection_size": 16}, vision_config=VISION)
    square = {"height": 32, "width": 32}
    return {
        "clip": save(
            "clip",
            transformers.CLIPModel(clip),
            transformers.CLIPProcessor(
                transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square), clip_tokens
            ),
        ),
        "siglip": save(
            "siglip",
            transformers.SiglipModel(siglip),
            transformers.SiglipProcessor(transformers.SiglipImageProcessorPil(size=square), clip_tokens),
        ),
    }


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    sizes = [(40, 30), (5, 90), (32, 32)]
    return [Image.fromarray(generator.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


TEXTS = ["a cat", "a red dog on the sofa, and much more than the model can read of it", "cat"]


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_cosines_of_every_image_with_every_text(family, folders, images):
    similarity = Similarity(folders[family], batch_size=2)
    table = similarity(images, TEXTS)
    assert table.shape == (3, 3)
    assert np.abs(table).max() <= 1
    assert len(np.unique(table.round(6))) > 3
    single = [[similarity([image], [text])[0, 0] for text in TEXTS] for image in images]
    assert table == pytest.approx(np.array(single), abs=1e-5)
    assert similarity.version.startswith(family)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_they_are_the_logits_of_the_model_but_for_its_scale(family, folders, images):
    similarity = Similarity(folders[family])
    network, processor = similarity._model.network, similarity._model.processor
    inputs = processor(images=images, text=TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    with torch.inference_mode():
        logits = network(**inputs).logits_per_image.numpy()
    scale = network.logit_scale.exp().item()
    shift = network.logit_bias.item() if family == "siglip" else 0.0
    assert similarity(images, TEXTS) * scale + shift == pytest.approx(logits, abs=1e-3)


def test_nothing_to_compare(folders, images):
    similarity = Similarity(folders["clip"])
    assert similarity([], TEXTS).shape == (0, 3)
    assert similarity(images, []).shape == (3, 0)
    assert similarity([], []).shape == (0, 0)


def test_a_model_without_two_towers_is_refused(save):
    bert = transformers.BertConfig(vocab_size=10, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(OpenFlorenceError, match="of the kind bert, not clip"):
        Similarity(save("bert", transformers.BertModel(bert)))
