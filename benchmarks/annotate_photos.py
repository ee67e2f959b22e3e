"""Every task through every photo of a folder, with a full-size checkpoint of random weights: images/s and peak memory.

    python benchmarks/annotate_photos.py [PHOTOS TOKENIZER] [--preset base] [--max-new-tokens 32]

Published weights are not needed to know what a run costs: a checkpoint of the published shape is written in
Microsoft's layout with random weights, and `open-florence annotate` runs over the folder with all tasks. The labels are
nonsense, the work is not. TOKENIZER is a folder with the published tokenizer.json. Both default to the
tests' real data.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import typer

from open_florence.inference.pretrained import save_model
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.tasks import TASKS
from open_florence.tokenizer import Tokenizer

QUERIES = {"none": "", "text": ":a person", "region": ":20,30,200,180"}


DATA = Path(os.environ.get("OPEN_FLORENCE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def main(
    photos: Path = DATA / "coco_subset" / "images",
    tokenizer: Path = DATA / "florence2_tokenizer" / "microsoft_florence2_large",
    preset: str = "base",
    max_new_tokens: int = 32,
    dtype: str = "bfloat16",
) -> None:
    """Prints one line of JSON with what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, out = Path(folder) / "checkpoint", Path(folder) / "labels"
        torch.manual_seed(0)
        save_model(Florence(PRESETS[preset]), Processor(Tokenizer.from_folder(tokenizer)), checkpoint, "microsoft")
        tasks = ",".join(task.strip("<>") + QUERIES[row.query] for task, row in TASKS.items())
        started = time.perf_counter()
        command = [sys.executable, "-m", "open_florence", "annotate", str(photos), "--out", str(out), "--tasks", tasks]
        command += ["--model", str(checkpoint), "--dtype", dtype, "--max-new-tokens", str(max_new_tokens)]
        subprocess.run([*command, "--batch-size", "4"], check=True)
        seconds = time.perf_counter() - started
        lines = (out / "annotations.jsonl").read_text(encoding="utf-8").splitlines()
        failed = (out / "failed.jsonl").read_text(encoding="utf-8").splitlines()
        answers = sum(len(json.loads(line)["annotations"]) for line in lines)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    figures = {"images": len(lines), "failed": len(failed), "answers": answers, "tasks": len(TASKS)}
    figures |= {
        "images/s": round(len(lines) / seconds, 4),
        "peak GiB": round(peak, 2),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({"preset": preset, "dtype": dtype, "max new tokens": max_new_tokens, **figures}))


if __name__ == "__main__":
    typer.run(main)
