"""Images per second of `predict`, `predict_batch` and `predict_many` on the shipped checkpoint and the same scenes.

    python benchmarks/engine_batching.py --scenes 100 --rounds 3

The ways take turns, round by round; the table gives each way's best round. Images are files, so that opening them
counts. Threads: those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from open_florence.generation import GenerationConfig
from open_florence.inference.predictor import Predictor
from open_florence.scenes import VALIDATION_SEEDS, make_scene

TASKS: list[Any] = ["<CAPTION>", "<OD>", "<DENSE_REGION_CAPTION>", "<OCR_WITH_REGION>"]
SIDE = 1000
"""Files have so many pixels a side: photographs are larger than the model's input."""


def ways(predictor: Predictor, paths: list[Path], settings: GenerationConfig) -> dict[str, Callable[[], object]]:
    """What is compared, by name; each answers all tasks about all images."""

    def eights() -> None:
        for start in range(0, len(paths), 8):
            predictor.predict_batch(paths[start : start + 8], TASKS, generation=settings)

    def many(workers: int) -> None:
        requests = ((path, TASKS) for path in paths)
        for answered in predictor.predict_many(requests, generation=settings, workers=workers):
            assert not answered.reason

    return {
        "predict, one by one": lambda: [predictor.predict(path, TASKS, generation=settings) for path in paths],
        "predict_batch, by eights": eights,
        "predict_many, workers 0": lambda: many(0),
        "predict_many, workers 1": lambda: many(1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--published", action="store_true", help="3 beams, no three tokens in a row twice")
    arguments = parser.parse_args()
    settings = GenerationConfig.published() if arguments.published else GenerationConfig()
    predictor = Predictor.from_pretrained("tiny")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{seed}.jpg") for seed in VALIDATION_SEEDS[: arguments.scenes]]
        for seed, path in zip(VALIDATION_SEEDS, paths, strict=False):
            Image.fromarray(make_scene(seed).image).resize((SIDE, SIDE)).save(path, quality=90)
        compared = ways(predictor, paths, settings)
        best = dict.fromkeys(compared, float("inf"))
        for _ in range(arguments.rounds):
            for name, way in compared.items():
                begin = time.perf_counter()
                way()
                best[name] = min(best[name], time.perf_counter() - begin)
    search = "3 beams" if arguments.published else "greedy"
    print(f"{len(paths)} images x {len(TASKS)} tasks, {search}, {torch.get_num_threads()} threads")
    first = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"{name:26} {len(paths) / seconds:7.2f} images/s  {first / seconds:5.2f} x")


if __name__ == "__main__":
    main()
