"""From the start of a process to its first answer: an ONNX export without PyTorch, ours with it, and transformers.

    python benchmarks/cold_start.py              # the shipped checkpoint, 160 px
    python benchmarks/cold_start.py --base       # random weights of the published base shape, 768 px, 24 tokens

Every run is a process of its own, on one thread, given the same weights, image and question (<CAPTION>, greedy). The
programs take turns, so that all have the machine at its worst and best. Ratios are of the shortest runs; the processor
time, which other programs lengthen less, stands beside them. The files have been read before: the disk is not measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from speed.checkpoint import checkpoint

import open_florence as of
from open_florence.export import export_model

OURS = """
from open_florence.generation import GenerationConfig
settings = GenerationConfig(max_new_tokens=24, suppressed=(2,)) if {forced} else GenerationConfig()
print(predictor.predict({image!r}, "<CAPTION>", generation=settings).text)
"""

EDGE = """
from open_florence.edge import EdgePredictor
predictor = EdgePredictor.from_folder({folder!r}, {dtype!r}, threads=1)
"""

TORCH = """
from open_florence import Predictor
predictor = Predictor.from_pretrained({folder!r})
"""

TRANSFORMERS = """
import torch
from PIL import Image
from transformers import AutoProcessor, Florence2ForConditionalGeneration
model = Florence2ForConditionalGeneration.from_pretrained({folder!r}, dtype=torch.float32).eval()
processor = AutoProcessor.from_pretrained({folder!r})
batch = processor(text="<CAPTION>", images=Image.open({image!r}).convert("RGB"), return_tensors="pt")
settings = dict(do_sample=False, num_beams=1, no_repeat_ngram_size=0, early_stopping=False)
settings |= dict(min_new_tokens=24, max_new_tokens=24) if {forced} else dict(max_new_tokens=1024)
with torch.inference_mode():
    ids = model.generate(**batch, **settings)
print(processor.batch_decode(ids, skip_special_tokens=True)[0])
"""


@dataclass
class Program:
    """What is run, and how long its runs took, in seconds."""

    code: str
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    answer: str = ""

    def run(self) -> None:
        """Once more, in a process of its own."""
        quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        before, begun = os.times(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", self.code],
            env=os.environ | quiet,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        self.wall.append(time.perf_counter() - begun)
        after = os.times()
        used = after.children_user - before.children_user + after.children_system - before.children_system
        self.processor.append(used)
        self.answer = done.stdout.strip()


def prepare(base: bool, work: Path) -> tuple[Path, Path, Path]:
    """The checkpoint in transformers' layout, its ONNX export in float32 and int8, and an image."""
    if base:
        folder = checkpoint("base", work)
    elif not (folder := work / "tiny").is_dir():
        of.save_model(*of.load_model("tiny"), folder, layout="native")
    exported = work / f"{folder.name}-onnx"
    if not exported.is_dir():
        export_model(folder, exported, "onnx", ("float32", "int8"))
    image = work / "scene.png"
    if not image.is_file():
        from open_florence.scenes import make_scene

        Image.fromarray(make_scene(1).image).save(image)
    return folder, exported, image


def main() -> None:
    """Prints a table: seconds to the first answer, and how many times longer transformers takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="store_true", help="the published base shape instead of the shipped tiny")
    parser.add_argument("--runs", type=int, default=5, help="processes per program")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "open-florence-speed")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    folder, exported, image = prepare(options.base, options.work)
    forced = options.base

    def program(code: str, where: Path, dtype: str = "float32") -> Program:
        return Program(code.format(folder=str(where), image=str(image), forced=forced, dtype=dtype))

    programs = {
        "edge (ONNX), float32": program(EDGE + OURS, exported),
        "edge (ONNX), int8": program(EDGE + OURS, exported, "int8"),
        "open_florence (PyTorch), float32": program(TORCH + OURS, folder),
        "transformers, float32": program(TRANSFORMERS, folder),
    }
    for one in [*programs.values()] * options.runs:
        one.run()
    said = {one.answer for name, one in programs.items() if not name.endswith("int8")}
    if len(said) > 1 and not forced:  # noise of random weights tells nothing
        raise SystemExit(f"the answers differ, so their times say nothing: {said}")
    peer = programs["transformers, float32"]
    print(f"\n{'base' if options.base else 'tiny'}: to the first answer, 1 thread, best (median) of {options.runs}")
    print("\n| program | seconds | transformers / this | processor seconds | transformers / this |")
    print("|---|---:|---:|---:|---:|")
    for name, one in programs.items():
        figures = [
            f"{min(own):.2f} ({statistics.median(own):.2f}) | {min(other) / min(own):.1f}"
            for own, other in ((one.wall, peer.wall), (one.processor, peer.processor))
        ]
        print(f"| {name} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
