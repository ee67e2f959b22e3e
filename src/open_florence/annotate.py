"""A folder of images becomes an annotated folder, in a run that may be killed at any moment and goes on when repeated.

    OUT/run.json            what was asked of which model; written first, and what a later run has to agree with
    OUT/annotations.jsonl   one `Sample` a line, appended and synced to the disk batch by batch
    OUT/failed.jsonl        {"path", "reason"} of every image that could not be annotated

An image is done when its line is written, newline included. A run first cuts off what a crash left of a last line,
then annotates what is not done: a crash costs at most the batch it fell into, and no image gets two lines. Failed
images are tried again by the next run. Memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from PIL import Image

from open_florence.data.jsonl import line_of, write_whole
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id, list_images, open_image
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import NOTHING, Removed, Selection, sum_removed
from open_florence.tasks import find_task

if TYPE_CHECKING:
    from open_florence.generation import GenerationConfig

Ask = str | tuple[str, Any]
"""A task, or a task and its query, as `Predictor.predict` takes them."""


class Annotator(Protocol):
    """What `annotate` needs of a model; `Predictor` is one, and so is anything with these two names."""

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


@dataclass(frozen=True, slots=True)
class _Opened:
    """An image that was opened, or why it could not be."""

    path: Path
    image: Image.Image | None
    id: str = ""
    reason: str = ""


def annotate(
    sources: str | Path | Iterable[str | Path],
    tasks: Sequence[Ask],
    out: str | Path,
    predictor: Annotator,
    batch_size: int = 8,
    *,
    checkpoint: str = "",
    generation: GenerationConfig | None = None,
    selection: Selection | None = None,
    restart: bool = False,
    on_progress: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Annotates the images of a folder, or of several files and folders, into the folder `out`.

    Images come in the order of `list_images`; each path is annotated once, also where two hold the same picture. A
    file that is no image, and an image on which the model fails by itself, go to failed.jsonl and the run goes on.
    `checkpoint` says which weights these are where `predictor.source` is not enough; `generation` is passed on to the
    predictor; `selection` says which regions of the answers are kept. `restart` throws away what `out` holds.
    `on_progress` is called after every batch.

    Raises OpenFlorenceError, before anything is annotated, where there are no images, a task is unknown, `out` cannot
    be written, is in use by another run, or was made with other settings (model, tasks, version); and where the model
    refuses the question for each of the first images.
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

    removed = NOTHING

    def answer(images: list[Image.Image]) -> list[list[Annotation]]:
        nonlocal removed
        answers = predictor.predict_batch(images, list(tasks), generation=generation)
        if selection is None:
            return answers
        selected = [selection.apply_all(annotations) for annotations in answers]
        removed = sum_removed([removed, *(gone for _, gone in selected)])
        return [annotations for annotations, _ in selected]

    paths = _images(sources, Path(out))
    with AnnotatedFolder(Path(out), settings, restart) as folder:
        todo = [path for path in paths if str(path) not in folder.done]
        tally = Tally(len(paths), len(paths) - len(todo))
        folder.forget_failures(todo)
        on_progress(tally)
        with contextlib.closing(_opened(todo, ahead=batch_size)) as opened:
            for batch in _batches(opened, batch_size):
                samples, failures = _annotate_batch(batch, answer)
                refusals = [failure.reason for failure in failures if failure.mistake]
                if refusals and not (samples or tally.done or tally.before):
                    raise OpenFlorenceError(refusals[0])  # it is the question: no image would fare better
                folder.append(samples, failures)
                done, failed = tally.done + len(samples), tally.failed + len(failures)
                tally = replace(tally, done=done, failed=failed, removed=removed)
                on_progress(tally)
    return tally


class Failure(NamedTuple):
    """An image that could not be annotated, and why."""

    path: Path
    reason: str
    mistake: bool = False
    """The model refused the question (OpenFlorenceError); the image itself may be sound."""


class AnnotatedFolder:
    """The folder on disk, held by one run at a time (not enforced on systems without `fcntl`)."""

    def __init__(self, folder: Path, settings: dict[str, Any], restart: bool = False) -> None:
        """Opens or makes it. `done` are the paths that have their line. Raises OpenFlorenceError, see `annotate`."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = (folder / "annotations.jsonl").open("a+b", buffering=0)
            self._failures = (folder / "failed.jsonl").open("ab", buffering=0)
        except OSError as error:
            raise OpenFlorenceError(f"the folder {folder} cannot be written: {error.strerror}") from None
        try:
            _lock(self._lines, folder)
            if restart:
                self._lines.truncate(0)
                self._failures.truncate(0)
                (folder / "run.json").unlink(missing_ok=True)
            self._agree(settings)
            self.done = _recover(self._lines)
        except BaseException:
            self.close()
            raise

    def append(self, samples: Iterable[Sample], failures: Iterable[Failure]) -> None:
        """Writes a batch; when this returns it survives a power cut. Raises OpenFlorenceError when the disk is full."""
        lines = b"".join(line_of(sample.to_json()) for sample in samples)
        try:
            for failure in failures:
                _write(self._failures, line_of({"path": str(failure.path), "reason": failure.reason}))
            _write(self._lines, lines)
            os.fsync(self._lines.fileno())
        except OSError as error:
            raise OpenFlorenceError(f"the folder {self.folder} cannot be written: {error.strerror}") from error

    def forget_failures(self, paths: Iterable[Path]) -> None:
        """Takes the images that are about to be tried again off failed.jsonl."""
        again = {str(path) for path in paths}
        failed = self.folder / "failed.jsonl"
        kept = [line for line in failed.read_bytes().splitlines(keepends=True) if _path_of(line) not in {*again, None}]
        self._failures.close()
        write_whole(failed, kept)
        self._failures = failed.open("ab", buffering=0)

    def close(self) -> None:
        """Lets go of the files and with them of the lock."""
        self._lines.close()
        self._failures.close()

    def __enter__(self) -> AnnotatedFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _agree(self, settings: dict[str, Any]) -> None:
        """Writes run.json, or compares it with this run's settings."""
        path = self.folder / "run.json"
        if not path.exists():
            if self._lines.seek(0, os.SEEK_END):
                raise OpenFlorenceError(
                    f"{self.folder} holds annotations but no run.json that says how they were made: "
                    "choose another folder, or restart"
                )
            date = datetime.now(UTC).isoformat(timespec="seconds")
            text = json.dumps({**settings, "date": date}, indent=2, ensure_ascii=False)
            write_whole(path, [text.encode("utf-8", "backslashreplace"), b"\n"])
            return
        try:
            earlier = json.loads(path.read_bytes())
            settings = json.loads(json.dumps(settings))  # tuples compare as lists
            differing = [name for name, value in settings.items() if earlier.get(name) != value]
        except (ValueError, AttributeError):
            raise OpenFlorenceError(f"{path} is damaged: choose another folder, or restart") from None
        if differing:
            name = differing[0]
            raise OpenFlorenceError(
                f"{self.folder} was annotated with another {name} ({_shown(earlier.get(name))}, now "
                f"{_shown(settings[name])}): choose another folder, or restart to throw its annotations away"
            )


