"""People's labels as a specialist: found by content, path or name, whole, and never for the wrong image."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from open_florence.data import write
from open_florence.data.ignored import IGNORED, ignored_annotation
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists import HUMAN, load_specialist, source_of

CAT = Annotation("<OD>", regions=(Region.box(1, 2, 8, 9, label="cat"),), source="human")
NOTHING = Annotation("<OD>", source="human")
CAPTION = Annotation("<CAPTION>", "a cat", source="human")


def photo(path: Path, colour: str = "red", size: tuple[int, int] = (20, 10)) -> Sample:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return Sample(image_id(path), str(path), (float(size[0]), float(size[1])))


def labelled(folder: Path, *samples: Sample) -> Path:
    write(folder / "labels.jsonl", samples)
    return folder / "labels.jsonl"


def test_labels_of_the_images_that_have_some(tmp_path):
    first, second, third = (photo(tmp_path / f"{colour}.png", colour) for colour in ("red", "green", "blue"))
    ignored = ignored_annotation("<OD>", [Region.box(0, 0, 3, 3)])
    path = labelled(
        tmp_path,
        replace(first, annotations=(CAT, CAPTION, *ignored)),
        replace(second, annotations=(NOTHING,)),
    )
    specialist = load_specialist("labels", labels=path)
    assert specialist.annotate([third, second, first]) == [[], [NOTHING], [CAT, CAPTION, *ignored]]
    assert set(specialist.tasks) == {"<OD>", "<CAPTION>", IGNORED}
    assert specialist.name == HUMAN
    assert source_of(specialist) == f"human@{specialist.version}"
    assert load_specialist("labels", labels=path, tasks=["<CAPTION>"]).annotate([first]) == [[CAPTION]]


def test_by_content_after_renaming_and_by_path_after_editing(tmp_path):
    sample = photo(tmp_path / "a.png")
    path = labelled(tmp_path, replace(sample, annotations=(CAT,)))
    specialist = load_specialist("labels", labels=path)
    renamed = photo(tmp_path / "b.bmp")
    assert specialist.annotate([renamed]) == [[CAT]]
    edited = photo(tmp_path / "a.png", "orange")
    assert edited.id != sample.id
    assert specialist.annotate([edited]) == [[CAT]]


def coco(folder: Path, *names: str) -> Path:
    """A COCO file about images that are not beside it."""
    folder.mkdir(exist_ok=True)
    images = [{"id": k, "file_name": name, "width": 20, "height": 10} for k, name in enumerate(names)]
    boxes = [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 2, 7, 7]} for k in range(len(names))]
    record = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "labels.json").write_text(json.dumps(record))
    return folder / "labels.json"


def test_by_name_where_the_labelled_image_is_elsewhere(tmp_path):
    sample = photo(tmp_path / "photos" / "a.png")
    specialist = load_specialist("labels", labels=coco(tmp_path / "far", "a.png", "b.png"))
    assert specialist.annotate([sample]) == [[CAT]]
    other = photo(tmp_path / "photos" / "c.png", "blue")
    assert specialist.annotate([other]) == [[]]


def test_not_by_name_where_two_share_it_or_the_labelled_image_is_another(tmp_path):
    sample = photo(tmp_path / "photos" / "a.png")
    both = load_specialist("labels", labels=coco(tmp_path / "far", "1/a.png", "2/a.png", "3/a.png"))
    assert both.annotate([sample]) == [[]]
    assert both.annotate([replace(sample, path=str(tmp_path / "far" / "2" / "a.png"))]) == [[CAT]]
    another = replace(photo(tmp_path / "others" / "a.png", "blue"), annotations=(CAT,))
    assert load_specialist("labels", labels=labelled(tmp_path, another)).annotate([sample]) == [[]]


def test_two_records_of_one_image_are_one(tmp_path):
    sample, copy = photo(tmp_path / "a.png"), photo(tmp_path / "copy.png")
    path = labelled(tmp_path, replace(sample, annotations=(CAT,)), replace(copy, annotations=(CAT, CAPTION)))
    assert load_specialist("labels", labels=path).annotate([sample, copy]) == [[CAT, CAPTION]] * 2


def test_labels_of_another_size_are_refused(tmp_path):
    specialist = load_specialist("labels", labels=coco(tmp_path / "far", "a.png"))
    large = photo(tmp_path / "a.png", size=(40, 20))
    with pytest.raises(OpenFlorenceError, match=r"a\.png are for an image of 20 x 10 pixels, and it has 40 x 20"):
        specialist.annotate([large])


def test_the_version_changes_with_the_labels(tmp_path):
    sample = photo(tmp_path / "a.png")
    first = load_specialist("labels", labels=labelled(tmp_path, replace(sample, annotations=(CAT,))))
    again = load_specialist("labels", labels=labelled(tmp_path, replace(sample, annotations=(CAT,))))
    changed = load_specialist("labels", labels=labelled(tmp_path, replace(sample, annotations=(NOTHING,))))
    assert first.version == again.version != changed.version


def test_mistakes(tmp_path):
    with pytest.raises(OpenFlorenceError, match="there is no file or folder"):
        load_specialist("labels", labels=tmp_path / "absent.jsonl")
    path = labelled(tmp_path, replace(photo(tmp_path / "a.png"), annotations=(CAT,)))
    with pytest.raises(OpenFlorenceError, match=r"holds no labels for <OCR>"):
        load_specialist("labels", labels=path, tasks=["<OCR>"])
    problems: list[str] = []
    path.write_text("no json\n" + path.read_text())
    assert load_specialist("labels", labels=path, on_error=problems.append).tasks == ("<OD>",)
    assert len(problems) == 1


def test_real_labels(data_folder: Path):
    specialist = load_specialist("labels", labels=data_folder / "bccd", on_error=lambda problem: None)
    assert specialist.tasks == ("<OD>",)
