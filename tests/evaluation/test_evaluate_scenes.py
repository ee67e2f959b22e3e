"""The scenes' table: 1 for the truth, 0 for silence, and the computed value for answers spoilt in a known way."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation import evaluate
from open_florence.evaluation.metrics import METRICS, Answers
from open_florence.evaluation.scenes import (
    MOST_QUESTIONS,
    PARTS,
    SCENE_METRICS,
    _background,
    questions,
    scene_masks,
)
from open_florence.scenes import HELDOUT_SEEDS, TRAINING_SEEDS, make_scene
from open_florence.schema import Annotation, Region
from open_florence.tasks import TASKS

DATA = "scenes:heldout"
LIMIT = 24

SIZE = (160.0, 160.0)
LOWER_IS_BETTER = {"ovd_false_positives"}
ROWS = [  # section by section of the model card
    *("od_ap50", "od_ap75", "od_ap90", "od_ap", "od_ar"),
    *("od_ap50_no_scores", "od_ap75_no_scores", "od_ap90_no_scores", "od_rarest_ap50"),
    *("dense_f1", "proposal_recall", "grounding", "grounding_r1", "ovd", "ovd_false_positives"),
    *("res_miou", "res_oiou", "res_worst_shape", "r2s_miou", "r2s_oiou", "region_category", "region_description"),
    *("caption_f1", "detailed_f1", "background_kind", "background_colour", "more_detailed_f1"),
    *("ocr_lexicon", "ocr_random", "ocr_box", "ocr_f1", "region_ocr_lexicon", "region_ocr_random", "vqa"),
]


def silent(annotation):
    return replace(annotation, text="", regions=())


@pytest.fixture(scope="module")
def truth_report(oracle):
    return evaluate(oracle(DATA, limit=LIMIT), DATA, limit=LIMIT, progress=False)


def test_the_truth_is_perfect_in_every_row(truth_report):
    metrics = truth_report.metrics
    assert [row.key for row in truth_report.rows] == ROWS
    for key in ROWS:
        assert metrics[key] == pytest.approx(0.0 if key in LOWER_IS_BETTER else 1.0), key
    assert truth_report.images == LIMIT
    assert all(row.count > 0 for row in truth_report.rows)


def test_the_truth_written_as_text_and_read_back_is_as_good(oracle):
    def through_text(annotation):
        grammar = TASKS[annotation.task].grammar
        return grammar.parse(f"<s>{grammar.serialize(annotation, SIZE)}</s>", SIZE)

    metrics = evaluate(oracle(DATA, through_text, limit=LIMIT), DATA, limit=LIMIT, progress=False).metrics
    for key in ROWS:  # masks lose the pixels on their outline to the half-bin error of their corners
        least = 0.9 if key.startswith(("res", "r2s")) else 0.99
        assert metrics[key] == pytest.approx(0.0) if key in LOWER_IS_BETTER else metrics[key] > least, key


def test_silence_is_worth_nothing(oracle):
    report = evaluate(oracle(DATA, silent, limit=LIMIT), DATA, limit=LIMIT, progress=False)
    assert {key: value for key, value in report.metrics.items() if value != 0.0} == {}


def test_answering_every_question_about_absent_things_is_seen(oracle):
    def invent(annotation):
        return annotation if annotation.regions else replace(annotation, regions=(Region.box(0, 0, 5, 5, label="x"),))

    report = evaluate(oracle(DATA, invent, limit=LIMIT), DATA, limit=LIMIT, progress=False)
    assert report.metrics["ovd_false_positives"] == 1.0
    assert report.metrics["ovd"] == 1.0


def shift(annotation, share):
    """Every box and mask moved to the right by a share of its own width, so that the IoU of boxes is known."""

    def moved(region):
        xs = [x for part in region.parts for x, _ in part]
        by = share * (max(xs) - min(xs))
        return replace(region, parts=tuple(tuple((x + by, y) for x, y in part) for part in region.parts))

    return replace(annotation, regions=tuple(moved(region) for region in annotation.regions))


def test_boxes_moved_by_a_known_share_pass_and_fail_the_right_thresholds(oracle):
    # moved by s of the width: IoU = (1 - s) / (1 + s); s = .1 -> .818: passes .80 but not .85
    report = evaluate(
        oracle(DATA, lambda a: shift(a, 0.1), limit=LIMIT),
        DATA,
        limit=LIMIT,
        progress=False,
        tasks=["OD", "dense_region_caption", "region_proposal", "open_vocabulary_detection"],
    )
    metrics = report.metrics
    assert metrics["od_ap75"] == pytest.approx(1.0, abs=0.02)  # crowds: a moved box may cover its neighbour better
    assert metrics["od_ap90"] == 0.0
    assert metrics["od_ap"] == pytest.approx(0.7, abs=0.02)
    assert metrics["ovd"] == pytest.approx(1.0, abs=0.02)
    far = evaluate(
        oracle(DATA, lambda a: shift(a, 0.6), limit=LIMIT),
        DATA,
        limit=LIMIT,
        progress=False,
        tasks=["od", "dense_region_caption"],
    )
    assert far.metrics["od_ap50"] < 0.1
    assert far.metrics["dense_f1"] < 0.1
    assert set(far.metrics) - {key for key in far.metrics if key.startswith("od_")} == {"dense_f1"}


def test_captions_with_a_wrong_background(oracle):
    def repaint(annotation):
        kind, colour = _background(annotation.text)
        return replace(
            annotation, text=annotation.text.replace(f"{kind} {colour} background", f"{kind} mauve background")
        )

    report = evaluate(oracle(DATA, repaint, limit=LIMIT), DATA, limit=LIMIT, progress=False, tasks=["detailed_caption"])
    assert report.metrics["background_kind"] == 1.0
    assert report.metrics["background_colour"] == 0.0
    assert 0.7 < report.metrics["detailed_f1"] < 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The image shows a red star on a checkered blue background.", ("checkered", "blue")),
        ("a star on a blue background", ("", "blue")),  # no kind said
        ("background", ("", "")),
        ("a star", ("", "")),
        ("On a plain grey background there is a ring.", ("plain", "grey")),
        ("a mauve striped background", ("", "")),  # the wrong way round is not forgiven
    ],
)
def test_background_is_read_from_the_caption(text, expected):
    assert _background(text) == expected


def test_words_of_the_lexicon_and_random_strings_are_apart(oracle):
    words = {w.text: w.lexicon for seed in HELDOUT_SEEDS[:LIMIT] for w in make_scene(seed).words}

    def known_words(annotation):
        return replace(annotation, text=" ".join(word for word in annotation.text.split() if words.get(word)))

    report = evaluate(
        oracle(DATA, known_words, limit=LIMIT), DATA, limit=LIMIT, progress=False, tasks=["ocr", "region_to_ocr"]
    )
    metrics = report.metrics
    assert metrics["ocr_lexicon"] == metrics["region_ocr_lexicon"] == 1.0
    assert metrics["ocr_random"] == metrics["region_ocr_random"] == 0.0


def test_the_worst_shape_is_named():
    answers = Answers()
    for index, seed in enumerate(range(60)):
        scene = make_scene(seed)
        for truth in questions(scene):
            if truth.task == "<REFERRING_EXPRESSION_SEGMENTATION>":
                named = "star" in str(truth.query)
                answers.add(truth, silent(truth) if named else truth, index, scene.sample.size, scene)
    row = scene_masks(answers)[-1]
    assert row.key == "res_worst_shape"
    assert "star" in row.name
    assert row.value == 0.0


def test_questions_are_few_and_the_same_every_time():
    crowd = next(scene for scene in map(make_scene, range(200)) if len(scene.objects) > 8)
    asked = list(questions(crowd))
    assert asked == list(questions(make_scene(crowd.seed)))
    counts = {task: sum(a.task == task for a in asked) for task in TASKS}
    assert max(counts.values()) <= MOST_QUESTIONS + 1
    assert counts["<OPEN_VOCABULARY_DETECTION>"] >= 2
    assert {a.task for a in asked} == {a.task for a in crowd.sample.annotations}


def test_no_seed_of_evaluation_is_a_training_seed():
    for seeds in PARTS.values():
        assert len(seeds) == 300
        assert seeds[0] not in TRAINING_SEEDS
        assert seeds[-1] not in TRAINING_SEEDS
    assert not set(PARTS["heldout"]) & set(PARTS["validation"])


def test_every_task_has_a_metric():
    assert set(METRICS) == set(TASKS) == set(SCENE_METRICS)


def test_images_are_encoded_in_batches(oracle):
    predictor = oracle(DATA, limit=10)
    evaluate(predictor, DATA, limit=10, batch_size=4, progress=False)
    assert predictor.calls == [4, 4, 2]


def test_the_batch_size_changes_nothing(oracle):
    reports = [
        evaluate(oracle(DATA, lambda a: shift(a, 0.3), limit=9), DATA, limit=9, batch_size=size, progress=False)
        for size in (1, 9)
    ]
    assert reports[0].rows == reports[1].rows


def test_a_part_that_does_not_exist(oracle):
    with pytest.raises(OpenFlorenceError, match="no scenes called 'testing'"):
        evaluate(oracle(DATA, limit=1), "scenes:testing")


def test_the_report_prints_and_is_written(truth_report, tmp_path):
    screen = io.StringIO()
    Console(file=screen, width=160).print(truth_report)
    text = screen.getvalue()
    assert "detection AP50" in text
    assert "Detection per class" not in text
    truth_report.save(tmp_path / "card.md")
    truth_report.save(tmp_path / "numbers.json")
    written = (tmp_path / "card.md").read_text()
    assert "| detection AP50 | 1.000 | 1.000 to 1.000 |" in written
    assert "Detection per class" in written
    record = json.loads((tmp_path / "numbers.json").read_text())
    assert [row["key"] for row in record["rows"]] == ROWS
    assert record["images"] == LIMIT
    with pytest.raises(OpenFlorenceError, match=r"not as 'card\.pdf'"):
        truth_report.save(tmp_path / "card.pdf")


def test_an_answer_without_a_source_is_fine():
    class Mute:
        def predict_each(self, requests, *, generation=None):
            return [[Annotation(task) for task, _ in asked] for _, asked in requests]

    report = evaluate(Mute(), "scenes:validation", limit=3, progress=False)
    assert report.model == ""
    assert report.metrics["od_ap50"] == 0.0
