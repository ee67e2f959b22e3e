"""Streams of images in the background: the same pixels, in order, no more at once than allowed, and nothing left."""

import gc
import io
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id, open_image
from open_florence.inference.prepare import Preparer
from open_florence.inference.prepare_worker import Treatment, open_and_resize
from open_florence.processor import Processor

SIDE = 32
GREY = np.full((4, 4, 3), 99, np.uint8)


def encoded(image: Image.Image, file_format: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft blobs of every colour."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def on_its_side(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return encoded(image, exif=exif)


def pids(preparer: Preparer) -> list[int]:
    return [worker.pid for worker in preparer._crew._workers if worker.pid]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prepare images"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def preparers():
    """Shared by the tests that do not harm them: by their number of workers."""
    with Preparer(SIDE, 0, ahead=3, with_id=True) as none, Preparer(SIDE, 2, ahead=3, with_id=True) as two:
        yield {0: none, 2: two}


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(noise(90, 60)))
    return path


@pytest.fixture
def stuck(tmp_path):
    """A file whose reader waits until a writer comes; opening it to write waits for the reader."""
    path = tmp_path / "stuck.jpg"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_sizes_and_ids_are_those_of_the_processor(workers, preparers, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # after the processes were started
    (tmp_path / "transparent.png").write_bytes(encoded(noise(40, 50).convert("LA"), "PNG"))
    sources = [photo, "photo.jpg", photo.read_bytes(), on_its_side(noise(50, 30)), "transparent.png"]
    sources += [noise(33, 44), noise(20, 10).convert("L"), np.asarray(noise(16, 17)), GREY[:, :, 0] / 255]
    processor = Processor(None, SIDE)
    with photo.open("rb") as file:
        prepared = list(preparers[workers]([*sources, file]))
    assert [item.index for item in prepared] == list(range(10))
    for item, source in zip(prepared, [*sources, photo], strict=True):
        image = open_image(source)
        assert (item.size, item.id, item.reason) == (image.size, image_id(image), "")
        assert all(isinstance(length, float) for length in item.size)
        assert processor.normalised(item.levels[None]).tobytes() == processor.pixels([image]).tobytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_whatever_is_wrong_with_an_image_is_its_reason(workers, preparers, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.jpg").write_bytes(photo.read_bytes()[:700])
    (tmp_path / "text.jpg").write_text("no image")
    bad = [tmp_path / "missing.jpg", tmp_path, "half.jpg", "text.jpg", b"", "nul\0.jpg", np.zeros((2, 2, 2)), 7, None]
    prepared = list(preparers[workers](bad))
    for item, source in zip(prepared, bad, strict=True):
        with pytest.raises(OpenFlorenceError) as said:
            open_image(source)
        assert item.reason == str(said.value)
        assert (item.levels, item.size, item.id) == (None, (0, 0), "")


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([0, 2]), st.lists(st.sampled_from([GREY, encoded(noise(9, 9)), b"bad"]), max_size=12))
def test_every_source_has_its_result_at_its_place(preparers, workers, sources):
    prepared = list(preparers[workers](iter(sources)))
    assert [item.index for item in prepared] == list(range(len(sources)))
    for item, source in zip(prepared, sources, strict=True):
        wanted = open_and_resize(source, Treatment(SIDE, True, False))
        assert (item.size, item.id, item.reason) == wanted[1:]
        assert np.array_equal(item.levels, wanted.levels)


@pytest.mark.parametrize("workers", [0, 2])
def test_sources_are_read_no_further_than_ahead(workers, preparers):
    read, has_read_three = [], threading.Event()

    def sources():
        for index in range(20):
            read.append(index)
            if index == 2:
                has_read_three.set()
            yield encoded(noise(20, 20)) if index % 2 else GREY

    stream = preparers[workers](sources())
    assert not read
    assert next(stream).index == 0
    assert has_read_three.wait(60)  # without being asked
    for item in stream:
        assert len(read) <= item.index + 1 + 3
    assert len(read) == 20


def test_what_the_sources_raise_comes_after_the_images_before_it(preparers):
    def sources():
        yield GREY
        yield GREY
        raise LookupError("the list ends here")

    stream = preparers[2](sources())
    assert [next(stream).index, next(stream).index] == [0, 1]
    with pytest.raises(LookupError, match="ends here"):
        next(stream)
    assert len(list(preparers[2]([GREY] * 5))) == 5


def test_streams_side_by_side_and_left_early(preparers):
    for preparer in preparers.values():
        left = preparer(GREY for _ in range(50))
        next(left)
        pairs = list(zip(preparer([GREY] * 9), preparer([b"bad"] * 9), strict=True))
        assert [(a.index, b.index) for a, b in pairs] == [(i, i) for i in range(9)]
        assert all(b.reason and not a.reason for a, b in pairs)
        left.close()


def test_an_image_that_kills_its_process_costs_only_itself(photo, stuck):
    with Preparer(SIDE, 1) as preparer:
        stream = preparer([photo, stuck, photo, photo])
        assert not next(stream).reason
        (pid,) = pids(preparer)
        with stuck.open("wb"):  # now the process is inside it
            os.kill(pid, signal.SIGKILL)
        assert next(stream).reason == f"{stuck} cannot be opened: its worker process died"
        assert [(item.index, item.reason) for item in stream] == [(2, ""), (3, "")]
        assert not is_alive(pid)
        assert pids(preparer) != [pid]


def test_a_process_that_dies_between_images_costs_none(photo):
    with Preparer(SIDE, 1) as preparer:
        assert not next(preparer([photo])).reason
        process = preparer._crew._workers[0]._process
        process.kill()
        process.wait()
        assert [item.reason for item in preparer([photo, photo])] == ["", ""]


def test_an_image_that_takes_too_long_is_given_up(stuck):
    with Preparer(SIDE, 1, timeout=0.1) as preparer:
        late, other = preparer([stuck, GREY])
    assert late.reason == f"{stuck} cannot be opened: it takes more than 0.1 s"
    assert not other.reason


def test_processes_leave_interrupts_to_the_program(photo, stuck):
    with Preparer(SIDE, 1) as preparer:
        stream = preparer([photo, stuck])
        next(stream)
        with stuck.open("wb") as writer:
            os.kill(pids(preparer)[0], signal.SIGINT)
            writer.write(photo.read_bytes())
        assert not next(stream).reason


@pytest.mark.parametrize("how", ["closed", "raised", "forgotten", "forgotten in a cycle"])
def test_nothing_is_left_behind(how, photo, stuck):
    gc.collect()
    before, files = len(threads()), len(os.listdir("/dev/fd"))
    preparer = Preparer(SIDE, 2)
    stream = preparer([photo, photo, stuck, photo, GREY])
    assert next(stream).index == 0
    with stuck.open("wb"):
        started = pids(preparer)
        assert started
        if how == "closed":
            preparer.close()
            preparer.close()
            with pytest.raises(OpenFlorenceError, match="is closed"):
                list(preparer([photo]))
        elif how == "raised":
            with pytest.raises(LookupError), preparer:
                raise LookupError
        else:
            if "cycle" in how:
                cycle = [preparer, stream]
                cycle.append(cycle)
                del cycle
            del preparer, stream
            gc.collect()
    assert not any(map(is_alive, started))
    assert len(threads()) == before
    if not how.startswith("forgotten"):
        del preparer, stream
    gc.collect()
    assert len(os.listdir("/dev/fd")) == files


PROGRAM = """
import signal, sys
from open_florence.inference.prepare import Preparer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started without it
how, photo, stuck = sys.argv[1:]
preparer = Preparer(8, 2)
stream = preparer([photo, photo] + [stuck] * (how != "SIGKILL") + [photo] * 3)
next(stream)
print("ready", flush=True)
if how != "end":
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["end", "SIGINT", "SIGKILL"])
def test_a_program_that_ends_takes_its_processes_along(how, photo, stuck):
    # Its processes inherit its standard error, so that reading it to the end waits for them too.
    program = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, how, photo, stuck],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout.readline() == "ready\n"
        if how != "end":
            program.send_signal(getattr(signal, how))
        errors = program.stderr.read()
    assert errors.count("Traceback") == (how == "SIGINT")
    assert errors.endswith("KeyboardInterrupt\n" if how == "SIGINT" else "")
    assert how == "SIGINT" or not errors


@pytest.mark.parametrize("interpreter", ["/bin/false", "/nowhere/python", ""])
def test_where_no_process_can_start_threads_open_the_images(interpreter, photo, monkeypatch):
    monkeypatch.setattr(sys, "executable", interpreter)
    with Preparer(SIDE, 2) as preparer:
        assert [item.reason for item in preparer([photo, b"bad", photo])] == ["", "the image is not an image", ""]
        assert not pids(preparer)


def test_formats_that_the_program_added_are_opened(monkeypatch, preparers, tmp_path):
    def toy(file, name=None):
        file.seek(4)
        return Image.open(io.BytesIO(file.read()))

    monkeypatch.setattr(Image, "ID", [*Image.ID, "TOY"])
    monkeypatch.setitem(Image.OPEN, "TOY", (toy, lambda prefix: prefix.startswith(b"TOY!")))
    path = tmp_path / "image.toy"
    path.write_bytes(b"TOY!" + encoded(noise(20, 30), "PNG"))
    opened, bad = preparers[2]([path, b"TOY"])
    assert opened.id == image_id(noise(20, 30))
    assert bad.reason == "the image is not an image"


def test_pillows_limit_holds_in_processes(monkeypatch, preparers, photo):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    (item,) = preparers[2]([photo])
    assert item.reason == f"{photo} would unpack to more than 20 pixels, so it is refused"


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"side": 0}, "side is at least 1, not 0"),
        ({"workers": -1}, "workers is at least 0, not -1"),
        ({"ahead": 0}, "ahead is at least 1, not 0"),
        ({"timeout": 0}, "timeout is more than 0 seconds, not 0"),
        ({"timeout": float("nan")}, "timeout is more than 0 seconds, not nan"),
    ],
)
def test_numbers_that_make_no_sense(given_, message):
    with pytest.raises(OpenFlorenceError, match=message):
        Preparer(**{"side": SIDE, **given_})


def test_workers_do_the_same_where_jpegs_are_decoded_smaller(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(on_its_side(noise(301, 200)))
    with Preparer(SIDE, 1, draft=True) as preparer:
        (item,) = preparer([path])
    wanted = open_and_resize(path, Treatment(SIDE, False, True))
    assert item.size == (200, 301)
    assert np.array_equal(item.levels, wanted.levels)
    assert not np.array_equal(item.levels, open_and_resize(path, Treatment(SIDE, False, False)).levels)
