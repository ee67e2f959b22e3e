"""One small round of the data engine on photos and scenes, without a network: what `make demo` runs.

    python recipes/demo.py --out demo

The photos are those that scikit-image brings along; scenes are written as image files from seeds that no model was
trained on, and for some of them the truth is handed over as people's labels would be. Then everything is done as with
images of your own: `init`, a changed engine.toml, a round, its labels as pages and as COCO. A demo that was stopped
goes on; one that is finished shows again what it made.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import skimage.data
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

import open_florence as of
from open_florence.cli.engine import Progress
from open_florence.data.store import Store
from open_florence.data_engine.audit.report import AuditReport
from open_florence.data_engine.engine import Engine, init
from open_florence.data_engine.export import export, labelled
from open_florence.data_engine.review.reviewing import write_page
from open_florence.data_engine.round_folder import RoundFolder, rounds
from open_florence.data_engine.status import status
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.report import write_report
from open_florence.scenes import SceneConfig, make_scene
from open_florence.scenes.vocabulary import SHAPES
from open_florence.specialists import HUMAN

FIRST_SEED = 2**41
"""Beyond all seeds of training, validation and test (`scenes/config.py`)."""

PHOTOS = ("astronaut", "camera", "chelsea", "clock", "coffee", "moon", "page", "rocket", "text")
COINS = ((0, 0, 192, 151), (0, 152, 192, 303), (96, 70, 288, 221))
"""Parts of one more photo, (left, top, right, bottom), with no more coins than a scene has objects."""
LONGEST = 480
"""Pixels of a photo's longer side, at most."""

KNOWN = ("<OD>", "<CAPTION>", "<OCR_WITH_REGION>")
"""What the truth about a scene is handed over of."""
PEOPLE = "scenes@1"
"""Who says it: the audit split takes the word of people, and of scenes, which know what was drawn."""

SETTINGS = """\
# What the demo does; docs/engine.md has every field.
images = ["../images"]
tasks = ["<OD>", "<CAPTION>", "<DETAILED_CAPTION>", "<OCR_WITH_REGION>"]
shard = 16

# Who annotates. All in this process: none of them hangs or dies, and starting another takes seconds.
[[specialist]]
name = "labels"                     # what people said about a few of the images
labels = "../human.jsonl"
isolate = false

[[specialist]]
name = "florence"
model = "tiny"
tasks = ["<OD>", "<CAPTION>", "<OCR_WITH_REGION>"]
isolate = false
{tesseract}
[[specialist]]
name = "grabcut"                    # masks of the boxes that are kept, by OpenCV
isolate = false

[[specialist]]
name = "attributes"                 # their colours and sizes, in words
isolate = false

[[filter]]
name = "degenerate"
[[filter]]
name = "ontology"
[[filter]]
name = "score"                      # those of tiny are low (docs/scores.md): most of its boxes have under 0.1
thresholds = 0.01
[[filter]]
name = "nms"
[[filter]]
name = "length"
[[filter]]
name = "repetition"
[[filter]]
name = "claims"

[train]                             # so short and gentle that tiny keeps what it knows: 1500 steps are usual
model = "tiny"
tasks = ["<OD>", "<CAPTION>"]
steps = {steps}
learning_rate = 2e-5

[audit]                             # of what people labelled, so many images are for measuring alone
labels = "../human.jsonl"
images = {audited}
"""

TESSERACT = """
[[specialist]]
name = "tesseract"                  # text, by the program of that name
psm = 11
min_confidence = 0.85
workers = 2
isolate = false
"""

EXPLAINED = {
    "images": "Looking at the images.",
    "annotate": "annotate: everybody says what is in the images, each for itself",
    "filter": "filter: answers are kept or dropped, each with a reason; several that mean one thing become one",
    "elaborate": "elaborate: masks, colours and sizes for the boxes that were kept",
    "enhance": "enhance: what follows from the kept labels: phrases with their places, longer descriptions",
    "train": "train: a copy of the model learns from these labels, and never from an audited image",
    "reannotate": "reannotate: it says what is in the images, too",
    "merge": "merge: the answers are judged again, its own among them: these are the round's labels",
    "audit": "audit: the labels are compared with the truth of images that nothing was trained on",
}
"""Step -> what it is, said when it begins."""


class Steps(Progress):
    """The command line's progress, with a sentence before each step."""

    def __init__(self) -> None:
        super().__init__()
        self._explained: set[str] = set()

    def __call__(self, step: str, done: int, total: int) -> None:
        """Takes in how far a step is, as "annotate florence@1"."""
        name = step.partition(" ")[0]
        if name in EXPLAINED and name not in self._explained:
            self.say(EXPLAINED[name])
        self._explained.add(name)
        super().__call__(step, done, total)


def photos() -> Iterator[tuple[str, Image.Image]]:
    """The photos with their names."""
    yield from ((f"coins-{number}", _photo("coins").crop(part)) for number, part in enumerate(COINS, start=1))
    for name in PHOTOS:
        photo = _photo(name).convert("RGB")
        photo.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        yield name, photo


def _photo(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)())


