"""Verdicts: read strictly, turned into human annotations without losing a region, and into figures that hold."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate, Decision
from open_florence.data_engine.review.item import ReviewItem
from open_florence.data_engine.review.queue import review_queue
from open_florence.data_engine.review.verdict_figures import (
    VerdictFigures,
    proportion,
    verdict_figures,
    wilson_interval,
)
from open_florence.data_engine.review.verdicts import (
    Verdict,
    human_annotations,
    judged_tasks,
    read_verdicts,
    write_verdicts,
)
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region, Sample

ADDED = Region.box(50, 50, 60, 60, label="hat")


def box(number: int, label: str) -> Region:
    return Region.box(20 * number, 0, 20 * number + 10, 10, label=label, score=0.9)


def queue_of(*annotations: Annotation) -> list[ReviewItem]:
    """All claims of one image "x", in their order."""
    rows = [Candidate(f"row{number}", annotation) for number, annotation in enumerate(annotations)]
    sample = Sample("x", "x.png", (400.0, 100.0))
    return sorted(review_queue([(sample, rows)], 999), key=lambda item: item.id)


def objects(*labels: str, source: str = "a@1") -> Annotation:
    return Annotation("<OD>", regions=tuple(box(n, label) for n, label in enumerate(labels)), source=source)


COMPLETE = Verdict("complete", image="x", task="<OD>")


def test_verdicts_come_back_from_their_file(tmp_path: Path) -> None:
    verdicts = [
        Verdict("accept", "row0#0"),
        Verdict("reject", "row0#1"),
        Verdict("fix", "row0#2", "dog"),
        Verdict("fix", "row0#3", region=ADDED),
        Verdict("missing", image="x", task="<OD>", region=ADDED),
        COMPLETE,
    ]
    write_verdicts(tmp_path / "verdicts.jsonl", verdicts)
    assert read_verdicts(tmp_path / "verdicts.jsonl") == verdicts


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nothing", "Expecting value"),
        ("[1]", "not a verdict"),
        ('{"verdict": "maybe"}', "not a verdict: accept, reject, fix, missing, complete"),
        ('{"verdict": "accept"}', "lacks the field 'item'"),
        ('{"verdict": "accept", "item": 3}', "its 'item' is 3, not words"),
        ('{"verdict": "accept", "item": " "}', "not words"),
        ('{"verdict": "accept", "item": "b", "label": "cat"}', "'accept' has no field 'label'"),
        ('{"verdict": "fix", "item": "b"}', "neither a label nor a region"),
        ('{"verdict": "missing", "image": "x", "task": "<OD>"}', "lacks the field 'region'"),
        ('{"verdict": "missing", "image": "x", "task": "<OD>", "region": {"kind": "box"}}', "lacks the field 'parts'"),
        ('{"verdict": "accept", "item": "a"}', "line 1 judges of a already"),
    ],
)
def test_a_broken_verdict_is_one_sentence_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_text('{"verdict": "accept", "item": "a"}\n\n' + line + "\n")
    with pytest.raises(OpenFlorenceError, match=r"verdicts\.jsonl, line 3 is no verdict") as caught:
        read_verdicts(path)
    assert reason in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="cannot be read"):
        read_verdicts(tmp_path / "verdicts.jsonl")


def decisions(queue: list[ReviewItem], *verdicts: Verdict) -> list[Decision]:
    return human_annotations(queue, verdicts, round=2).get("x", [])


def test_what_was_judged_becomes_a_human_annotation() -> None:
    queue = queue_of(objects("cat", "cat", "cot"))
    kept, dropped = decisions(
        queue,
        Verdict("accept", "row0#0"),
        Verdict("reject", "row0#1"),
        Verdict("fix", "row0#2", "cat"),
        Verdict("missing", image="x", task="<OD>", region=ADDED),
        COMPLETE,
    )
    cat, fixed = (replace(box(n, "cat"), score=None) for n in (0, 2))
    expected = Annotation("<OD>", regions=(cat, fixed, ADDED), source="human@review", round=2)
    assert kept == Decision(expected, "kept", "a person accepted 1, corrected 1 and added 1", ("row0",))
    gone = replace(queue[1].annotation, regions=(box(1, "cat"),))
    assert dropped == Decision(gone, "dropped", "rejected by a person", ("row0",))


def test_without_all_verdicts_or_a_confirmation_it_is_not_complete() -> None:
    queue = queue_of(objects("cat", "dog"))
    both = [Verdict("accept", "row0#0"), Verdict("accept", "row0#1")]
    assert decisions(queue, *both, COMPLETE)[0].annotation.complete
    assert not decisions(queue, *both)[0].annotation.complete
    assert not decisions(queue, both[0], COMPLETE)[0].annotation.complete
    assert not decisions(queue[:1], both[0], COMPLETE)[0].annotation.complete  # the other was not in the queue


def test_an_image_where_all_is_wrong_is_known_to_be_empty_only_when_complete() -> None:
    queue = queue_of(objects("cat"))
    (dropped,) = decisions(queue, Verdict("reject", "row0#0"))
    assert dropped.status == "dropped"
    kept, _ = decisions(queue, Verdict("reject", "row0#0"), COMPLETE)
    assert kept.annotation == Annotation("<OD>", source="human@review", round=2)
    assert kept.reason == "a person says that nothing is here"


def test_that_nothing_is_here_can_be_accepted_or_not() -> None:
    queue = queue_of(objects())
    (kept,) = decisions(queue, Verdict("accept", "row0"))
    assert (kept.status, kept.annotation.regions, kept.annotation.complete) == ("kept", (), True)
    (dropped,) = decisions(queue, Verdict("reject", "row0"))
    assert (dropped.status, dropped.parents) == ("dropped", ("row0",))
    with pytest.raises(OpenFlorenceError, match="nothing is here, which cannot be fixed"):
        decisions(queue, Verdict("fix", "row0", "cat"))


def test_a_confirmation_of_a_task_nobody_judged_counts_for_nothing() -> None:
    assert decisions(queue_of(Annotation("<CAPTION>", "a cat", source="a@1")), COMPLETE) == []


def test_texts_are_kept_rewritten_or_dropped_by_themselves() -> None:
    queue = queue_of(*(Annotation("<CAPTION>", text, source="a@1", score=0.5) for text in ("a", "b", "c")))
    made = decisions(queue, Verdict("accept", "row0"), Verdict("fix", "row1", "a bee"), Verdict("reject", "row2"))
    assert [(d.annotation.text, d.status, d.parents) for d in made] == [
        ("a", "kept", ("row0",)),
        ("a bee", "kept", ("row1",)),
        ("c", "dropped", ("row2",)),
    ]
    assert [d.annotation.source for d in made] == ["human@review", "human@review", "a@1"]
    assert [d.annotation.score for d in made] == [None, None, 0.5]


def test_answers_to_two_questions_stay_two_and_grounded_phrases_keep_their_place() -> None:
    region = replace(box(0, "a cat"), span=(0, 5))
    first = Annotation("<CAPTION_TO_PHRASE_GROUNDING>", "a cat sits", (region,), "a cat sits", "a@1")
    second = Annotation("<CAPTION_TO_PHRASE_GROUNDING>", "a cat here", (region,), "a cat here", "a@1")
    made = decisions(queue_of(first, second), Verdict("accept", "row0#0"), Verdict("fix", "row1#0", "a dog"))
    assert [(d.annotation.text, d.annotation.query) for d in made] == [("a cat sits",) * 2, ("a cat here",) * 2]
    assert [d.annotation.regions[0].span for d in made] == [(0, 5), None]


def test_a_moved_region_keeps_its_label() -> None:
    moved = Region.box(1, 1, 11, 11)
    (kept,) = decisions(queue_of(objects("cat")), Verdict("fix", "row0#0", region=moved))
    assert kept.annotation.regions == (replace(moved, label="cat"),)


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["accept", "reject", "fix", ""])), max_size=8))
def test_every_judged_region_is_in_one_decision(claims: list[tuple[str, str]]) -> None:
    """Accepted ones as they are, rejected ones dropped, fixed ones renamed; those without a verdict in none."""
    queue = queue_of(objects(*(label for label, _ in claims), source="a@1"))
    verdicts = [
        Verdict(verdict, f"row0#{n}", "Z" if verdict == "fix" else "")
        for n, (_, verdict) in enumerate(claims)
        if verdict
    ]
    found = {"kept": set(), "dropped": set()}
    for decision in human_annotations(queue, verdicts).get("x", []):
        found[decision.status] |= {(region.parts, region.label) for region in decision.annotation.regions}
    expected = {"kept": set(), "dropped": set()}
    for n, (label, verdict) in enumerate(claims):
        if verdict:
            status = "dropped" if verdict == "reject" else "kept"
            expected[status].add((box(n, "").parts, "Z" if verdict == "fix" else label))
    assert found == expected


@pytest.mark.parametrize(
    "verdict",
    [Verdict("accept", "elsewhere"), Verdict("complete", image="y", task="<OD>")],
)
def test_verdicts_about_another_queue_are_refused(verdict: Verdict) -> None:
    with pytest.raises(OpenFlorenceError, match="not in this review queue"):
        judged_tasks(queue_of(objects("cat")), [verdict])


def test_two_verdicts_about_one_item_are_refused() -> None:
    with pytest.raises(OpenFlorenceError, match="two verdicts about the item row0#0"):
        judged_tasks(queue_of(objects("cat")), [Verdict("accept", "row0#0"), Verdict("reject", "row0#0")])


def figure(figures: list[VerdictFigures], task: str = "<OD>", name: str = "", source: str = "") -> VerdictFigures:
    return next(f for f in figures if (f.task, f.class_name, f.source) == (task, name, source))


def test_figures_by_class_and_source() -> None:
    queue = queue_of(objects("cat", "cat", "dog"), objects("hat", source="b@1"))
    verdicts = [
        Verdict("accept", "row0#0"),
        Verdict("reject", "row0#1"),
        Verdict("fix", "row0#2", "cat"),
        Verdict("accept", "row1#0"),
        Verdict("missing", image="x", task="<OD>", region=ADDED),
        COMPLETE,
    ]
    figures = verdict_figures(queue, verdicts)
    values = {
        (f.class_name, f.source): (f.precision and f.precision.value, f.recall and f.recall.value) for f in figures
    }
    assert values == {
        ("", ""): (0.5, 0.5),
        ("cat", ""): (0.5, 0.5),  # one of the two that there are
        ("dog", ""): (0.0, None),
        ("hat", ""): (1.0, 0.5),
        ("", "a@1"): (pytest.approx(1 / 3), 0.25),
        ("", "b@1"): (1.0, 0.25),
    }


def test_a_place_that_was_mended_is_a_right_claim() -> None:
    figures = verdict_figures(queue_of(objects("cat")), [Verdict("fix", "row0#0", region=box(0, ""))])
    assert figure(figures).precision.value == 1


def test_without_weights_the_interval_is_wilsons() -> None:
    """Of 8 right among 10: the figures that any table of Wilson's interval gives."""
    found = proportion([(n < 8, 1.0, str(n)) for n in range(10)])
    assert (found.value, found.count) == (0.8, 10)
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert proportion([]) is None