def _annotate_batch(
    batch: list[_Opened], answer: Callable[[list[Image.Image]], list[list[Annotation]]]
) -> tuple[list[Sample], list[Failure]]:
    """The batch's samples, and its failures with their reasons.

    When the model fails on the batch, each image is tried alone, so that one image costs only itself.
    """
    failures = [Failure(item.path, item.reason) for item in batch if item.image is None]
    good = [(item, item.image) for item in batch if item.image is not None]
    if not good:
        return [], failures
    try:
        answers = answer([image for _, image in good])
    except Exception as error:  # whatever it is, it must not end a run of a million images
        if len(good) == 1:
            mistake = isinstance(error, OpenFlorenceError)
            reason = str(error) if mistake else f"the model failed: {type(error).__name__}: {error}"
            return [], [*failures, Failure(good[0][0].path, reason, mistake)]
        samples: list[Sample] = []
        for item, _ in good:
            alone, failed = _annotate_batch([item], answer)
            samples += alone
            failures += failed
        return samples, failures
    return [
        Sample(item.id, str(item.path), (float(image.width), float(image.height)), tuple(annotations))
        for (item, image), annotations in zip(good, answers, strict=True)
    ], failures


def _images(sources: str | Path | Iterable[str | Path], out: Path) -> list[Path]:
    """Absolute paths, each once, so that a run continues from any working directory; none of the report in `out`."""
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    found = dict.fromkeys(Path(os.path.abspath(path)) for source in given for path in list_images(source))
    report = Path(os.path.abspath(out / "report"))
    paths = [path for path in found if report not in path.parents]
    if not paths:
        raise OpenFlorenceError(f"there is no image in {', '.join(map(str, given)) or 'an empty list'}")
    return paths


def _opened(paths: Iterable[Path], ahead: int) -> Generator[_Opened, None, None]:
    """The images in the order of `paths`, opened by one background thread that stays at most `ahead` in front."""
    waiting: queue.Queue[_Opened | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: _Opened | None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return

    def fill() -> None:
        for path in paths:
            if stop.is_set():
                return
            put(_open(path))
        put(None)

    thread = threading.Thread(target=fill, name="open images", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            yield item
    finally:
        stop.set()
        thread.join()


def _open(path: Path) -> _Opened:
    try:
        image = open_image(path)
        return _Opened(path, image, image_id(image))
    except OpenFlorenceError as error:
        return _Opened(path, None, reason=str(error))
    except Exception as error:  # memory, a codec's own exception: the thread has to survive every file
        return _Opened(path, None, reason=f"{path} cannot be opened: {type(error).__name__}: {error}")


def _batches(items: Iterator[_Opened], size: int) -> Iterator[list[_Opened]]:
    """Lists of `size` images that could be opened, with the failures found on the way."""
    batch: list[_Opened] = []
    for item in items:
        batch.append(item)
        if sum(other.image is not None for other in batch) == size or len(batch) >= 8 * size:
            yield batch
            batch = []
    if batch:
        yield batch


def _recover(file: BinaryIO) -> set[str]:
    """The paths that have their line. What is left of a line that was being written is cut off."""
    done = set()
    file.seek(0)
    end = 0
    with os.fdopen(os.dup(file.fileno()), "rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            if path := _path_of(line):
                done.add(path)
    file.truncate(end)
    return done


def _path_of(line: bytes) -> str | None:
    """The path in a line of annotations.jsonl or failed.jsonl; None where the line is damaged."""
    try:
        path = json.loads(line)["path"]
    except (ValueError, KeyError, TypeError):
        return None
    return path if isinstance(path, str) else None


def _write(file: BinaryIO, data: bytes) -> None:
    """All of `data`, straight to the system: an unbuffered file may take less than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _lock(file: BinaryIO, folder: Path) -> None:
    """Holds `file` for this process until it is closed or the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OpenFlorenceError(f"another run is writing to {folder}") from None


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


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(" ".join(str(part) for part in task.values()) for task in value)
    return str(value)
