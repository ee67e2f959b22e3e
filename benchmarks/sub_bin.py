"""What reading coordinates between the bins is worth: detection on scenes by the width of the window.

    python benchmarks/sub_bin.py [--model tiny] [--count 300]

Tokens and scores are the same in every row; only the place of a corner within and around its bin differs. The gain in
AP over the plain bins has its 95 % interval beside it, from a bootstrap in which both rows draw the same images.
"""

import numpy as np
import typer

from open_florence.evaluation import detection_ap
from open_florence.evaluation.detection import boxes_of, match
from open_florence.evaluation.intervals import Array, draws, percentiles
from open_florence.evaluation.scenes import scenes
from open_florence.generation import GenerationConfig
from open_florence.geometry import iou
from open_florence.inference.predictor import Predictor
from open_florence.schema import Region

WINDOWS = {"the bin itself": 0, "± 5 bins": 5, "± 10": 10, "± 25": 25, "± 50": 50, "all bins": 1000}
METRICS = ("AP50", "AP75", "AP90", "AP")
BATCH = 16

Images = list[tuple[Region, ...]]


def resampled_ap(truth: Images, found: Images) -> Array:
    """AP (R,) of R bootstrap draws of the images, the same draws for every `found`."""
    labels = sorted({region.label for regions in truth for region in regions})
    weights = draws(len(truth))  # (R, I)
    curves = np.stack([match(truth, found, label).precision(weights) for label in labels])  # (K, R, T)
    return np.nanmean(curves, axis=(0, 2))


def mean_iou(truth: Images, found: Images) -> float:
    """Mean IoU of the found boxes with the nearest true one, of those that have one at .5."""
    pairs = [(t, f) for t, f in zip(truth, found, strict=True) if t and f]
    best = np.concatenate([iou(boxes_of(f), boxes_of(t)).max(axis=1) for t, f in pairs])
    return float(best[best >= 0.5].mean())


def main(model: str = "tiny", count: int = 300) -> None:
    """Print a table, a row a window."""
    predictor = Predictor.from_pretrained(model)
    made = [make() for make in scenes("validation", count)]
    truth = [next(a.regions for a in scene.sample.annotations if a.task == "<OD>") for scene in made]
    print(f"| window | {' | '.join(METRICS)} | gain in AP | mean IoU |")
    print(f"|---|{'---:|' * (len(METRICS) + 2)}")
    plain = None
    for name, window in WINDOWS.items():
        settings = GenerationConfig(max_new_tokens=128, location_window=window)
        found: Images = []
        for start in range(0, len(made), BATCH):
            images = [scene.image for scene in made[start : start + BATCH]]
            found += [answer.regions for (answer,) in predictor.predict_batch(images, ["<OD>"], generation=settings)]
        values = detection_ap(truth, found, intervals=False)[""].values
        draws_of_ap = resampled_ap(truth, found)
        plain = draws_of_ap if plain is None else plain
        low, high = percentiles(draws_of_ap - plain) or (0.0, 0.0)
        cells = [f"{values[metric]:.3f}" for metric in METRICS]
        cells += [f"{low:+.4f} to {high:+.4f}" if window else "", f"{mean_iou(truth, found):.4f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
