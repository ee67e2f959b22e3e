"""Two readers of receipts, alone and fused: Tesseract, and a model fine-tuned from the shipped checkpoint.

    OMP_NUM_THREADS=1 python benchmarks/engine/receipts.py SROIE --out runs/receipts --checkpoint CHECKPOINT

SROIE is a folder with img/ and box/, split by content as `open-florence finetune` does. CHECKPOINT is what
`benchmarks/experiments/receipts.py` leaves, trained on the train part; without it, it is trained here. The model reads
tiles of 192 x 96 px at the receipt's own size; its answers are put back into the receipt's pixels, and where two tiles
read the same line the surer reading stays. What each reader read is kept in OUT/reads and not read again.

A read word belongs to the true line in whose box its middle lies; it is right when it is one of the line's words, in
their order. SROIE's truth is in capitals whatever is printed, so that figures with case folded say more. Settings are
chosen for the F1 of words, case folded, on receipts that are not of the test part: those of Tesseract on the train
part; those of fusion once on the train part and once on the validation part, because the model is better, and surer, on
receipts that it learnt from. Gains are over Tesseract with a threshold of its own, because leaving out what it is not
sure of is a gain that needs no second reader. Intervals (95 %) are bootstrapped over receipts.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import torch
import typer
from PIL import Image
from word_scores import WORDS, gain, judged, middle, score

from open_florence.cli.finetune import read_labelled, split
from open_florence.data.jsonl import line_of, write_whole
from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.fusion.ocr_fusion import OcrFusion, reading_score
from open_florence.evaluation.intervals import Tally
from open_florence.generation import GenerationConfig
from open_florence.geometry import nms, region_box
from open_florence.images import open_image
from open_florence.inference.predictor import Predictor
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists import load_specialist, source_of
from open_florence.tiles import tiles

TILE = (192, 96)
OVERLAP = 0.3
"""Tiles as the model was trained on."""
SAME = 0.3
"""The overlap (IoU) from which two of the model's regions are one line that two tiles read."""
BINS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
"""Confidence, for the table of how often a reader is right when it is so sure."""
LONE = (0.0, 0.3, 0.5, 0.6, 0.7, 0.85, 1.01)
LEAST = (0.4, 0.2, 0.6)
"""What is tried for fusion; a reader whose `lone` is 1.01 is not believed without the other."""


def main(data: Path, out: Path = Path("runs/receipts"), checkpoint: Path | None = None, learn: int = 20) -> None:
    """Reads, chooses the settings on `learn` receipts of the train part, and prints the tables of the test part."""
    torch.set_num_threads(1)
    parts = {name: sorted(samples, key=lambda s: s.path) for name, samples in split(read_labelled(data)).items()}
    parts["train"] = parts["train"][:learn]
    reads = out / "reads"
    psm, side = choose_tesseract(parts["train"], reads)
    if checkpoint is None:
        checkpoint = out / "model" / "checkpoint"
        if not checkpoint.exists():
            script = Path(__file__).parents[1] / "experiments" / "receipts.py"
            runpy.run_path(str(script))["main"](data, out / "model")
    predictor = Predictor.from_pretrained(checkpoint)
    model = {name: read(some, reads / "model", lambda s: read_tiles(predictor, s)) for name, some in parts.items()}
    plain, tuned = (
        {name: read_tesseract(some, reads, *options) for name, some in parts.items()}
        for options in ((3, 640), (psm, side))
    )
    for name, answers in (("tesseract", tuned), ("model", model)):
        for part in ("train", "validation"):
            print(f"{name}, {part}: {reliability(parts[part], answers[part])}")
    two, three = {"default": OcrFusion()}, {"default": OcrFusion()}
    for part in ("train", "validation"):
        two[f"set on {part}"] = choose_fusion(parts[part], tuned[part], model[part])
        three[f"set on {part}"] = choose_fusion(parts[part], tuned[part], plain[part], model[part])
    floor = choose_floor(parts["train"], tuned["train"])
    truth, sure = parts["test"], [above(answer, floor) for answer in tuned["test"]]
    rows = {
        "Tesseract, default (psm 3, least_side 640)": plain["test"],
        f"Tesseract, set on train (psm {psm}, least_side {side})": tuned["test"],
        f"Tesseract as set, words under {floor:g} left out": sure,
        "the model": model["test"],
        **fused_rows("Tesseract as set and the model", two, truth, tuned["test"], model["test"]),
        **fused_rows("Tesseract both ways", {"default": OcrFusion()}, truth, tuned["test"], plain["test"]),
        **fused_rows("all three", three, truth, tuned["test"], plain["test"], model["test"]),
    }
    print_tables(truth, rows, sure)


