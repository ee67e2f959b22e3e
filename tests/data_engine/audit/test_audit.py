"""Audits: counts against a matcher written out naively, what is judged and what is not, JSON and the table."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.data.ignored import ignored_annotation
from open_florence.data_engine.audit.figures import audit
from open_florence.data_engine.audit.report import AuditReport
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample

SIZE = (100.0, 100.0)


def box(x1, y1, x2, y2, label="cat"):
    return Region.box(x1, y1, x2, y2, label=label)


def od(*regions, source="human"):
    return Annotation("<OD>", regions=regions, source=source)


def sample(name, *annotations):
    return Sample(name, f"/{name}.png", SIZE, annotations)


def area(b):
    return (b[2] - b[0]) * (b[3] - b[1])


def naive_iou(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / (area(a) + area(b) - shared)


def naive_counts(true, found):
    """Class -> (right, found, true): all pairs of one class, best first, each region once."""
    pairs = sorted(
        (
            (-naive_iou(a, b), i, j)
            for i, (a, la) in enumerate(true)
            for j, (b, lb) in enumerate(found)
            if la == lb and naive_iou(a, b) >= 0.5
        ),
    )
    right, used_true, used_found = Counter(), set(), set()
    for _, i, j in pairs:
        if i not in used_true and j not in used_found:
            used_true.add(i)
            used_found.add(j)
            right[true[i][1]] += 1
    there, offered = Counter(label for _, label in true), Counter(label for _, label in found)
    return {name: (right[name], offered[name], there[name]) for name in {*there, *offered}}


CORNERS = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12)).map(
    lambda v: (float(v[0]), float(v[1]), float(v[0] + v[2]), float(v[1] + v[3]))
)
THINGS = st.lists(st.tuples(CORNERS, st.sampled_from("abc")), max_size=8)


@given(st.lists(st.tuples(THINGS, THINGS), min_size=1, max_size=3))
@settings(max_examples=60)
def test_counts_are_those_of_a_naive_matcher(images):
    truth = [sample(str(k), od(*(box(*b, n) for b, n in true))) for k, (true, _) in enumerate(images)]
    labels = [
        sample(str(k), od(*(box(*b, n) for b, n in found), source="detector@1")) for k, (_, found) in enumerate(images)
    ]
    report = audit(labels, truth)
    expected = Counter()
    for true, found in images:
        for name, counts in naive_counts(true, found).items():
            for place, count in enumerate(counts):
                expected[name, place] += count
                expected["", place] += count
    for name in {"", *(name for name, _ in expected)}:
        total = report.region_row("<OD>", name).total
        assert tuple(total[:3]) == tuple(expected[name, place] for place in range(3))
        assert total.right / 2 <= total.overlap <= total.right
    assert report.region_row("<OD>", source="detector@1").total == report.region_row("<OD>").total


def test_figures_and_intervals():
    truth = [sample(str(k), od(box(0, 0, 10, 10), box(50, 50, 60, 60, "dog"))) for k in range(4)]
    labels = [sample(str(k), od(box(0, 0, 10, 10), box(20, 20, 30, 30), source="a@1")) for k in range(4)]
    report = audit(labels, truth)
    cat, dog, both = (report.region_row("<OD>", name) for name in ("cat", "dog", ""))
    assert (cat.recall.value, cat.precision.value) == (1.0, 0.5)
    assert cat.recall.low == pytest.approx(0.51, abs=0.01)  # Wilson, 4 of 4
    assert (dog.recall.value, dog.precision) == (0.0, None)
    assert both.f1.value == 0.5
    assert (both.f1.low, both.f1.high) == (0.5, 0.5)  # all images alike
    assert both.mean_iou.value == 1.0
    assert report.silent_classes == [("<OD>", "dog")]


def test_a_wrong_class_is_a_false_one_and_a_missed_one():
    report = audit([sample("1", od(box(0, 0, 10, 10, "dog")))], [sample("1", od(box(0, 0, 10, 10)))])
    assert report.region_row("<OD>", "cat").total[:3] == (0, 0, 1)
    assert report.region_row("<OD>", "dog").total[:3] == (0, 1, 0)


def test_images_without_labels_are_missed_and_unknown_images_passed_over():
    truth = [sample("1", od(box(0, 0, 10, 10))), sample("2", od(box(0, 0, 10, 10)))]
    report = audit([sample("1", od(box(0, 0, 10, 10))), sample("3", od(box(0, 0, 10, 10)))], truth)
    assert report.images == ("1", "2")
    assert report.region_row("<OD>").total[:3] == (1, 1, 2)


def test_a_source_is_judged_where_it_answered():
    truth = [sample("1", od(box(0, 0, 10, 10))), sample("2", od(box(0, 0, 10, 10)))]
    labels = [
        sample("1", od(box(0, 0, 10, 10), source="a@1"), od(source="b@1")),
        sample("2", od(box(0, 0, 10, 10), source="b@1")),
    ]
    report = audit(labels, truth)
    assert report.region_row("<OD>", source="a@1").recall.count == 1
    assert report.region_row("<OD>", source="b@1").recall.value == 0.5


def test_tasks_nobody_answered_for_the_truth_are_not_judged():
    labels = [sample("1", od(box(0, 0, 10, 10)), Annotation("<CAPTION>", "a cat"))]
    report = audit(labels, [sample("1", od(box(0, 0, 10, 10)))])
    assert report.texts == ()
    assert {row.task for row in report.regions} == {"<OD>"}
    assert audit(labels, [sample("1", od(box(0, 0, 10, 10)))], tasks=["<CAPTION>"]).regions == ()


def test_nothing_there_is_an_answer_too():
    report = audit([sample("1", od(box(0, 0, 10, 10)))], [sample("1", od())])
    assert report.region_row("<OD>").precision.value == 0.0
    assert report.region_row("<OD>").recall is None


def test_the_last_human_answer_is_the_truth():
    truth = [sample("1", od(box(0, 0, 10, 10)), od(box(0, 0, 10, 10, "dog"), source="human@review"))]
    report = audit([sample("1", od(box(0, 0, 10, 10, "dog")))], truth)
    assert report.region_row("<OD>").f1.value == 1.0


def test_places_that_are_not_judged_count_neither_way():
    crowd = box(40, 40, 90, 90)
    truth = [sample("1", od(box(0, 0, 10, 10), box(50, 50, 60, 60)), *ignored_annotation("<OD>", [crowd]))]
    found = od(box(0, 0, 10, 10), box(50, 50, 60, 60), box(70, 70, 80, 80), box(70, 70, 80, 80, "dog"))
    report = audit([sample("1", found)], truth)
    assert report.region_row("<OD>", "cat").total[:3] == (2, 2, 2)  # the right one in the crowd counts
    assert report.region_row("<OD>", "dog").total[:3] == (0, 1, 0)  # a dog in a crowd of cats is judged


def test_texts_by_what_they_are_for():
    truth = [
        sample(
            "1",
            Annotation("<CAPTION>", "two red dogs on a mat"),
            Annotation("<CAPTION>", "A dog."),
            Annotation("<OCR>", "abcd"),
            Annotation("<VQA>", "yes", query="is it?"),
        ),
        sample("2", Annotation("<CAPTION>", "a cat")),
    ]
    labels = [
        sample(
            "1",
            Annotation("<CAPTION>", "a dog", source="a@1"),
            Annotation("<OCR>", "abxd"),
            Annotation("<VQA>", "no", query="Is it?"),
            Annotation("<VQA>", "yes", query="is it not?"),
        )
    ]
    report = audit(labels, truth)
    caption = report.text_row("<CAPTION>")
    assert caption.exact.value == caption.agreement.value == 0.5  # image 2 has none
    assert report.text_row("<CAPTION>", "a@1").exact.value == 1.0
    assert (report.text_row("<OCR>").exact.value, report.text_row("<OCR>").agreement.value) == (0.0, 0.75)
    assert report.text_row("<VQA>").exact.count == 1  # the question nobody knows the answer to is not judged
    assert report.text_row("<VQA>").agreement.value == 0.0


def test_captions_agree_by_the_words_of_their_noun_phrases():
    truth = [sample("1", Annotation("<CAPTION>", "two dogs on a red mat"))]
    same, other = (
        audit([sample("1", Annotation("<CAPTION>", text))], truth).text_row("<CAPTION>").agreement.value
        for text in ("a red mat under two dogs", "three dogs on a red mat")
    )
    assert same == 1.0
    assert other == pytest.approx(0.75)


def test_queries_that_are_regions_meet_where_they_overlap():
    def category(text, *corners):
        return Annotation("<REGION_TO_CATEGORY>", text, query=box(*corners, label=text))

    truth = [sample("1", category("cat", 0, 0, 10, 10), category("dog", 50, 50, 60, 60))]
    labels = [
        sample("1", category("cat", 1, 0, 10, 10), category("cat", 51, 50, 60, 60), category("cow", 80, 0, 90, 9))
    ]
    row = audit(labels, truth).text_row("<REGION_TO_CATEGORY>")
    assert (row.exact.value, row.exact.count) == (0.5, 2)


def test_words_read_at_their_place_and_masks():
    def quad(x, label):
        return Region("quad", (((x, 0.0), (x + 10, 0.0), (x + 10, 5.0), (x, 5.0)),), label)

    ring = Region("polygon", (((0.0, 0.0), (10.0, 0.0), (10.0, 10.0)),))
    other = Region("polygon", (((0.0, 0.0), (0.0, 10.0), (10.0, 10.0)),))  # the same box, no pixel in common
    query = box(0, 0, 10, 10, "")
    truth = [
        sample(
            "1",
            Annotation("<OCR_WITH_REGION>", regions=(quad(0.0, "Total"), quad(50.0, "9"))),
            Annotation("<REGION_TO_SEGMENTATION>", regions=(ring,), query=query),
        )
    ]
    labels = [
        sample(
            "1",
            Annotation("<OCR_WITH_REGION>", regions=(quad(1.0, " Total"), quad(50.0, "g"))),
            Annotation("<REGION_TO_SEGMENTATION>", regions=(other,), query=query),
        )
    ]
    report = audit(labels, truth)
    assert report.region_row("<OCR_WITH_REGION>").total[:3] == (1, 2, 2)
    assert report.region_row("<REGION_TO_SEGMENTATION>").total[:3] == (0, 1, 1)


def make_report():
    truth = [sample("1", od(box(0, 0, 10, 10)), Annotation("<CAPTION>", "a cat")), sample("2", od(box(0, 0, 9, 9)))]
    labels = [sample("1", od(box(1, 0, 10, 10), source="a|b@1"), Annotation("<CAPTION>", "a dog"))]
    return audit(labels, truth)


def test_json_round_trip(tmp_path):
    report = make_report()
    report.write(tmp_path / "audit.json")
    assert AuditReport.read(tmp_path / "audit.json") == report
    record = json.loads((tmp_path / "audit.json").read_text("utf-8"))
    assert record["regions"][0]["recall"]["value"] == 0.5
    with pytest.raises(OpenFlorenceError, match="cannot be read"):
        AuditReport.read(tmp_path / "none.json")
    for damaged in ("[", "[]", '{"regions": [{}]}'):
        (tmp_path / "audit.json").write_text(damaged)
        with pytest.raises(OpenFlorenceError, match=r"audit\.json is damaged"):
            AuditReport.read(tmp_path / "audit.json")


def test_the_table_has_a_row_for_each_figure():
    lines = make_report().table().splitlines()
    assert lines[2].startswith("| <OD> | all | all | 100.0 (")
    assert any("a/b@1" in line for line in lines)
    assert any(line.startswith("| <CAPTION> | all | 0.0 (") for line in lines)
    assert {line.count("|") for line in lines if "<OD>" in line} == {lines[0].count("|")}
    assert AuditReport().table() == ""
