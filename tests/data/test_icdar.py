"""Text with quads: ICDAR 2015 and SROIE files, their dirt, the order in which text is read, and what is written."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.data import read, write
from open_florence.data.icdar import quad_region, reading_order, reading_text
from open_florence.data.ignored import IGNORED
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample
from open_florence.tasks import TASKS

GENAXIS = "37,11,46,11,46,20,37,20,Genaxis, the Theatre"


def quad(x: float, y: float, width: float, height: float, label: str = "") -> Region:
    """An upright quad."""
    return Region("quad", (((x, y), (x + width, y), (x + width, y + height), (x, y + height)),), label)


def image(path: Path, size: tuple[int, int] = (100, 80)) -> Path:
    """A small picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def lines(path: Path, *texts: str) -> Path:
    """A file of lines, ended as Windows does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(text + "\r\n" for text in texts).encode())
    return path


@pytest.mark.parametrize(
    ("text_at", "image_at"),
    [
        ("gt_img_1.txt", "img_1.jpg"),
        ("gt/gt_img_1.txt", "images/img_1.png"),
        ("box/007.csv", "img/007.jpg"),
        ("ch4_training_localization_transcription_gt/gt_img_1.txt", "ch4_training_images/img_1.jpg"),
        ("gt_img.txt", "gt_img.jpg"),  # the image is called gt_ itself
    ],
)
def test_layouts(tmp_path: Path, text_at: str, image_at: str) -> None:
    picture = image(tmp_path / image_at)
    lines(tmp_path / text_at, GENAXIS, "")
    (sample,) = read(tmp_path)
    assert Path(sample.path).samefile(picture)
    assert (sample.id, sample.size) == (image_id(picture), (100.0, 80.0))
    assert sample.annotations == (
        Annotation("<OCR_WITH_REGION>", regions=(quad(37, 11, 9, 9, "Genaxis, the Theatre"),), source="human"),
        Annotation("<OCR>", "Genaxis, the Theatre", source="human"),
    )


def test_a_byte_order_mark_is_no_number(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    lines(tmp_path / "a.txt", "\ufeff" + GENAXIS)
    (sample,) = read(tmp_path)
    assert len(sample.annotations[0].regions) == 1


def test_text_nobody_can_read_stands_apart_under_no_task_of_the_models(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    lines(tmp_path / "a.txt", GENAXIS, "50,50,90,50,90,60,50,60,###")
    (sample,) = read(tmp_path)
    assert [region.label for region in sample.annotations[0].regions] == ["Genaxis, the Theatre"]
    assert sample.annotations[2] == Annotation(IGNORED, "", (quad(50, 50, 40, 10),), "<OCR_WITH_REGION>", "human")
    assert IGNORED not in TASKS


def test_an_image_without_text_is_a_sample_too(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    lines(tmp_path / "a.txt")
    (sample,) = read(tmp_path, "icdar")
    assert [a.task for a in sample.annotations] == ["<OCR_WITH_REGION>", "<OCR>"]
    assert all(a.text == "" and a.regions == () for a in sample.annotations)


BAD_LINES = [
    ("1,2,3,4,5,6,7", "eight numbers"),
    ("1,2,3,4,5,6,7,x,word", "eight numbers"),
    ("nan,2,3,4,5,6,7,8,word", "eight numbers"),
    ("5,5,9,5,9,9,5,9", "no text"),
    ("5,5,9,5,9,9,5,9, ", "no text"),
    ("5,5,9,5,13,5,9,5,flat", "no area in the image"),
    ("500,500,510,500,510,520,500,520,outside", "no area in the image"),
    ("\udcff", "not UTF-8"),
]


@pytest.mark.parametrize(("bad", "said"), BAD_LINES)
def test_bad_lines_are_left_out_and_named(tmp_path: Path, bad: str, said: str) -> None:
    image(tmp_path / "a.png")
    path = tmp_path / "a.txt"
    path.write_bytes(f"{GENAXIS}\n\n{bad}\n".encode("utf-8", "surrogateescape"))
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    assert len(sample.annotations[0].regions) == 1
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}, line 3, is left out: ")
    assert said in problems[0]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("readme.txt", "Thank you for downloading\nthis data", "none of its lines"),
        ("b.txt", GENAXIS, "there is no image b beside it"),
        ("broken.txt", GENAXIS, "broken.png"),
    ],
)
def test_files_that_are_left_out(tmp_path: Path, name: str, text: str, said: str) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lines(tmp_path / "a.txt", GENAXIS)
    path = lines(tmp_path / name, text)
    problems: list[str] = []
    assert len(list(read(tmp_path, on_error=problems.append))) == 1
    assert len(problems) == 1
    assert problems[0].startswith(f"{path} is left out: ")
    assert said in problems[0]


@pytest.mark.parametrize(
    "points",
    [
        [(10, 10), (50, 12), (49, 30), (9, 28)],  # clockwise
        [(10, 10), (9, 28), (49, 30), (50, 12)],  # the other way round
        [(10, 10), (50, 12), (9, 28), (49, 30)],  # row by row, so that its lines cross
    ],
)
def test_quads_go_clockwise_from_their_first_corner(points: list[tuple[float, float]]) -> None:
    assert quad_region(points, "a", (100, 80)).parts == (((10.0, 10.0), (50.0, 12.0), (49.0, 30.0), (9.0, 28.0)),)


def test_the_first_corner_of_a_turned_text_stays_the_first() -> None:
    upside_down = [(50, 30), (10, 30), (10, 10), (50, 10)]
    assert quad_region(upside_down, "a", (100, 80)).parts[0] == tuple((float(x), float(y)) for x, y in upside_down)


def test_quads_are_cut_at_the_edge() -> None:
    assert quad_region([(-5, 70), (20, 70), (20, 90), (-5, 90)], "a", (100, 80)).parts == quad(0, 70, 20, 10).parts


ROWS = [
    [quad(10, 10, 30, 10, "TOTAL"), quad(60, 13, 20, 9, "9.00")],
    [quad(8, 22, 30, 10, "CASH"), quad(60, 18.5, 20, 9, "10.00")],
    [quad(5, 40, 90, 30, "THANKS"), quad(96, 62, 4, 8, "!")],
]


@settings(deadline=None, max_examples=50)
@given(st.permutations([region for row in ROWS for region in row]))
def test_reading_order_is_by_rows_whatever_the_order_of_the_file(regions: list[Region]) -> None:
    by_row = [{region.label for region in row} for row in reading_order(regions)]
    assert by_row == [{"TOTAL", "9.00"}, {"CASH", "10.00"}, {"THANKS"}, {"!"}]
    assert reading_text(regions) == "TOTAL 9.00\nCASH 10.00\nTHANKS\n!"


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(2, 40)] * 2, st.text('ab,#" é', min_size=1)), max_size=6
    )
)
def test_what_is_read_is_in_reading_order_again(boxes: list[tuple[int, int, int, int, str]]) -> None:
    regions = [quad(*box) for box in boxes]
    again = [region for row in reading_order(regions) for region in row]
    assert [region for row in reading_order(again) for region in row] == again


def test_what_icdar_cannot_hold(tmp_path: Path) -> None:
    def of(*regions: Region, task: str = "<OCR_WITH_REGION>", path: str = "a.png") -> Sample:
        return Sample("", path, (40.0, 30.0), (Annotation(task, regions=regions),))

    def refuses(*samples: Sample, match: str) -> None:
        with pytest.raises(OpenFlorenceError, match=match):
            write(tmp_path, samples, "icdar")

    refuses(of(task="<OD>"), match=r"a\.png has no <OCR_WITH_REGION> annotation")
    refuses(of(Region("polygon", (((0, 0), (1, 0), (1, 1)),), "a")), match="has a polygon")
    for text in ("", " ", "###", "two\nlines"):
        refuses(of(quad(0, 0, 5, 5, text)), match="a line of ICDAR cannot hold")
    refuses(of(path="b/a.png"), of(path="c/a.png"), match=r"b/a\.png and c/a\.png are both a")


def test_written_files_are_what_icdar_evaluates(tmp_path: Path) -> None:
    annotations = (
        Annotation("<OCR_WITH_REGION>", regions=(quad(1.4, 2.6, 10, 5, "a, b"), Region.box(1, 20, 9, 30, label="box"))),
        Annotation(IGNORED, regions=(quad(20, 20, 5, 5),), query="<OCR_WITH_REGION>"),
        Annotation(IGNORED, regions=(quad(30, 30, 5, 5),), query="<OD>"),
    )
    write(tmp_path, [Sample("", "x/a.png", (40.0, 30.0), annotations)], "icdar")
    assert (tmp_path / "gt_a.txt").read_text() == (
        "1,3,11,3,11,8,1,8,a, b\n1,20,9,20,9,30,1,30,box\n20,20,25,20,25,25,20,25,###\n"
    )


def test_receipts(data_folder: Path) -> None:
    """58 real files, 2,633 lines of text, two of them with a quotation mark that is no quoting: nothing is amiss."""
    problems: list[str] = []
    samples = list(read(data_folder / "sroie_receipts", on_error=problems.append))
    assert problems == []
    assert len(samples) == 58
    quads = np.array([r.parts[0] for s in samples for r in s.annotations[0].regions])  # (N, 4, 2)
    assert quads.shape == (2633, 4, 2)
    assert (quads[:, 0] == quads.min(axis=1)).all()
    assert '1/8"-3/4" 12PCS HOLLOW PUNCH SET' in {r.label for s in samples for r in s.annotations[0].regions}
    for sample in samples:
        assert TASKS["<OCR_WITH_REGION>"].grammar.serialize(sample.annotations[0], sample.size)
        assert sorted(sample.annotations[1].text.split()) == sorted(
            word for region in sample.annotations[0].regions for word in region.label.split()
        )
