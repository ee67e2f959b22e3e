"""Shards: every one is done, by one process, however many work on them and whenever they die."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.data_engine import work
from open_florence.data_engine.work import Locks, shard_id, share, slices
from open_florence.errors import OpenFlorenceError


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_slices_are_the_items_in_order(items, size):
    cut = slices(items, size)
    assert [item for part in cut for item in part] == items
    assert all(len(part) == size for part in cut[:-1])


def test_ids_say_the_place_of_a_shard():
    assert shard_id(1, "annotate", "detector@PekingU/r18", 17) == "001/annotate/detector@PekingU_r18/000017"


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    locks, others = Locks(tmp_path), Locks(tmp_path)
    with locks.take("a") as mine:
        assert mine
        with others.take("a") as theirs, others.take("b") as another:
            assert not theirs
            assert another
    with others.take("a") as theirs:
        assert theirs
    assert list(tmp_path.iterdir()) == []


def test_names_that_differ_only_in_signs_are_two_locks(tmp_path):
    locks = Locks(tmp_path)
    with locks.take("a/b") as first, locks.take("a b") as second:
        assert first
        assert second


def test_who_waits_is_told_once_and_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "WAIT", 0.01)
    locks, told, order = Locks(tmp_path), [], []
    with locks.take("a"):
        thread = threading.Thread(target=_wait, args=(Locks(tmp_path), told, order))
        thread.start()
        while not told:
            time.sleep(0.001)
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert (told, order) == ([1], ["first", "second"])


def _wait(locks, told, order):
    with locks.wait("a", lambda: told.append(1)):
        order.append("second")


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        f"import sys, time; from pathlib import Path; from open_florence.data_engine.work import Locks\n"
        f"with Locks(Path({str(tmp_path)!r})).take('a'): print('mine', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    locks = Locks(tmp_path)
    with locks.take("a") as mine:
        assert not mine
    process.kill()
    process.communicate()
    with locks.take("a") as mine:
        assert mine


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OpenFlorenceError, match="cannot be locked"), Locks(tmp_path / "file" / "claims").take("a"):
        pass


def test_several_workers_do_every_shard_once(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "WAIT", 0.01)
    shards = [f"s{n}" for n in range(40)]
    done, counts = [], []

    def run():
        def one(shard):
            time.sleep(0.002)
            done.append(shard)

        share(shards, Locks(tmp_path), lambda: done, lambda shard: shard in done, one, counts.append)
        assert sorted(done) == sorted(shards)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(shards)
    assert counts[-1] == len(shards)


def test_what_is_done_is_not_done_again(tmp_path):
    worked, counts, done = [], [], {"a", "c"}

    def one(shard):
        worked.append(shard)
        done.add(shard)

    share(["a", "b", "c"], Locks(tmp_path), lambda: done, done.__contains__, one, counts.append)
    assert worked == ["b"]
    assert (counts[0], counts[-1]) == (2, 3)


def test_an_error_lets_the_shard_go(tmp_path):
    def fail(shard):
        raise OpenFlorenceError("no")

    with pytest.raises(OpenFlorenceError):
        share(["a"], Locks(tmp_path), set, lambda shard: False, fail)
    with Locks(Path(tmp_path)).take("a") as mine:
        assert mine
