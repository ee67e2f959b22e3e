"""Our own checkpoint as a specialist: every task, what each asks about, its version, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import SHIPPED
from open_florence.scenes import make_scene
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists import load_specialist, source_of
from open_florence.specialists.florence import captions_of, single_labels


def scene(folder: Path, seed: int = 0) -> Sample:
    """A scene as a sample without annotations."""
    sample = make_scene(seed).sample
    path = folder / f"{seed}.png"
    Image.fromarray(np.asarray(make_scene(seed).image)).save(path)
    return Sample(sample.id, str(path), sample.size)


def with_annotations(sample: Sample, *annotations: Annotation) -> Sample:
    return Sample(sample.id, sample.path, sample.size, annotations)


def test_the_answers_are_the_predictors(tmp_path):
    samples = [scene(tmp_path, seed) for seed in (3, 4)]
    specialist = load_specialist("florence", tasks=["<OD>", "<CAPTION>"])
    answers = specialist.annotate(samples)
    assert answers == Predictor.from_pretrained("tiny").predict_batch([s.path for s in samples], ["<OD>", "<CAPTION>"])
    (alone,) = specialist.annotate(samples[1:])
    for mine, theirs in zip(alone, answers[1], strict=True):  # equal but for rounding, which the batch changes
        assert (mine.task, mine.text) == (theirs.task, theirs.text)
        assert [region.label for region in mine.regions] == [region.label for region in theirs.regions]
        assert mine.score == pytest.approx(theirs.score, rel=1e-4)
    assert specialist.annotate([]) == []
    assert (specialist.name, specialist.tasks, specialist.needs) == ("florence", ("<OD>", "<CAPTION>"), ())


def test_tasks_that_ask_about_what_others_found(tmp_path):
    one, two = Region.box(10, 10, 60, 60, label="star"), Region.box(70, 30, 120, 90, label="ring")
    again = Region.box(10, 60, 60, 110, label="ring")
    found = Annotation("<OD>", regions=(one, two, again)), Annotation("<CAPTION>", "a star and two rings")
    wanted = {
        "<REGION_TO_CATEGORY>": [one, two, again],
        "<REGION_TO_SEGMENTATION>": [one, two, again],
        "<CAPTION_TO_PHRASE_GROUNDING>": ["a star and two rings"],
        "<REFERRING_EXPRESSION_SEGMENTATION>": ["star"],
        "<OPEN_VOCABULARY_DETECTION>": ["star", "cross"],
        "<CLASSIFICATION>": ["star<and>cross"],
    }
    specialist = load_specialist("florence", tasks=list(wanted), classes=["star", "cross"])
    assert specialist.needs == ("<OD>", "<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
    sample = scene(tmp_path)
    answers, without = specialist.annotate([with_annotations(sample, *found), sample])
    asked = [(answer.task, answer.query) for answer in answers]
    assert asked == [(task, query) for task, queries in wanted.items() for query in queries]
    assert {answer.task for answer in without} == {"<OPEN_VOCABULARY_DETECTION>", "<CLASSIFICATION>"}


def test_nothing_to_ask(tmp_path):
    specialist = load_specialist("florence", tasks=["<REGION_TO_CATEGORY>"])
    assert specialist.annotate([scene(tmp_path)]) == [[]]


def test_selection_and_views(tmp_path):
    sample = scene(tmp_path, 3)
    (everything,) = load_specialist("florence", tasks=["<OD>"]).annotate([sample])[0]
    (nothing,) = load_specialist("florence", tasks=["<OD>"], threshold=1.0).annotate([sample])[0]
    (agreed,) = load_specialist("florence", tasks=["<OD>"], views=2).annotate([sample])[0]
    assert everything.regions
    assert len(nothing.regions) < len(everything.regions)
    assert {region.score for region in agreed.regions} <= {0.5, 1.0}


def test_the_version_is_of_the_weights_and_the_options(tmp_path):
    first = load_specialist("florence")
    assert first.version == load_specialist("florence", model=SHIPPED / "tiny", device="cpu").version
    assert first.version != load_specialist("florence", threshold=0.5).version
    shutil.copytree(SHIPPED / "tiny", tmp_path / "copy")
    (tmp_path / "copy" / "notes.txt").write_text("no part of the model")
    assert first.version == load_specialist("florence", model=str(tmp_path / "copy")).version
    weights = tmp_path / "copy" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert first.version != load_specialist("florence", model=str(tmp_path / "copy")).version
    student = load_specialist("florence", name="student", version="round-2")
    assert source_of(student) == "student@round-2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "tiniest"}, "there is no model 'tiniest'"),
        ({"tasks": ["<OB>"]}, "did you mean <OD>"),
        ({"tasks": []}, "there is no task"),
        ({"tasks": ["<VQA>"]}, "nobody says what <VQA> shall ask"),
        ({"tasks": ["<OPEN_VOCABULARY_DETECTION>"]}, "needs the option classes"),
        ({"threshold": 2}, "threshold lies between 0 and 1"),
        ({"views": 3}, "views of an image"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(OpenFlorenceError, match=message):
        load_specialist("florence", **options)


def test_captions_and_labels_that_can_be_asked_about():
    annotations = [Annotation("<CAPTION>", "a"), Annotation("<DETAILED_CAPTION>", "b"), Annotation("<CAPTION>", "a")]
    assert captions_of([*annotations, Annotation("<CAPTION>", " "), Annotation("<OCR>", "c")]) == ["a", "b"]
    regions = [Region.box(k, 0, k + 1, 1, label=label) for k, label in enumerate(["cat", "", "dog", "cat"])]
    assert single_labels(regions) == ["dog"]
