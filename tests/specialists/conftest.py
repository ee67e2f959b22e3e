"""Images as samples, and the real classes of transformers in folders, so small that they answer in milliseconds.

Weights are random, configurations and processors are those of the published models but for their sizes.
"""

import string

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

COLOURS = (200, 60, 30), (30, 80, 190), (240, 240, 240)
SMALL_TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def make_sample(tmp_path):
    """(size (W, H), annotations) -> a sample with a picture of its own on the disk."""

    def make(size, *annotations):
        index = len(list(tmp_path.glob("*.png")))
        noise = np.random.default_rng(index).integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
        noise[size[1] // 3 :, size[0] // 2 :] += np.uint8(120)
        path = tmp_path / f"{index}.png"
        Image.fromarray(noise).save(path)
        return Sample(image_id(path), str(path), tuple(map(float, size)), tuple(annotations))

    return make


@pytest.fixture
def samples(make_sample):
    """Four sizes, two of them equal, each with a caption and two boxes."""
    caption = Annotation("<CAPTION>", "A red dog on the sofa")
    boxes = Annotation(
        "<OD>", regions=(Region.box(3, 4, 30, 20, label="dog", score=0.5), Region.box(10, 5, 25, 28, label="sofa"))
    )
    return [make_sample(size, caption, boxes) for size in ((80, 50), (50, 80), (80, 50), (120, 30))]


@pytest.fixture(scope="session")
def word_pieces():
    """A BERT tokenizer of a few words and all letters, special tokens and marks at the places of bert-base-uncased."""
    words = [f"[unused{index}]" for index in range(1100)]
    for index, word in {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "[MASK]",
        1012: ".",
        1029: "?",
    }.items():
        words[index] = word
    for index, letter in enumerate(string.ascii_lowercase):
        words[200 + index], words[300 + index] = letter, f"##{letter}"
    words[400:407] = ["the", "red", "dog", "cat", "on", "sofa", "traffic"]
    return transformers.BertTokenizer(vocab={word: index for index, word in enumerate(words)})


@pytest.fixture(scope="session")
def clip_tokens():
    """A CLIP tokenizer that spells."""
    letters = string.ascii_lowercase + string.digits + ".,-'"
    words = ["<pad>", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<pad>", model_max_length=24)


@pytest.fixture(scope="session")
def clip_text(clip_tokens):
    """The text tower that goes with `clip_tokens`."""
    return {
        **SMALL_TOWER,
        "vocab_size": len(clip_tokens),
        "max_position_embeddings": 24,
        "bos_token_id": clip_tokens.bos_token_id,
        "eos_token_id": clip_tokens.eos_token_id,
        "pad_token_id": clip_tokens.pad_token_id,
    }


@pytest.fixture(scope="session")
def save(tmp_path_factory):
    """(name, network, processor) -> the folder they were saved to."""

    def write(name, network, processor=None):
        folder = tmp_path_factory.mktemp("models") / name
        network.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
        return folder

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return write


@pytest.fixture(scope="session")
def dino(save, word_pieces):
    """Grounding DINO with Swin and BERT; it reads 32 tokens."""
    torch.manual_seed(0)
    swin = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )
    bert = transformers.BertConfig(vocab_size=1100, max_position_embeddings=64, **SMALL_TOWER)
    config = transformers.GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        num_queries=10,
        num_feature_levels=3,
        d_model=32,
        max_text_len=32,
        encoder_layers=1,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
    )
    pixels = transformers.GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128})
    network = transformers.GroundingDinoForObjectDetection(config)
    return save("dino", network, transformers.GroundingDinoProcessor(pixels, word_pieces))


@pytest.fixture
def corners():
    """region -> [x1, y1, x2, y2] of a box."""
    return lambda region: [value for point in region.parts[0] for value in point]


@pytest.fixture
def check_boxes(corners):
    """A check that all regions of annotations are boxes that lie in their image and have a score from 0 to 1."""

    def check(annotations, size):
        for region in (region for annotation in annotations for region in annotation.regions):
            x1, y1, x2, y2 = corners(region)
            assert 0 <= x1 < x2 <= size[0]
            assert 0 <= y1 < y2 <= size[1]
            assert 0 < region.score <= 1

    return check


@pytest.fixture
def check_batches(samples):
    """A check that a specialist says of all samples together what it says of each alone."""

    def check(specialist):
        together = specialist.annotate(samples)
        alone = [specialist.annotate([sample])[0] for sample in samples]
        for one, other in zip(together, alone, strict=True):
            assert [(a.task, a.text, a.query, a.complete) for a in one] == [
                (a.task, a.text, a.query, a.complete) for a in other
            ]
            for a, b in zip(one, other, strict=True):
                assert [r.label for r in a.regions] == [r.label for r in b.regions]
                assert numbers(a) == pytest.approx(numbers(b), abs=1e-3)
        return together

    return check


def numbers(annotation):
    """All coordinates and scores of an annotation, in order."""
    found = [] if annotation.score is None else [annotation.score]
    for region in annotation.regions:
        found += [value for part in region.parts for point in part for value in point]
        found += [score for score in (region.score, region.label_score) if score is not None]
    return found
