"""An engine that is killed, shared, out of space, or has bad files and bad specialists: nothing lost, nothing twice."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from engine_fakes import Eye, Moody, employed, make_images

from open_florence.data.store import Store
from open_florence.data_engine.employed import Employed
from open_florence.data_engine.engine import Engine
from open_florence.data_engine.recipe import Recipe
from open_florence.data_engine.status import show, status

RUNS = Path(__file__).with_name("fault_runs.py")


def runs(*arguments):
    result = subprocess.run(
        [sys.executable, "-W", "ignore:lance is not fork-safe", str(RUNS), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_fifty_kills_leave_no_trace(tmp_path):
    assert runs("kills", tmp_path, 50)["killed"] >= 50


def test_several_engines_at_once_make_what_one_makes(tmp_path):
    runs("together", tmp_path)


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    told = runs("full", tmp_path)
    assert told["codes"][0] == 3
    assert told["codes"][-1] == 0
    if not told["disk"]:
        pytest.skip("no disk of its own could be made: only the first run was out of space")


def test_bad_files_and_bad_specialists_cost_only_themselves(tmp_path):
    make_images(tmp_path / "photos", 24)
    for number in range(10):
        (tmp_path / "photos" / f"broken{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(number * 7))
    moody = Employed(Moody, "moody", timeout=3, batch=6)
    recipe = Recipe(specialists=[moody, *employed(Eye("steady"))], shard=8)
    (manifest,) = Engine(tmp_path / "labels", recipe, [str(tmp_path / "photos")]).run()
    assert manifest["promoted"]
    store = Store(tmp_path / "labels" / "store")
    said = store.tally("source", step="annotate")
    found = status(tmp_path / "labels")
    reasons = Counter(one["reason"].split(":")[0] for one in found["failed"])
    assert said[("steady@1",)] == 24
    assert said[("moody@1",)] + len(found["failed"]) == 24
    assert reasons == {
        "RuntimeError": 1,
        "no answer within 3 seconds": 1,
        "its process was killed (SIGKILL)": 1,
        "the answer about <OD> is refused": 1,
    }
    text = show(found, everything=True)
    assert len(found["quarantined"]) == 10
    for one in (*found["failed"], *found["quarantined"]):
        assert one["reason"] in text
