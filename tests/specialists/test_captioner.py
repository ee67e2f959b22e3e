from types import SimpleNamespace

import pytest
import torch
import transformers

from open_florence.schema import Annotation, Region
from open_florence.specialists.captioner import Captioner

VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
TOKENS = {"pad_token_id": 0, "bos_token_id": 101, "eos_token_id": 102}


@pytest.fixture(scope="module")
def folders(save, word_pieces):
    torch.manual_seed(1)
    pixels = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    blip = transformers.BlipConfig(
        text_config={
            **TEXT,
            **TOKENS,
            "vocab_size": 1100,
            "encoder_hidden_size": 16,
            "intermediate_size": 16,
            "sep_token_id": 102,
        },
        vision_config=VISION,
    )
    blip2 = transformers.Blip2Config(
        vision_config=VISION,
        qformer_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "encoder_hidden_size": 16,
            "vocab_size": 100,
        },
        text_config={
            **TEXT,
            **TOKENS,
            "model_type": "opt",
            "vocab_size": 1200,
            "ffn_dim": 16,
            "word_embed_proj_dim": 16,
        },
        num_query_tokens=4,
        image_token_id=1100,
    )
    return {
        "blip": save(
            "blip", transformers.BlipForConditionalGeneration(blip), transformers.BlipProcessor(pixels, word_pieces)
        ),
        "blip2": save(
            "blip2",
            transformers.Blip2ForConditionalGeneration(blip2),
            transformers.Blip2Processor(pixels, word_pieces, num_query_tokens=4),
        ),
    }


@pytest.mark.parametrize("family", ["blip", "blip2"])
@pytest.mark.parametrize("crops", [False, True])
def test_what_is_said_does_not_depend_on_the_batch(family, crops, folders, check_batches):
    captioner = Captioner(folders[family], crops=crops, most_tokens=5)
    answers = check_batches(captioner)
    assert any(answers)
    for annotation in (annotation for answer in answers for annotation in answer):
        assert (annotation.task,) == captioner.tasks
        scores = [region.label_score for region in annotation.regions] if crops else [annotation.score]
        assert scores
        assert all(0 < score < 1 for score in scores)
        assert all(annotation.text == "" and region.label for region in annotation.regions)
    assert captioner.needs == (("<OD>",) if crops else ())


@pytest.mark.parametrize("family", ["blip", "blip2"])
def test_the_likeliest_tokens_are_what_the_model_generates(family, folders, samples):
    captioner = Captioner(folders[family], most_tokens=5)
    network, processor = captioner._model.network, captioner._model.processor
    sizes = []
    generate = network.generate
    network.generate = lambda **options: sizes.append(options["pixel_values"].shape) or generate(**options)
    captioner.annotate(samples)
    assert sizes == [(4, 3, 32, 32)]
    with torch.inference_mode():
        pixels = processor(images=[torch.zeros(3, 8, 8, dtype=torch.uint8)], return_tensors="pt")["pixel_values"]
        theirs = generate(pixel_values=pixels, max_new_tokens=5, min_new_tokens=0, do_sample=False, num_beams=1)
        ours = captioner._generate(pixels)
    assert theirs[0, -ours["ids"].shape[1] :].tolist() == ours["ids"][0].tolist()


def plant(captioner, word_pieces, *captions):
    """The captioner with a network that says these captions, each word with probability 0.5, to images in turn."""
    ends = (word_pieces.sep_token_id, word_pieces.pad_token_id)
    rows = [word_pieces.convert_tokens_to_ids(caption.split()) for caption in captions]
    length = min(captioner._most, max(len(row) for row in rows) + 1)
    rows = [(row + [ends[0]] + [ends[1]] * length)[:length] for row in rows]

    def generate(pixel_values, **_):
        some, rows[:] = rows[: len(pixel_values)], rows[len(pixel_values) :]
        ids = torch.tensor(some)
        logits = torch.full((*ids.shape, len(word_pieces)), -torch.inf)
        logits.scatter_(-1, ids[..., None], 0.0)
        logits[..., 50] = 0.0
        prompt = torch.full((len(ids), 3), 101)
        return SimpleNamespace(sequences=torch.cat([prompt, ids], dim=1), logits=tuple(logits.unbind(1)))

    captioner._model.network.generate = generate
    return captioner


def test_a_caption_has_its_words_and_the_mean_probability_of_its_tokens(folders, word_pieces, make_sample):
    captioner = plant(Captioner(folders["blip"]), word_pieces, "the red dog on the sofa", "the cat", "")
    long, short, nothing = captioner.annotate([make_sample((40, 30)) for _ in range(3)])
    assert long == [Annotation("<CAPTION>", "the red dog on the sofa", score=pytest.approx(0.5))]
    assert short == [Annotation("<CAPTION>", "the cat", score=pytest.approx(0.5))]
    assert nothing == []


def test_a_caption_cut_at_its_greatest_length_is_not_complete(folders, word_pieces, make_sample):
    captioner = plant(Captioner(folders["blip"], most_tokens=3), word_pieces, "the red dog on the sofa", "the cat")
    long, short = captioner.annotate([make_sample((40, 30)), make_sample((40, 30))])
    assert (long[0].text, long[0].complete) == ("the red dog", False)
    assert (short[0].text, short[0].complete) == ("the cat", True)


def test_crops_are_the_boxes(folders, word_pieces, make_sample):
    boxes = (
        Region.box(10.2, 5, 20.5, 15, label="animal", score=0.8),
        Region.box(0, 0, 40, 30, label="seat"),
        Region.box(39.9, 29.9, 40, 30, label="speck"),
    )
    sample = make_sample((40, 30), Annotation("<OD>", regions=boxes))
    captioner = plant(Captioner(folders["blip"], crops=True), word_pieces, "red dog", "the sofa", "")
    seen = []
    processor = captioner._model.processor.image_processor

    class Watching:
        def __call__(self, images, **options):
            seen.append(images.size)
            return processor(images=images, **options)

    captioner._model.processor.image_processor = Watching()
    [[annotation]] = captioner.annotate([sample])
    assert seen == [(11, 10), (40, 30), (1, 1)]
    dog, sofa = annotation.regions  # of the speck nothing was said
    assert (dog.label, dog.parts, dog.score) == ("red dog", boxes[0].parts, 0.8)
    assert dog.label_score == pytest.approx(0.5)
    assert (sofa.label, sofa.parts, sofa.score) == ("the sofa", boxes[1].parts, None)
    assert captioner.annotate([make_sample((40, 30))]) == [[]]
