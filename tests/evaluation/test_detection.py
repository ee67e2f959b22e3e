"""Detection AP: equal to pycocotools on random data; scores matter; the bootstrap computes the same number."""

import contextlib
import io
import random
import sys

import numpy as np
import pytest

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.detection import (
    AVERAGES,
    RECALLS,
    THRESHOLDS,
    detection_ap,
    match,
    strangers,
)
from open_florence.schema import Region
from open_florence.selection import region_score

LABELS = ("cat", "dog", "newt")


def region(x, y, w, h, label, score=None, label_score=None):
    return Region("box", (((x, y), (x + w, y + h)),), label, score, label_score)


def random_images(seed: int, count: int = 25, ties: bool = False):
    """True regions, and found ones: some jittered, some invented, some of the wrong class."""
    draw = random.Random(seed)
    truth, found = [], []
    for _ in range(count):
        true = [
            region(
                draw.uniform(0, 80), draw.uniform(0, 80), draw.uniform(8, 40), draw.uniform(8, 40), draw.choice(LABELS)
            )
            for _ in range(draw.randrange(0, 6))
        ]
        answer = []
        for t in true:
            if draw.random() < 0.8:
                (x1, y1), (x2, y2) = t.parts[0]
                jitter = draw.choice([0.5, 2.0, 6.0])
                x, y = x1 + draw.gauss(0, jitter), y1 + draw.gauss(0, jitter)
                label = t.label if draw.random() < 0.85 else draw.choice(LABELS)
                answer.append(region(x, y, x2 - x1, y2 - y1, label, draw.random(), draw.choice([None, draw.random()])))
        answer += [region(draw.uniform(0, 80), draw.uniform(0, 80), 20, 20, draw.choice(LABELS), draw.random())] * (
            draw.random() < 0.4
        )
        if ties:
            answer = [region(*r.parts[0][0], 20, 20, r.label, round(r.score, 1)) for r in answer]
        truth.append(true)
        found.append(answer)
    return truth, found


def random_crowds(seed: int, count: int = 25):
    """Large regions in which nobody counted, one in every second image or so."""
    draw = random.Random(seed)
    spots = [
        region(draw.uniform(0, 40), draw.uniform(0, 40), 45, 45, draw.choice([*LABELS, "cow"])) for _ in range(count)
    ]
    return [[spot] * (draw.random() < 0.6) for spot in spots]


