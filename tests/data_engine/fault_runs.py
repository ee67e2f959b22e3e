"""Runs of an engine that are killed: a process that imports everything once and forks the runs, so that each is quick.

    python fault_runs.py kills FOLDER COUNT     prints a JSON object
    python fault_runs.py together FOLDER
    python fault_runs.py full FOLDER

Forks are made before Lance is used: its threads would not survive them.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

import lance  # noqa: F401
import pyarrow.compute  # noqa: F401
from engine_fakes import Eye, FakeStudent, Writer, employed, make_images

import open_florence.data.near_duplicates  # noqa: F401
from open_florence.data.store import Store
from open_florence.data_engine.audit import figures, guards  # noqa: F401
from open_florence.data_engine.engine import Engine
from open_florence.data_engine.enhance import make_enhancers
from open_florence.data_engine.filters import make_filters
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.recipe import Recipe
from open_florence.errors import OpenFlorenceError

ONTOLOGY = Ontology.of(("cat", "dog", "bird"))
IMAGES = 10


def recipe() -> Recipe:
    return Recipe(
        specialists=employed(Eye("first"), Eye("second", misses=0.2), Writer()),
        filters=make_filters([{"name": "ontology"}, {"name": "nms"}], ONTOLOGY),
        enhancers=make_enhancers(ontology=ONTOLOGY, tasks=["<REGION_PROPOSAL>"]),
        ontology=ONTOLOGY,
        student=FakeStudent(steps=3, seconds=0.01),
        shard=5,
    )


def run(folder: Path) -> None:
    Engine(folder, recipe(), [str(folder.parent / "photos")]).run()


def forked(action, *arguments) -> int:
    """The id of a process that does it; its exit code is 0 where that went well, 3 where a sentence was said."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        action(*arguments)
        code = 0
    except OpenFlorenceError as error:
        print(error, file=sys.stderr)
        code = 3
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def done(pid: int) -> int:
    """Its exit code; negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(folder: Path, out: Path) -> None:
    """Everything in the store, and the model, as a file."""
    store = Store(folder / "store")
    rows = [[r.id, r.image, r.annotation.to_json(), r.step, r.status, r.reason, r.parents] for r in store.rows()]
    images = [[row.id, row.path, row.status] for row in store.images(status=None)]
    learnt = (folder / "rounds" / "001" / "checkpoint" / "weights.json").read_text()
    record = [sorted(rows, key=lambda row: row[0]), sorted(images), sorted(store.notes()), store.tags(), learnt]
    out.write_text(json.dumps(record))


def read(folder: Path) -> str:
    out = folder.parent / f"{folder.name}.json"
    assert done(forked(contents, folder, out)) == 0
    return out.read_text()


def kills(root: Path, count: int) -> dict:
    """Kills runs at random moments until there were `count`; every finished engine is as one that nobody disturbed."""
    started = time.monotonic()
    assert done(forked(run, root / "whole")) == 0
    lasts = time.monotonic() - started
    whole, rng, killed, finished = read(root / "whole"), random.Random(0), 0, 0
    while killed < count:
        folder = root / f"engine-{finished}"
        pid = forked(run, folder)
        time.sleep(rng.uniform(0, 0.7 * lasts))
        os.kill(pid, signal.SIGKILL)
        code = done(pid)
        assert code in (0, -signal.SIGKILL), code
        killed += code != 0
        if code == 0:
            assert read(folder) == whole
            finished += 1
    assert done(forked(run, root / f"engine-{finished}")) == 0
    assert read(root / f"engine-{finished}") == whole
    return {"killed": killed, "finished": finished + 1}


def together(root: Path) -> dict:
    """Three processes on one engine at once make what one makes."""
    assert done(forked(run, root / "whole")) == 0
    codes = [done(pid) for pid in [forked(run_once, root / "shared") for _ in range(3)]]
    assert codes == [0, 0, 0], codes
    assert read(root / "shared") == read(root / "whole")
    return {"codes": codes}


def run_once(folder: Path) -> None:
    """The first round only, whoever finishes it."""
    engine = Engine(folder, recipe(), [str(folder.parent / "photos")])
    take_in = engine.take_in

    def only_first(*arguments):  # called where the next round is begun, by one process at a time
        first = folder / "rounds" / "001" / "manifest.json"
        if first.exists():
            os._exit(0)
        return take_in(*arguments)

    engine.take_in = only_first
    engine.run()


def limited(folder: Path, most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # a file that grows beyond it fails as on a full disk
    run(folder)


def full(root: Path) -> dict:
    """A run for which the disk is full says so; when there is room again nothing is missing.

    On a small disk of its own, which grows a little whenever it was full, where this process may make one.
    """
    assert done(forked(run, root / "whole")) == 0
    codes = [done(forked(limited, root / "small", 500))]
    disk = root / "disk"
    disk.mkdir()
    (disk / "photos").symlink_to(root / "photos")
    if not _mount(disk, "size=60k"):
        codes.append(done(forked(run, root / "small")))
        assert read(root / "small") == read(root / "whole")
        return {"codes": codes, "disk": False}
    try:
        (disk / "photos").symlink_to(root / "photos")
        codes += _fill(disk)
        assert _labels(read(disk / "small")) == _labels(read(root / "whole"))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
    return {"codes": codes, "disk": True}


def _mount(disk: Path, size: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk]
    return os.geteuid() == 0 and subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def _fill(disk: Path) -> list[int]:
    codes = []
    for size in range(60, 6_000, 60):
        subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        codes.append(done(forked(run, disk / "small")))
        if codes[-1] == 0:
            return codes
        assert codes[-1] == 3, codes
    raise AssertionError(codes)


def _labels(content: str) -> str:
    """Without the paths of images, and what is named by them: they are other ones on another disk."""
    rows, images, shards, *rest = json.loads(content)
    own = [shard for shard in shards if not shard.startswith("images/")]
    return json.dumps([rows, sorted([image, status] for image, _, status in images), own, *rest])


if __name__ == "__main__":
    place = Path(sys.argv[2])
    make_images(place / "photos", IMAGES)
    print(json.dumps({"kills": kills, "together": together, "full": full}[sys.argv[1]](place, *map(int, sys.argv[3:]))))
