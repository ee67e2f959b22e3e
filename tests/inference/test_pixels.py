"""Values made of resized images where the model is: the processor's own, to the last bit."""

import numpy as np
import torch

from open_florence.inference.pixels import looked_up, pixel_values
from open_florence.processor import Processor
from open_florence.tokenizer import Tokenizer


def test_looked_up_values_are_the_processors() -> None:
    processor = Processor(Tokenizer.train(["a cat"], 300), image_size=20, std=(0.2, 0.3, 0.4))
    levels = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), np.uint8)
    expected = torch.from_numpy(processor.normalised(levels))
    assert torch.equal(looked_up(processor, torch.from_numpy(levels)), expected)
    assert torch.equal(pixel_values(processor, levels, torch.device("cpu")), expected)
    assert expected.unique().numel() > 700  # each channel its own values
