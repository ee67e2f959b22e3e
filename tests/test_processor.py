"""The processor against transformers' and Microsoft's, and its scores against hand-made alignments."""

import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.processor import Processor
from open_florence.schema import Annotation, Region
from open_florence.tasks import TASKS, PhraseGrammar, RegionGrammar, TextGrammar
from open_florence.tokenizer import Tokenizer

OD = TASKS["<OD>"]
SIZE = (640.0, 480.0)
BINS = (1000.0, 1000.0)
"""A size at which a coordinate is its own bin."""


@pytest.fixture(scope="module")
def published(data_folder: Path) -> Processor:
    return Processor.from_folder(data_folder / "florence2_tokenizer" / "microsoft_florence2_large")


@pytest.fixture(scope="module")
def small() -> Processor:
    texts = ["Locate the objects with category name in the image.", "a red car", "door handle", "日本 café"]
    return Processor(Tokenizer.train(texts * 20, 420), image_size=64)


def reference(side: int, **settings_):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"height": side, "width": side},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        **settings_,
    )


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(width * 7 + height).integers(0, 256, shape, np.uint8))


# --- pixels


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (64, 64), (160, 107), (640, 480), (1001, 77)])
def test_pixels_equal_those_of_transformers(size, small):
    image = noise(*size)
    for side in (64, 160):
        ours = replace(small, image_size=side).pixels([image])
        theirs = reference(side)(image, return_tensors="np")["pixel_values"]
        assert ours.dtype == np.float32
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_pixels_of_every_mode_equal_those_of_transformers(mode, small):
    image = noise(50, 40, 4) if mode == "RGBA" else noise(50, 40, 2) if mode == "LA" else noise(50, 40).convert(mode)
    assert np.array_equal(small.pixels([image]), reference(64)(image, return_tensors="np")["pixel_values"])


def test_pixels_at_the_published_size_in_a_batch(published):
    images = [noise(300, 200), noise(90, 768), noise(768, 768)]
    theirs = reference(768)(images, return_tensors="np")["pixel_values"]
    assert np.array_equal(published.pixels(images), theirs)
    assert published.pixels([]).shape == (0, 3, 768, 768)


def test_pixels_equal_those_of_the_original(published, data_folder):
    folder = data_folder / "florence2_original_reference"
    recorded = json.loads((folder / "preprocess_meta.json").read_text())
    arrays = np.load(folder / "preprocess.npz")
    names = [name for name, row in recorded.items() if "error" not in row]
    assert len(names) == 4
    for name in names:
        values = published.pixels([Image.fromarray(arrays[f"{name}.input"])])[0]
        assert hashlib.sha256(values.tobytes()).hexdigest() == recorded[name]["pixel_values_f32_sha256"]
        assert np.array_equal(values[:, 352:416, 352:416], arrays[f"{name}.crop_352_416"])


def test_a_rotated_photo_is_turned_once(small):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    noise(30, 20).save(buffer, "PNG", exif=exif)
    turned = noise(30, 20).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(small.pixels([Image.open(buffer)]), small.pixels([turned]))


# --- prompts

