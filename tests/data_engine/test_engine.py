"""An engine in a folder: begun, run from its file, looked at, reviewed, exported."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from engine_fakes import Eye, FakeStudent, employed, make_images, true_regions

from open_florence.data import read, write
from open_florence.data.store import Store
from open_florence.data_engine import recipe as recipes
from open_florence.data_engine import student as students
from open_florence.data_engine.audit.split import AuditSplit
from open_florence.data_engine.config import read_config
from open_florence.data_engine.engine import Engine, init
from open_florence.data_engine.export import default_place, export
from open_florence.data_engine.job import Job
from open_florence.data_engine.learning import judge_boxes, truth_of
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.recipe import Recipe, recipe_of
from open_florence.data_engine.review.item import read_queue
from open_florence.data_engine.review.reviewing import take_verdicts, write_label_studio, write_page
from open_florence.data_engine.review.verdicts import Verdict, write_verdicts
from open_florence.data_engine.round_folder import RoundFolder, rounds
from open_florence.data_engine.status import show, status
from open_florence.data_engine.student import FlorenceStudent, Graduate
from open_florence.data_engine.work import Locks
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

CLASSES = ("cat", "dog", "bird")


@pytest.fixture
def photos(tmp_path):
    make_images(tmp_path / "photos", 8)
    return tmp_path / "photos"


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    return tmp_path / "classes.txt"


@pytest.fixture
def human(tmp_path, photos):
    """What people said about half of the photos."""
    samples = []
    for path in sorted(photos.iterdir())[:4]:
        one = Sample(image_id(path), str(path), (32.0, 32.0))
        samples.append(replace(one, annotations=(Annotation("<OD>", regions=true_regions(one), source="human"),)))
    write(tmp_path / "human.jsonl", samples)
    return tmp_path / "human.jsonl"


@pytest.fixture
def fakes(monkeypatch):
    """Specialists of these names are eyes, and the student is a fake."""
    monkeypatch.setattr(recipes, "load_specialist", lambda name, **options: Eye(name))
    monkeypatch.setattr(recipes, "options_of", lambda name: ())
    monkeypatch.setattr(recipes, "FlorenceStudent", lambda config, tasks: FakeStudent(config.steps))


TOML = """
images = ["../photos"]
tasks = ["<OD>"]
shard = 4
{specialists}
[train]
steps = 2
{more}
"""


def written(folder, names=("first", "second", "third"), more=""):
    specialists = "".join(f'\n[[specialist]]\nname = "{name}"\nisolate = false\n' for name in names)
    folder.mkdir(exist_ok=True)
    (folder / "engine.toml").write_text(TOML.format(specialists=specialists, more=more))
    return folder


def test_what_init_writes_can_be_run(tmp_path, photos, classes, human):
    path = init(tmp_path / "labels", [photos], classes, human)
    config = read_config(tmp_path / "labels")
    assert path == tmp_path / "labels" / "engine.toml"
    assert config.images == (str(photos),)
    assert [one.name for one in config.specialist] == ["florence", "labels"]
    assert (config.train.model, config.audit.labels) == ("tiny", str(human))
    ontology = Ontology.load(tmp_path / "labels" / "ontology.toml")
    assert ontology.names == CLASSES
    recipe = recipe_of(tmp_path / "labels", config, ontology, None)
    assert recipe.student == FlorenceStudent(config.train, config.tasks)
    assert recipe.specialists[1].make().name == "human"


def test_little_is_enough_to_begin(tmp_path, photos):
    init(tmp_path / "labels", [photos])
    assert read_config(tmp_path / "labels").audit.labels is None
    with pytest.raises(OpenFlorenceError, match="holds an engine already"):
        init(tmp_path / "labels", [photos])


@pytest.mark.parametrize(
    ("images", "ontology", "labels", "reason"),
    [
        ("nowhere", None, None, "there is no folder"),
        ("photos", "nowhere.toml", None, "cannot be read"),
        ("photos", None, "nowhere.json", "there is no file or folder"),
    ],
)
def test_what_is_not_there_is_said_at_once(tmp_path, photos, images, ontology, labels, reason):
    given = [tmp_path / name if name else None for name in (images, ontology, labels)]
    with pytest.raises(OpenFlorenceError, match=reason):
        init(tmp_path / "labels", [given[0]], given[1], given[2])
    assert not (tmp_path / "labels" / "engine.toml").exists()


def test_a_round_from_the_file(tmp_path, photos, human, fakes):
    folder = written(tmp_path / "labels", more='[audit]\nlabels = "../human.jsonl"\nimages = 3\nnear = 0')
    (manifest,) = Engine(folder).run()
    assert manifest["steps"]["train"]["images"] == 5
    assert len(json.loads((folder / "rounds" / "001" / "audit.json").read_bytes())["images"]) == 3
    assert (folder / "audit" / "manifest.json").exists()


def test_thresholds_are_fitted_on_the_audit_split(tmp_path, photos, human, fakes):
    wanted = '[[filter]]\nname = "score"\nprecision = 0.9\n'
    with pytest.raises(OpenFlorenceError, match=r"\[audit\] names none"):
        Engine(written(tmp_path / "labels", more=wanted)).run()
    folder = written(tmp_path / "labels", more=wanted + '[audit]\nlabels = "../human.jsonl"\nnear = 0')
    Engine(folder).run()
    assert json.loads((folder / "rounds" / "001" / "thresholds-3.json").read_bytes())["default"] == 0.3
    reasons = [reason for (reason,) in Store(folder / "store").tally("reason", step="filter", status="dropped")]
    assert any(reason.startswith("score: ") for reason in reasons)


def test_the_truth_is_read_by_the_ontology(tmp_path, photos, human, fakes):
    folder = written(tmp_path / "labels", more='[audit]\nlabels = "../human.jsonl"\nnear = 0')
    (folder / "ontology.toml").write_text(
        '[[class]]\nname = "feline"\n[[class]]\nname = "hound"\nsynonyms = ["dog"]\n'
        '[[migration]]\nid = "1"\nchange = "rename"\nfrom = "cat"\nto = "feline"\n'
    )
    Engine(folder).run(until="annotate")
    split = AuditSplit.load(folder / "audit")
    recipe = recipe_of(folder, read_config(folder), Ontology.load(folder / "ontology.toml"), split)
    job = Job(Store(folder / "store"), Locks(folder / "claims"), rounds(folder)[0], recipe)
    before = [region.label for sample in split.samples for a in sample.annotations for region in a.regions]
    after = [region.label for sample in truth_of(job) for a in sample.annotations for region in a.regions]
    assert {"cat", "dog", "bird"} <= set(before)
    names = {"cat": "feline", "dog": "hound"}
    assert after == [names[label] for label in before if label in names]


def test_a_box_is_right_once():
    cat, dog = (Region.box(0, 0, 10, 10, label=label, score=0.5) for label in ("cat", "dog"))
    better, far = replace(cat, score=0.9), Region.box(50, 50, 60, 60, label="cat", score=0.7)
    assert judge_boxes([cat, better, far, dog], [cat]) == [
        ("cat", 0.9, True),
        ("cat", 0.7, False),
        ("cat", 0.5, False),
        ("dog", 0.5, False),
    ]


def test_the_split_is_chosen_before_anything_is_trained(tmp_path, photos, human, fakes):
    folder = written(tmp_path / "labels")
    Engine(folder).run()
    written(folder, more='[audit]\nlabels = "../human.jsonl"')
    with pytest.raises(OpenFlorenceError, match="has trained a model already"):
        Engine(folder).run()


def test_a_mistake_in_the_guard_is_said_before_the_round(tmp_path, photos, fakes):
    folder = written(tmp_path / "labels", more="[guard]\nallowed = 2")
    with pytest.raises(OpenFlorenceError, match="allowed lies between 0 and 1"):
        Engine(folder).run()
    assert rounds(folder) == []


def test_a_step_goes_on_only_as_it_was_begun(tmp_path, photos, fakes):
    folder = written(tmp_path / "labels")
    Engine(folder).run(until="filter")
    written(folder, more="[fusion]\nkeep = 0.9")
    Engine(folder).run(until="filter")  # it is finished: a change is for the next round
    (folder / "rounds" / "001" / "steps" / "filter.json").unlink()
    with pytest.raises(OpenFlorenceError, match="another fusion"):
        Engine(folder).run()


def test_no_readable_image_is_one_sentence(tmp_path, fakes):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(OpenFlorenceError, match="none of the images"):
        Engine(written(tmp_path / "labels")).run()


def test_the_status_says_how_far_it_is(tmp_path, photos, fakes):
    folder = written(tmp_path / "labels")
    assert status(folder)["rounds"] == []
    assert "empty" in show(status(folder))
    Engine(folder).run(until="filter")
    (one,) = status(folder)["rounds"]
    assert one["state"] == "running"
    assert {step: told["state"] for step, told in one["steps"].items()}["enhance"] == "to do"
    Engine(folder).run()
    found = status(folder)
    (one,) = found["rounds"]
    assert one["state"] == "promoted"
    assert all(told["state"] == "done" for told in one["steps"].values())
    assert found["images"] == {"ok": 8}
    assert set(found["counts"]["class"]) <= {*CLASSES, "ghost"}
    text = show(found)
    for word in ("round 1: promoted, 8 images, trained on 8", "labels by task", "<OD>", "dropped", "drift:"):
        assert word in text
    json.dumps(found)


def test_the_status_of_nothing(tmp_path):
    with pytest.raises(OpenFlorenceError, match="there is no engine in"):
        status(tmp_path)


def test_long_tables_are_cut_unless_all_is_asked_for(tmp_path, photos, fakes):
    (photos / "list.txt").write_text("")
    for number in range(30):
        (photos / f"broken{number:02d}.png").write_bytes(b"")
    folder = written(tmp_path / "labels")
    Engine(folder).run(until="annotate")
    assert "... and 10 more (--all)" in show(status(folder))
    assert "broken29" in show(status(folder), everything=True)


@pytest.mark.parametrize("format", ["jsonl", "coco", "yolo", "label-studio"])
def test_labels_are_exported_and_read_again(tmp_path, photos, fakes, format):
    folder = written(tmp_path / "labels")
    Engine(folder).run()
    out = default_place(folder, format)
    assert export(folder, out, format).number == 1
    store = Store(folder / "store")
    there = store.tally("label", step="merge", status="kept", task="<OD>")
    back = [r for s in read(out) for a in s.annotations if a.task == "<OD>" for r in a.regions]
    assert len(back) == there.total()
    with pytest.raises(OpenFlorenceError, match="choose another with --out"):
        export(folder, out, format)


def test_everything_is_exported_as_parquet(tmp_path, photos, fakes):
    folder = written(tmp_path / "labels")
    Engine(folder).run()
    export(folder, tmp_path / "out", "parquet")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"images.parquet", "annotations.parquet"}


def test_what_cannot_be_exported(tmp_path, photos, fakes):
    folder = written(tmp_path / "labels")
    with pytest.raises(OpenFlorenceError, match="was promoted yet"):
        export(folder, tmp_path / "out", "coco")
    Engine(folder).run(until="filter")
    with pytest.raises(OpenFlorenceError, match="no finished round 1"):
        export(folder, tmp_path / "out", "coco", 1)
    with pytest.raises(OpenFlorenceError, match="'tiff' is no format"):
        export(folder, tmp_path / "out", "tiff")


def test_a_review_goes_out_and_comes_back(tmp_path, photos, fakes):
    folder = written(tmp_path / "labels")
    Engine(folder).run()
    first = rounds(folder)[0]
    page, claims = write_page(folder, first, 5, classes=CLASSES)
    assert page.exists()
    assert claims == 5
    queue = read_queue(folder / "review" / "round-001" / "queue.jsonl")
    wrong = next(item for item in queue if item.region is not None)
    file = tmp_path / "verdicts.jsonl"
    write_verdicts(file, [Verdict("reject", wrong.id)])
    taken = take_verdicts(folder, first, file, print)
    assert (taken.verdicts, taken.dropped, taken.again) == (1, 1, False)
    assert take_verdicts(folder, first, file, print).again
    write_verdicts(file, [Verdict("fix", wrong.id, label="bird")])  # on second thoughts
    take_verdicts(folder, first, file, print)
    Engine(folder).run()
    kept = [
        (row.annotation.source, region.label)
        for row in Store(folder / "store").rows(step="merge", round=2, image=wrong.image, status="kept", task="<OD>")
        for region in row.annotation.regions
        if region.parts == wrong.region.parts
    ]
    assert kept == [("human@review", "bird")]


def test_a_review_in_label_studio(tmp_path, photos, fakes):
    folder = written(tmp_path / "labels")
    Engine(folder).run()
    claims, left_out = write_label_studio(folder, rounds(folder)[0], tmp_path / "tasks.json", 3)
    assert claims > 0
    assert left_out == 0
    assert len(json.loads((tmp_path / "tasks.json").read_bytes())) == 3


def test_the_recipe_in_python_does_the_same(tmp_path, photos, fakes):
    folder = written(tmp_path / "file")
    Engine(folder).run()
    config = read_config(folder)
    recipe = recipe_of(folder, config, recipes.Ontology(), None)
    Engine(tmp_path / "python", recipe, [str(photos)]).run()
    both = [
        sorted((row.id, row.status, row.reason, str(row.annotation)) for row in Store(place / "store").rows())
        for place in (folder, tmp_path / "python")
    ]
    assert both[0] == both[1]


def test_progress_counts_images(tmp_path, photos):
    shown = []
    engine = Engine(
        tmp_path / "labels",
        Recipe(employed(Eye("first"), Eye("second")), student=FakeStudent(), shard=3),
        [str(photos)],
        show=lambda *told: shown.append(told),
    )
    engine.run()
    last = {step: (done, total) for step, done, total in shown}
    assert last["annotate first@1"] == last["filter"] == last["merge"] == (8, 8)
    assert last["train"] == (1, 1)


def test_a_graduate_is_a_specialist_of_its_round():
    one = Graduate(lambda: Eye("anything"), "round-003")
    assert (one.name, one.version, one.tasks, one.needs) == ("student", "round-003", ("<OD>",), ())


def test_the_student_learns_what_there_is_to_learn(tmp_path, photos, monkeypatch):
    told = {}

    def load_model(name, device):
        told.update(model=name)
        return 1, 2

    def save_model(model, processor, folder):
        folder.mkdir()

    def finetune(model, processor, samples, folder, config, weights):
        told.update(tasks=config.tasks, steps=config.steps, weights=weights)
        return model, processor

    monkeypatch.setattr("open_florence.inference.pretrained.load_model", load_model)
    monkeypatch.setattr("open_florence.inference.pretrained.save_model", save_model)
    monkeypatch.setattr("open_florence.training.finetune.finetune", finetune)
    config = students.TrainConfig(steps=3, start="last")
    student = FlorenceStudent(config, ("<OD>", "<CAPTION>"))
    samples = [Sample("a", "a.png", (1.0, 1.0), (Annotation("<OD>"),))]
    student.train(samples, [2.0], tmp_path / "train", tmp_path / "checkpoint", tmp_path / "last")
    assert told == {"model": tmp_path / "last", "tasks": ("<OD>",), "steps": 3, "weights": [2.0]}
    with pytest.raises(OpenFlorenceError, match="there is nothing to learn: no label answers <OD>, <CAPTION>"):
        student.train([], [], tmp_path / "train", tmp_path / "checkpoint", None)


def test_a_damaged_file_of_a_round_is_named(tmp_path):
    folder = RoundFolder(tmp_path, 1)
    folder.begin(["b", "a"], {"shard": 2})
    assert folder.images() == ["a", "b"]
    folder.begin(["c"], {"shard": 3})
    assert folder.images() == ["a", "b"]
    Path(folder.path / "manifest.json").write_text("{")
    with pytest.raises(OpenFlorenceError, match=r"manifest\.json is damaged"):
        folder.manifest()


def test_an_engine_is_there_at_once():
    names = ("engine", "status", "export", "review.reviewing")
    code = "".join(f"import open_florence.data_engine.{name}\n" for name in names)
    code += "import sys; print(*{'torch', 'transformers', 'cv2', 'lance'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
