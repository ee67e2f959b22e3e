"""A round from images to audited labels, with specialists and a student that take no time."""

import json
import shutil
from collections import Counter

import pytest
from engine_fakes import Eye, FakeStudent, Troubled, Writer, employed, make_images, true_regions

from open_florence.data.store import Row, Store
from open_florence.data_engine.audit.split import AuditSplit
from open_florence.data_engine.employed import Employed
from open_florence.data_engine.engine import Engine
from open_florence.data_engine.enhance import make_enhancers
from open_florence.data_engine.export import labelled
from open_florence.data_engine.filters import make_filters
from open_florence.data_engine.job import LABELS, Job
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.recipe import Recipe
from open_florence.data_engine.round_folder import rounds
from open_florence.data_engine.work import Locks
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample

ONTOLOGY = Ontology.of(("cat", "dog", "bird"))
FILTERS = make_filters([{"name": "ontology"}, {"name": "nms"}], ONTOLOGY)


def recipe(**other):
    eyes = employed(Eye("first"), Eye("second", misses=0.2), Eye("third"))
    given = {"specialists": eyes, "filters": FILTERS, "ontology": ONTOLOGY, "shard": 4, "student": FakeStudent()}
    return Recipe(**{**given, **other})


@pytest.fixture
def photos(tmp_path):
    make_images(tmp_path / "photos", 10)
    return str(tmp_path / "photos")


def labels_of(folder, number=None):
    store = Store(folder / "store")
    chosen = rounds(folder)[-1 if number is None else number - 1]
    return {sample.id: sample.annotations for sample in labelled(store, chosen)}


def test_a_round_from_beginning_to_end(tmp_path, photos):
    engine = Engine(tmp_path / "labels", recipe(), [photos])
    (manifest,) = engine.run()
    assert manifest["promoted"]
    assert manifest["reasons"][0].startswith("promoted without evidence")
    store = Store(tmp_path / "labels" / "store")
    assert store.tags() == ["round-001"]
    labels = labels_of(tmp_path / "labels")
    assert len(labels) == 10
    found = Counter(r.label for annotations in labels.values() for a in annotations for r in a.regions)
    truth = Counter(r.label for image in labels for r in true_regions(Sample(image, "", (32.0, 32.0))))
    assert found["ghost"] == 0
    assert sum((found & truth).values()) > 0.8 * sum(truth.values())
    assert store.tally("source", step="annotate") == {("first@1",): 10, ("second@1",): 10, ("third@1",): 10}
    assert store.tally("source", step="reannotate") == {("student@round-001",): 10}
    dropped = store.tally("label", status="dropped", step="filter")
    assert dropped[("ghost",)] > 0


def test_every_label_can_be_traced_back(tmp_path, photos):
    Engine(tmp_path / "labels", recipe(), [photos]).run()
    store = Store(tmp_path / "labels" / "store")
    rows = {row.id: row for row in store.rows()}
    for row in rows.values():
        assert bool(row.parents) == (row.step not in ("annotate", "reannotate"))
        assert all(parent in rows and rows[parent].image == row.image for parent in row.parents)
    for step in ("filter", "merge"):
        told = {parent for row in rows.values() if row.step == step for parent in row.parents}
        first = {row.id for row in rows.values() if row.step in ("annotate", *(("reannotate",) * (step == "merge")))}
        assert first <= told


def test_the_second_round_builds_on_the_first(tmp_path, photos):
    engine = Engine(tmp_path / "labels", recipe(), [photos])
    engine.run()
    make_images(tmp_path / "photos", 13)
    (second,) = engine.run()
    assert second["steps"]["annotate"]["sources"] == ["first@1", "second@1", "third@1", "student@round-001"]
    store = Store(tmp_path / "labels" / "store")
    assert store.tally("source", "step", round=2, step=["annotate", "reannotate"]) == {
        **{(f"{name}@1", "annotate"): 3 for name in ("first", "second", "third")},
        ("student@round-001", "annotate"): 3,
        ("student@round-002", "reannotate"): 13,
    }
    assert len(labels_of(tmp_path / "labels", 1)) == 10
    assert len(labels_of(tmp_path / "labels", 2)) == 13
    learnt = [json.loads((one.checkpoint / "weights.json").read_bytes()) for one in rounds(tmp_path / "labels")]
    assert [one["images"] for one in learnt] == [10, 13]