REGION = Region.box(52, 332, 932, 774)
SEGMENT = Region.box(702, 575, 866, 772)
GOLDEN = [
    ("<OCR>", None, "2264 16 5 2788 11 5 2274 116"),
    ("<OCR_WITH_REGION>", None, "2264 16 5 2788 11 5 2274 6 19 3806 116"),
    ("<CAPTION>", None, "2264 473 5 2274 6190 116"),
    ("<DETAILED_CAPTION>", None, "47066 21700 11 4617 99 16 2343 11 5 2274 4"),
    ("<MORE_DETAILED_CAPTION>", None, "47066 21700 19 10 17818 99 16 2343 11 5 2274 4"),
    ("<OD>", None, "574 22486 5 8720 19 4120 766 11 5 2274 4"),
    ("<DENSE_REGION_CAPTION>", None, "574 22486 5 8720 11 5 2274 6 19 49 24173 4"),
    ("<REGION_PROPOSAL>", None, "574 22486 5 976 5327 11 5 2274 4"),
    (
        "<CAPTION_TO_PHRASE_GROUNDING>",
        "A green car parked in front of a yellow building.",
        "574 22486 5 22810 11 5 3747 35 83 2272 512 9181 11 760 9 10 5718 745 4",
    ),
    ("<REFERRING_EXPRESSION_SEGMENTATION>", "a car", "574 22486 10 512 11 5 2274 19 11445"),
    ("<REGION_TO_SEGMENTATION>", SEGMENT, "2264 16 5 11424 14601 11445 9 976 1437 50971 50844 51135 51041"),
    ("<OPEN_VOCABULARY_DETECTION>", "wheels", "574 22486 10562 11 5 2274 4"),
    ("<OPEN_VOCABULARY_DETECTION>", "cat<and>dog", "574 22486 4758 51288 16319 11 5 2274 4"),
    ("<REGION_TO_CATEGORY>", REGION, "2264 16 5 976 1437 50321 50601 51201 51043 116"),
    ("<REGION_TO_DESCRIPTION>", REGION, "2264 473 5 976 1437 50321 50601 51201 51043 6190 116"),
    ("<REGION_TO_OCR>", REGION, "2264 2788 16 11 5 976 1437 50321 50601 51201 51043 116"),
]


@pytest.mark.parametrize(("task", "query", "ids"), GOLDEN)
def test_golden_prompts(task, query, ids, published):
    input_ids, mask = published.prompts([TASKS[task].question(query, BINS)])
    assert input_ids.tolist() == [[0, *map(int, ids.split()), 2]]
    assert mask.tolist() == [[1] * input_ids.shape[1]]


def test_every_published_task_has_a_golden_prompt():
    assert {row[0] for row in GOLDEN} == TASKS.keys() - {"<VQA>", "<CLASSIFICATION>"}


def test_prompts_are_padded_on_the_right(published):
    input_ids, mask = published.prompts(["What does the image describe?", "a", ""])
    assert input_ids.dtype == mask.dtype == np.int64
    assert input_ids.tolist() == [[0, 2264, 473, 5, 2274, 6190, 116, 2], [0, 102, 2] + [1] * 5, [0, 2] + [1] * 6]
    assert mask.tolist() == [[1] * 8, [1] * 3 + [0] * 5, [1] * 2 + [0] * 6]
    assert published.prompts([])[0].shape == (0, 0)


# --- targets, and back


def quantised(annotation: Annotation, size: tuple[float, ...]) -> Annotation:
    grammar = TASKS[annotation.task].grammar
    return grammar.parse(grammar.serialize(annotation, size), size, annotation.query)


def without_scores(annotation: Annotation) -> Annotation:
    regions = tuple(replace(region, score=None, label_score=None) for region in annotation.regions)
    return replace(annotation, regions=regions, score=None)


LABELS = (
    st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=12).map(str.strip).filter(bool)
)
POINTS = st.tuples(st.floats(0, 639.9), st.floats(0, 479.9))
COUNTS = {"box": 2, "quad": 4}


@st.composite
def regions_of(draw, kind: str) -> Region:
    count = COUNTS.get(kind)
    part = st.lists(POINTS, min_size=count or 3, max_size=count or 6).map(tuple)
    parts = tuple(draw(st.lists(part, min_size=1, max_size=1 if count else 3)))
    return Region(kind, parts, draw(LABELS))


@st.composite
def annotations_of(draw, token: str) -> Annotation:
    task = TASKS[token]
    box = draw(regions_of("box")) if task.query == "region" else None
    query = replace(box, label="") if box else draw(LABELS) if task.query == "text" else None
    if isinstance(task.grammar, TextGrammar):
        return Annotation(token, draw(LABELS), query=query)
    if isinstance(task.grammar, PhraseGrammar):
        regions = tuple(draw(st.lists(regions_of("box"), min_size=1, max_size=4)))
        return Annotation(token, regions=regions, query=", ".join(region.label for region in regions))
    assert isinstance(task.grammar, RegionGrammar)
    kind = draw(st.sampled_from(task.grammar.kinds))
    regions = tuple(draw(st.lists(regions_of(kind), max_size=4)))
    if not task.grammar.labelled:
        regions = tuple(replace(region, label="") for region in regions)
    return Annotation(token, regions=regions, query=query)