@given(st.floats(0, 1), st.floats(0.5, 1e6))
def test_wilsons_interval_holds_its_share(share: float, number: float) -> None:
    low, high = wilson_interval(share, number)
    assert 0 <= low <= share <= high <= 1


def test_a_claim_with_a_small_chance_stands_for_many() -> None:
    marks = [(True, 1.0, "a"), (False, 1.0, "b"), (True, 18.0, "c")]
    found = proportion(marks)
    assert found.value == 0.95
    assert found.low < proportion([(True, 1.0, "a"), (True, 1.0, "b"), (True, 1.0, "c")]).low


def test_claims_of_one_image_are_less_than_as_many_of_many() -> None:
    apart = proportion([(n % 2 == 0, 1.0, str(n)) for n in range(40)])
    together = proportion([(n < 20, 1.0, str(n // 10)) for n in range(40)])
    assert together.value == apart.value
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def round_of(images: int = 60) -> tuple[list[tuple[Sample, list[Candidate]]], set[str]]:
    """A round's labels, and the ids of the claims that are right: rare ones and those of low scores rather less."""
    generator = np.random.default_rng(0)
    made, right = [], set()
    for number in range(images):
        regions = []
        for place in range(6):
            rare, score = generator.random() < 0.1, float(generator.random())
            regions.append(replace(box(place, "hat" if rare else "cat"), score=score))
            if generator.random() < (0.3 if rare else 0.5 + score / 2):
                right.add(f"{number}#{place}")
        row = Candidate(str(number), Annotation("<OD>", regions=tuple(regions), source="a@1"))
        made.append((Sample(f"i{number}", "x.png", (400.0, 100.0)), [row]))
    return made, right


@pytest.mark.parametrize("share_judged", [1.0, 0.5])
def test_precision_of_a_part_tells_that_of_the_whole(share_judged: float) -> None:
    """Although what is most doubtful is judged first; the interval holds the truth about as often as it says."""
    images, right = round_of()
    truth = len(right) / 360
    found, naive, held = [], [], 0
    for seed in range(40):
        queue = review_queue(images, 80, random_share=0.75, seed=seed)
        judged = queue[: int(len(queue) * share_judged)]
        verdicts = [Verdict("accept" if item.id in right else "reject", item.id) for item in judged]
        precision = figure(verdict_figures(queue, verdicts)).precision
        found.append(precision.value)
        naive.append(np.mean([verdict.verdict == "accept" for verdict in verdicts]))
        held += precision.low <= truth <= precision.high
    assert abs(np.mean(found) - truth) < 0.02
    assert abs(np.mean(naive) - truth) > 0.08
    assert held >= 36


def test_a_verdict_as_json_has_no_empty_fields() -> None:
    assert json.dumps(Verdict("accept", "a").to_json()) == '{"verdict": "accept", "item": "a"}'
