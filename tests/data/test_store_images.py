"""Images of the store: where they are, bytes that were taken in, files that are downloaded."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from open_florence.data.store import ImageRow, Store
from open_florence.errors import OpenFlorenceError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", create=True)


def test_rows_come_back_as_they_went_in(store):
    rows = [
        ImageRow("a", "photos/a.png", (640.0, 480.0), 2**64 - 1),
        ImageRow("b", "/photos/caf\udce9 ü.jpg", (3.5,), 0, "quarantined", "it's no image"),
        ImageRow("a", "copy.png", (640.0, 480.0), 5, "duplicate", "same pixels as a"),
    ]
    assert store.add_images("i/0", rows)
    assert not store.add_images("i/0", rows[:1])
    assert store.add_images("i/1", [ImageRow("c", "c.png")])
    assert list(store.images(status=None)) == [*rows, ImageRow("c", "c.png")]
    assert [image.id for image in store.images()] == ["a", "c"]
    assert [image.path for image in store.images(status=None, ids=["a", "x"])] == ["photos/a.png", "copy.png"]
    assert list(store.images(ids=[])) == []
    assert store.notes("i/") == {"i/0": {}, "i/1": {}}


@pytest.mark.parametrize("row", [ImageRow("", "a.png"), ImageRow("a", "a.png", status="broken")])
def test_a_row_without_id_or_with_an_unknown_status_is_refused(store, row):
    with pytest.raises(OpenFlorenceError, match="its status is one of ok, quarantined, duplicate"):
        store.add_images("i", [row])


def test_a_path_is_left_where_it_is(store, tmp_path):
    path = tmp_path / "a photo.png"
    path.write_bytes(b"1")
    assert store.open(ImageRow("a", str(path))) == path
    assert store.open(ImageRow("a", path.as_uri())) == path
    for where in (str(tmp_path / "b.png"), (tmp_path / "b.png").as_uri(), str(tmp_path)):
        with pytest.raises(OpenFlorenceError, match="the image b is not at /"):
            store.open(ImageRow("b", where))


def test_what_was_taken_in_is_there_when_the_original_is_gone(store):
    data = {f"{number}": b"%d" % number * number for number in range(5)}
    rows = [ImageRow(name, f"gone/{name}.JPG") for name in data]
    store.add_images("i/0", rows[:3], {name: data[name] for name in ("0", "2")})
    store.add_images("i/1", rows[3:], data)
    store.compact()
    store = Store(store.folder)
    for image in store.images():
        if image.id != "1":
            path = store.open(image)
            assert path.read_bytes() == data[image.id]
            assert path.suffix == ".JPG"
            path.unlink()  # the cache may be emptied
            assert store.open(image).read_bytes() == data[image.id]
            assert store.open(ImageRow(image.id, image.path)).read_bytes() == data[image.id]
    with pytest.raises(OpenFlorenceError, match="the image 1 is not at gone"):
        store.open(rows[1])


def test_bytes_of_a_writer_that_was_killed_before_the_images_are_not_taken_in_twice(store):
    data = {"a": b"a", "b": b"bb"}
    store._take_in("i", data)
    store = Store(store.folder)
    store.add_images("i", [ImageRow("b", "b"), ImageRow("a", "a")], data)
    assert store._bytes.scan(["image"], "note IS NULL").__next__().num_rows == 2
    assert {image.id: store.open(image).read_bytes() for image in store.images()} == data


class Photos(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("Content-Length", "9" if "broken" in self.path else "5")
        self.end_headers()
        self.wfile.write(b"photo")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Photos.asked = []
    with HTTPServer(("127.0.0.1", 0), Photos) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_uri_is_downloaded_once(store, server):
    image = ImageRow("a", f"{server}/photos/a%20b.png?size=large")
    first = store.open(image)
    assert (first.read_bytes(), first.suffix) == (b"photo", ".png")
    assert Store(store.folder).open(image) == first
    assert Photos.asked == ["/photos/a%20b.png?size=large"]
    assert store.open(ImageRow("b", f"{server}/b.png")) != first


@pytest.mark.parametrize(("name", "said"), [("missing", "404"), ("broken", "broke after 5 of 9 bytes")])
def test_what_cannot_be_downloaded_leaves_nothing(store, server, name, said):
    with pytest.raises(OpenFlorenceError, match=f"{name}.png cannot be downloaded: .*{said}"):
        store.open(ImageRow("a", f"{server}/{name}.png"))
    assert [path for path in Path(store.folder / "cache").rglob("*") if path.is_file()] == []
