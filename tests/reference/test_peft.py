"""PEFT on transformers' Florence-2 reads our adapters and answers alike, and would itself train the same tensors."""

import warnings
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from open_florence.inference.pretrained import load_model, save_model
from open_florence.model.config import FlorenceConfig, TextConfig, VisionConfig
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tokenizer import Tokenizer
from open_florence.training.lora import LoraConfig, add_lora, lora_parameters, merge_lora, save_adapter
from open_florence.training.vocabulary import add_tokens

transformers = pytest.importorskip("transformers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # other libraries', while they are imported
    peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's

VISION = VisionConfig((16, 32), (1, 1), (1, 2), (1, 2), 32, 4, (7, 3), (4, 2), (3, 1), (False, True))
TEXT = TextConfig(0, 32, 1, 2, encoder_heads=2, decoder_heads=2, encoder_ffn=48, decoder_ffn=64)


@pytest.fixture(scope="module")
def processor():
    return Processor(Tokenizer.train(["how many red squares are there?"] * 3, 1320), image_size=32)


@pytest.fixture
def base(processor, spread, tmp_path):
    """A folder in the native layout."""

    def make(tied):
        config = FlorenceConfig(VISION, replace(TEXT, tied=tied), image_size=32)
        model = Florence(config.with_vocabulary(len(processor.tokenizer))).eval()
        spread(model, 0)
        save_model(model, processor, tmp_path / "base")
        return tmp_path / "base"

    return make


def adapt(model, folder, base, processor=None, **settings):
    """Adapters that say something, saved; returns their configuration."""
    config = LoraConfig(rank=3, alpha=8, dropout=0.1, **settings)
    add_lora(model, config)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in lora_parameters(model):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    save_adapter(model, folder, str(base), processor=processor)
    return config


def answers(ours, theirs, ids):
    """Logits of both about the same pixels and questions, in float64, so that only a mistake can make a difference."""
    ours, theirs = ours.double(), theirs.double()
    image = ours.config.image_token_id
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)).double()
    labels = torch.tensor([[0, 40, 60, 2], [0, 271, 9, 2]])
    long = torch.cat([ids.new_full((2, 17), image), ids], dim=1)  # 4 x 4 cells and their mean
    with torch.inference_mode():
        mine = ours.eval()(pixels, ids, torch.ones_like(ids), labels)
        other = theirs.eval()(
            input_ids=long,
            attention_mask=torch.ones_like(long),
            pixel_values=pixels,
            decoder_input_ids=ours.shift_right(labels),
        )
    return mine, other.logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stabilised", [False, True])
def test_peft_answers_as_we_do(base, tmp_path, tied, stabilised):
    folder = base(tied)
    ours, _ = load_model(folder)
    rows = tuple(range(30, 34))
    adapt(ours, tmp_path / "adapter", folder, rank_stabilised=stabilised, token_rows=rows)
    theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(folder)
    plain = answers(ours, theirs, torch.tensor([[0, 31, 32, 2], [0, 60, 61, 2]]))
    assert (plain[0] - plain[1]).abs().max() > 0.1, "the adapters must matter"
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    mine, other = answers(ours, adapted, torch.tensor([[0, 31, 32, 2], [0, 60, 61, 2]]))
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    merge_lora(ours)
    mine, other = answers(ours, adapted.merge_and_unload(), torch.tensor([[0, 31, 32, 2], [0, 60, 61, 2]]))
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_peft_would_save_the_same_tensors(base, tmp_path):
    """Given the names alone, as a user of PEFT writes them; its file is then read by us."""
    folder = base(True)
    ours, _ = load_model(folder)
    config = adapt(ours, tmp_path / "ours", folder, targets=("q_proj", "v_proj", "out_proj", "qkv", "fc1", "fc2"))
    theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(folder)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets))
    trained = peft.get_peft_model(theirs, settings)
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    trained.save_pretrained(tmp_path / "theirs")
    first, second = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert {name: t.shape for name, t in first.items()} == {name: t.shape for name, t in second.items()}
    loaded, _ = load_model(tmp_path / "theirs")
    mine, other = answers(loaded, trained, torch.tensor([[0, 31, 32, 2], [0, 60, 61, 2]]))
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)  # merged in float32 when loaded


def test_an_adapter_with_new_tokens(base, tmp_path):
    """The new tokens take rows that pad the native table, so nothing has to be resized anywhere."""
    folder = base(True)
    ours, processor = load_model(folder)
    processor = add_tokens(ours, processor, ["<COUNT>", "<WHERE>"])
    tokens = tuple(processor.tokenizer.encode("<COUNT><WHERE>", wrap=False))
    adapt(ours, tmp_path / "adapter", folder, processor, token_rows=tokens)
    theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(folder)
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert tokenizer.convert_tokens_to_ids(["<COUNT>", "<WHERE>"]) == list(tokens)
    assert tokenizer.convert_tokens_to_ids("<image>") == theirs.config.image_token_id
    ids = torch.tensor([[0, tokens[0], 61, 2], [0, tokens[1], 61, 2]])
    mine, other = answers(ours, adapted, ids)
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    loaded, again = load_model(tmp_path / "adapter")
    assert again.tokenizer.encode("<COUNT>") == [0, tokens[0], 2]
    mine, other = answers(loaded, adapted, ids)
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)  # merged in float32 when loaded