def write_images(folder: Path, scenes: int) -> list[of.Sample]:
    """Writes photos and scenes as PNG files; returns every second scene with its truth."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, photo in photos():
        photo.save(folder / f"{name}.png")
    truth = []
    for number in range(scenes):
        scene, path = make_scene(FIRST_SEED + number, SceneConfig()), folder / f"scene-{number + 1:02d}.png"
        Image.fromarray(scene.image).save(path)
        known = tuple(replace(a, source=PEOPLE) for a in scene.sample.annotations if a.task in KNOWN)
        truth.append(replace(scene.sample, id=image_id(path), path=os.path.abspath(path), annotations=known))
    return truth[::2]


def begin(out: Path, scenes: int, steps: int) -> Path:
    """Writes the images and begins an engine in `out`/labels, which is returned; a round that has begun stays."""
    labels = out / "labels"
    if rounds(labels):
        return labels
    truth = write_images(out / "images", scenes)
    of.write(out / "human.jsonl", truth)
    (out / "classes.txt").write_text("\n".join(SHAPES), "utf-8")
    if not (labels / "engine.toml").exists():
        init(labels, [out / "images"], out / "classes.txt", out / "human.jsonl")
    reads = shutil.which("tesseract") is not None
    if not reads:
        print("The program tesseract is not installed: the model reads alone.")
    text = SETTINGS.format(tesseract=TESSERACT if reads else "", steps=steps, audited=max(1, len(truth) * 2 // 3))
    (labels / "engine.toml").write_text(text, "utf-8")
    return labels


def run(labels: Path) -> RoundFolder:
    """The last finished round; without any the first is done, or gone on with. Exits with 130 when interrupted."""
    if not _finished(labels):
        with Steps() as progress:
            try:
                Engine(labels, show=progress, say=progress.say).run()
            except KeyboardInterrupt:
                progress.stop()
                print("demo: stopped; the same command goes on from there", file=sys.stderr)
                raise SystemExit(130) from None
    return _finished(labels)[-1]


def _finished(labels: Path) -> list[RoundFolder]:
    return [one for one in rounds(labels) if (one.manifest() or {}).get("labels")]


def write_results(out: Path, chosen: RoundFolder) -> list[tuple[str, Path]]:
    """Writes the labels as a page to look at, as a page to judge and as COCO: what each is, and where."""
    labels, about = chosen.labels, {"model": "a round of the engine", "date": (chosen.manifest() or {})["date"]}
    samples = sorted(labelled(Store(labels / "store"), chosen), key=lambda sample: Path(sample.path).name)
    of.write(out / "annotations.jsonl", samples)
    (out / "run.json").write_text(json.dumps(about), "utf-8")
    report = write_report(out)
    review, claims = write_page(labels, chosen, 60, classes=SHAPES)
    coco = out / f"coco-{chosen.name}.json"
    if not coco.exists():
        export(labels, coco, "coco", chosen.number)
    return [("all labels on their images", report), (f"{claims} labels to judge", review), ("COCO", coco)]


def audited(chosen: RoundFolder) -> Iterator[tuple[str, str, str]]:
    """Who found objects in the audited images, and how right that was: name, precision, recall."""
    said = {source.partition("@")[0]: record for source, record in chosen.read("audit-sources.json").items()}
    said.pop(HUMAN, None)
    said["the round's labels"] = chosen.read("audit.json")
    for name, record in said.items():
        row = AuditReport.from_json(record).region_row("<OD>")
        if row is not None and row.precision is not None and row.recall is not None and row.total.right:
            yield name, f"{row.precision.value:.0%}", f"{row.recall.value:.0%}"


def print_summary(chosen: RoundFolder, results: list[tuple[str, Path]]) -> None:
    """What was made, how good it is, and where it lies."""
    found, console = status(chosen.labels), Console(soft_wrap=True)
    manifest = chosen.manifest() or {}
    sources, tasks = found["counts"]["source"], found["counts"]["task"]
    dropped = [one for one in found["dropped"] if one["step"] == found["labels"]]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("images", str(found["images"]["ok"]))
    table.add_row("labels", f"{sum(tasks.values())} answers to {len(tasks)} tasks")
    table.add_row("by", ", ".join(f"{name.partition('@')[0]} {count}" for name, count in sources.items()))
    table.add_row("regions dropped", ", ".join(f"{one['reason']} {one['regions']}" for one in dropped[:6]))
    table.add_row("objects, audited", "precision  recall")
    for name, precision, recall in audited(chosen):
        table.add_row(f"  {name}", f"{precision:>9}  {recall:>6}")
    ended = "promoted" if manifest["promoted"] else f"not promoted: {'; '.join(manifest['reasons'])}"
    table.add_row(f"round {chosen.number}", ended)
    for name, path in results:
        table.add_row(name, f"[bold]{path}[/bold]")
    console.print(table)
    sibling = Path(sys.executable).with_name("open-florence")
    command = f"{'open-florence' if shutil.which('open-florence') else os.path.relpath(sibling)} engine"
    print("\nThe model that ships knows shapes and words: in photos it finds coins, and little else.")
    print(f"More: {command} status {chosen.labels}; another round: {command} run {chosen.labels}")


def main(
    out: Annotated[Path, typer.Option(help="Where images, labels and pages go.")] = Path("demo"),
    scenes: Annotated[int, typer.Option(min=4, help="How many scenes.")] = 48,
    steps: Annotated[int, typer.Option(min=1, help="How long the model is trained.")] = 40,
) -> None:
    """One small round of the data engine, offline, and pages that show what came of it."""
    labels = begin(out, scenes, steps)
    chosen = run(labels)
    print_summary(chosen, write_results(out, chosen))


if __name__ == "__main__":
    try:
        typer.run(main)
    except OpenFlorenceError as error:
        raise SystemExit(f"demo: {error}") from None
