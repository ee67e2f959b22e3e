"""Many images, four questions about each, from files to annotations, against transformers in batches.

    python benchmarks/speed/many_images.py [--images 64] [--shape base|large|toy] [--dtype bf16|fp32|both]

Answers have between 4 and 40 tokens, the same on both sides (see `checkpoint.py`). The other side is given the best of
three batch sizes, chosen on the first images, and its questions sorted by task, so that answers of like length share a
batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from floor import cost, measure
from pair import END, Pair, dtypes, photo_files
from timing import Report, in_turns

from open_florence.generation import GenerationConfig
from open_florence.questions import Ask

LENGTHS = {
    "<REGION_TO_CATEGORY>": (4, 10),
    "<REGION_TO_OCR>": (4, 20),
    "<REGION_TO_DESCRIPTION>": (12, 40),
    "": (8, 40),
}
"""Task to the fewest and the most tokens of its answers, about; "" is a question of one's own."""
LIMIT = 48
BATCHES = (1, 4, 8)
SAMPLE = 4
"""Images that the batch size is chosen on."""
SAME = 0.03
"""By how much the two sides' tokens may differ in all: rounding ends some answers a token sooner."""


@dataclass(frozen=True)
class Request:
    """An image and what is asked about it."""

    image: str
    asks: list[Ask]
    """As ours is asked."""
    sentences: list[str]
    """As transformers is."""


def make_requests(images: list[str]) -> list[Request]:
    """Four questions about each image, with boxes that say how long the answers are."""
    draw = np.random.default_rng(0)
    requests = []
    for image in images:
        asks: list[Ask] = []
        sentences = []
        for task, (least, most) in LENGTHS.items():
            middle = 20 * draw.uniform(least, most)
            bins = (middle + np.array([-50, -50, 50, 50])).clip(0, 999).astype(int)
            box = "".join(f"<loc_{bin_}>" for bin_ in bins)
            asks.append((task, box) if task else f"What happens in {box}?")
            sentences.append(f"{task}{box}" if task else f"What happens in {box}?")
        requests.append(Request(image, asks, sentences))
    return requests


def ours(pair: Pair, requests: list[Request]) -> None:
    """As its users ask many questions."""
    asked = [(request.image, request.asks) for request in requests]
    for answered in pair.ours.predict_many(asked, generation=GenerationConfig(max_new_tokens=LIMIT)):
        if answered.reason:
            raise ValueError(answered.reason)


def theirs(pair: Pair, requests: list[Request], batch: int) -> int:
    """One batch after the other; the number of tokens written, without the start tokens."""
    rows = [(request.image, request.sentences[task]) for task in range(len(LENGTHS)) for request in requests]
    written = 0
    for begin in range(0, len(rows), batch):
        images, sentences = zip(*rows[begin : begin + batch], strict=True)
        for ids in pair.theirs.answers(images, sentences, {"max_new_tokens": LIMIT})[:, 1:].tolist():
            written += ids.index(END) + 1
    return written


@contextmanager
def counting(pair: Pair) -> Iterator[list[int]]:
    """Keeps how many tokens each answer of ours has."""
    counts: list[int] = []
    decode = pair.ours.processor.decode

    def counted(task, ids, *rest, **named):  # type: ignore[no-untyped-def]
        counts.append(len(ids))
        return decode(task, ids, *rest, **named)

    pair.ours.processor.decode = counted  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        pair.ours.processor.decode = decode  # type: ignore[method-assign]


def best_batch(pair: Pair, requests: list[Request]) -> int:
    """The batch size at which transformers is fastest; ours is run as well, so that both are warm.

    Raises ValueError where the two sides write answers of other lengths.
    """
    with counting(pair) as counts:
        ours(pair, requests)
    theirs(pair, requests[:1], len(LENGTHS))
    found = {}

    def run(batch: int) -> None:
        found[batch] = theirs(pair, requests, batch)

    times = in_turns({str(batch): lambda batch=batch: run(batch) for batch in BATCHES}, 1, warm=False)
    for batch, written in found.items():
        if abs(written - sum(counts)) > SAME * written:
            raise ValueError(f"ours wrote {sum(counts)} tokens and transformers, {batch} at a time, {written}")
    print(f"answers of {min(counts)} to {max(counts)} tokens; ", end="")
    print(", ".join(f"transformers {name} at a time: {time.best:.1f} s" for name, time in times.items()))
    return int(min(times, key=lambda name: times[name].best))


def compare(pair: Pair, report: Report, images: int, runs: int) -> None:
    """One line of the table."""
    requests = make_requests(photo_files(pair.folder, images))
    batch = best_batch(pair, requests[:SAMPLE])
    written = 0

    def run_theirs() -> None:
        nonlocal written
        written = theirs(pair, requests, batch)

    times = in_turns({"ours": lambda: ours(pair, requests), "theirs": run_theirs}, runs, warm=False)
    machine, parts, rows = measure(pair.dtype, report.threads), cost(report.shape), images * len(LENGTHS)
    floor = parts.vision_seconds(machine, images) + parts.encoder_seconds(machine, rows)
    floor += (written - 2 * rows) * parts.step / machine.flops
    name = f"{images} images x {len(LENGTHS)} tasks, in batches of {batch}"
    report.add(name, pair.dtype, times["ours"], times["theirs"], None, floor)


def main(
    shape: str = "base",
    dtype: str = "bf16",
    images: int = 8,
    runs: int = 1,
    threads: int = 1,
    work: Path | None = None,
    out: Path | None = None,
) -> None:
    """`work` is a folder for the checkpoint, `out` a file that lines of JSON are added to."""
    report = Report("many_images", shape, threads, out)
    for kind in dtypes(dtype):
        compare(Pair.load(shape, kind, work), report, images, runs)


if __name__ == "__main__":
    typer.run(main)
