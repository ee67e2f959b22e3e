"""What the model is asked: the published sentences word for word, queries in their place, mistakes in one sentence."""

import json

import pytest

from open_florence.errors import OpenFlorenceError
from open_florence.schema import Region
from open_florence.tasks import TASKS, Task, TextGrammar, find_task

SIZE = (1000, 1000)
CAR = "<loc_52><loc_332><loc_932><loc_774>"
PUBLISHED = {
    "<CAPTION>": "What does the image describe?",
    "<DETAILED_CAPTION>": "Describe in detail what is shown in the image.",
    "<MORE_DETAILED_CAPTION>": "Describe with a paragraph what is shown in the image.",
    "<OCR>": "What is the text in the image?",
    "<OCR_WITH_REGION>": "What is the text in the image, with regions?",
    "<OD>": "Locate the objects with category name in the image.",
    "<DENSE_REGION_CAPTION>": "Locate the objects in the image, with their descriptions.",
    "<REGION_PROPOSAL>": "Locate the region proposals in the image.",
    "<CAPTION_TO_PHRASE_GROUNDING>": "Locate the phrases in the caption: {input}",
    "<REFERRING_EXPRESSION_SEGMENTATION>": "Locate {input} in the image with mask",
    "<REGION_TO_SEGMENTATION>": "What is the polygon mask of region {input}",
    "<OPEN_VOCABULARY_DETECTION>": "Locate {input} in the image.",
    "<REGION_TO_CATEGORY>": "What is the region {input}?",
    "<REGION_TO_DESCRIPTION>": "What does the region {input} describe?",
    "<REGION_TO_OCR>": "What text is in the region {input}?",
}


def test_the_fifteen_published_prompts_and_two_of_ours():
    assert {token: task.prompt for token, task in TASKS.items() if token in PUBLISHED} == PUBLISHED
    assert [token for token in TASKS if token not in PUBLISHED] == ["<VQA>", "<CLASSIFICATION>"]
    assert all(task.token == task.grammar.task == token for token, task in TASKS.items())


def test_every_published_question(data_folder):
    """Those that Microsoft's code built, where it checks as we do: it takes any words for a region, or none at all."""
    recorded = json.loads((data_folder / "florence2_original_reference/prompts.json").read_text("utf-8"))["prompts"]
    asked = refused = 0
    for row in recorded:
        token = next((token for token in PUBLISHED if row["text"].startswith(token)), None)
        if token is None or "<OD>" in row["text"].removeprefix(token):
            continue
        query = row["text"].removeprefix(token) or None
        task = TASKS[token]
        words_for_a_region = task.query == "region" and query != CAR
        if "error" in row or words_for_a_region or (query is None) != (task.query == "none"):
            refused += 1
            with pytest.raises(OpenFlorenceError):
                task.question(query, SIZE)
            continue
        expected = task.prompt.replace("{input}", query or "")
        assert expected == row["prompt"]  # Microsoft's: word for word
        if query is not None:
            expected = task.prompt.replace("{input}", query.strip())  # transformers', and ours: no spaces at the ends
        assert task.question(query, SIZE) == expected
        asked += 1
    assert (asked, refused) == (36, 38)


