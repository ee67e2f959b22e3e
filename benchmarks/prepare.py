"""Images opened and resized ahead of the model: images/s by worker processes, and what decoding JPEGs smaller changes.

    python benchmarks/prepare.py [FOLDER] [--count 100] [--rounds 3]

The photos of FOLDER (else fractal noise) are brought to each size, get the grain of a sensor (normal, 6 levels: photos
that are enlarged have no detail of their own between two pixels) and are saved as JPEGs of quality 90. "busy" is with a
program that runs Python all the while, as decoding does. Rows and columns take turns, and the best of their rounds
counts. The second table compares the resized pixels, 0 to 255, of
JPEGs decoded smaller with those of the same files decoded whole; its last size is the least that is made smaller.
"""

import io
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from open_florence.images import list_images, open_image
from open_florence.inference.prepare import Preparer
from open_florence.inference.prepare_worker import DRAFT_ROOM, Treatment, open_and_resize

SIDE = 768
LEAST = 2 * math.ceil(DRAFT_ROOM * SIDE)
SIZES = ((1600, 1200), (4000, 3000), (LEAST, LEAST))
SHARES = {(1600, 1200): 1.0, (4000, 3000): 0.2}
"""The sizes that are timed, and the share of `count` that is read of them: they take in proportion to their pixels."""


WORKERS = (0, 1, 2)


def photos(folder: Path | None, most: int) -> list[Image.Image]:
    """Up to `most` photos from all over the folder, or as many images of fractal noise."""
    if folder:
        paths = list_images(folder)
        return [open_image(path) for path in paths[:: -(-len(paths) // most)]]
    rng = np.random.default_rng(0)
    return [fractal(rng) for _ in range(most)]


def fractal(rng: np.random.Generator) -> Image.Image:
    """Noise of eight octaves (1024, 1024, 3), each half as strong as the one twice as large, as in photos."""
    total = np.zeros((1024, 1024, 3), np.float32)
    for octave in range(8):
        noise = Image.fromarray(rng.integers(0, 256, (4 << octave, 4 << octave, 3), np.uint8))
        total += np.asarray(noise.resize((1024, 1024), Image.Resampling.BICUBIC), np.float32) / 2 ** (octave + 1)
    return Image.fromarray(total.astype(np.uint8))


def jpeg(photo: Image.Image, size: tuple[int, int]) -> bytes:
    """The file of the photo at that size, with the grain of a sensor."""
    grain = np.random.default_rng(0).normal(0, 6, (size[1], size[0], 1)).astype(np.float32)
    pixels = np.asarray(photo.resize(size, Image.Resampling.LANCZOS)) + grain
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@contextmanager
def running_python(really: bool) -> Iterator[None]:
    """Meanwhile a thread of this process does nothing but run Python, if `really`."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            sum(range(1000))

    thread = threading.Thread(target=run)
    if really:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if really:
            thread.join()


def rate(paths: list[Path], workers: int, draft: bool, busy: bool) -> float:
    """Images a second, once the processes run: the first 8 images are not counted."""
    with Preparer(SIDE, workers, draft=draft) as prepare:
        prepared = prepare([*paths[:8], *paths])
        for _ in range(8):
            next(prepared)
        with running_python(busy):
            start = time.perf_counter()
            assert not any(item.reason for item in prepared)
            return len(paths) / (time.perf_counter() - start)


def differences(files: list[bytes]) -> tuple[float, float, int]:
    """Mean, 99.9th percentile and maximum of what decoding smaller changes, each of the image where it is largest."""
    found = []
    for file in files:
        smaller, whole = (open_and_resize(file, Treatment(SIDE, False, draft)).levels for draft in (True, False))
        assert smaller is not None
        assert whole is not None
        change = np.abs(smaller.astype(int) - whole)
        found.append((change.mean(), np.percentile(change, 99.9), change.max()))
    mean, percentile, highest = np.max(found, axis=0)
    return float(mean), float(percentile), int(highest)


def best_rates(paths: list[Path], rounds: int) -> Iterator[tuple[int, list[float]]]:
    """For each number of workers its images/s, in the order of the table's columns."""
    cells = [(workers, busy, draft) for workers in WORKERS for busy in (False, True) for draft in (False, True)]
    measured = [[rate(paths, workers, draft, busy) for workers, busy, draft in cells] for _ in range(rounds)]
    best = np.max(measured, axis=0).reshape(len(WORKERS), -1)  # (W, columns)
    yield from zip(WORKERS, best.tolist(), strict=True)


def main(folder: Annotated[Path | None, typer.Argument()] = None, count: int = 100, rounds: int = 3) -> None:
    """Print both tables."""
    originals = photos(folder, 24)
    print("| JPEGs | workers | images/s | decoded smaller | busy | busy, decoded smaller |")
    print("|---|---:|---:|---:|---:|---:|")
    for size, share in SHARES.items():
        with tempfile.TemporaryDirectory() as made:
            files = [jpeg(photo, size) for photo in originals]
            paths = [Path(made, f"{index}.jpg") for index in range(max(1, int(count * share)))]
            for index, path in enumerate(paths):
                path.write_bytes(files[index % len(files)])
            for workers, rates in best_rates(paths, rounds):
                print(f"| {size[0]} x {size[1]} | {workers} | {' | '.join(f'{value:.1f}' for value in rates)} |")
    print("\n| JPEGs decoded smaller | worst mean | worst 99.9th percentile | maximum |")
    print("|---|---:|---:|---:|")
    for size in SIZES:
        mean, percentile, highest = differences([jpeg(photo, size) for photo in originals])
        print(f"| {size[0]} x {size[1]} | {mean:.3f} | {percentile:.0f} | {highest} |")


if __name__ == "__main__":
    typer.run(main)
