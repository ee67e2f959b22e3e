"""Flickr30k Entities: phrases in brackets, boxes by entity, and everything that may be wrong with either."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from open_florence.data import read
from open_florence.data.flickr30k import phrases
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region

CAPTION = "[/EN#1/people Two young men] in [/EN#2/clothing/other shirts] laugh at [/EN#0/notvisual it] ."


def box(*numbers: object, names: tuple[str, ...] = ("1",)) -> str:
    """An object with a box."""
    sides = zip(("xmin", "ymin", "xmax", "ymax"), numbers, strict=True)
    inside = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    return f"<object>{''.join(f'<name>{n}</name>' for n in names)}<bndbox>{inside}</bndbox></object>"


SCENE = "<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object>"
NO_BOX = "<object><name>2</name><scene>0</scene><nobndbox>1</nobndbox></object>"


def entry(root: Path, name: str, captions: str, objects: str, size: str = "") -> None:
    """The two files of an image, as published."""
    for folder in ("Sentences", "Annotations"):
        (root / folder).mkdir(exist_ok=True)
    size = size or "<size><width>80</width><height>60</height><depth>3</depth></size>"
    (root / "Sentences" / f"{name}.txt").write_text(captions + "\n", encoding="utf-8")
    xml = f"<annotation>\n<filename>{name}.jpg</filename>\n{size}{objects}\n</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")


def test_captions_and_their_phrases(tmp_path: Path, check_targets: Callable[..., None]) -> None:
    second = "[/EN#1/people Guys] outside [/EN#3/scene a house] ."
    objects = box(2, 3, 21, 31) + box(41, 1, 80, 60) + box(5, 5, 9, 9, names=("2", "7")) + SCENE
    entry(tmp_path, "36979", f"{CAPTION}\n{second}\nNothing here .", objects)
    (sample,) = read(tmp_path)
    assert (sample.id, sample.path, sample.size) == ("36979", str(tmp_path / "36979.jpg"), (80.0, 60.0))
    text, shorter = "Two young men in shirts laugh at it .", "Guys outside a house ."
    left, right = (((1.0, 2.0), (20.0, 30.0)),), (((40.0, 0.0), (79.0, 59.0)),)
    grounded = (
        Region("box", left, "Two young men", span=(0, 13)),
        Region("box", right, "Two young men", span=(0, 13)),
        Region("box", (((4.0, 4.0), (8.0, 8.0)),), "shirts", span=(17, 23)),
    )
    both = (Region("box", left, "Guys", span=(0, 4)), Region("box", right, "Guys", span=(0, 4)))
    assert sample.annotations == (
        Annotation("<CAPTION>", text, source="human"),
        Annotation("<CAPTION_TO_PHRASE_GROUNDING>", text, grounded, text, "human"),
        Annotation("<CAPTION>", shorter, source="human"),
        Annotation("<CAPTION_TO_PHRASE_GROUNDING>", shorter, both, shorter, "human"),
        Annotation("<CAPTION>", "Nothing here .", source="human"),
    )
    check_targets(sample)


def test_an_entity_without_a_box_is_words_only(tmp_path: Path) -> None:
    entry(tmp_path, "1", CAPTION, NO_BOX + SCENE)
    (sample,) = read(tmp_path)
    assert [annotation.task for annotation in sample.annotations] == ["<CAPTION>"]


def test_two_phrases_of_the_same_words(tmp_path: Path, check_targets: Callable[..., None]) -> None:
    caption = "[/EN#1/people A man] looks at [/EN#2/people a man] and [/EN#2/people a man] waves ."
    entry(tmp_path, "1", caption, box(2, 3, 21, 31) + box(41, 1, 80, 60, names=("2",)))
    (sample,) = read(tmp_path)
    assert [r.span for r in sample.annotations[1].regions] == [(0, 5), (15, 20), (25, 30)]
    check_targets(sample)


WORDS = st.lists(st.text("abcé猫'.,-", min_size=1, max_size=6), min_size=1, max_size=4).map(" ".join)


@given(st.lists(st.tuples(WORDS, st.none() | st.integers(0, 99), st.sampled_from(["", "/people", "/a/b"])), min_size=1))
def test_markup_is_taken_off_and_spans_say_where_it_was(pieces: list[tuple[str, int | None, str]]) -> None:
    marked = [words if n is None else f"[/EN#{n}{kind} {words}]" for words, n, kind in pieces]
    text, found = phrases("  ".join(marked))
    assert text == " ".join(words for words, _, _ in pieces)
    assert [(entity, text[slice(*span)]) for entity, span in found] == [
        (str(n), words) for words, n, _ in pieces if n is not None
    ]


@pytest.mark.parametrize(
    "line",
    [
        "[/EN#1/people A man",  # never closed
        "[/EN#1/people A [/EN#2/x hat] man]",  # one inside the other
        "[/EN#1/people]",  # no words
        "[/EN#/people A man]",  # no number
        "[/EN#x/people A man]",
        "[/EN#1" + "/a" * 5_000,  # and quickly so
    ],
)
def test_markup_that_does_not_close_is_named(tmp_path: Path, line: str) -> None:
    entry(tmp_path, "1", f"Fine .\n{line}\nFine too .", box(2, 3, 21, 31))
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    assert [annotation.text for annotation in sample.annotations] == ["Fine .", "Fine too ."]
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path / 'Sentences' / '1.txt'}, line 2, is left out: its markup does not close")


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ((0, 0, 200, 200), ((0.0, 0.0), (80.0, 60.0))),  # cut at the edge
        ((90, 5, 99, 9), None),  # beside the image
        ((9, 5, 9, 9), None),  # no width
        ((9, 5, 2, 9), None),
        (("x", 5, 2, 9), None),
        (("nan", 5, 2, 9), None),
    ],
)
def test_boxes(tmp_path: Path, numbers: tuple[object, ...], kept: object) -> None:
    entry(tmp_path, "1", CAPTION, SCENE + box(*numbers) + box(5, 5, 9, 9))
    problems: list[str] = []
    (sample,) = read(tmp_path, on_error=problems.append)
    regions = [region.parts[0] for region in sample.annotations[1].regions]
    assert regions == [*([kept] if kept else []), ((4.0, 4.0), (8.0, 8.0))]
    assert len(problems) == (kept is None)
    assert all(p.startswith(f"{tmp_path / 'Annotations' / '1.xml'}, object 2, is left out: ") for p in problems)


BOMB = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotation>&y;</annotation>'


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (BOMB, "it holds a DTD"),
        ("<annotation><object>", "no element found"),
        ("<annotation/>", "it says no image size"),
        (None, "No such file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, xml: str | None, said: str) -> None:
    entry(tmp_path, "1", CAPTION, "")
    entry(tmp_path, "2", CAPTION, "")
    path = tmp_path / "Annotations" / "1.xml"
    path.unlink()
    if xml is not None:
        path.write_text(xml)
    problems: list[str] = []
    assert [sample.id for sample in read(tmp_path, on_error=problems.append)] == ["2"]
    assert len(problems) == 1
    assert problems[0].startswith(f"{path} is left out: ")
    assert said in problems[0]


def test_captions_of_other_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "UNRELATED_CAPTIONS").write_text("# format: <imageID> <sentence number>\n1 2\n2 1")
    for name in ("1", "2"):
        entry(tmp_path, name, "One .\nTwo .", "")
    assert [[a.text for a in sample.annotations] for sample in read(tmp_path)] == [["One ."], ["Two ."]]


def test_parts_are_the_lists_of_the_data_set(tmp_path: Path) -> None:
    for name in ("10", "2", "3"):
        entry(tmp_path, name, CAPTION, "")
    (tmp_path / "test.txt").write_text("3\n10\n")
    (tmp_path / "val.txt").write_text("4\n2\n")
    assert [sample.id for sample in read(tmp_path)] == ["10", "2", "3"]
    assert [sample.id for sample in read(f"{tmp_path}#test")] == ["3", "10"]
    problems: list[str] = []
    assert [sample.id for sample in read(f"{tmp_path}#val", on_error=problems.append)] == ["2"]
    assert "4.xml is left out: " in problems[0]
    with pytest.raises(OpenFlorenceError, match=r"has no list train\.txt of the part 'train'; it has test, val"):
        list(read(f"{tmp_path}#train"))


def test_folders_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(OpenFlorenceError, match="has no folder Sentences, as Flickr30k Entities has"):
        list(read(tmp_path, "flickr30k"))


@pytest.mark.parametrize("at", ["1.jpg", "flickr30k-images/1.jpg", "../flickr30k_images/1.jpg"])
def test_the_image_is_found(tmp_path: Path, at: str) -> None:
    root = tmp_path / "entities"
    root.mkdir()
    entry(root, "1", CAPTION, "", size="<size/>")
    picture = (root / at).resolve()
    picture.parent.mkdir(exist_ok=True)
    Image.new("RGB", (70, 50)).save(picture)
    (sample,) = read(root)
    assert (sample.id, sample.path, sample.size) == (image_id(picture), str(picture), (70.0, 50.0))