def fused_rows(
    who: str, settings: Mapping[str, OcrFusion], samples: Sequence[Sample], *answers: Sequence[Annotation]
) -> dict[str, list[Annotation]]:
    """What is read together, with each of the settings."""
    return {
        f"{who}, fused, {name}": [fuse(fusion, *some) for some in zip(samples, *answers, strict=True)]
        for name, fusion in settings.items()
    }


def choose_tesseract(samples: Sequence[Sample], reads: Path) -> tuple[int, int]:
    """Tesseract's page segmentation and least side with the best F1: first the one, then the other."""

    def f1(psm: int, side: int) -> float:
        value = score(samples, read_tesseract(samples, reads, psm, side), fold=True).f1.value
        print(f"tesseract psm {psm}, least_side {side}: F1 {value:.3f} on {len(samples)} train receipts", flush=True)
        return value

    psm = max((3, 4, 6, 11), key=lambda psm: f1(psm, 640))
    return psm, max((0, 640, 1300, 2000), key=lambda side: f1(psm, side))


def choose_floor(samples: Sequence[Sample], answers: Sequence[Annotation]) -> float:
    """The least confidence with the best F1: what a reader gains without another, saying only what it is sure of."""
    return max(LONE, key=lambda floor: score(samples, [above(a, floor) for a in answers], fold=True).f1.value)


def above(answer: Annotation, floor: float) -> Annotation:
    """The words of which the reader is so sure at least."""
    return replace(answer, regions=tuple(word for word in answer.regions if reading_score(word) >= floor))


def choose_fusion(samples: Sequence[Sample], *answers: Sequence[Annotation]) -> OcrFusion:
    """Trust is how often a reader is right over how sure it is; then the `lone` with the best F1, then `least`.

    Of equals the one nearest the defaults, so that nothing is chosen that the receipts do not ask for.
    """
    trust = {some[0].source.partition("@")[0]: faith(samples, some) for some in reversed(answers)}

    def f1(fusion: OcrFusion) -> float:
        fused = [fuse(fusion, *some) for some in zip(samples, *answers, strict=True)]
        return score(samples, fused, fold=True).f1.value

    pairs = sorted(product(LONE, repeat=len(trust)), key=lambda pair: sum(abs(value - 0.6) for value in pair))
    chosen = max((OcrFusion(dict(zip(trust, pair, strict=True)), trust=trust) for pair in pairs), key=f1)
    chosen = max((replace(chosen, least=least) for least in LEAST), key=f1)
    print(f"fusion on {len(samples)} receipts: F1 {f1(chosen):.3f} with {chosen}", flush=True)
    return chosen


def fuse(fusion: OcrFusion, sample: Sample, *answers: Annotation) -> Annotation:
    """The fused words of a receipt."""
    decisions = fusion(sample, [Candidate(str(k), answer) for k, answer in enumerate(answers)])
    kept = [d.annotation for d in decisions if d.status == "kept" and d.annotation.task == WORDS]
    return Annotation(WORDS, regions=tuple(region for annotation in kept for region in annotation.regions))