@pytest.mark.parametrize("token", list(TASKS))
def test_a_target_decodes_to_its_annotation(token, small):
    @settings(max_examples=30, deadline=None)
    @given(annotations_of(token))
    def comes_back(annotation: Annotation) -> None:
        ids = small.target(annotation, SIZE)
        assert (ids[0], ids[-1]) == (0, 2)
        read = small.decode(TASKS[token], ids, [0.0] * len(ids), SIZE, annotation.query)
        assert without_scores(read) == quantised(annotation, SIZE)
        assert [region.label for region in read.regions] == [region.label for region in annotation.regions]
        for got, meant in zip(read.regions, annotation.regions, strict=True):
            gaps = np.abs(np.subtract(np.concatenate(got.parts), np.concatenate(meant.parts)))  # (points, 2)
            assert (gaps <= np.array(SIZE) / 2000 + 1e-4).all()
        scores = [read.score, *(score for region in read.regions for score in (region.score, region.label_score))]
        assert set(scores) <= {1.0, None}

    comes_back()


def test_a_target_is_the_recorded_answer_of_the_published_model(published, data_folder):
    path = data_folder / "florence2_recorded_outputs" / "cases.jsonl"
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cases = [case for case in cases if case["output_ids"] and case["task"]]
    assert len(cases) >= 5
    for case in cases:
        task, size, ids = TASKS[case["task"]], tuple(case["image_size"]), case["output_ids"]
        text = published.tokenizer.decode([id_ for id_ in ids if id_ > 2])
        assert text == re.sub("</?s>|<pad>", "", case["raw_text"])
        annotation = published.decode(task, ids, [-0.5] * len(ids), size, case["input_text"])
        assert without_scores(annotation) == task.grammar.parse(case["raw_text"], size, case["input_text"])
        assert annotation.score == pytest.approx(np.exp(-0.5))
        cut = 2 not in ids[1:]
        assert annotation.complete or cut
        if not cut and task.token != "<OPEN_VOCABULARY_DETECTION>":  # there it repeats the label of several boxes
            assert published.tokenizer.decode(published.target(annotation, size)) == f"<s>{text}</s>"


# --- scores


def locations(processor: Processor, *bins: int) -> list[int]:
    return [processor.tokenizer.location_start + k for k in bins]


def mean(*values: float) -> float:
    return float(np.exp(np.mean(values)))


def test_scores_of_the_original_where_it_aligns_and_of_the_right_tokens_where_it_does_not(published, data_folder):
    path = data_folder / "florence2_original_reference" / "postprocess_scores.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    scored = [row for row in rows if row.get("scores_if_aligned") is not None]
    assert (len(rows), len(scored), sum(row["aligned"] for row in scored)) == (24, 11, 6)
    for row in rows:
        ids, logprobs = row["sequence"][1:], row["transition_scores"]  # without the decoder's start
        annotation = published.decode(TASKS[row["task"]], ids, logprobs, tuple(row["image_size"]))
        scores = [region.score for region in annotation.regions]
        assert all(0 < score <= 1 for score in scores)
        if row in scored:
            assert scores == pytest.approx(row["scores_if_aligned"], abs=1e-12)
        if row.get("aligned"):
            assert scores == pytest.approx(row["result"]["scores"], abs=1e-12)


@st.composite
def answers(draw, processor: Processor):
    """Ids and log-probabilities of a detection answer, built token by token, with the scores they must give."""
    chance = st.floats(-9, 0)
    tokenizer = processor.tokenizer
    ids, logprobs = [2] * draw(st.integers(0, 2)) + [0] * draw(st.integers(1, 4)), []
    logprobs = [draw(chance) for _ in ids]
    body, wanted = [], []
    for _ in range(draw(st.integers(0, 3))):  # locations before any label belong to nothing
        ids += locations(processor, draw(st.integers(0, 999)))
        logprobs.append(draw(chance))
        body.append(logprobs[-1])
    for _ in range(draw(st.integers(1, 4))):
        spoken = tokenizer.encode(draw(LABELS), wrap=False)
        said = [draw(chance) for _ in spoken]
        ids, logprobs, body = ids + spoken, logprobs + said, body + said
        for _ in range(draw(st.integers(1, 3))):
            if draw(st.booleans()):  # an <s> in the middle of an answer says nothing
                ids, logprobs = [*ids, 0], [*logprobs, draw(chance)]
            placed = [draw(chance) for _ in range(4)]
            ids += locations(processor, *draw(st.tuples(*[st.integers(0, 999)] * 4)))
            logprobs, body = logprobs + placed, body + placed
            wanted.append((mean(*placed), mean(*said)))
    ids = [*ids, 2] + [1] * draw(st.integers(0, 3))
    logprobs += [draw(chance) for _ in range(len(ids) - len(logprobs))]
    return ids, logprobs, wanted, mean(*body)


