from types import SimpleNamespace

import pytest
import torch
import transformers

from open_florence.errors import OpenFlorenceError
from open_florence.specialists.open_vocabulary import OpenVocabularyDetector

CLASSES = ["cat", "traffic light", "red dog"]


@pytest.fixture(scope="module")
def owl(save, clip_text, clip_tokens):
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Owlv2Config(
        text_config=clip_text, vision_config={**vision, "image_size": 64, "patch_size": 16}, projection_dim=16
    )
    pixels = transformers.Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    network = transformers.Owlv2ForObjectDetection(config)
    return save("owl", network, transformers.Owlv2Processor(pixels, clip_tokens))


@pytest.mark.parametrize("family", ["owl", "dino"])
def test_boxes_lie_in_the_image_and_do_not_depend_on_the_batch(family, request, samples, check_batches, check_boxes):
    detector = OpenVocabularyDetector(CLASSES, request.getfixturevalue(family), threshold=0.05, batch_size=2)
    for sample, annotations in zip(samples, check_batches(detector), strict=True):
        [annotation] = annotations
        assert annotation.task == "<OD>"
        assert annotation.regions
        assert {region.label for region in annotation.regions} <= set(CLASSES)
        check_boxes(annotations, sample.size)


@pytest.mark.parametrize("family", ["owl", "dino"])
def test_a_threshold_nothing_reaches_gives_an_empty_answer(family, request, samples):
    folder = request.getfixturevalue(family)
    detector = OpenVocabularyDetector(CLASSES, folder, threshold=1.1)
    assert [[a.regions for a in answer] for answer in detector.annotate(samples)] == [[()]] * len(samples)
    assert detector.version != OpenVocabularyDetector(CLASSES[:2], folder, threshold=1.1).version


def test_owl_boxes_are_shares_of_the_longer_side(owl, make_sample, corners):
    """OWLv2 sees the image in the top-left corner of a square."""
    detector = OpenVocabularyDetector(CLASSES, owl)
    boxes = torch.tensor([[0.5, 0.25, 0.2, 0.1], [0.25, 0.5, 0.1, 0.2]])
    logits = torch.tensor([[-9.0, 2.0, 1.0], [-9.0, -9.0, 3.0]])
    asked = []

    def forward(pixel_values, input_ids, attention_mask):
        asked.append(tuple(input_ids.shape))
        return SimpleNamespace(logits=logits.repeat(len(pixel_values), 1, 1), pred_boxes=boxes[None])

    detector._model.network.forward = forward
    [[wide]], [[tall]], [[narrow]] = (
        detector.annotate([make_sample(size)]) for size in ((200, 100), (100, 200), (20, 200))
    )
    assert asked == [(3, 24)] * 3
    for annotation in (wide, tall):
        assert [region.label for region in annotation.regions] == ["red dog", "traffic light"]
    assert corners(wide.regions[0]) == pytest.approx([40, 80, 60, 100])  # cut: the image ends at 100
    assert corners(wide.regions[1]) == pytest.approx([80, 40, 120, 60])
    assert corners(tall.regions[0]) == pytest.approx([40, 80, 60, 120])
    assert corners(tall.regions[1]) == pytest.approx([80, 40, 100, 60])
    assert narrow.regions == ()  # both lie beside it


def test_dino_labels_are_whole_classes(dino, make_sample, corners):
    """The class whose best token fits the box best, also where a token of another class fits too."""
    detector = OpenVocabularyDetector(CLASSES, dino)
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.1, 0.1], [0.1, 0.9, 0.2, 0.2]])
    asked = []

    def forward(pixel_values, input_ids, **_):
        asked.append(detector._model.processor.tokenizer.convert_ids_to_tokens(input_ids[0]))
        logits = torch.full((1, 3, 32), -torch.inf)
        logits[0, 0, asked[-1].index("traffic")] = 2.0
        logits[0, 0, asked[-1].index("dog")] = 1.0
        logits[0, 1, asked[-1].index(".")] = 5.0  # belongs to no class
        logits[0, 2, asked[-1].index("dog")] = 3.0
        return SimpleNamespace(logits=logits, pred_boxes=boxes[None])

    detector._model.network.forward = forward
    [[annotation]] = detector.annotate([make_sample((100, 40))])
    assert asked[0][:3] == ["[CLS]", "cat", "."]
    dog, light = annotation.regions
    assert (dog.label, light.label) == ("red dog", "traffic light")
    assert corners(light) == pytest.approx([25, 10, 75, 30])
    assert corners(dog) == pytest.approx([0, 32, 20, 40])
    assert light.score == pytest.approx(float(torch.tensor(2.0).sigmoid()))


def test_many_classes_are_asked_in_several_prompts(dino, make_sample, monkeypatch):
    classes = [f"{first} {second}" for first in ("red", "cat", "dog") for second in ("sofa", "cat", "dog", "zebra")]
    detector = OpenVocabularyDetector(classes, dino, threshold=0)
    prompts = detector._prompts
    assert len(prompts) > 1
    assert [prompt.text[slice(*span)] for prompt in prompts for span in prompt.spans] == classes
    read = [len(detector._model.processor.tokenizer(prompt.text)["input_ids"]) for prompt in prompts]
    assert max(read) <= 32
    [[annotation]] = detector.annotate([make_sample((64, 64))])
    assert len(annotation.regions) > 10  # of each prompt its boxes
    scores = [region.score for region in annotation.regions]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "needs classes"),
        (["cat", " "], "needs classes"),
        (["a. b"], "a full stop ends a class"),
        (["zebra " * 20], "longer than the model reads"),
    ],
)
def test_classes_that_cannot_be_asked_for(classes, message, dino):
    with pytest.raises(OpenFlorenceError, match=message):
        OpenVocabularyDetector(classes, dino)


def test_a_model_of_another_kind_is_refused(save):
    bert = transformers.BertConfig(vocab_size=10, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    with pytest.raises(OpenFlorenceError, match="of the kind bert, not owlv2 or owlvit or grounding-dino"):
        OpenVocabularyDetector(["cat"], save("other", transformers.BertModel(bert)))
