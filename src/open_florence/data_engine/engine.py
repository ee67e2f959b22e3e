"""The engine in a folder: begun once, then run round by round; what the command line calls.

LABELS/engine.toml, ontology.toml    what to do; written by `init`, changed by people
LABELS/store/                        everything that was said about the images
LABELS/audit/                        the frozen audit split
LABELS/rounds/001/                   a round
LABELS/claims/                       what processes are working on
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from open_florence.data.jsonl import write_whole
from open_florence.data.store import Store
from open_florence.data_engine.audit.split import AuditSplit
from open_florence.data_engine.closing import abandon
from open_florence.data_engine.config import NAME, EngineConfig, read_config, resolve
from open_florence.data_engine.intake import TakenIn, find_images, take_in
from open_florence.data_engine.job import Job, Shown
from open_florence.data_engine.ontology import Ontology
from open_florence.data_engine.recipe import Recipe, recipe_of
from open_florence.data_engine.round import run_round
from open_florence.data_engine.round_folder import RoundFolder, rounds
from open_florence.data_engine.work import Locks
from open_florence.errors import OpenFlorenceError

ONTOLOGY = "ontology.toml"

TEMPLATE = """\
# What the engine does; docs/engine.md has every field.
images = [{images}]
tasks = ["<OD>", "<CAPTION>"]

# Who annotates: docs/specialists.md has them all.
[[specialist]]
name = "florence"
model = "tiny"
tasks = ["<OD>", "<CAPTION>"]
{labels}
# What is trained on the labels in each round, and then annotates, too.
[train]
model = "tiny"
steps = 1500

