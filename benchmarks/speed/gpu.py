"""Images a second on a GPU, from JPEG files to annotations, against transformers in its best batches.

    python benchmarks/speed/gpu.py [--shape base|large|toy] [--images 2048] [--workers 12] [--compile]

One brief caption of 12 tokens, and eight tasks of 24 tokens each, in bfloat16. transformers is spared the files: it is
given pixels that lie on the device, its batch size is the best of four, and eight tasks are eight questions of a batch.
The share is that of the rate at which the same card multiplies two large matrices. `--compile` compiles our tower and
encoder, to see whether that is worth its minutes.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import typer
from checkpoint import checkpoint
from floor import cost
from pair import DTYPES, EIGHT, photo_files, tokens
from peer import GREEDY, Peer, exactly
from timing import machine

from open_florence.images import open_image
from open_florence.inference.predictor import Predictor
from open_florence.tasks import TASKS

WORKLOADS = {"one caption of 12 tokens": (EIGHT[:1], 12), "eight tasks of 24 tokens": (EIGHT, 24)}
BATCHES = (4, 16, 64, 128)
"""Images at a time."""
FILES = 64
"""Different images; more are the same ones again."""


def matrix_rate(device: torch.device, size: int) -> float:
    """Floating-point operations a second of a bfloat16 product of two square matrices, the best of ten."""
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    return 2 * size**3 / min(timed(device, lambda: a @ b) for _ in range(10))


def timed(device: torch.device, program: Callable[[], object]) -> float:
    """Seconds until the device has done it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    program()
    wait()
    return time.perf_counter() - begun


def ours(predictor: Predictor, files: list[str], tasks: list[str], length: int, workers: int) -> None:
    """As its users ask about many images."""
    requests = ((file, list(tasks)) for file in files)
    for answered in predictor.predict_many(requests, generation=tokens(length), workers=workers, in_order=False):
        assert not answered.reason, answered.reason


def theirs(peer: Peer, pixels: torch.Tensor, tasks: list[str], length: int) -> None:
    """A batch: every task about every image of pixels (I, 3, S, S), each image encoded for each of its tasks."""
    processor = peer.processor
    questions = [TASKS[name].prompt for _ in pixels for name in tasks]
    image = processor.image_token * processor.num_image_tokens
    asked = [f"{image}<s>{question}</s>" for question in questions]
    words = processor.tokenizer(asked, add_special_tokens=False, padding=True, return_tensors="pt").to(pixels.device)
    rows = pixels.repeat_interleave(len(tasks), 0)
    with torch.inference_mode():
        ids = peer.model.generate(**words, pixel_values=rows, **GREEDY, **exactly(length))
    processor.batch_decode(ids)


def best_of_theirs(peer: Peer, pixels: torch.Tensor, tasks: list[str], length: int) -> tuple[float, int]:
    """Images a second, and the batch size at which; a size that does not fit into memory is left out."""
    found = []
    for size in BATCHES:
        try:
            some = pixels[torch.arange(size) % len(pixels)]
            theirs(peer, some, tasks, length)
            took = min(timed(pixels.device, lambda some=some: theirs(peer, some, tasks, length)) for _ in range(2))
            found.append((size / took, size))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    return max(found)


def main(
    shape: str = "base",
    images: int = 2048,
    workers: int = 12,
    rows: int = 512,
    max_images: int = 64,
    compile: bool = False,
    device: str = "cuda",
    work: Path | None = None,
) -> None:
    """Prints a table. `rows` are decoded and `max_images` encoded at a time."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here")
    place, folder = torch.device(device), checkpoint(shape, work)
    name = torch.cuda.get_device_name() if place.type == "cuda" else machine()["cpu"]
    rate = matrix_rate(place, 8192 if place.type == "cuda" else 512)
    print(f"{shape}, {name}, {rate / 1e12:.0f} TFLOP/s, torch {torch.__version__}, commit {machine()['commit']}")
    predictor = Predictor.from_pretrained(folder, dtype=DTYPES["bf16"], device=place)
    predictor.max_rows, predictor.max_images = rows, max_images
    if compile:
        predictor.model.vision_tower.compile()
        predictor.model.language_model.encoder.compile()
    peer = Peer.load(folder, DTYPES["bf16"])
    peer.model.to(place)
    files = [file for _ in range(images // FILES + 1) for file in photo_files(folder, FILES)][:images]
    opened = [open_image(file) for file in files[:FILES]]
    pixels = torch.from_numpy(predictor.processor.pixels(opened)).to(place, DTYPES["bf16"])
    print("\n| workload | ours, images/s | share | transformers, images/s | its batch | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    spent = cost(shape)
    for workload, (tasks, length) in WORKLOADS.items():
        ours(predictor, files[: 2 * max_images], tasks, length, workers)  # kernels are chosen, steps recorded
        ours_rate = images / timed(place, partial(ours, predictor, files, tasks, length, workers))
        peer_rate, size = best_of_theirs(peer, pixels, tasks, length)
        work_each = spent.vision + len(tasks) * (spent.encoder + length * spent.step)
        share = ours_rate * work_each / rate
        print(
            f"| {workload} | {ours_rate:.1f} | {share:.0%} | {peer_rate:.1f} | {size} | {ours_rate / peer_rate:.2f} |"
        )


if __name__ == "__main__":
    typer.run(main)
