"""A folder of images becomes an annotated folder, in a run that may be killed at any moment and goes on when repeated.

What is written, and how it survives, is `annotated_folder`'s; here a stream of images goes through a model into it. A
run first cuts off what a crash left of a last line, then annotates what is not done: a crash costs the images in work
and at most the last `batch_size` answered, and no image gets two lines. Failed images are tried again by the next run.
Memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from open_florence.annotated_folder import AnnotatedFolder, Failure
from open_florence.errors import OpenFlorenceError
from open_florence.images import list_images
from open_florence.inference.batches import Answered, in_batches
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import NOTHING, Removed, Selection, sum_removed
from open_florence.tasks import find_task

if TYPE_CHECKING:
    from open_florence.generation import GenerationConfig

Ask = str | tuple[str, Any]
"""A task, or a task and its query, as `Predictor.predict` takes them."""

SYNC_EVERY = 1.0
"""Seconds that an answered image may wait for its line; batches that fill faster are written at once."""


class Annotator(Protocol):
    """What `annotate` needs of a model; `Predictor` is one, and so is anything with these two names.

    Where there is a `predict_many` as well, with the arguments of `Predictor.predict_many`, the images go through it.
    """

    @property
    def source(self) -> str:
        """What its annotations call their source."""
        ...

    def predict_batch(
        self, images: Sequence[Any], tasks: list[Ask], *, generation: GenerationConfig | None
    ) -> list[list[Annotation]]:
        """The answers to all tasks for each image, both in the order given."""
        ...


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a run has come, in images."""

    total: int
    """Images that were found."""
    before: int
    """Already annotated by earlier runs."""
    done: int = 0
    """Annotated by this run."""
    failed: int = 0
    """Written to failed.jsonl by this run."""
    removed: Removed = NOTHING
    """Regions that this run's answers held and `selection` left out."""


def annotate(
    sources: str | Path | Iterable[str | Path],
    tasks: Sequence[Ask],
    out: str | Path,
    predictor: Annotator,
    batch_size: int = 8,
    *,
    workers: int = 0,
    checkpoint: str = "",
    generation: GenerationConfig | None = None,
    selection: Selection | None = None,
    restart: bool = False,
    on_progress: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Annotates the images of a folder, or of several files and folders, into the folder `out`.

    Images come in the order of `list_images`; each path is annotated once, also where two hold the same picture. A
    file that is no image, and an image on which the model fails by itself, go to failed.jsonl and the run goes on.
    `batch_size` images are encoded at a time, opened ahead by `workers` processes (0: one thread). `checkpoint` says
    which weights these are where `predictor.source` is not enough; `generation` is passed on to the predictor;
    `selection` says which regions of the answers are kept. `restart` throws away what `out` holds. `on_progress` is
    called whenever lines were synced to the disk: every `batch_size` images, or every second.

    Raises OpenFlorenceError, before anything is annotated, where there are no images, a task is unknown, `out` cannot
    be written, is in use by another run, or was made with other settings (model, tasks, version); and where the model
    refuses the question for each of the first `batch_size` images.
    """
    if not tasks:
        raise OpenFlorenceError("there is no task to annotate with")
    if batch_size < 1:
        raise OpenFlorenceError(f"the batch size is at least 1, not {batch_size}")
    settings = {
        "model": predictor.source,
        "checkpoint": checkpoint or predictor.source,
        "tasks": [_task_record(*ask) if isinstance(ask, tuple) else _task_record(ask) for ask in tasks],
        "generation": asdict(generation) if generation else "default",
        "selection": asdict(selection) if selection else None,
        "version": importlib.metadata.version("open-florence"),
    }
    paths = _images(sources, Path(out))
    with AnnotatedFolder(Path(out), settings, restart) as folder:
        todo = [path for path in paths if str(path) not in folder.done]
        tally = Tally(len(paths), len(paths) - len(todo))
        folder.forget_failures(todo)
        on_progress(tally)
        with contextlib.closing(_answers(todo, list(tasks), predictor, batch_size, workers, generation)) as answers:
            for some in _groups(answers, batch_size):
                tally = _write(folder, some, todo, selection, tally)
                on_progress(tally)
    return tally


def _answers(
    paths: Sequence[Path],
    tasks: list[Ask],
    predictor: Annotator,
    batch_size: int,
    workers: int,
    generation: GenerationConfig | None,
) -> Generator[Answered]:
    """What the predictor says about each image, in order."""
    requests = ((path, tasks) for path in paths)
    many = getattr(predictor, "predict_many", None)
    if many is not None:
        return many(requests, generation=generation, workers=workers, max_images=batch_size, with_id=True)  # type: ignore[no-any-return]

    def answer(batch: list[tuple[Any, Any]]) -> list[list[Annotation]]:
        return predictor.predict_batch([image for image, _ in batch], tasks, generation=generation)

    return in_batches(answer, requests, batch_size, with_id=True)


def _groups(answers: Iterable[Answered], size: int) -> Iterator[list[Answered]]:
    """What is written together: `size` answers, or those of `SYNC_EVERY` seconds if there is a good one among them."""
    group: list[Answered] = []
    since = 0.0
    for answered in answers:
        since = since if group else time.monotonic()
        group.append(answered)
        late = time.monotonic() - since > SYNC_EVERY and not all(other.reason for other in group)
        if late or len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _write(
    folder: AnnotatedFolder,
    answers: Sequence[Answered],
    paths: Sequence[Path],
    selection: Selection | None,
    tally: Tally,
) -> Tally:
    """Writes some answers about `paths`; the tally with them. Raises OpenFlorenceError, see `annotate`."""
    samples, removed = [], [tally.removed]
    failures = [Failure(paths[answered.index], answered.reason) for answered in answers if answered.reason]
    for answered in answers:
        if not answered.reason:
            annotations = answered.annotations
            if selection is not None:
                annotations, gone = selection.apply_all(annotations)
                removed.append(gone)
            samples.append(Sample(answered.id, str(paths[answered.index]), answered.size, tuple(annotations)))
    refusals = [answered.reason for answered in answers if answered.is_refused]
    if refusals and not (samples or tally.done or tally.before):
        raise OpenFlorenceError(refusals[0])  # it is the question: no image would fare better
    folder.append(samples, failures)
    done, failed = tally.done + len(samples), tally.failed + len(failures)
    return replace(tally, done=done, failed=failed, removed=sum_removed(removed))


def _images(sources: str | Path | Iterable[str | Path], out: Path) -> list[Path]:
    """Absolute paths, each once, so that a run continues from any working directory; none of the report in `out`."""
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    found = dict.fromkeys(Path(os.path.abspath(path)) for source in given for path in list_images(source))
    report = Path(os.path.abspath(out / "report"))
    paths = [path for path in found if report not in path.parents]
    if not paths:
        raise OpenFlorenceError(f"there is no image in {', '.join(map(str, given)) or 'an empty list'}")
    return paths


def _task_record(name: str, query: Any = None) -> dict[str, Any]:
    """A task of run.json. Raises OpenFlorenceError for a task that does not exist, or a query that is not its kind."""
    task = find_task(name)
    plain = query
    if query is not None and not isinstance(query, str | Region):
        plain = [value if isinstance(value, str) else float(value) for value in query]
        words = all(isinstance(value, str) for value in plain)
        query = "<and>".join(plain) if words else Region.box(*plain)
    task.question(query, (1.0, 1.0))
    if query is None:
        return {"task": task.token}
    return {"task": task.token, "query": plain.to_json() if isinstance(plain, Region) else plain}
