"""Pascal VOC folders: every layout people have, every kind of dirt, and nothing dangerous."""

from pathlib import Path

import pytest
from PIL import Image

from open_florence.data import read, write
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample

BOX = "<object><name>cat</name><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"


def document(objects: str = BOX, filename: str = "a.png", size: tuple[int, int] | None = (40, 30)) -> str:
    """A VOC file."""
    sizes = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{sizes}{objects}</annotation>"


def image(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def xml(path: Path, text: str) -> Path:
    """A file of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("xml_at", "image_at", "given"),
    [
        ("a.xml", "a.png", "."),
        ("annotations/a.xml", "images/a.png", "."),
        ("Annotations/a.xml", "JPEGImages/a.png", "."),
        ("annotations/a.xml", "images/a.png", "annotations"),
        ("labels/a.xml", "a.png", "labels"),
        ("labels/a.xml", "images/renamed.png", "."),
    ],
)
def test_layouts(tmp_path: Path, xml_at: str, image_at: str, given: str) -> None:
    picture = image(tmp_path / image_at)
    xml(tmp_path / xml_at, document(filename=rf"C:\data\{picture.name}"))
    if given == "labels" and image_at == "a.png":
        picture = picture.rename(image(tmp_path / "images" / "a.png"))
    (sample,) = read(tmp_path / given)
    assert Path(sample.path).samefile(picture)
    assert sample.id == image_id(picture)
    assert sample.size == (40.0, 30.0)
    box = Region.box(1, 2.5, 30, 20, label="cat")
    assert sample.annotations == (Annotation("<OD>", regions=(box,), source="human"),)


def test_image_of_another_suffix_than_the_file_says(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    xml(tmp_path / "a.txt", "a neighbour that is no image")
    xml(tmp_path / "a.xml", document(filename="a.jpg"))
    (sample,) = read(tmp_path)
    assert sample.path == str(tmp_path / "a.png")


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_missing_size_is_the_images(tmp_path: Path, size: tuple[int, int] | None) -> None:
    image(tmp_path / "a.png")
    xml(tmp_path / "a.xml", document(size=size))
    (sample,) = read(tmp_path)
    assert sample.size == (40.0, 30.0)


def test_without_its_image_a_file_still_has_its_boxes(tmp_path: Path) -> None:
    xml(tmp_path / "a.xml", document())
    (sample,) = read(tmp_path)
    assert (sample.id, sample.path, sample.size) == ("a", str(tmp_path / "a.png"), (40.0, 30.0))
    assert len(sample.annotations[0].regions) == 1


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>'
LEFT_OUT = [
    (BOMB, "it holds a DTD"),
    ('<!DOCTYPE a SYSTEM "http://example.com/a.dtd"><annotation/>', "it holds a DTD"),
    (document(size=None, filename="nowhere.png"), "it says no image size"),
    (document(size=(41, 30), filename="real.png"), "41 x 30 pixels, but .*real.png has 40 x 30"),
    (document(filename="broken.png"), "broken.png"),
    ("<annotation><object>", "no element found"),
    ("", "no element found"),
    ("<dataset/>", "its root is <dataset>"),
    ("<annotation>&nbsp;</annotation>", "undefined entity"),
    ('<?xml version="1.0" encoding="klingon"?><annotation/>', "encoding"),
]


@pytest.mark.parametrize(("text", "said"), LEFT_OUT)
def test_files_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    image(tmp_path / "real.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    path = xml(tmp_path / "b.xml", text)
    problems: list[str] = []
    xml(tmp_path / "c.xml", document(filename="real.png"))
    assert len(list(read(tmp_path, on_error=problems.append))) == 1
    assert len(problems) == 1
    assert problems[0].startswith(f"{path} is left out: ")
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(problems[0])


def test_a_dtd_in_another_encoding_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="utf-16"?>{BOMB}'.encode("utf-16"))
    problems: list[str] = []
    assert list(read(tmp_path, on_error=problems.append)) == []
    assert "DTD" in problems[0]


BOXES = [
    ("5 5 5 9", None),  # no width
    ("9 5 5 9", None),  # the wrong way round
    ("50 5 60 9", None),  # beside the image
    ("nan 5 9 9", None),
    ("1 2 3 x", None),
    ("-3 5 9 99", (0.0, 5.0, 9.0, 30.0)),  # cut at the edge
    ("0 0 40 30", (0.0, 0.0, 40.0, 30.0)),
]


@pytest.mark.parametrize(("numbers", "kept"), BOXES)
def test_boxes(tmp_path: Path, numbers: str, kept: tuple[float, ...] | None) -> None:
    sides = "".join(f"<{n}>{v}</{n}>" for n, v in zip(("xmin", "ymin", "xmax", "ymax"), numbers.split(), strict=True))
    path = xml(tmp_path / "a.xml", document(f"{BOX}<object><name>ж</name><bndbox>{sides}</bndbox></object>"))
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    assert sample.annotations[0].regions[1:] == (() if kept is None else (Region.box(*kept, label="ж"),))
    assert len(problems) == (kept is None)
    assert all(problem.startswith(f"{path}, object 2, is left out: ") for problem in problems)


def test_an_object_without_name_or_box(tmp_path: Path) -> None:
    xml(tmp_path / "a.xml", document("<object><name> </name></object><object><name>cat</name></object>"))
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    assert sample.annotations[0].regions == ()
    assert len(problems) == 2


def test_round_trip(tmp_path: Path) -> None:
    pictures = [image(tmp_path / "in" / name) for name in ("x [1].png", "y&.png")]
    box = Region.box(1, 2.5, 30, 20.125, label="<größte> & 猫")
    samples = [
        Sample(image_id(p), str(p), (40.0, 30.0), (Annotation("<OD>", regions=(box,), source="human"),))
        for p in pictures
    ]
    write(tmp_path / "in", samples)
    assert list(read(tmp_path / "in")) == samples
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == [
        "x [1].png", "x [1].xml", "y&.png", "y&.xml",
    ]  # fmt: skip


def test_what_voc_cannot_hold(tmp_path: Path) -> None:
    def of(*regions: Region, task: str = "<OD>", path: str = "a.png") -> Sample:
        return Sample("", path, (40.0, 30.0), (Annotation(task, regions=regions),))

    with pytest.raises(OpenFlorenceError, match=r"a\.png has no <OD> annotation"):
        write(tmp_path, [of(task="<CAPTION>")])
    with pytest.raises(OpenFlorenceError, match="has a quad"):
        write(tmp_path, [of(Region("quad", (((0, 0), (1, 0), (1, 1), (0, 1)),), "a"))])
    with pytest.raises(OpenFlorenceError, match="without a label"):
        write(tmp_path, [of(Region.box(0, 0, 1, 1))])
    with pytest.raises(OpenFlorenceError, match=r"b/a\.png and c/a\.png are both a"):
        write(tmp_path, [of(path="b/a.png"), of(path="c/a.png")])


def test_blood_cells(data_folder: Path) -> None:
    """262 real files; what is wrong with them is reported, box by box."""
    problems: list[str] = []
    samples = list(read(data_folder / "bccd", on_error=problems.append))
    assert len(samples) == 262
    assert {sample.size for sample in samples} == {(640.0, 480.0)}
    assert {r.label for s in samples for r in s.annotations[0].regions} == {"RBC", "WBC", "Platelets"}
    assert 0 < len(problems) < 5
    assert all("has no area in the image" in problem for problem in problems)