def test_rounds_in_one_go(tmp_path, photos):
    manifests = Engine(tmp_path / "labels", recipe(), [photos]).run(3)
    assert [manifest["tag"] for manifest in manifests] == ["round-001", "round-002", "round-003"]


def test_the_same_labels_in_pieces(tmp_path, photos):
    Engine(tmp_path / "whole", recipe(), [photos]).run()
    for step in ("annotate", "filter", "train", "merge"):
        Engine(tmp_path / "pieces", recipe(), [photos]).run(until=step)
        done = rounds(tmp_path / "pieces")[0]
        assert done.outcome(step) is not None
        assert done.manifest() is None
    Engine(tmp_path / "pieces", recipe(), [photos]).run()
    assert labels_of(tmp_path / "pieces") == labels_of(tmp_path / "whole")


def test_a_step_there_is_not(tmp_path, photos):
    with pytest.raises(OpenFlorenceError, match="a round has the steps annotate, "):
        Engine(tmp_path / "labels", recipe(), [photos]).run(until="fly")


def test_a_specialist_of_another_version_annotates_anew(tmp_path, photos):
    Engine(tmp_path / "labels", recipe(student=None), [photos]).run()
    newer = employed(Eye("first", "2"), Eye("second", misses=0.2), Eye("third"))
    Engine(tmp_path / "labels", recipe(student=None, specialists=newer), [photos]).run()
    store = Store(tmp_path / "labels" / "store")
    assert store.tally("source", round=2, step="annotate") == {("first@2",): 10}
    parents = {parent for row in store.rows(round=2, step="filter") for parent in row.parents}
    assert not any("first@1" in parent for parent in parents)


def test_without_a_student_the_labels_are_the_specialists(tmp_path, photos):
    (manifest,) = Engine(tmp_path / "labels", recipe(student=None), [photos]).run()
    assert manifest["labels"] == "enhance"
    assert len(labels_of(tmp_path / "labels")) == 10


def test_who_needs_labels_is_shown_the_kept_ones(tmp_path, photos):
    given = recipe(specialists=employed(Writer(), Eye("first"), Eye("second"), Eye("third")))
    Engine(tmp_path / "labels", given, [photos]).run()
    store = Store(tmp_path / "labels" / "store")
    written = {row.image: row.annotation.text for row in store.rows(source="writer@1", step="annotate")}
    assert len(written) == 10
    for image, text in written.items():
        (row,) = store.rows(image=image, step="filter", status="kept", task="<OD>")
        names = sorted(region.label for region in row.annotation.regions) or ["thing"]
        assert text == "A " + " and a ".join(names) + "."
    captions = [a.text for labels in labels_of(tmp_path / "labels").values() for a in labels if a.task == "<CAPTION>"]
    assert len(captions) == 10


def test_what_follows_is_added_and_kept_once(tmp_path, photos):
    given = recipe(enhancers=make_enhancers(ontology=ONTOLOGY, tasks=["<REGION_PROPOSAL>", "<REGION_TO_CATEGORY>"]))
    Engine(tmp_path / "labels", given, [photos]).run()
    for labels in labels_of(tmp_path / "labels").values():
        tasks = Counter(annotation.task for annotation in labels)
        found = sum(len(a.regions) for a in labels if a.task == "<OD>")
        assert tasks["<OD>"] == 1
        assert tasks["<REGION_PROPOSAL>"] == bool(found)
        assert tasks["<REGION_TO_CATEGORY>"] == min(found, 6)


