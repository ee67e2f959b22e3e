"""What becomes of old labels when classes change."""

from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.ontology.migrations import Migration, migrate, migrate_candidate
from open_florence.schema import Annotation, Region

CHANGES = (
    Migration("1", "rename", ("cab",), ("taxi",)),
    Migration("2", "merge", ("taxi", "van"), ("car",)),
    Migration("3", "split", ("cell",), ("red cell", "white cell")),
    Migration("4", "drop", ("dirt",)),
    Migration("5", "rename", ("dog",), ("cab",)),  # an old name may come back and mean something else
)


def objects(*labels, task="<OD>"):
    regions = tuple(Region.box(k, 0, k + 5, 5, label=label, score=0.5) for k, label in enumerate(labels))
    return Annotation(task, regions=regions, source="detector@1", round=2)


def test_names_follow_the_changes_in_order():
    migrated = migrate(objects("cab", "van", "tree", "dog"), CHANGES)
    assert [region.label for region in migrated.regions] == ["car", "car", "tree", "cab"]
    assert (migrated.source, migrated.round) == ("detector@1", 2)


def test_what_has_no_name_any_more_is_set_aside_with_its_old_name():
    decisions = migrate_candidate(Candidate("r1", objects("cab", "cell", "dirt", "cell")), CHANGES)
    assert [(d.status, d.reason, [r.label for r in d.annotation.regions]) for d in decisions] == [
        ("kept", "", ["car"]),
        ("dropped", "migration 3: cell was split into red cell and white cell", ["cell", "cell"]),
        ("dropped", "migration 4: dirt is no class any more", ["dirt"]),
    ]
    assert {d.parents for d in decisions} == {("r1",)}
    assert migrate(objects("dirt"), CHANGES) == objects()


def test_texts_that_are_classes_are_migrated_too():
    assert migrate(Annotation("<REGION_TO_CATEGORY>", "cab"), CHANGES).text == "car"
    (dropped,) = migrate_candidate(Candidate("r", Annotation("<REGION_TO_CATEGORY>", "dirt")), CHANGES)
    assert (dropped.status, dropped.annotation.text) == ("dropped", "dirt")
    assert migrate(dropped.annotation, CHANGES).text == ""


@given(
    st.lists(st.sampled_from(["cab", "van", "cell", "dirt", "tree"]), max_size=6), st.sampled_from(["<OD>", "<OCR>"])
)
def test_no_region_is_lost_or_doubled(labels, task):
    candidate = Candidate("r", objects(*labels, task=task))
    decisions = migrate_candidate(candidate, CHANGES)
    parts = sorted(region.parts for d in decisions for region in d.annotation.regions)
    assert parts == sorted(region.parts for region in candidate.annotation.regions)
    if task == "<OCR>":
        assert [d.annotation for d in decisions] == [candidate.annotation]


def test_without_changes_nothing_changes():
    assert migrate(objects("cab"), ()) == objects("cab")