def test_each_score_is_of_its_own_tokens(small):
    @settings(max_examples=150, deadline=None)
    @given(answers(small))
    def aligned(answer) -> None:
        ids, logprobs, wanted, whole = answer
        annotation = small.decode(OD, ids, logprobs, SIZE)
        assert [region.score for region in annotation.regions] == pytest.approx([place for place, _ in wanted])
        assert [region.label_score for region in annotation.regions] == pytest.approx([label for _, label in wanted])
        assert annotation.score == pytest.approx(whole)

    aligned()


def test_markup_between_the_parts_of_a_mask_is_not_its_place(small):
    task = TASKS["<REFERRING_EXPRESSION_SEGMENTATION>"]
    part, separator = locations(small, 1, 2, 3, 4, 5, 6), small.tokenizer.encode("<sep>", wrap=False)
    ids = [0, *part, *separator, *part, 2]
    logprobs = [0.0, *[-1.0] * 6, -9.0, *[-2.0] * 6, 0.0]
    annotation = small.decode(task, ids, logprobs, SIZE, "a car")
    (region,) = annotation.regions
    assert len(region.parts) == 2
    assert (region.score, region.label_score) == (pytest.approx(mean(-1, -2)), None)
    assert annotation.score == pytest.approx(mean(*logprobs[1:-1]))
    assert annotation.query == "a car"


def test_the_score_of_a_text_is_that_of_its_words(small):
    words = small.tokenizer.encode("a red car", wrap=False)
    echo = locations(small, 52, 332, 932, 774)
    ids, logprobs = [0, 0, *words, *echo, 2], [0.0, -7, *[-0.25] * len(words), *[-3.0] * 4, -5]
    annotation = small.decode(TASKS["<REGION_TO_CATEGORY>"], ids, logprobs, BINS)
    assert (annotation.text, annotation.score) == ("a red car", pytest.approx(mean(-0.25)))
    assert annotation.query == Region.box(52.5, 332.5, 932.5, 774.5)
    asked = small.decode(TASKS["<REGION_TO_CATEGORY>"], ids, logprobs, BINS, REGION)
    assert asked.query == REGION


def test_phrases_share_their_scores_among_their_boxes(small):
    phrase, caption = small.tokenizer.encode("a red car", wrap=False), "beside a red car"
    ids = [0, *phrase, *locations(small, 1, 2, 3, 4, 5, 6, 7, 8), 2]
    logprobs = [0.0, *[-0.5] * len(phrase), *[-1.0] * 4, *[-2.0] * 4, 0.0]
    annotation = small.decode(TASKS["<CAPTION_TO_PHRASE_GROUNDING>"], ids, logprobs, SIZE, caption)
    assert [region.score for region in annotation.regions] == pytest.approx([mean(-1), mean(-2)])
    assert [region.label_score for region in annotation.regions] == pytest.approx([mean(-0.5)] * 2)
    assert [region.span for region in annotation.regions] == [(7, 16)] * 2
    assert annotation.text == annotation.query == caption


def test_a_character_cut_by_the_limit_is_part_of_its_label(published):
    whole = published.tokenizer.encode("日本", wrap=False)
    ids = [0, *whole[:-1], *locations(published, 1, 2, 3, 4), 2]
    annotation = published.decode(OD, ids, [0.0, *[-0.5] * (len(whole) - 1), *[-1.0] * 4, 0.0], SIZE)
    (region,) = annotation.regions
    assert region.label == "日\ufffd"
    assert (region.score, region.label_score) == pytest.approx((mean(-1), mean(-0.5)))


