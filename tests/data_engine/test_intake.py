"""Images into the store: every file is opened once, and a broken one is set aside with a reason."""

import os
import struct
import zlib

import pytest
from engine_fakes import make_images
from PIL import Image

from open_florence.data.store import Store
from open_florence.data_engine.intake import find_images, take_in
from open_florence.errors import OpenFlorenceError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "labels" / "store", create=True)


def of(store, status="ok"):
    return {os.path.basename(row.path): row for row in store.images(status=status)}


def sized(png, side):
    """The file of a picture that says it is `side` x `side` pixels."""
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def break_files(folder, good):
    """Ten files that are no images, as image folders have them; returns their names."""
    data = good.read_bytes()
    Image.open(good).save(folder / "whole.jpg")
    files = {
        "empty.png": b"",
        "cut.png": data[: len(data) // 2],
        "cut.jpg": (folder / "whole.jpg").read_bytes()[:200],
        "text.jpg": b"this is no picture",
        "page.gif": b"<html></html>",
        "sum.png": data.replace(b"IDAT", b"IDAT\xff", 1),
        "zero.png": sized(data, 0),
        "bomb.png": sized(data, 60_000),
        "header.jpg": b"\xff\xd8\xff\xe0",
    }
    (folder / "whole.jpg").unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / "folder.png").mkdir()
    return {*files, "nowhere.png"}


def test_broken_files_are_set_aside_with_reasons(tmp_path, store):
    paths = make_images(tmp_path / "photos", 3)
    broken = break_files(tmp_path / "photos", paths[0])
    Image.open(paths[1]).rotate(90).save(tmp_path / "photos" / "turned.jpg", "PNG")  # a wrong suffix breaks nothing
    taken = take_in(store, [str(tmp_path / "photos")])
    assert (taken.added, taken.quarantined) == (4, len(broken))
    aside = of(store, "quarantined")
    assert aside.keys() == broken
    assert all(row.reason and "\n" not in row.reason for row in aside.values())
    assert "would unpack to more than" in aside["bomb.png"].reason
    assert "there is no file" in aside["nowhere.png"].reason


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(tmp_path, store):
    (path,) = make_images(tmp_path / "photos", 1)
    path.chmod(0)
    assert take_in(store, [str(path)]).quarantined == 1


def test_looking_again_adds_only_what_is_new(tmp_path, store):
    make_images(tmp_path / "photos", 3)
    break_files(tmp_path / "photos", tmp_path / "photos" / "000.png")
    folder = [str(tmp_path / "photos")]
    first = take_in(store, folder)
    assert take_in(store, folder).added == 0
    assert len(list(store.images(status=None))) == 3 + first.quarantined
    make_images(tmp_path / "photos", 5)
    assert take_in(store, folder).added == 2


def test_a_mended_file_comes_in(tmp_path, store):
    paths = make_images(tmp_path / "photos", 2)
    good = paths[1].read_bytes()
    paths[1].write_bytes(b"")
    assert take_in(store, [str(tmp_path / "photos")]).quarantined == 1
    paths[1].write_bytes(good)
    again = take_in(store, [str(tmp_path / "photos")])
    assert (again.added, again.quarantined) == (1, 0)


def test_copies_are_set_aside(tmp_path, store):
    paths = make_images(tmp_path / "photos", 2)
    Image.open(paths[0]).save(tmp_path / "photos" / "copy.bmp")
    assert take_in(store, [str(tmp_path / "photos")]).duplicates == 1
    (copy,) = store.images(status="duplicate")
    assert copy.reason.startswith("the same pixels as")
    assert len({row.id for row in store.images(status=None)}) == 3


@pytest.mark.parametrize("at_once", [True, False])
def test_near_duplicates_are_set_aside_if_that_is_wanted(tmp_path, store, at_once):
    (first, second) = make_images(tmp_path / "photos", 2, side=64)
    if not at_once:
        take_in(store, [str(tmp_path / "photos")], near=4)
    Image.open(first).resize((80, 80)).save(tmp_path / "photos" / "zoomed.png")
    taken = take_in(store, [str(tmp_path / "photos")], near=4)
    assert taken.duplicates == 1
    assert of(store).keys() == {first.name, second.name}
    assert of(store, "duplicate")["zoomed.png"].reason.startswith(f"nearly the same as {first}: ")


def test_bytes_are_kept_if_that_is_wanted(tmp_path, store):
    paths = make_images(tmp_path / "photos", 2)
    take_in(store, [str(tmp_path / "photos")], keep_bytes=True)
    content = paths[0].read_bytes()
    for path in paths:
        path.unlink()
    assert store.open(of(store)["000.png"]).read_bytes() == content


def test_sources_of_every_kind(tmp_path):
    paths = make_images(tmp_path / "photos", 2)
    (tmp_path / "list.txt").write_text(f"photos/000.png\n\nfile://{paths[1]}\n")
    found = find_images([str(tmp_path / "list.txt"), str(paths[0])], tmp_path / "labels")
    assert found == [str(paths[0]), f"file://{paths[1]}"]


def test_an_address_that_leads_nowhere_is_set_aside(tmp_path, store):
    taken = take_in(store, [f"file://{tmp_path}/gone.png"])
    assert taken.quarantined == 1


def test_nothing_is_taken_from_the_engine_itself(tmp_path):
    make_images(tmp_path / "photos", 1)
    make_images(tmp_path / "labels" / "review", 1)
    assert find_images([str(tmp_path)], tmp_path / "labels") == [str(tmp_path / "photos" / "000.png")]
    with pytest.raises(OpenFlorenceError, match="there is no image in"):
        find_images([str(tmp_path / "labels")], tmp_path / "labels")


def test_a_folder_that_is_not_there(tmp_path, store):
    with pytest.raises(OpenFlorenceError, match="there is no folder"):
        take_in(store, [str(tmp_path / "photos")])
