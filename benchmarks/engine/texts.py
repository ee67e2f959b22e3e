"""Wrong captions and misread words: what the engine makes of several captioners and readers whose mistakes are known.

python benchmarks/engine/texts.py

Scenes with printed words. Three captioners: each writes the true brief caption and, in three images of ten, replaces
one word of its shapes, colours or textures by another; the second repeats the first's mistakes at a rate of .6. Three
readers: each misses a fifth of the words and gets every letter wrong at a rate of 4 %. Boxes come from the three noisy
detectors of `noise.py`, fused. Means over three sets of scenes, with half the width of the 95 % t interval.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import typer
from loop_table import interval
from noise import CORRELATION, NAMES, detectors

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.filters.claims import claims
from open_florence.data_engine.fusion import Fusion, learn
from open_florence.data_engine.fusion.ocr_fusion import OcrFusion
from open_florence.data_engine.fusion.texts import TextChoice
from open_florence.data_engine.ontology import Ontology
from open_florence.evaluation import attribute_f1
from open_florence.evaluation.scenes import ATTRIBUTES
from open_florence.scenes import SceneConfig, make_scene
from open_florence.scenes.vocabulary import CHARACTERS, COLOURS, SHAPES, TEXTURES
from open_florence.schema import Annotation, Region, Sample

WRONG_CAPTION, MISSED_WORD, WRONG_LETTER = 0.3, 0.2, 0.04
READ, MISREAD = (6.0, 2.0), (3.0, 3.0)
"""Parameters of the Beta distribution that a reader's confidence is drawn from."""
BACK = {name: shape for shape, name in NAMES.items()}
KINDS = (tuple(SHAPES), tuple(COLOURS), tuple(TEXTURES))


def of_task(sample: Sample, task: str) -> Annotation | None:
    """The sample's first annotation of a task."""
    return next((a for a in sample.annotations if a.task == task), None)


def captioned(sample: Sample, seed: int) -> list[Annotation]:
    """What three captioners say."""
    truth = of_task(sample, "<CAPTION>")
    assert truth is not None
    mistakes = [_mistaken(truth.text, random.Random(f"{name}-{seed}-{sample.id}")) for name in ("a", "b", "c")]
    if random.Random(f"copy-{seed}-{sample.id}").random() < CORRELATION:
        mistakes[1] = mistakes[0]
    return [Annotation("<CAPTION>", text, source=f"{name}@1") for name, text in zip("abc", mistakes, strict=True)]