def test_what_was_cut_or_empty_says_so(small):
    ids = [0, *small.tokenizer.encode("car", wrap=False), *locations(small, 1, 2, 3, 4)]
    assert small.decode(OD, [*ids, 2], [0.0] * (len(ids) + 1), SIZE).complete
    assert not small.decode(OD, ids, [0.0] * len(ids), SIZE, finished=False).complete
    assert small.decode(OD, [0, 2], [0.0, -1.0], SIZE) == Annotation("<OD>")
    assert small.decode(OD, [], [], SIZE) == Annotation("<OD>")
    with pytest.raises(ValueError, match="2 ids came with 1 log-prob"):
        small.decode(OD, [0, 2], [0.0], SIZE)


def test_impossible_tokens_score_zero(small):
    ids = [0, *small.tokenizer.encode("car", wrap=False), *locations(small, 1, 2, 3, 4)]
    annotation = small.decode(OD, ids, [float("-inf")] * len(ids), SIZE)
    assert (annotation.score, annotation.regions[0].score) == (0.0, 0.0)


# --- folders


def test_a_saved_folder_comes_back(small, tmp_path):
    mine = replace(small, image_size=160, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), image_seq_length=101)
    mine.save(tmp_path / "new")
    read = Processor.from_folder(tmp_path / "new")
    assert replace(read, tokenizer=small.tokenizer) == mine
    assert read.tokenizer.encode("a red car<loc_1>") == small.tokenizer.encode("a red car<loc_1>")


def test_transformers_reads_a_saved_folder(small, published, tmp_path):
    from transformers import Florence2Processor

    image = noise(70, 50)
    for name, processor, tokens in (("small", replace(small, image_seq_length=17), 17), ("published", published, 577)):
        processor.save(tmp_path / name)
        theirs = Florence2Processor.from_pretrained(tmp_path / name)
        batch = theirs(text=["<OD>"], images=[image], return_tensors="pt")
        assert np.array_equal(batch["pixel_values"].numpy(), processor.pixels([image]))
        asked = processor.prompts([OD.prompt])[0][0].tolist()
        assert batch["input_ids"][0].tolist() == [len(processor.tokenizer)] * tokens + asked


def test_a_folder_written_by_transformers_is_read(small, tmp_path):
    from transformers import Florence2Processor

    replace(small, image_size=160, image_seq_length=101).save(tmp_path / "ours")
    Florence2Processor.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    assert not (tmp_path / "theirs" / "preprocessor_config.json").exists()
    read = Processor.from_folder(tmp_path / "theirs")
    assert (read.image_size, read.image_seq_length, read.mean) == (160, 101, small.mean)
    assert read.tokenizer.image_token_id == len(small.tokenizer)
    assert read.tokenizer.encode("a red car<loc_1>") == small.tokenizer.encode("a red car<loc_1>")


