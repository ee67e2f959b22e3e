"""A round over many images: how fast, in how much memory, and where the time goes.

    OMP_NUM_THREADS=1 python benchmarks/engine/throughput.py OUT --images 10000
    OMP_NUM_THREADS=1 python benchmarks/engine/throughput.py OUT --images 1000 --profile

The world is made first (`large_world.py`): scenes of 128 px, one file in a hundred broken in one of ten ways. Then an
engine runs one round in a process of its own, watched from outside; it resumes when it was interrupted, and so do the
figures. Seconds of a clock say little on a machine that others use, so the seconds of a processor stand beside them.
With --profile everything runs in one process, a step at a time, under cProfile, in a folder of its own: which parts of
the program take the time. A profiler makes Python dearer and leaves the rest: shares are rough.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import typer
from large_world import engine, make_world
from processes import Usage

from open_florence.data.store import Store
from open_florence.data_engine.closing import STEPS
from open_florence.data_engine.status import status

EVERY = 0.5
"""Seconds between two looks at the processes."""
PARTS = {
    "images opened": ("open_florence/images.py", "open_image"),
    "perceptual hash": ("near_duplicates.py", "perceptual_hash"),
    "florence": ("specialists/florence.py", "annotate"),
    "noisy detectors": ("large_world.py", "annotate"),
    "training": ("finetune.py", "finetune"),
    "store: rows written": ("data/store.py", "commit"),
    "store: images written": ("data/store.py", "add_images"),
    "store: rows read": ("store_rows.py", "annotation_rows"),
    "store: rows found": ("store_table.py", "scan"),
    "store: images read": ("store_images.py", "image_rows"),
    "store: shards listed": ("data/store.py", "notes"),
    "store: merged": ("data/store.py", "compact"),
    "filters": ("filters/__init__.py", "apply_filters"),
    "sources learnt": ("fusion/__init__.py", "learn"),
    "fusion": ("fusion/__init__.py", "__call__"),
    "additions": ("enhance/__init__.py", "apply_enhancers"),
    "unstable labels": ("stability.py", "unstable_labels"),
    "figures of the labels": ("audit/profile.py", "add"),
    "audit": ("audit/figures.py", "audit"),
}
"""What is told of a profile: the function in which a part of the work is done, by the end of its file and its name."""


def main(out: Path, images: int = 10_000, profile: bool = False) -> None:
    """Makes the world in OUT/images, runs the round in OUT/labels, prints the figures."""
    started = time.monotonic()
    make_world(out / "images", images)
    print(f"{images:,} files in {time.monotonic() - started:.0f} s", flush=True)
    if profile:
        _profile(out, images)
        return
    usage = _watch(out, images)
    _report(out, images, usage)


def _watch(out: Path, images: int) -> Usage:
    """Runs the round to its end in a process of its own; what it used in all runs so far."""
    kept = out / "usage.json"
    usage = Usage.from_json(json.loads(kept.read_bytes())) if kept.exists() else Usage()
    folder = out / "labels" / "rounds" / "001"
    if (folder / "manifest.json").exists():
        return usage
    code = f"from large_world import engine; from pathlib import Path; engine(Path({str(out)!r}), {images}).run()"
    here = str(Path(__file__).parent)
    paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    try:
        while process.poll() is None:
            usage.look(process.pid, _current(folder), time.monotonic())
            kept.write_text(json.dumps(usage.to_json()))
            time.sleep(EVERY)
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        raise typer.Exit(1)
    return usage


def _current(folder: Path) -> str:
    """The step that a round is at."""
    if not (folder / "round.json").exists():
        return "images"
    return next((step for step in STEPS if not (folder / "steps" / f"{step}.json").exists()), STEPS[-1])


def _report(out: Path, images: int, usage: Usage) -> None:
    """The tables."""
    mb = 2**20
    print("\n| step | seconds | images/s | processor: engine | specialists | memory, MB: engine | specialists |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    total = [0.0, 0.0, 0.0]
    for name, one in usage.parts.items():
        if one.seconds < EVERY:
            continue
        total = [a + b for a, b in zip(total, (one.seconds, one.own, one.children), strict=True)]
        speed = f"{images / one.seconds:,.1f}"
        memory = f"{one.own_peak / mb:,.0f} | {one.children_peak / mb:,.0f}"
        print(f"| {name} | {one.seconds:,.0f} | {speed} | {one.own:,.1f} | {one.children:,.1f} | {memory} |")
    peaks = [max(getattr(one, name) for one in usage.parts.values()) / mb for name in ("own_peak", "children_peak")]
    print(f"| all | {total[0]:,.0f} | {images / total[0]:,.1f} | {total[1]:,.1f} | {total[2]:,.1f} |", end="")
    print(f" {peaks[0]:,.0f} | {peaks[1]:,.0f} |")
    store = Store(out / "labels" / "store")
    rows = store.tally("step", "status")
    disk = sum(path.stat().st_size for path in (out / "labels" / "store").rglob("*") if path.is_file())
    print(f"\nstore: {disk / mb:,.1f} MB, {rows.total():,} rows: ", end="")
    print(", ".join(f"{count:,} {step} {what}" for (step, what), count in sorted(rows.items())))
    found = status(out / "labels")
    print(f"images: {found['images']}")
    for title, told in (("cannot be read", found["quarantined"]), ("no answer", found["failed"])):
        reasons = Counter(_bare(one["reason"]) for one in told)
        print(f"{title}: {len(told)}")
        for reason, count in reasons.most_common():
            print(f"  {count:5} {reason}")
    last = found["rounds"][-1]
    print(f"round {last['round']}: {last['state']}; {'; '.join([*last['reasons'], *last['warnings']])}")


def _bare(reason: str) -> str:
    """A reason without the path of the file."""
    return " ".join(word for word in reason.split() if "/" not in word)


def _profile(out: Path, images: int) -> None:
    """Runs each step under the profiler and prints what its parts took."""
    aside = out / "profiled"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    (aside / "images").symlink_to((out / "images").absolute())
    one = engine(aside, images, isolate=False)
    for step in STEPS:
        profiler = cProfile.Profile(time.process_time)
        profiler.enable()
        one.run(until=step)
        profiler.disable()
        profiler.dump_stats(aside / f"{step}.prof")
        stats = pstats.Stats(profiler)
        total = stats.total_tt  # type: ignore[attr-defined]
        print(f"\n{step}: {total:.1f} s of a processor, {1000 * total / images:.2f} ms an image")
        for part, seconds in _parts(stats).items():
            print(f"  {part:<24} {seconds:8.2f} s  {seconds / total:6.1%}")


def _parts(stats: pstats.Stats) -> dict[str, float]:
    """Part -> seconds in its function and what that called; parts that are in others count in both."""
    seconds: Counter[str] = Counter()
    for (file, _, name), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        for part, place in PARTS.items():
            if file.endswith(place[0]) and name == place[1]:
                seconds[part] += cumulative
    return {part: took for part, took in seconds.most_common() if took > 0.005}


if __name__ == "__main__":
    typer.run(main)
