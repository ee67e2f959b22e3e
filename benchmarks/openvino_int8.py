"""What number formats cost on OpenVINO: `tiny` on scenes in PyTorch, and exported in float32, bfloat16 and int8.

    python benchmarks/openvino_int8.py [--model tiny] [--count 200]

The same images, questions and settings in every row; 95 % bootstrap intervals over images. Size is that of the weights'
files; the checkpoint that ships is in float16.
"""

import tempfile
from pathlib import Path

import typer

from open_florence.evaluation import evaluate
from open_florence.evaluation.report import Row
from open_florence.export import export_model
from open_florence.inference.openvino import FOLDER, SUFFIXES
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import find_folder

TASKS = ["OD", "CAPTION_TO_PHRASE_GROUNDING", "OCR"]
METRICS = {"od_ap50": "AP50", "od_ap75": "AP75", "grounding": "grounding", "ocr_lexicon": "words"}
WRITTEN = ("float32", "int8")


def table_row(name: str, predictor: Predictor, size: int, count: int) -> str:
    """One line of the table; `size` in bytes."""
    report = evaluate(predictor, "scenes:validation", limit=count, tasks=TASKS, progress=False)
    rows = {row.key: row for row in report.rows}
    cells = [_cell(rows[key]) for key in METRICS]
    return f"| {name} | {' | '.join(cells)} | {size / 1e6:.1f} | {report.seconds:.0f} |"


def _cell(row: Row) -> str:
    low, high = row.interval or (row.value, row.value)
    return f"{row.value:.3f} ({low:.3f} to {high:.3f})"


def _bytes(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def main(model: str = "tiny", count: int = 200) -> None:
    """Print a table, a row a number format."""
    print(f"| `{model}`, {count} scenes | {' | '.join(METRICS.values())} | MB | seconds |")
    print(f"|---|{'---:|' * (len(METRICS) + 2)}")
    checkpoint = find_folder(model)
    size = _bytes(checkpoint, "*.safetensors")
    print(table_row("PyTorch float32", Predictor.from_pretrained(checkpoint), size, count), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "exported"
        export_model(model, folder, "openvino", WRITTEN)
        int8 = _bytes(folder / FOLDER, f"*{SUFFIXES['int8']}.bin")
        sizes = {"float32": _bytes(folder / FOLDER, "*.bin") - int8, "int8": int8}
        sizes["bfloat16"] = sizes["float32"]
        for dtype in ("float32", "bfloat16", "int8"):
            predictor = Predictor.from_pretrained(folder, dtype=dtype)
            print(table_row(f"OpenVINO {dtype}", predictor, sizes[dtype], count), flush=True)
        small = Path(temporary) / "small"
        export_model(model, small, "openvino", ["int8"])
        both = Predictor.from_pretrained(small, dtype="bfloat16")
        print(table_row("OpenVINO bfloat16, int8 weights", both, sizes["int8"], count), flush=True)


if __name__ == "__main__":
    typer.run(main)
