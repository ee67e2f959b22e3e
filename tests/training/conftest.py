"""A model of a few thousand parameters and examples of coloured squares, so that training tests take a second."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region
from open_florence.tokenizer import Tokenizer
from open_florence.training.batches import Example

SIDE = 32


@pytest.fixture(scope="session")
def processor() -> Processor:
    texts = ["Locate the objects with category name in the image.", "What does the image describe?", "a red square"]
    return Processor(Tokenizer.train(texts * 20, 1320), image_size=SIDE)


@pytest.fixture
def model(processor: Processor) -> Florence:
    torch.manual_seed(0)
    vision = VisionConfig((16, 32), (1, 1), (1, 2), (1, 2), 32, 4, (7, 3), (4, 2), (3, 1), (False, True), drop_path=0.0)
    text = TextConfig(len(processor.tokenizer), 32, 1, 1, 2, 2, 64, 64, dropout=0.0, attention_dropout=0.0)
    return Florence(FlorenceConfig(vision, text, image_size=SIDE))


@pytest.fixture(scope="session")
def square() -> Callable[[random.Random], Example]:
    """Makes an example, a function of the generator it is given."""
    return _square


def _square(rng: random.Random) -> Example:
    """A red square on black, with its caption, its box, and dense labels on the 4 x 4 grid of the test model."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    x, y = rng.randrange(4) * 8, rng.randrange(4) * 8
    image[y : y + 8, x : x + 8, 0] = 255
    box = Region.box(x, y, x + 8, y + 8, label="square")
    where = np.zeros((4, 4), np.float32)
    where[y // 8, x // 8] = 1
    annotations = (Annotation("<CAPTION>", text="a red square"), Annotation("<OD>", regions=(box,)))
    return Example(image, annotations, {"object": where})