def test_the_questions_of_transformers(data_folder):
    for line in (data_folder / "florence2_recorded_outputs/prompts.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        assert find_task(row["task"]).question(row["input_text"], SIZE) == row["prompt"]


def test_a_region_is_asked_about_as_four_tokens():
    task = TASKS["<REGION_TO_CATEGORY>"]
    box = Region.box(52.4, 332.9, 932, 774.99)
    assert task.question(box, SIZE) == task.question(CAR, SIZE) == f"What is the region {CAR}?"
    assert task.question(box, (2000, 1000)) == "What is the region <loc_26><loc_332><loc_466><loc_774>?"
    quad = Region("quad", (((20, 10), (90, 15), (80, 60), (10, 50)),))
    assert "<loc_10><loc_10><loc_90><loc_60>" in task.question(quad, SIZE)
    assert task.question(Region.box(3, 7), (10,)) == "What is the region <loc_300><loc_700>?"


@pytest.mark.parametrize(
    ("token", "query", "message"),
    [
        ("<OD>", "car", "<OD> takes no query, but was given 'car'"),
        ("<OD>", "", "<OD> takes no query"),
        ("<OPEN_VOCABULARY_DETECTION>", None, "<OPEN_VOCABULARY_DETECTION> needs words as its query"),
        ("<OPEN_VOCABULARY_DETECTION>", " \n", "needs words as its query"),
        ("<OPEN_VOCABULARY_DETECTION>", Region.box(1, 2, 3, 4), "needs words as its query, not a region"),
        ("<REGION_TO_OCR>", None, "<REGION_TO_OCR> needs a region as its query"),
        ("<REGION_TO_OCR>", "the sign", "needs a region as its query, not 'the sign'"),
        ("<REGION_TO_OCR>", "<loc_1><loc_2>", "needs a region as its query, not '<loc_1><loc_2>'"),
        ("<REGION_TO_OCR>", Region.box(1, 2), "has 1 numbers, its input has 2 axes"),
        ("<REGION_TO_OCR>", Region("polygon", ()), "a polygon without points is nowhere"),
        ("<VQA>", None, "<VQA> needs words"),
        ("<CLASSIFICATION>", None, "<CLASSIFICATION> needs words"),
    ],
)
def test_a_missing_or_superfluous_query(token, query, message):
    with pytest.raises(OpenFlorenceError, match=message):
        TASKS[token].question(query, SIZE)


def test_words_are_put_in_as_they_are():
    assert TASKS["<VQA>"].question(" How many {input} are {x}? ", SIZE) == "How many {input} are {x}?"
    assert TASKS["<CLASSIFICATION>"].question("cat<and>dog", SIZE) == "What does the image describe?"


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("<OD>", "<OD>"),
        ("OD", "<OD>"),
        ("od", "<OD>"),
        (" <od> ", "<OD>"),
        ("Caption_To_Phrase_Grounding", "<CAPTION_TO_PHRASE_GROUNDING>"),
        ("region-to-ocr", "<REGION_TO_OCR>"),
        ("<vqa>", "<VQA>"),
    ],
)
def test_names_in_any_case_with_or_without_brackets(name, token):
    assert find_task(name) is TASKS[token]


@pytest.mark.parametrize("name", ["What colour is the car?", "Why?", "Describe.", "locate the car", " is it red? "])
def test_anything_like_a_sentence_is_a_free_prompt(name):
    task = find_task(name)
    assert task == Task(name.strip(), name.strip(), TextGrammar(name.strip()))
    assert task.question(None, SIZE) == name.strip()
    assert task.grammar.parse("</s><s>blue</s>", SIZE).text == "blue"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ODD", "<OD>"),
        ("<CAPTOIN>", "<CAPTION>"),
        ("detailed", "<DETAILED_CAPTION>"),
        ("grounding", "<CAPTION_TO_PHRASE_GROUNDING>"),
        ("ocr_regions", "<OCR_WITH_REGION>"),
    ],
)
def test_a_misspelt_task_names_the_nearest(name, nearest):
    with pytest.raises(OpenFlorenceError) as error:
        find_task(name)
    assert str(error.value) == f"there is no task {name!r}; did you mean {nearest}?"


def test_no_name_at_all():
    with pytest.raises(OpenFlorenceError, match="there is no task ''"):
        find_task("")


def test_a_prompt_with_a_place_for_a_query_takes_one():
    with pytest.raises(OpenFlorenceError, match=r"<COUNT> .* takes no query"):
        Task("<COUNT>", "How many {input} are there?", TextGrammar("<COUNT>"))