def read(samples: Iterable[Sample], folder: Path, reader: Callable[[Sample], Annotation]) -> list[Annotation]:
    """What a reader reads of each receipt; read once, and then from the folder."""
    answers = []
    for sample in samples:
        path = folder / f"{sample.id}.json"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, [line_of(reader(sample).to_json())])
        answers.append(Annotation.from_json(json.loads(path.read_text())))
    return answers


def read_tesseract(samples: Sequence[Sample], reads: Path, psm: int, side: int) -> list[Annotation]:
    """Tesseract's words."""
    specialist = load_specialist("tesseract", psm=psm, least_side=side)

    def words(sample: Sample) -> Annotation:
        found = next(a for a in specialist.annotate([sample])[0] if a.task == WORDS)
        return replace(found, source=source_of(specialist))

    return read(samples, reads / f"tesseract-psm-{psm}-side-{side}", words)


def read_tiles(predictor: Predictor, sample: Sample) -> Annotation:
    """The model's lines in pixels of the receipt; tiles without ink are not read."""
    image = open_image(sample.path)
    windows = [w for w in tiles(sample.size, TILE, OVERLAP) if np.ptp(np.asarray(image.crop(w).convert("L"))) > 64]
    squares = [Image.new("RGB", (TILE[0], TILE[0]), "white") for _ in windows]
    for square, window in zip(squares, windows, strict=True):
        square.paste(image.crop(window))
    answers = predictor.predict_batch(squares, WORDS, generation=GenerationConfig(max_new_tokens=250))
    found = [
        moved(region, window)
        for (answer,), window in zip(answers, windows, strict=True)
        for region in answer.regions
        if region.label.strip() and middle(region)[1] < window[3] - window[1]
    ]
    boxes = np.array([region_box(region.parts) for region in found]).reshape(-1, 4)
    kept = nms(boxes, [reading_score(region) for region in found], SAME)
    return Annotation(WORDS, regions=tuple(found[k] for k in kept), source="model@1")


def moved(region: Region, window: tuple[int, int, int, int]) -> Region:
    """A region of a tile, in pixels of the whole."""
    parts = tuple(tuple((x + window[0], y + window[1]) for x, y in part) for part in region.parts)
    return replace(region, parts=parts)


def faith(samples: Sequence[Sample], answers: Sequence[Annotation]) -> float:
    """How often a reader is right over how sure it is, at most 1."""
    sure, right = judged(samples, answers).mean(axis=0)
    return round(min(1.0, float(right / sure)), 2)


def reliability(samples: Sequence[Sample], answers: Sequence[Annotation]) -> str:
    """How often the reader is right, by how sure it is."""
    sure, right = judged(samples, answers).T
    said = []
    for low, high in pairwise(BINS):
        here = (sure >= low) & ((sure < high) | (high == 1.0))
        said.append(f"{low:g} to {high:g}: {right[here].mean():.2f} of {here.sum()}" if here.any() else "")
    return "; ".join(part for part in said if part)


def print_tables(
    samples: Sequence[Sample], rows: Mapping[str, Sequence[Annotation]], base: Sequence[Annotation]
) -> None:
    """The test part, case as it is and folded, and each row's F1 and character errors less those of `base`."""

    def cell(tally: Tally) -> str:
        low, high = tally.interval() or (float("nan"),) * 2
        return f"{tally.value:.3f} ({low:.3f} to {high:.3f})"

    for fold in (False, True):
        start = score(samples, base, fold)
        print(f"\n{len(samples)} test receipts, {'case folded' if fold else 'case as it is'}\n")
        print("| | words recalled | precision | F1 | character error rate | F1 gain | error rate gain |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for name, answers in rows.items():
            here = score(samples, answers, fold)
            cells = [cell(tally) for tally in (here.recall, here.precision, here.f1, here.errors)]
            print("|", " | ".join([name, *cells, gain(here.f1, start.f1), gain(here.errors, start.errors)]), "|")


if __name__ == "__main__":
    typer.run(main)
