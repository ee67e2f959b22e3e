"""Constrained decoding: answers that cannot be read, with and without it, and what the short way to a place saves.

python benchmarks/constraints.py [--scenes 100] [--repeats 30] [--only answers|steps]

Answers: the shipped model on scenes that it was not trained on, then the same with noise on its decoder, so that its
answers break: how many are not understood as a whole, how many have labels that nobody asked for, how many the
constraint changed, and what it does to detection. Steps: one token of a decoder of the published base shape with random
weights, on one thread: its layers, then the whole output layer, the same with a mask, and the rows of locations alone.
"""

import argparse
import time
from collections.abc import Callable

import torch

from open_florence.evaluation.evaluate import evaluate
from open_florence.generation import GenerationConfig
from open_florence.inference.asking import Question, Said
from open_florence.inference.legal import Legal
from open_florence.inference.predictor import Predictor
from open_florence.inference.pretrained import load_model
from open_florence.legal_tokens import automaton
from open_florence.model.config import PRESETS
from open_florence.model.florence import Florence, Memory
from open_florence.schema import Annotation
from open_florence.tasks import TASKS, TextGrammar

NAMED, GROUNDED = "<OPEN_VOCABULARY_DETECTION>", "<CAPTION_TO_PHRASE_GROUNDING>"
PLACES = [token for token, task in TASKS.items() if not isinstance(task.grammar, TextGrammar)]
LIMIT = 256
NOISES = (0.0, 0.4, 0.5)
"""Standard deviations of the noise, as parts of each matrix's own."""
MEMORY, SAID = 600, 20
"""Tokens that the decoder of the second table reads: of image and question, and of its own."""


class Watched(Predictor):
    """A predictor that counts what is wrong with what it says."""

    def __init__(self, noise: float) -> None:
        """The shipped model with noise on the matrices of its decoder."""
        model, processor = load_model("tiny")
        dice = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.language_model.decoder.parameters():
                if weight.dim() > 1:
                    weight += noise * weight.std() * torch.randn(weight.shape, generator=dice)
        super().__init__(model, processor)
        self.said: list[tuple[object, ...]] = []
        self.unreadable = self.cut = self.unasked = self.tokens = 0

    def annotation(self, question: Question, said: Said) -> Annotation:
        """Counts, and answers as ever."""
        text = self.processor.tokenizer.decode(said.ids)
        read = question.task.grammar.parse(text, question.size, question.query)
        labels = [region.label for region in read.regions]
        self.said.append((text,))
        self.tokens += len(said.ids)
        self.unreadable += not read.complete or read.dropped > 0
        self.cut += said.stopped == "length"
        if question.task.token == NAMED:
            self.unasked += not set(labels) <= set(str(question.query).split("<and>"))
        if question.task.token == GROUNDED:
            self.unasked += not all(label.lower() in str(question.query).lower() for label in labels)
        return super().annotation(question, said)


def main() -> None:
    """Prints one table or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--only", choices=("answers", "steps"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only != "steps":
        print_answers(given.scenes)
    if given.only != "answers":
        print_steps(given.repeats)


def print_answers(scenes: int) -> None:
    """Two rows a model: as it likes, and constrained."""
    print("| noise | constrained | answers | not understood | cut | not asked for | changed | tokens | OD AP50 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for noise in NOISES:
        free: list[tuple[object, ...]] = []
        for constrained in (False, True):
            predictor = Watched(noise)
            settings = GenerationConfig(max_new_tokens=LIMIT, constrained=constrained)
            report = evaluate(predictor, "scenes:validation", scenes, progress=False, tasks=PLACES, generation=settings)
            changed = sum(one != other for one, other in zip(free, predictor.said, strict=True)) if constrained else 0
            free = predictor.said
            counts = len(free), predictor.unreadable, predictor.cut, predictor.unasked, changed, predictor.tokens
            row = (noise, "yes" if constrained else "no", *counts, f"{report.metrics['od_ap50']:.3f}")
            print("|", " | ".join(map(str, row)), "|", flush=True)


def print_steps(repeats: int) -> None:
    """A row for each number of answers decoded together; the best of so many times, in turns."""
    torch.manual_seed(0)
    model = Florence(PRESETS["base"]).eval()
    model.pack()
    tokenizer = load_model("tiny")[1].tokenizer
    print("\n| rows | layers ms | whole output layer ms | with a mask ms | locations alone ms | step: whole / short |")
    print("|---|---|---|---|---|---|")
    vocabulary, width = model.config.text.vocab_size, model.config.text.d_model
    boxes = automaton(TASKS["<REGION_PROPOSAL>"], None, tokenizer, vocabulary)
    assert boxes is not None
    place = boxes.lexicon.locations.start
    for rows in (1, 8):
        with torch.inference_mode():
            memory = Memory(torch.randn(rows, MEMORY, width), torch.ones(rows, MEMORY, dtype=torch.bool))
            cache = model.new_cache()
            hidden = model.hidden(torch.full((rows, SAID), 7), memory, cache)[:, -1]  # (R, d)
            one = torch.full((rows, 1), 7)
            start, within = Legal(vocabulary), Legal(vocabulary)
            for legal in (start, within):
                legal.add(boxes, LIMIT, rows)
            within.advance([place] * rows)
            times = fastest(
                repeats,
                lambda one=one, memory=memory, cache=cache: model.hidden(one, memory, cache),
                lambda hidden=hidden: model.logits(hidden),
                lambda hidden=hidden, legal=start: legal.logits(model, hidden),
                lambda hidden=hidden, legal=within: legal.logits(model, hidden),
            )
        layers, whole, masked, short = (1000 * seconds for seconds in times)
        print(
            f"| {rows} | {layers:.1f} | {whole:.1f} | {masked:.1f} | {short:.2f} "
            f"| {(layers + whole) / (layers + short):.2f} |"
        )
    print(f"\nPython: {automaton_cost(boxes, place):.1f} us a row and step")


def fastest(repeats: int, *works: Callable[[], object]) -> list[float]:
    """The seconds each takes at best."""
    times = [float("inf")] * len(works)
    for _ in range(repeats):
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            times[index] = min(times[index], time.perf_counter() - start)
    return times


def automaton_cost(boxes: object, place: int, rows: int = 64, steps: int = 100) -> float:
    """Microseconds that a row's grammar takes a step."""
    legal = Legal(boxes.vocabulary)  # type: ignore[attr-defined]
    legal.add(boxes, 10**6, rows)  # type: ignore[arg-type]

    def work() -> None:
        for _ in range(steps):
            legal.advance([place] * rows)
            [legal.only_locations(row) for row in range(rows)]

    return 1e6 * fastest(5, work)[0] / rows / steps


if __name__ == "__main__":
    main()
