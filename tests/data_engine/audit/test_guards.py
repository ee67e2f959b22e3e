"""Promotion: what was lost stops a round, chance does not, and every reason is a sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_florence.data_engine.audit.guards import GuardConfig, judge
from open_florence.data_engine.audit.report import AuditReport, Counts, RegionRow, TextCounts, TextRow
from open_florence.errors import OpenFlorenceError


def report(classes, texts=(), prefix="image"):
    """`classes`: name -> (right, found, true) of each image; their sums are the row of all."""
    count = len(next(iter(classes.values())))
    names = [f"{prefix}{k}" for k in range(count)]
    rows = [
        RegionRow("<OD>", name, "", {n: Counts(*c, float(c[0])) for n, c in zip(names, images, strict=True) if any(c)})
        for name, images in classes.items()
    ]
    total = {
        name: Counts(*(sum(images[k][place] for images in classes.values()) for place in range(3)), 0.0)
        for k, name in enumerate(names)
    }
    said = tuple(TextRow(task, "", {f"{prefix}{k}": v for k, v in enumerate(values)}) for task, values in texts)
    return AuditReport(tuple(names), (RegionRow("<OD>", "", "", total), *rows), said)


def found(right, images=40, each=1):
    """A class with `each` objects in every image, of which the first `right` images' are found."""
    return [(each if k < right else 0, each if k < right else 0, each) for k in range(images)]


COUNTS = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2)).map(
    lambda c: (c[0], c[0] + c[1], c[0] + c[2])
)


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=12))
@settings(max_examples=15)
def test_equal_labels_are_promoted(images):
    same = report({"cat": [one for one, _ in images], "dog": [other for _, other in images]})
    judgement = judge(same, same)
    assert judgement.promote
    assert not any(warning.startswith("perhaps") for warning in judgement.warnings)


@given(st.integers(1, 40), st.integers(1, 3))
@settings(max_examples=15)
def test_a_class_that_vanishes_is_never_let_pass(right, each):
    common = found(38)
    before, after = (report({"cat": common, "bolt": found(n, each=each)}) for n in (right, 0))
    judgement = judge(before, after, GuardConfig(allowed=1.0))
    assert not judgement.promote
    assert any("'bolt'" in reason and "none of its" in reason for reason in judgement.reasons)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=25)
def test_a_loss_beyond_the_interval_is_never_let_pass(before, after):
    """Wilson's interval at 99.9 % is wider than any that three figures get."""
    old, new = (report({"cat": found(40), "bolt": found(n)}) for n in (before, after))
    squared = 3.2905**2
    share = before / 40
    centre = (share + squared / 80) / (1 + squared / 40)
    half = 3.2905 * ((share * (1 - share) / 40 + squared / 6400) ** 0.5) / (1 + squared / 40)
    if after / 40 < centre - half:
        assert not judge(old, new).promote
    elif after >= before:
        assert judge(old, new).promote


def test_a_loss_too_small_for_its_interval_is_seen_image_by_image():
    before, after = (report({"cat": found(n, images=200)}) for n in (160, 148))  # 80 % to 74 %, no gains
    judgement = judge(before, after)
    assert not judgement.promote
    assert "images are compared one by one" in judgement.reasons[0]
    assert judge(before, after, {"allowed": 0.1}).promote


def test_losses_and_gains_in_equal_parts_are_chance():
    pattern = [(1, 1, 1)] * 30 + [(0, 0, 1)] * 10
    assert judge(report({"cat": pattern}), report({"cat": pattern[5:] + pattern[:5]})).promote


def test_what_only_one_figures_interval_says_is_a_warning():
    others = {f"class{k}": found(40) for k in range(40)}
    before = report({**others, "bolt": found(40)})
    after = report({**others, "bolt": found(35)})
    judgement = judge(before, after)
    assert judgement.promote
    assert any(warning.startswith("perhaps: the recall of 'bolt'") for warning in judgement.warnings)


def test_flooding_loses_f1_though_no_class_loses_recall():
    before = report({"cat": found(30)})
    after = report({"cat": [(right, right + 2, true) for right, _, true in found(30)]})
    judgement = judge(before, after)
    assert not judgement.promote
    assert "the F1 of <OD>" in judgement.reasons[0]
    assert judge(before, after, {"overall": False}).promote


def test_without_the_guard_of_classes_a_rare_one_may_go():
    before = report({"cat": found(38), "bolt": found(2, images=40)})
    after = report({"cat": found(40), "bolt": found(0)})
    assert not judge(before, after).promote
    assert judge(before, after, {"classes": False}).promote


def test_texts_that_agree_less_stop_a_round():
    cats = {"cat": found(30)}
    before, after = (report(cats, [("<CAPTION>", [TextCounts(0.0, agreement, 1)] * 40)]) for agreement in (0.8, 0.5))
    assert "the agreement of <CAPTION>" in judge(before, after).reasons[0]
    assert judge(after, before).promote


def test_without_an_audit_split_a_round_is_promoted_without_evidence():
    judgement = judge(report({"cat": found(30)}), None)
    assert judgement.promote
    assert "without evidence" in judgement.reasons[0]
    assert "no audit split" in judgement.warnings[0]
    assert judge(None, AuditReport()).warnings == judgement.warnings


def test_the_first_round_has_nothing_to_lose_and_names_what_it_never_finds():
    judgement = judge(None, report({"cat": found(30), "bolt": [(0, 0, 1)] * 2 + [(0, 0, 0)] * 38}))
    assert judgement.promote
    assert "'bolt' in <OD> is there and never found, not even wrongly" in judgement.warnings
    assert any("'bolt' (2)" in warning for warning in judgement.warnings)


def test_audits_of_other_images():
    before, after = report({"cat": found(40)}), report({"cat": found(10)}, prefix="other")
    judgement = judge(before, after)
    assert not judgement.promote
    assert any("no image in common" in warning for warning in judgement.warnings)
    assert judge(before, report({"cat": found(38)}, prefix="other")).promote


def test_images_that_one_audit_saw_alone_do_not_count():
    old = report({"cat": found(20, images=20)})
    grown = report({"cat": found(20, images=200)})  # the new ones are all missed
    assert judge(old, grown).promote


def test_a_figure_that_is_not_measured_any_more_is_said():
    before = report({"cat": found(30)}, [("<CAPTION>", [TextCounts(0.0, 0.5, 1)] * 40)])
    judgement = judge(before, report({"cat": found(30)}))
    assert "the agreement of <CAPTION> was measured before and is not any more" in judgement.warnings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clases": False}, "no field 'clases'"),
        ({"classes": "no"}, "classes is true or false"),
        ({"allowed": 2}, "allowed lies between 0 and 1"),
        ({"allowed": True}, "allowed lies"),
        ({"confidence": "high"}, "confidence lies"),
    ],
)
def test_mistakes_in_the_configuration_are_named(options, message):
    with pytest.raises(OpenFlorenceError, match=message):
        judge(None, None, options)


def test_a_judgement_can_be_written():
    assert judge(None, None).to_json()["promote"] is True


def test_objects_of_one_image_are_not_so_many_witnesses():
    """Of ten images with 50 objects each, one or two are missed as a whole: not 50 misses that agree."""
    before, after = report({"cat": found(9, 10, 50)}), report({"cat": found(7, 10, 50)}, prefix="other")
    assert judge(before, after, {"overall": False}).promote
    assert not judge(report({"cat": found(450, 500)}), report({"cat": found(350, 500)}, prefix="other")).promote
