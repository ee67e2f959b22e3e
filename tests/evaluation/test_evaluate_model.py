"""A real predictor, its weights random, answers every question of a scene: the interfaces fit."""

from dataclasses import replace

import pytest
import torch

from open_florence.evaluation import evaluate
from open_florence.generation import GenerationConfig
from open_florence.inference.predictor import Predictor
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.scenes import corpus
from open_florence.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(corpus(20), 1400)
    config = PRESETS["tiny"]
    config = replace(config, text=replace(config.text, vocab_size=len(tokenizer)))
    processor = Processor(tokenizer, 160, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return Predictor(Florence(config), processor, "random")


def test_a_random_model_is_judged(predictor):
    short = GenerationConfig(max_new_tokens=6)
    report = evaluate(predictor, "scenes:validation", limit=3, progress=False, generation=short)
    assert report.model == "random"
    assert report.images == 3
    assert report.metrics["od_ap50"] == 0.0
    assert report.metrics["detailed_f1"] < 0.5
    again = evaluate(predictor, "scenes:validation", limit=3, batch_size=1, progress=False, generation=short)
    assert again.metrics == report.metrics