def pycoco(truth, found, scored: bool, crowds=()):
    """(precision (T, 101, K), recall (T, K)) of the reference implementation, with all its defaults."""
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    labels = sorted({r.label for regions in truth for r in regions})
    crowded = [(image, r) for image, regions in enumerate(crowds) for r in regions if r.label in labels]

    def record(image, r):
        (x1, y1), (x2, y2) = r.parts[0]
        return {"image_id": image, "category_id": labels.index(r.label), "bbox": [x1, y1, x2 - x1, y2 - y1]}

    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        annotations = [record(image, r) for image, regions in enumerate(truth) for r in regions]
        alone = len(annotations)
        annotations += [record(image, r) for image, r in crowded]
        coco.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(len(truth))],
            "categories": [{"id": k, "name": label} for k, label in enumerate(labels)],
            "annotations": [
                {**a, "id": n + 1, "area": a["bbox"][2] * a["bbox"][3], "iscrowd": int(n >= alone)}
                for n, a in enumerate(annotations)
            ],
        }
        coco.createIndex()
        results = [
            {**record(image, r), "score": region_score(r) if scored else 1.0}
            for image, regions in enumerate(found)
            for r in regions
        ]
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return labels, evaluation.eval["precision"][:, :, :, 0, 2], evaluation.eval["recall"][:, :, 0, 2]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("ties", [True, False])
def test_equal_to_pycocotools(seed, scored, ties):
    truth, found = random_images(seed, ties=ties)
    labels, precision, recall = pycoco(truth, found, scored)
    ours = detection_ap(truth, found, scored=scored, intervals=False)
    assert set(ours) == {"", *labels}
    for name, picked in {"": list(range(len(labels))), **{label: [k] for k, label in enumerate(labels)}}.items():
        values = ours[name].values
        for metric, rows in AVERAGES.items():
            assert values[metric] == pytest.approx(precision[rows][:, :, picked].mean(), abs=1e-12), (name, metric)
        assert values["AR"] == pytest.approx(recall[:, picked].mean(), abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_crowds_equal_to_pycocotools(seed):
    truth, found = random_images(300 + seed)
    crowds = random_crowds(seed)
    labels, precision, recall = pycoco(truth, found, True, crowds)
    ours = detection_ap(truth, found, crowds, intervals=False)
    for metric, rows in AVERAGES.items():
        assert ours[""].values[metric] == pytest.approx(precision[rows].mean(), abs=1e-12), metric
    assert ours[""].values["AR"] == pytest.approx(recall.mean(), abs=1e-12)
    for label in labels:
        curve = match(truth, found, label, True, crowds).precision(np.ones((1, len(truth))))  # (1, T)
        assert curve[0].mean() == pytest.approx(ours[label].values["AP"], abs=1e-9)
    assert ours[""].values["AP"] >= detection_ap(truth, found, intervals=False)[""].values["AP"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scored", [True, False])
def test_the_bootstrap_computes_the_same_number(seed, scored):
    truth, found = random_images(100 + seed)
    values = detection_ap(truth, found, scored=scored, intervals=False)
    for label in LABELS:
        curve = match(truth, found, label, scored).precision(np.ones((1, len(truth))))  # (1, T)
        for metric, rows in AVERAGES.items():
            assert curve[0, rows].mean() == pytest.approx(values[label].values[metric], abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_is_so_many_copies_of_an_image(seed):
    truth, found = random_images(200 + seed)
    draw = np.random.default_rng(seed).integers(0, len(truth), len(truth))
    again = detection_ap([truth[i] for i in draw], [found[i] for i in draw], intervals=False)
    for label in {region.label for i in draw for region in truth[i]}:
        curve = match(truth, found, label).precision(np.bincount(draw, minlength=len(truth))[None])
        for metric, rows in AVERAGES.items():
            assert curve[0, rows].mean() == pytest.approx(again[label].values[metric], abs=1e-9)


def test_shuffling_scores_changes_ap_and_not_ap_without_scores():
    truth, found = random_images(7, count=60)
    draw = random.Random(0)
    shuffled = [[Region(r.kind, r.parts, r.label, draw.random(), 1.0) for r in regions] for regions in found]
    before, after = detection_ap(truth, found)[""], detection_ap(truth, shuffled)[""]
    assert before.values["AP50"] != after.values["AP50"]
    assert detection_ap(truth, found, scored=False)[""].values == detection_ap(truth, shuffled, scored=False)[""].values


def test_score_is_place_times_label():
    assert region_score(region(0, 0, 1, 1, "a")) == 1.0
    assert region_score(region(0, 0, 1, 1, "a", 0.5)) == 0.5
    assert region_score(region(0, 0, 1, 1, "a", 0.5, 0.5)) == 0.25


def test_perfect_and_empty_answers():
    truth, _ = random_images(3)
    perfect, nothing = detection_ap(truth, truth), detection_ap(truth, [[] for _ in truth])
    for name in ("", *LABELS):
        assert set(perfect[name].values.values()) == {1.0}
        assert perfect[name].intervals["AP50"] == (1.0, 1.0)
        assert set(nothing[name].values.values()) == {0.0}
    assert perfect[""].count == sum(len(regions) for regions in truth)


def test_nothing_to_find_has_no_value():
    result = detection_ap([[], []], [[region(0, 0, 5, 5, "cat")], []])
    assert set(result) == {""}
    assert all(np.isnan(value) for value in result[""].values.values())
    assert detection_ap([], [])[""].count == 0


def test_a_known_value():
    # Two cats, one found first and one false positive ranked between: precision 1 up to recall .5, then 2/3.
    truth = [[region(0, 0, 10, 10, "cat"), region(50, 50, 10, 10, "cat")]]
    found = [[region(0, 0, 10, 10, "cat", 0.9), region(20, 20, 10, 10, "cat", 0.5), region(50, 50, 10, 10, "cat", 0.4)]]
    expected = (51 * 1.0 + 50 * 2 / 3) / 101
    assert detection_ap(truth, found)["cat"].values["AP50"] == pytest.approx(expected)
    assert detection_ap(truth, found)[""].intervals == {}  # one image has no interval


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong():
    truth = [[region(0, 0, 10, 10, "cat")]]
    found = [[region(60, 60, 10, 10, "cat", 0.9), region(0, 0, 10, 10, "cat", 0.5)]]
    assert detection_ap(truth, found)["cat"].values["AP"] == pytest.approx(0.5)
    for label, value in (("cat", 1.0), ("dog", 0.5)):  # only a crowd of the same label
        crowds = [[region(50, 50, 50, 50, label)]]
        assert detection_ap(truth, found, crowds)["cat"].values["AP"] == pytest.approx(value)


def test_labels_outside_the_classes_are_counted_apart():
    truth = [[region(0, 0, 10, 10, "cat")]]
    found = [[region(0, 0, 10, 10, "cat"), region(0, 0, 10, 10, "cow")]]
    assert detection_ap(truth, found)[""].values["AP"] == 1.0
    assert strangers(truth, found) == (1, 2)


def test_the_interval_covers_the_value_and_shrinks():
    few, many = random_images(11, count=20), random_images(11, count=120)
    small, large = detection_ap(*few)[""], detection_ap(*many)[""]
    for result in (small, large):
        low, high = result.intervals["AP50"]
        assert low <= result.values["AP50"] <= high
    assert np.ptp(large.intervals["AP50"]) < np.ptp(small.intervals["AP50"])


def test_thresholds_are_cocos():
    assert THRESHOLDS.tolist() == np.linspace(0.5, 0.95, 10).tolist()
    assert len(RECALLS) == 101


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(OpenFlorenceError, match=r"open-florence\[eval\]"):
        detection_ap([[region(0, 0, 1, 1, "a")]], [[]])