def test_a_specialist_that_cannot_be_loaded_stops_it_before_anything(tmp_path, photos):
    def broken():
        raise OpenFlorenceError("it needs a program that is not here")

    eyes = employed(Eye("first"))
    bad = Employed(broken, "sight", isolate=False)
    with pytest.raises(OpenFlorenceError, match="the specialist sight cannot be loaded: it needs a program"):
        Engine(tmp_path / "labels", recipe(specialists=[*eyes, bad]), [photos]).run()
    assert Store(tmp_path / "labels" / "store").tally() == {}
    with pytest.raises(OpenFlorenceError, match="two specialists are the same source, first@1"):
        Engine(tmp_path / "labels", recipe(specialists=[*eyes, *eyes]), [photos]).run()


class Picky(Eye):
    """Fails on some images, in the first round."""

    fails = 3

    def annotate(self, samples):
        if any(one.path.endswith(f"{n:03d}.png") for one in samples for n in range(self.fails)):
            raise RuntimeError("cannot look at this")
        return super().annotate(samples)


def test_images_that_failed_are_tried_again_in_the_next_round(tmp_path, photos):
    picky = Picky("picky")
    engine = Engine(tmp_path / "labels", recipe(specialists=employed(picky, Eye("other")), student=None), [photos])
    engine.run()
    store = Store(tmp_path / "labels" / "store")
    assert store.tally(source="picky@1", step="annotate") == {(): 7}
    failed = {image: why for note in store.notes().values() for image, why in note.get("failed", {}).items()}
    assert set(failed.values()) == {"RuntimeError: cannot look at this"}
    picky.fails = 1
    engine.run()
    assert store.tally(source="picky@1", step="annotate") == {(): 9}


def test_a_vanished_image_is_a_failure_and_no_more(tmp_path, photos):
    engine = Engine(tmp_path / "labels", recipe(student=None), [photos])
    engine.run(until="annotate")
    Engine(tmp_path / "late", recipe(student=None), [photos])._begin(
        Store(tmp_path / "late" / "store", create=True), None, recipe(student=None), False, False
    )
    (tmp_path / "photos" / "003.png").unlink()
    Engine(tmp_path / "late", recipe(student=None), [photos]).run()
    store = Store(tmp_path / "late" / "store")
    assert store.tally(source="first@1", step="annotate") == {(): 9}
    assert len(labels_of(tmp_path / "late")) == 10


def test_a_step_is_not_finished_with_other_settings(tmp_path, photos):
    one, other = ({"filter": {"threshold": value}} for value in (0.3, 0.5))
    Engine(tmp_path / "labels", recipe(settings=one), [photos]).run(until="filter")
    (tmp_path / "labels" / "rounds" / "001" / "steps" / "filter.json").unlink()
    with pytest.raises(OpenFlorenceError, match="the step filter of round 1 was begun with another threshold"):
        Engine(tmp_path / "labels", recipe(settings=other), [photos]).run()
    (manifest,) = Engine(tmp_path / "labels", recipe(settings=other), [photos]).run(abandoned=True)
    assert manifest["round"] == 2
    assert Store(tmp_path / "labels" / "store").tags() == ["round-001-stopped", "round-002"]


def split_of(folder, count):
    """An audit split of some of the photos, by people who know what is there."""
    store = Store(folder / "store")
    samples = []
    for row in list(store.images())[:count]:
        sample = Sample(row.id, row.path, row.size)
        said = Annotation("<OD>", regions=true_regions(sample), source="human")
        samples.append(Sample(row.id, row.path, row.size, (said,)))
    return AuditSplit.choose(samples, count, near=0)


class Watched(FakeStudent):
    """Remembers what it was shown."""

    def train(self, samples, weights, folder, checkpoint, start):
        self.shown = [one.id for one in samples]
        super().train(samples, weights, folder, checkpoint, start)


def test_nothing_is_trained_on_the_audit_split_and_everything_measured_on_it(tmp_path, photos):
    Engine(tmp_path / "first", recipe(student=None), [photos]).run(until="annotate")
    split = split_of(tmp_path / "first", 4)
    student = Watched()
    (manifest,) = Engine(tmp_path / "labels", recipe(student=student, split=split), [photos]).run()
    audited = {sample.id for sample in split.samples}
    assert not audited & set(student.shown)
    assert len(student.shown) == 6
    assert set(manifest["steps"]["train"]["excluded"]) == audited
    audit = json.loads((tmp_path / "labels" / "rounds" / "001" / "audit.json").read_bytes())
    assert set(audit["images"]) == audited
    by_source = json.loads((tmp_path / "labels" / "rounds" / "001" / "audit-sources.json").read_bytes())
    assert set(by_source) == {"first@1", "second@1", "third@1", "student@round-001"}


