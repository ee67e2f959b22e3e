"""The store when processes are killed, write at the same time, or the disk is full.

Run as a program this file is the writers: Lance cannot be used in a process forked from one that used it, so a fresh
process forks them before it does.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from open_florence.data.store import ImageRow, Row, Store
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Region

KILLS, ROWS, TAG_EVERY, COMPACT_EVERY = 20, 5, 4, 7


def shard_rows(number, source="detector@1"):
    """What is in a shard: the same whoever writes it, but for the source."""
    boxes = tuple(Region.box(0, 0, number, place + 1, label="cat") for place in range(ROWS))
    return [
        Row(f"{number}-{place}", Annotation("<OD>", regions=boxes, source=source), "region-text", "annotate")
        for place in range(ROWS)
    ]


def test_writers_that_are_killed_lose_nothing_and_write_nothing_twice(tmp_path):
    run("killed", tmp_path)
    store = Store(tmp_path)
    shards = [f"s/{number:06d}" for number in range(int((tmp_path / "count").read_text()))]
    assert sorted(store.notes("s/")) == shards
    assert store.notes() == {
        **{shard: {"number": number} for number, shard in enumerate(shards)},
        **{f"i/{number:06d}": {} for number in range(len(shards))},
    }
    rows = sorted(store.rows(), key=lambda row: row.id)
    assert [row.id for row in rows] == [f"{shard}#{place}" for shard in shards for place in range(ROWS)]
    expected = [row for number in range(len(shards)) for row in shard_rows(number)]
    assert [(row.image, row.annotation) for row in rows] == [(row.image, row.annotation) for row in expected]
    images = list(store.images())
    assert sorted(image.id for image in images) == sorted(map(str, range(len(shards))))
    assert all(store.open(image).read_text() == image.id for image in images)
    assert store.tags() == [f"t{number}" for number in range(0, len(shards), TAG_EVERY)]
    for tag in store.tags():
        upto = int(tag[1:]) + 1
        assert store.tally("shard", at=tag) == {(shard,): ROWS for shard in shards[:upto]}
        assert len(list(store.images(at=tag))) == upto


def test_of_writers_at_the_same_time_each_shard_is_written_by_one(tmp_path):
    run("together", tmp_path)
    store = Store(tmp_path)
    written = store.tally("shard", "source")
    assert set(written.values()) == {ROWS}
    assert sorted(shard for shard, _ in written) == sorted(
        [f"common/{number}" for number in range(12)]
        + [f"own/{who}/{number}" for who in range(4) for number in range(6)]
    )
    assert all(source == shard.split("/")[1] for shard, source in written if shard.startswith("own"))


def test_a_full_disk_is_one_sentence_and_the_store_can_still_be_read(tmp_path):
    (said,) = run("full", tmp_path).splitlines()
    assert said.startswith(f"the store {tmp_path} cannot be written: ")
    assert "File too large" in said
    store = Store(tmp_path)
    assert list(store.notes()) == ["before", "after"]
    assert [row.image for row in store.rows()] == [row.image for number in (0, 2) for row in shard_rows(number)]


def test_what_was_kept_of_a_killed_write_goes_with_the_next_merge(tmp_path):
    store = Store(tmp_path, create=True)
    store.commit("a", shard_rows(0))
    left = tmp_path / "annotations.lance" / "data" / "0123456789.lance"
    left.write_bytes(b"half a file")
    store.compact()
    assert not left.exists()
    assert len(list(store.rows())) == ROWS


def run(what, folder):
    """Runs the writers; what they print."""
    command = [sys.executable, "-W", "error", __file__, what, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_shards(folder, count):
    """Writes shards one after the other, tags and merges now and then, passing over what is there."""
    store = Store(folder, create=True)
    for number in range(count):
        store.add_images(f"i/{number:06d}", [ImageRow(f"{number}", f"{number}.png")], {f"{number}": b"%d" % number})
        store.commit(f"s/{number:06d}", shard_rows(number), {"number": number})
        if number % TAG_EVERY == 0 and f"t{number}" not in store.tags():
            store.tag(f"t{number}")
        if number % COMPACT_EVERY == 0:
            store.compact()


def killed(folder):
    """A writer is killed again and again, each time it has got a little further; the last one finishes."""
    rng = random.Random(0)
    for kill in range(KILLS):
        child = fork(write_shards, folder, 10**6)
        # half of them at any time, half when they have begun to write something new
        time.sleep(rng.uniform(0.01, 0.2) if kill % 2 else 0.15 + 0.02 * kill + rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    count = len(list((folder / "annotations.lance" / "data").glob("*"))) + 10
    (folder / "count").write_text(str(count))
    assert os.waitpid(fork(write_shards, folder, count), 0)[1] == 0


def together(folder):
    """Four writers, each with shards of its own, all with the same common ones in another order."""

    def write(who):
        store, numbers = Store(folder, create=True), list(range(12))
        random.Random(who).shuffle(numbers)
        for step, number in enumerate(numbers):
            store.commit(f"common/{number}", shard_rows(number, str(who)))
            if step % 2:
                store.commit(f"own/{who}/{step // 2}", shard_rows(step, str(who)))
            if step == 6:
                store.compact()

    children = [fork(write, who) for who in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


def full(folder):
    """No file may grow, for a while."""
    store = Store(folder, create=True)
    store.commit("before", shard_rows(0))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
    try:
        store.commit("refused", shard_rows(1))
    except OpenFlorenceError as error:
        print(error)
    assert len(list(store.rows())) == ROWS
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    store.commit("after", shard_rows(2))


def fork(function, *arguments):
    """The number of a new process that runs the function."""
    child = os.fork()
    if child:
        return child
    try:
        function(*arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    {"killed": killed, "together": together, "full": full}[sys.argv[1]](Path(sys.argv[2]))
