"""The store: rows written in shards, read back and counted; seconds, bytes on disk, memory.

    python benchmarks/store.py [--rows 200000] [--folder FOLDER]

"processor" is the time of all threads, in seconds. Annotations are made up in the proportions of FLD-5B
(arXiv 2311.06242: 126M images, 0.5B texts, 1.3B region-texts, 3.6B phrases with regions): an image has 4 captions, 10
objects in one row, and 29 phrases with regions in 3 rows, that is 8 rows with 43 annotations. Words, coordinates and
scores are random; one region in ten is a polygon of 12 points. Making them up is not counted.
"""

import random
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import typer

from open_florence.data.store import ImageRow, Row, Store
from open_florence.schema import Annotation, Region

ROWS_PER_IMAGE, ANNOTATIONS_PER_IMAGE = 8, 43
CLASSES = [f"class {number}" for number in range(365)]
CAPTIONS = {"<CAPTION>": 9, "<DETAILED_CAPTION>": 30, "<MORE_DETAILED_CAPTION>": 70}
DETECTOR, CAPTIONER, GROUNDER = "detector@1.2", "captioner@2.0", "grounder@0.9"


class Made:
    """Rows of made-up images."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        letters = random.Random(0)
        self.words = ["".join(letters.choices("etaoinshrdlu", k=letters.randint(2, 9))) for _ in range(5000)]

    def image(self) -> list[Row]:
        """The rows of one image."""
        image = self.rng.bytes(16).hex()
        texts = {task: self.text(count) for task, count in CAPTIONS.items()}
        said = [Annotation(task, text, source=CAPTIONER, round=1) for task, text in texts.items()]
        said.append(Annotation("<CAPTION>", self.text(9), source="captioner@3.1", round=1))
        rows = [Row(image, one, "text", "annotate") for one in said]
        rows.append(Row(image, self.found("<OD>", "", 10, DETECTOR), "region-text", "annotate"))
        for text, count in zip(texts.values(), (4, 10, 15), strict=True):
            grounded = self.found("<CAPTION_TO_PHRASE_GROUNDING>", text, count, GROUNDER)
            rows.append(Row(image, grounded, "text-phrase-region", "annotate"))
        return rows

    def text(self, words: int) -> str:
        """So many words, the frequent ones more often."""
        ranks = (len(self.words) ** self.rng.random(words)).astype(int) - 1
        return " ".join([self.words[rank] for rank in ranks.tolist()])

    def found(self, task: str, text: str, count: int, source: str) -> Annotation:
        """An annotation of so many regions with float32 numbers, as networks give them."""
        corners = np.sort(self.rng.random((count, 2, 2), np.float32) * np.float32(640), axis=1).astype(float).tolist()
        scores = self.rng.random(count, np.float32).astype(float).tolist()
        kinds = self.rng.integers(0, 10, count).tolist()
        names = (self.rng.integers(0, len(CLASSES), count)).tolist()
        starts = self.rng.integers(0, max(1, len(text) - 8), count).tolist()
        regions = []
        for ((x1, y1), (x2, y2)), score, kind, name, start in zip(corners, scores, kinds, names, starts, strict=True):
            span = (start, start + 8) if text else None
            label = text[start : start + 8] if text else CLASSES[name]
            if kind:
                regions.append(Region("box", (((x1, y1), (x2, y2)),), label, score, None, span))
            else:
                outline = (self.rng.random((12, 2), np.float32) * np.float32(640)).astype(float).tolist()
                regions.append(Region("polygon", (tuple(map(tuple, outline)),), label, score, None, span))
        return Annotation(task, text, tuple(regions), source=source, round=1)


def main(rows: int = 200_000, shard: int = 64, folder: Path | None = None) -> None:
    """`rows` is how many are written, `shard` how many images go into a commit."""
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        measure(place / "store", rows, shard)
    finally:
        shutil.rmtree(place)


def measure(folder: Path, rows: int, shard: int) -> None:
    """Prints a line of the table for each thing that is done."""
    images = rows // ROWS_PER_IMAGE
    print(f"{rows:,} rows, {images * ANNOTATIONS_PER_IMAGE:,} annotations of {images:,} images, {shard} images a shard")
    print("\n| | seconds | processor | rows/s | store, MB | memory at its peak, MB |\n|---|---:|---:|---:|---:|---:|")
    store = Store(folder, create=True)
    made, wrote, worked, slowest, last = Made(), 0.0, 0.0, 0.0, ""
    for number, first in enumerate(range(0, images, shard)):
        several = [made.image() for _ in range(min(shard, images - first))]
        lines = [ImageRow(rows[0].image, f"/photos/{rows[0].image}.jpg", (640.0, 480.0)) for rows in several]
        started, begun = time.perf_counter(), time.process_time()
        store.add_images(f"images/{number:06d}", lines)
        last = f"001/annotate/mixed@1/{number:06d}"
        store.commit(last, [row for rows in several for row in rows])
        took = time.perf_counter() - started
        wrote, worked, slowest = wrote + took, worked + time.process_time() - begun, max(slowest, took)
    line("written", wrote, worked, rows, folder)
    with timed("merged, index built", rows, folder):
        store.compact()
    with timed("read", rows, folder):
        assert sum(1 for _ in store.rows()) == rows
    with timed("opened, shards listed", rows, folder):
        store = Store(folder)
        assert store.commit(last, []) is False
    for by in (("level", "task", "source"), ("label",)):
        with timed("counted by " + ", ".join(by), rows, folder):
            assert sum(store.tally(*by).values()) > 0
    image = next(store.rows(shard=last)).image
    with timed("the rows of one shard", shard * ROWS_PER_IMAGE, folder):
        assert list(store.rows(shard=last))
    for what in ("the rows of one image", "again"):
        with timed(what, ROWS_PER_IMAGE, folder):
            assert len(list(store.rows(image=image))) == ROWS_PER_IMAGE
    with timed("written as Parquet", rows, folder):
        store.to_parquet(folder.parent / "parquet")
    size = sum(path.stat().st_size for path in (folder.parent / "parquet").iterdir()) / 1e6
    print(f"\nslowest commit {slowest:.2f} s; Parquet {size:,.0f} MB")


@contextmanager
def timed(what: str, rows: int, folder: Path) -> Iterator[None]:
    """A line of the table."""
    started, begun = time.perf_counter(), time.process_time()
    yield
    line(what, time.perf_counter() - started, time.process_time() - begun, rows, folder)


def line(what: str, seconds: float, worked: float, rows: int, folder: Path) -> None:
    """Prints it."""
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {what} | {seconds:,.3g} | {worked:,.3g} | {rows / seconds:,.0f} | {disk:,.0f} | {peak:,.0f} |", flush=True
    )


if __name__ == "__main__":
    typer.run(main)