@pytest.mark.parametrize(
    ("size", "side"),
    [({"height": 768, "width": 768}, 768), (384, 384), ({"shortest_edge": 224}, 224), ([96, 96], 96)],
)
def test_every_way_to_write_the_size(size, side, small, tmp_path):
    small.save(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "size": size}))
    assert Processor.from_folder(tmp_path).image_size == side


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "holds no preprocessor_config.json"),
        ("not JSON", "is not a Florence-2 preprocessor"),
        ({"size": {"height": 768, "width": 384}}, "is not square"),
        ("{}", "is not a Florence-2 preprocessor: it lacks 'image_mean'"),
        ("[]", "is not a Florence-2 preprocessor"),
        ({"size": None}, "is not a Florence-2 preprocessor"),
        ({"image_mean": [0.5]}, "is not a Florence-2 preprocessor"),
        ({"do_normalize": False}, "do_normalize is False, where True is the only one supported"),
        ({"resample": 2}, "resample is 2, where 3 is the only one supported"),
    ],
)
def test_folders_without_a_processor_are_refused_in_a_sentence(change, message, small, tmp_path):
    small.save(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    if change is None:
        path.unlink()
    else:
        text = change if isinstance(change, str) else json.dumps({**json.loads(path.read_text()), **change})
        path.write_text(text)
    with pytest.raises(OpenFlorenceError, match=message) as refusal:
        Processor.from_folder(tmp_path)
    assert str(tmp_path) in str(refusal.value)


# --- coordinates between the bins


def said_with_bins(processor: Processor, answer: str, shift: float) -> tuple[list[int], list[float]]:
    """The ids of an answer, and for each location token its bin moved by `shift` (NaN for the others)."""
    ids = processor.tokenizer.encode(answer)
    bins = {id_: place + shift for place, id_ in enumerate(processor.tokenizer.location_ids)}
    return ids, [bins.get(id_, float("nan")) for id_ in ids]


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("<OD>", "car<loc_100><loc_200><loc_300><loc_400>a red car<loc_5><loc_6><loc_900><loc_901>"),
        ("<OCR_WITH_REGION>", "red<loc_1><loc_2><loc_30><loc_2><loc_30><loc_9><loc_1><loc_9>"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", "<loc_1><loc_2><loc_3><sep><loc_40><loc_50><loc_60><loc_70>"),
    ],
)
def test_mean_bins_take_the_place_of_the_bins_that_were_said(small, task, answer):
    row = TASKS[task]
    query = "red" if row.query == "text" else None
    ids, bins = said_with_bins(small, answer, 0.25)
    plain = small.decode(row, ids, [-0.5] * len(ids), BINS, query)
    read = small.decode(row, ids, [-0.5] * len(ids), BINS, query, bins=bins)
    assert len(read.regions) == len(plain.regions) > 0
    for region, other in zip(read.regions, plain.regions, strict=True):
        assert (region.label, region.score, region.label_score) == (other.label, other.score, other.label_score)
        found, expected = (np.array([p for part in r.parts for p in part]) for r in (region, other))
        assert found == pytest.approx(expected + 0.25, rel=1e-6)
    exact = small.decode(row, ids, [-0.5] * len(ids), BINS, query, bins=said_with_bins(small, answer, 0.0)[1])
    assert exact == plain  # to the last bit


def test_each_coordinate_is_moved_by_its_own_token(small):
    """An odd coordinate at the end of a part is dropped, and its mean with it."""
    answer = "<loc_1><loc_2><loc_3><sep><loc_40><loc_50>"
    ids, bins = said_with_bins(small, answer, 0.0)
    moves = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    bins = [mean if np.isnan(mean) else mean + next(moves) for mean in bins]
    task = TASKS["<REFERRING_EXPRESSION_SEGMENTATION>"]
    (region,) = small.decode(task, ids, [-0.5] * len(ids), BINS, "red", bins=bins).regions
    assert np.array(region.parts).ravel() == pytest.approx([1.6, 2.7, 40.9, 51.0])


def test_a_box_narrower_than_its_means_are_apart_stays_as_it_was_said(small):
    ids, bins = said_with_bins(small, "car<loc_10><loc_20><loc_12><loc_90>", 0.0)
    places = [place for place, mean in enumerate(bins) if not np.isnan(mean)]
    bins[places[0]], bins[places[2]] = 13.0, 9.0
    plain = small.decode(OD, ids, [-0.5] * len(ids), BINS)
    assert small.decode(OD, ids, [-0.5] * len(ids), BINS, bins=bins) == plain


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 999), min_size=8, max_size=8), st.lists(st.floats(0, 999), min_size=8, max_size=8))
def test_no_mean_leaves_the_image(small, said, means):
    answer = "red" + "".join(f"<loc_{index}>" for index in said)
    ids, bins = said_with_bins(small, answer, 0.0)
    rest = iter(means)
    bins = [mean if np.isnan(mean) else next(rest) for mean in bins]
    (region,) = small.decode(TASKS["<OCR_WITH_REGION>"], ids, [-0.5] * len(ids), SIZE, bins=bins).regions
    points = np.array(region.parts[0])
    assert points.min() > 0
    assert np.all(points < SIZE)


def test_means_of_another_answer_are_refused(small):
    ids, bins = said_with_bins(small, "car<loc_1><loc_2><loc_3><loc_4>", 0.0)
    with pytest.raises(ValueError, match="mean bins"):
        small.decode(OD, ids, [-0.5] * len(ids), BINS, bins=bins[1:])