# Human labels of images that nothing is trained on, and that every round is measured with.
[audit]
{audit}images = 100
"""


def _nothing(*_: object) -> None:
    pass


def init(folder: Path, images: Sequence[str | Path], ontology: Path | None = None, labels: Path | None = None) -> Path:
    """Begins an engine in `folder`: writes engine.toml and ontology.toml, and returns the former.

    `ontology`: a file as docs/ontology.md says, or a text file with a class a line; without one nothing is left out.
    `labels`: human labels, of which a part becomes the audit split and the rest are a specialist. Raises
    OpenFlorenceError where an engine is there already, and for images, an ontology or labels that cannot be read.
    """
    if (folder / NAME).exists():
        raise OpenFlorenceError(f"{folder} holds an engine already: go on with open-florence engine run {folder}")
    places = [str(place) if "://" in str(place) else os.path.abspath(place) for place in images]
    find_images(places, folder)
    classes = _ontology_text(ontology)
    human = ""
    if labels is not None:
        if not labels.exists():
            raise OpenFlorenceError(f"there is no file or folder {labels}")
        human = f'\n[[specialist]]\nname = "labels"\nlabels = {_quoted(os.path.abspath(labels))}\n'
    audit = f"labels = {_quoted(os.path.abspath(labels))}\n" if labels else ""
    text = TEMPLATE.format(images=", ".join(map(_quoted, places)), labels=human, audit=audit)
    write_whole(folder / ONTOLOGY, [classes.encode()])
    Ontology.load(folder / ONTOLOGY)
    write_whole(folder / NAME, [text.encode()])
    return folder / NAME


class Engine:
    """An engine that was begun."""

    def __init__(
        self,
        folder: str | Path,
        recipe: Recipe | None = None,
        images: Sequence[str] = (),
        show: Shown = _nothing,
        say: Callable[[str], object] = _nothing,
    ) -> None:
        """`recipe` and `images` stand in for engine.toml, which is read otherwise.

        `show(step, done, total)` is told how far a step is, `say(sentence)` what a person should know.
        """
        self.folder = Path(folder)
        self._recipe, self._images = recipe, tuple(images)
        self._show, self._say = show, say
        self._locks = Locks(self.folder / "claims")

    def run(
        self, rounds: int = 1, until: str | None = None, *, force: bool = False, abandoned: bool = False
    ) -> list[dict[str, Any]]:
        """Finishes the round that was begun or does the next, and so on until `rounds` are done; their manifests.

        With `until`, the name of a step, the last stops after it. `force` begins a round although the last was not
        promoted; `abandoned` closes the round that was begun. Stops early at a round that is not promoted. What was
        killed goes on when it is called again; several processes may call it at once. Raises OpenFlorenceError for
        whatever a person has to mend.
        """
        config, recipe = self._prepared()
        store = Store(self.folder / "store", create=True)
        manifests = []
        for number in range(rounds):
            begun = self._begin(store, config, recipe, force and not number, abandoned and not number)
            job = Job(store, self._locks, begun, recipe, self._show, self._say)
            manifest = run_round(job, until if number == rounds - 1 else None)
            if manifest is None:
                break
            manifests.append(manifest)
            if not manifest["promoted"]:
                break
        return manifests

    def take_in(self, store: Store, config: EngineConfig | None, recipe: Recipe) -> TakenIn:
        """Adds the images that are new to the store, those of the audit split among them."""
        sources = [resolve(self.folder, place) for place in (config.images if config else self._images)]
        audited = [sample.path for sample in recipe.split.samples] if recipe.split else []

        def shown(done: int, total: int) -> None:
            if total:
                self._show("images", done, total)

        taken = take_in(
            store,
            [*sources, *audited],
            keep_bytes=config.take_in if config else False,
            near=config.near_duplicates if config else None,
            on_progress=shown,
        )
        if taken.quarantined:
            self._say(f"{taken.quarantined} files cannot be read as images: engine status says why")
        return taken

    def _prepared(self) -> tuple[EngineConfig | None, Recipe]:
        """What is to be done, checked, and the audit split, chosen."""
        if self._recipe is not None:
            _check_guard(self._recipe.guard)
            return None, self._recipe
        config = read_config(self.folder)
        _check_guard(config.guard)
        path = self.folder / ONTOLOGY
        ontology = Ontology.load(path) if path.exists() else Ontology()
        with self._locks.wait("audit split"):
            split = self._split(config)
        return config, recipe_of(self.folder, config, ontology, split)

    def _split(self, config: EngineConfig) -> AuditSplit | None:
        """The audit split, chosen when it is asked for first."""
        place = self.folder / "audit"
        if (place / "manifest.json").exists():
            return AuditSplit.load(place)
        if config.audit.labels is None:
            return None
        if any(one.checkpoint.exists() for one in rounds(self.folder)):
            raise OpenFlorenceError(
                f"{self.folder} has trained a model already, so its audit split cannot be chosen any more: "
                "begin a new folder, or take [audit] labels out of engine.toml"
            )
        from open_florence.data import read

        self._say("choosing the audit split")
        audit, problems = config.audit, list[str]()
        samples = read(resolve(self.folder, audit.labels or ""), on_error=problems.append)
        split = AuditSplit.choose(samples, audit.images, audit.seed, audit.near)
        for problem in problems[:3]:
            self._say(problem)
        return split.freeze(place)

    def _begin(
        self, store: Store, config: EngineConfig | None, recipe: Recipe, force: bool, abandoned: bool
    ) -> RoundFolder:
        """The round to work on: the one that was begun, or the next, with the images that are there now."""
        waiting = "another process is looking for new images: waiting for it"
        with self._locks.wait("begin", lambda: self._say(waiting)):
            last = next(reversed(rounds(self.folder)), None)
            if last is not None and last.manifest() is None:
                if not abandoned:
                    return last
                abandon(Job(store, self._locks, last, recipe))
            elif last is not None:
                _may_go_on(last, force)
            self.take_in(store, config, recipe)
            begun = RoundFolder(self.folder, last.number + 1 if last else 1)
            images = [row.id for row in store.images()]
            if not images:
                raise OpenFlorenceError(f"none of the images of {self.folder} can be read: engine status says why")
            facts = {
                "shard": recipe.shard,
                "images": len(images),
                "ontology": recipe.ontology.version,
                "migrations": [one.id for one in recipe.ontology.migrations],
                "version": importlib.metadata.version("open-florence"),
            }
            begun.begin(images, facts)
            return begun


def _check_guard(options: Mapping[str, Any]) -> None:
    """Raises OpenFlorenceError for a field of [guard] that is wrong, which is asked for at the end of a round only."""
    if options:
        from open_florence.data_engine.audit.guards import GuardConfig

        GuardConfig.of(options)


def _may_go_on(last: RoundFolder, force: bool) -> None:
    """Raises OpenFlorenceError, with what can be done, after a round that was not promoted."""
    manifest = last.manifest() or {}
    if manifest["promoted"] or manifest.get("abandoned") or force:
        return
    raise OpenFlorenceError(
        f"round {last.number} was not promoted: {'; '.join(manifest['reasons'])}. Look at it with engine status, judge "
        "labels with engine review or change engine.toml; --force begins the next round from the last promoted model"
    )


def _ontology_text(path: Path | None) -> str:
    """The text of ontology.toml. Raises OpenFlorenceError for a file that is no ontology and no list of classes."""
    if path is None:
        return "# Nothing is left out while there are no classes; docs/ontology.md says how to write them.\n"
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OpenFlorenceError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if path.suffix != ".toml":
        return Ontology.template([line.strip() for line in text.splitlines() if line.strip()])
    Ontology.load(path)
    return text


def _quoted(text: str) -> str:
    """A string as TOML writes it."""
    return json.dumps(text, ensure_ascii=False)
