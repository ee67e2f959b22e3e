"""People's captions pass the filters: what is written of real photos is neither poor nor made up."""

import json
from collections import defaultdict

import pytest

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.filters import apply_filters, make_filters
from open_florence.data_engine.filters.claims import claims
from open_florence.data_engine.ontology import Ontology, OntologyClass
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("image", "image.jpg", (640.0, 480.0))
PEOPLE = ("man", "woman", "boy", "girl", "child", "player", "surfer", "skier", "guy", "lady", "baby")


@pytest.fixture(autouse=True)
def _rules(monkeypatch):
    """The figures are those of the rules, also where spaCy and a model are installed."""
    monkeypatch.setattr("open_florence.noun_phrases._spacy", lambda: None)


def caption(text):
    return Candidate("caption", Annotation("<CAPTION>", text, source="captioner@1"))


def test_captions_are_not_poor(data_folder):
    path = data_folder / "coco_captions_val2017" / "captions.jsonl"
    if not path.is_file():
        pytest.skip(f"no captions at {path}")
    filters = make_filters([{"name": name} for name in ("complexity", "too_many_named", "length", "repetition")])
    with path.open("rb") as file:
        texts = [json.loads(line)["caption"] for line, _ in zip(file, range(4000), strict=False)]
    decisions = [decision for text in texts for decision in apply_filters(filters, SAMPLE, [caption(text)])]
    dropped = [decision.annotation.text for decision in decisions if decision.status == "dropped"]
    assert dropped == ["no image again there are a lot of these lately"]


def test_captions_claim_what_is_there(data_folder):
    folder = data_folder / "coco_subset"
    if not folder.is_dir():
        pytest.skip(f"no photos at {folder}")
    instances = json.loads((folder / "instances.json").read_text())
    texts = json.loads((folder / "captions.json").read_text())["annotations"]
    names = {category["id"]: category["name"] for category in instances["categories"]}
    synonyms = {"person": PEOPLE}
    ontology = Ontology(tuple(OntologyClass(name, synonyms.get(name, ())) for name in names.values()))
    regions = defaultdict(list)
    for one in instances["annotations"]:
        x, y, width, height = one["bbox"]
        regions[one["image_id"]].append(Region.box(x, y, x + width, y + height, label=names[one["category_id"]]))
    dropped, swapped = 0, 0
    for index, text in enumerate(texts):
        for shift in (0, len(texts) // 2):  # its own photo, and another one
            image = texts[(index + shift) % len(texts)]["image_id"]
            found = Candidate("boxes", Annotation("<OD>", regions=tuple(regions[image]), source="detector@1"))
            status = claims(ontology)(SAMPLE, [found, caption(text["caption"])])[1].status
            dropped += status == "dropped" and not shift
            swapped += status == "dropped" and shift > 0
    assert len(texts) == 255
    assert dropped == 5
    assert swapped == 146  # the rest name no class, or one that the other photo has as well
