"""New tokens in models as they are published: without spare rows, with them, and with the image placeholder named."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model, save_model
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tasks import TASKS, Task, TextGrammar
from open_florence.training.lora import LoraConfig, add_lora, lora_parameters, save_adapter
from open_florence.training.vocabulary import add_tokens

KINDS = ("microsoft", "native", "native with the placeholder named")


@pytest.fixture
def load(model: Florence, processor: Processor, tmp_path: Path) -> Callable[[str], tuple[Florence, Processor]]:
    """A model as it comes from a checkpoint of one of the KINDS."""

    def read(kind: str) -> tuple[Florence, Processor]:
        if "named" in kind:
            processor_of = Processor(processor.tokenizer.with_tokens(["<image>"]), image_size=processor.image_size)
        else:
            processor_of = processor
        save_model(model, processor_of, tmp_path / "base", "microsoft" if kind == "microsoft" else "native")
        return load_model(tmp_path / "base")

    return read


def answer(model: Florence, ids: list[int]) -> Tensor:
    """Logits (1, T, V)."""
    prompt, labels = torch.tensor([ids]), torch.tensor([[0, 40, 300, 2]])
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.eval()(pixels, prompt, torch.ones_like(prompt), labels)


@pytest.mark.parametrize("kind", KINDS)
def test_old_answers_are_unchanged(load: Callable[[str], tuple[Florence, Processor]], kind: str) -> None:
    model, processor = load(kind)
    size, image = len(processor.tokenizer), model.config.image_token_id
    text = "Locate a red square<loc_7>"
    ids = processor.tokenizer.encode(text)
    before = answer(model, ids)
    extended = add_tokens(model, processor, ["<COUNT>", "</COUNT>"])
    assert extended.tokenizer.encode(text) == ids
    after = answer(model, ids)
    assert torch.equal(after[..., :size], before[..., :size])
    assert torch.equal(after.argmax(-1), before.argmax(-1)), "a new token is never the likeliest"
    assert model.config.image_token_id == image
    assert model.config.text is model.language_model.config
    assert processor.tokenizer.decode([size + 1]) != "<COUNT>", "the processor given is left as it was"


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_only_pad_are_used_first(load: Callable[[str], tuple[Florence, Processor]], kind: str) -> None:
    model, processor = load(kind)
    rows, free = model.config.text.vocab_size, len(processor.tokenizer)
    if kind == "native":
        free += 1  # the id kept for the placeholder
    names = [f"<NEW_{i}>" for i in range(3)]
    extended = add_tokens(model, processor, names)
    assert extended.tokenizer.encode("".join(names), wrap=False) == [free, free + 1, free + 2]
    assert model.config.text.vocab_size == max(rows, free + 3)
    assert rows == free if kind == "microsoft" else rows > free + 3
    many = add_tokens(model, extended, [f"<MANY_{i}>" for i in range(70)])
    table = model.language_model.shared
    assert len(many.tokenizer) == len(table.weight) == table.num_embeddings == free + 73


@pytest.mark.parametrize("layout", ["native", "microsoft"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded_by_us_and_by_transformers(
    load: Callable[[str], tuple[Florence, Processor]], tmp_path: Path, kind: str, layout: str
) -> None:
    transformers = pytest.importorskip("transformers")
    model, processor = load(kind)
    processor = add_tokens(model, processor, ["<COUNT>"])
    ids = processor.tokenizer.encode("<COUNT> a red square")
    expected = answer(model, ids)
    save_model(model, processor, tmp_path / "again", layout)
    loaded, again = load_model(tmp_path / "again")
    assert again.tokenizer.encode("<COUNT> a red square") == ids
    assert again.tokenizer.decode(ids) == "<s><COUNT> a red square</s>"
    assert torch.equal(answer(loaded, ids)[..., : expected.shape[-1]], expected)
    add_tokens(loaded, again, ["<COUNT>"])
    assert torch.equal(answer(loaded, ids)[..., : expected.shape[-1]], expected), "it has the token already"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert tokenizer("<COUNT> a red square").input_ids == ids
    if layout == "native":
        theirs = transformers.Florence2ForConditionalGeneration.from_pretrained(tmp_path / "again")
        assert tokenizer.convert_tokens_to_ids("<image>") == theirs.config.image_token_id
        assert theirs.get_input_embeddings().num_embeddings >= len(tokenizer)


def test_a_row_starts_near_the_phrase_that_describes_it(model: Florence, processor: Processor) -> None:
    table = model.language_model.shared
    with torch.no_grad():
        table.weight.normal_(generator=torch.Generator().manual_seed(1))
    phrase = processor.tokenizer.encode("a red square", wrap=False)
    expected, overall = table.weight[phrase].mean(0), table.weight.mean(0)
    extended = add_tokens(model, processor, {"<SQUARE>": "a red square", "<TWIN>": "a red square", "<ANY>": ""})
    square, twin, anything = (
        table.weight[extended.tokenizer.encode(name, wrap=False)[0]] for name in ("<SQUARE>", "<TWIN>", "<ANY>")
    )
    for row, centre in ((square, expected), (twin, expected), (anything, overall)):
        assert 0.05 < (row - centre).std() < 0.2
    assert not torch.equal(square, twin)


def test_an_untied_output_layer_grows_too(model: Florence, processor: Processor) -> None:
    head = torch.nn.Linear(32, len(processor.tokenizer), bias=False)
    model.language_model.lm_head = head
    extended = add_tokens(model, processor, ["<COUNT>"])
    assert len(head.weight) == head.out_features == len(extended.tokenizer)
    assert answer(model, [0, 2]).shape[-1] == len(extended.tokenizer)
    assert head.weight[-1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_token_may_be_asked_with_and_answered(
    load: Callable[[str], tuple[Florence, Processor]], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setitem(TASKS, "<COUNT>", Task("<COUNT>", "<COUNT>{input}", TextGrammar("<COUNT>"), query="text"))
    model, processor = load(kind)
    processor = add_tokens(model, processor, ["<COUNT>"])
    (count,) = processor.tokenizer.encode("<COUNT>", wrap=False)
    assert processor.tokenizer.encode(TASKS["<COUNT>"].question("a", (1, 1)))[1] == count
    picture = Image.new("RGB", (32, 32), "red")
    ids, mask = map(torch.from_numpy, processor.prompts(["<COUNT>a"]))
    with torch.inference_mode():
        memory = model.encode(model.encode_image(torch.from_numpy(processor.pixels([picture]))), ids, mask)
        embedded = model.language_model.embed(torch.tensor([[2, 0]]))
        hidden = model.language_model.decoder(embedded, memory.hidden, memory.mask, None)[0, -1]
    with torch.no_grad():  # what the decoder wants to say after <s> is the new token, and even more the placeholder
        model.language_model.shared.weight[count] = 50 * hidden
        if model.config.image_token_id is not None:
            model.language_model.shared.weight[model.config.image_token_id] = 100 * hidden
    text = Predictor(model, processor).predict(picture, ("<COUNT>", "a")).text
    assert text.startswith("<COUNT>")
    assert "<image>" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_brings_its_new_tokens_along(
    load: Callable[[str], tuple[Florence, Processor]], tmp_path: Path, kind: str
) -> None:
    model, processor = load(kind)
    processor = add_tokens(model, processor, ["<COUNT>", "<WHERE>"])
    tokens = processor.tokenizer.encode("<COUNT><WHERE>", wrap=False)
    add_lora(model, LoraConfig(rank=2, token_rows=tuple(tokens)))
    with torch.no_grad():
        for parameter in lora_parameters(model):
            parameter.add_(0.1)
    layout = "microsoft" if kind == "microsoft" else "native"
    save_adapter(model, tmp_path / "adapter", str(tmp_path / "base"), layout, processor)
    loaded, again = load_model(tmp_path / "adapter")
    assert again.tokenizer.encode("<COUNT><WHERE>", wrap=False) == tokens
    torch.testing.assert_close(answer(loaded, [0, *tokens, 2]), answer(model, [0, *tokens, 2]), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_a_token_is_said(model: Florence, processor: Processor) -> None:
    for name in ("COUNT", "", "<a b>", "<>", "<a><b>", " <A>"):
        with pytest.raises(OpenFlorenceError, match="<NAME>"):
            add_tokens(model, processor, ["<GOOD>", name])
    model.config = model.config.with_vocabulary(model.config.text.vocab_size, len(processor.tokenizer) + 1)
    with pytest.raises(OpenFlorenceError, match="only 1 tokens fit before id"):
        add_tokens(model, processor, ["<A>", "<B>"])
    add_lora(model, LoraConfig(rank=2))
    with pytest.raises(OpenFlorenceError, match="before adapters"):
        add_tokens(model, processor, ["<A>"])