def _mistaken(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    places = [(k, kind) for k, word in enumerate(words) for kind in KINDS if word.rstrip("s,.") in kind]
    if not places or rng.random() >= WRONG_CAPTION:
        return text
    place, kind = rng.choice(places)
    stem = words[place].rstrip("s,.")
    other = rng.choice([word for word in kind if word != stem])
    words[place] = words[place].replace(stem, other)
    return " ".join(words)


def read(sample: Sample, seed: int) -> list[Annotation]:
    """What three readers read."""
    truth = of_task(sample, "<OCR_WITH_REGION>")
    said = []
    for name in "xyz":
        rng = random.Random(f"{name}-{seed}-{sample.id}")
        regions = [_misread(region, rng) for region in (truth.regions if truth else ()) if rng.random() >= MISSED_WORD]
        said.append(Annotation("<OCR_WITH_REGION>", regions=tuple(regions), source=f"{name}@1"))
    return said


def _misread(region: Region, rng: random.Random) -> Region:
    text = "".join(rng.choice(CHARACTERS) if rng.random() < WRONG_LETTER else c for c in region.label)
    return replace(region, label=text, score=rng.betavariate(*(READ if text == region.label else MISREAD)))


def words(annotation: Annotation | None) -> Counter[str]:
    """The words of an answer."""
    return Counter(region.label for region in annotation.regions) if annotation else Counter()


def candidates(annotations: Sequence[Annotation]) -> list[Candidate]:
    """With made-up ids."""
    return [Candidate(str(k), a) for k, a in enumerate(annotations)]


def run(seed: int, images: int) -> dict[str, float]:
    """The figures of one set of scenes."""
    config = SceneConfig(size=160, text=1.0, crowd=0.0)
    samples = [make_scene(seed * 10_000 + 500_000 + k, config).sample for k in range(images)]
    boxed = [replace(s, annotations=(_renamed(of_task(s, "<OD>")),)) for s in samples]
    boxes = [[a[0] for a in said] for said in zip(*(d.annotate(boxed) for d in detectors(boxed, seed)), strict=True)]
    fusion = Fusion(learn(boxes))
    ontology = Ontology.of(SHAPES)
    judge, choose, fuse = claims(ontology), TextChoice(ontology), OcrFusion()
    truth, one, left, chosen = [], [], [], []
    true_words: Counter[str] = Counter()
    found: dict[str, Counter[str]] = {"one reader": Counter(), "fused": Counter()}
    right: dict[str, int] = dict.fromkeys(found, 0)
    for sample, seen in zip(samples, boxes, strict=True):
        regions = _shapes(fusion(sample, candidates(seen))[0].annotation)
        said = captioned(sample, seed)
        kept = [d for d in judge(sample, candidates([regions, *said])) if d.status == "kept"]
        kept_captions = [d.annotation for d in kept if d.annotation.task == "<CAPTION>"]
        picked = choose(sample, candidates([regions, *kept_captions]))
        final = [d.annotation.text for d in picked if d.status == "kept" and d.annotation.task == "<CAPTION>"]
        true_caption = of_task(sample, "<CAPTION>")
        assert true_caption is not None
        truth.append(true_caption.text)
        one.append(said[0].text)
        left.append((true_caption.text, [a.text for a in kept_captions]))
        chosen.append(final[0] if final else "")
        real = words(of_task(sample, "<OCR_WITH_REGION>"))
        true_words += real
        lines = read(sample, seed)
        fused = [d.annotation for d in fuse(sample, candidates(lines)) if d.status == "kept"]
        answer = next((a for a in fused if a.task == "<OCR_WITH_REGION>"), None)
        for name, got in (("one reader", words(lines[0])), ("fused", words(answer))):
            found[name] += got
            right[name] += (got & real).total()
    written = [(a, b) for a, b in zip(truth, chosen, strict=True) if b]
    passed = [text == true for true, texts in left for text in texts]
    return {
        "captions right, one captioner": _share([a == b for a, b in zip(truth, one, strict=True)]),
        "captions right, of those the claims filter leaves": _share(passed),
        "captions right, chosen": _share([a == b for a, b in written]),
        "images left with a caption": len(written) / len(truth),
        "attribute F1, one captioner": attribute_f1(truth, one, ATTRIBUTES).value,
        "attribute F1, chosen": attribute_f1(*map(list, zip(*written, strict=True)), ATTRIBUTES).value,
        **{
            f"words, {name}: {figure}": right[name] / max(of.total(), 1)
            for name in found
            for figure, of in (("precision", found[name]), ("recall", true_words))
        },
    }


def _renamed(annotation: Annotation | None) -> Annotation:
    assert annotation is not None
    return replace(annotation, regions=tuple(replace(r, label=NAMES[r.label]) for r in annotation.regions))


def _shapes(annotation: Annotation) -> Annotation:
    return replace(annotation, regions=tuple(replace(r, label=BACK[r.label]) for r in annotation.regions))


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / max(len(marks), 1)


def main(images: int = 400, seeds: int = 3) -> None:
    """Prints the table."""
    figures = [run(seed, images) for seed in range(seeds)]
    for name in figures[0]:
        print(f"| {name} | {interval([one[name] for one in figures])} |")


if __name__ == "__main__":
    typer.run(main)