def test_a_round_that_loses_what_was_found_is_stopped(tmp_path, photos):
    make_images(tmp_path / "photos", 40)
    Engine(tmp_path / "first", recipe(student=None), [photos]).run(until="annotate")
    split = split_of(tmp_path / "first", 30)
    good = recipe(student=None, split=split)
    Engine(tmp_path / "labels", good, [photos]).run()
    blind = employed(*(Eye(name, "2", misses=0.95) for name in ("first", "second", "third")))
    (second,) = Engine(tmp_path / "labels", recipe(student=None, split=split, specialists=blind), [photos]).run(3)
    assert not second["promoted"]
    assert second["tag"] == "round-002-stopped"
    with pytest.raises(OpenFlorenceError, match=r"round 2 was not promoted: .*--force"):
        Engine(tmp_path / "labels", good, [photos]).run()
    (third,) = Engine(tmp_path / "labels", good, [photos]).run(force=True)
    assert third["promoted"]


def test_the_work_of_another_place_is_read_as_it_was(tmp_path, photos):
    Engine(tmp_path / "labels", recipe(), [photos]).run(2)
    before = labels_of(tmp_path / "labels", 1)
    shutil.copytree(tmp_path / "labels", tmp_path / "moved")
    assert labels_of(tmp_path / "moved", 1) == before


def test_what_people_said_in_a_review_is_the_truth_of_the_next_round(tmp_path, photos):
    given = recipe(student=None)
    Engine(tmp_path / "labels", given, [photos]).run()
    store = Store(tmp_path / "labels" / "store")
    row = next(row for row in store.rows(step="enhance", status="kept") if row.annotation.regions)
    region = row.annotation.regions[0]
    said = Annotation("<OD>", regions=(region,), source="fusion@1", round=1)
    gone = Row(row.image, said, row.level, "review", "dropped", "rejected by a person", (row.id,))
    store.commit("001/review/labels/000000", [gone], {"images": 1, "sha256": ""})
    Engine(tmp_path / "labels", given, [photos]).run()
    (after,) = labels_of(tmp_path / "labels", 2)[row.image]
    assert [r.label for r in after.regions] == [r.label for r in row.annotation.regions[1:]]


def test_a_specialist_that_misbehaves_in_a_process_of_its_own(tmp_path, photos):
    (tmp_path / "photos" / "005.png").rename(tmp_path / "photos" / "x.png")
    troubled = Employed(Troubled, "troubled", timeout=20, batch=4)
    Engine(tmp_path / "labels", recipe(student=None, specialists=[troubled]), [photos]).run()
    assert Store(tmp_path / "labels" / "store").tally(source="troubled@1", step="annotate") == {(): 10}


def test_a_step_knows_the_shards_of_its_images(tmp_path, photos):
    mine = recipe(specialists=employed(Eye("first"), Writer()))
    Engine(tmp_path / "labels", mine, [photos]).run()
    store, (one,) = Store(tmp_path / "labels" / "store"), rounds(tmp_path / "labels")
    job = Job(store, Locks(tmp_path / "claims"), one, mine)
    for where, step, what in (
        ({"step": "filter"}, "filter", LABELS),
        ({"step": "merge"}, "merge", LABELS),
        ({"source": "writer@1", "step": "annotate"}, "elaborate", "writer@1"),
    ):
        for image in one.images():
            shards = {row.id.partition("#")[0] for row in store.rows(image=image, **where)}
            assert job.shards(step, what, [image]) == list(shards)
        assert len(job.shards(step, what, one.images())) == 3
    assert [c.id for c in job.told(one.images()[:1], ["writer@1"])[one.images()[0]]] == [
        row.id for row in store.rows(image=one.images()[0], source="writer@1", step="annotate")
    ]
