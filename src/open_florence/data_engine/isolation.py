"""A specialist that can raise, hang, lie or die without harm to the run: it answers, or there is a reason why not.

A batch that takes too long, or that kills the process, costs a new process, and then each of its images is tried
alone; an image that does it again is the one that has no answer.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import IO, Any, BinaryIO, Protocol, cast

from open_florence.data_engine.answers import Answer, Failed
from open_florence.data_engine.child import Declared, Make, Refused, answer, load, main, receive, send
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample
from open_florence.specialists import Specialist

FIRST = 3
"""Batches that may fail as a whole, at the beginning, before it is the configuration that is wrong."""

LOADING = 1800.0
"""Seconds in which a specialist has to be loaded; it may have to download its weights."""


class Worker(Protocol):
    """Where a specialist runs."""

    declared: Declared

    def ask(self, samples: list[Sample]) -> list[Answer] | Failed:
        """What it says about the samples."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...


class Here:
    """A specialist in this process."""

    def __init__(self, make: Make) -> None:
        self._specialist: Specialist
        self._specialist, self.declared = load(make)

    def ask(self, samples: list[Sample]) -> list[Answer] | Failed:
        """What it says about the samples."""
        return answer(self._specialist, self.declared, samples)

    def close(self) -> None:
        """Nothing is to be let go of."""


class Child:
    """A specialist in a process of its own, started anew whenever it has died."""

    def __init__(self, make: Make, timeout: float | None = None) -> None:
        """Raises OpenFlorenceError with the reason when it cannot be loaded."""
        self._make, self._timeout = make, timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def ask(self, samples: list[Sample]) -> list[Answer] | Failed:
        """What it says about the samples; `Failed` where it dies or takes longer than the timeout."""
        if self._process is None:
            self._start()
        try:
            return self._exchange([samples], self._timeout)  # type: ignore[no-any-return]
        except queue.Empty:
            self.close()
            return Failed(f"no answer within {self._timeout:g} seconds", timed_out=True)
        except EOFError:
            return Failed(self._death())

    def close(self) -> None:
        """Ends the process and whatever it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                _open(pipe).close()

    def _start(self) -> None:
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {main.__module__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the engine, which ends its children itself
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._heard: queue.Queue[Any] = queue.Queue()
        threading.Thread(target=_listen, args=(_open(process.stdout), self._heard), daemon=True).start()
        try:
            declared = self._exchange([sys.path, self._make], LOADING)
        except queue.Empty:
            declared = Refused(f"it was not loaded within {LOADING:g} seconds")
        except EOFError:
            declared = Refused(self._death())
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            declared = Refused(f"it cannot be sent to a process of its own: {error}")
        if isinstance(declared, Refused):
            self.close()
            raise OpenFlorenceError(declared.reason)
        self.declared: Declared = declared

    def _exchange(self, messages: Sequence[Any], timeout: float | None) -> Any:
        """The answer to the messages. Raises queue.Empty when it does not come in time, EOFError on a death."""
        try:
            for message in messages:
                send(_open(_process(self._process).stdin), message)
            heard = self._heard.get(timeout=timeout)
        except OSError:
            raise EOFError from None
        except KeyboardInterrupt:
            self.close()
            raise
        if heard is None:
            raise EOFError
        return heard

    def _death(self) -> str:
        """How the process ended."""
        process = _process(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        code = process.poll()
        self.close()
        if code is None:
            return "its process closed the line"
        return f"its process was killed ({signal.Signals(-code).name})" if code < 0 else f"its process ended ({code})"


class Runner:
    """A specialist as the engine uses it: whatever is asked, for every image there is an answer or a reason."""

    def __init__(
        self,
        make: Make,
        *,
        isolate: bool = True,
        timeout: float | None = None,
        batch: int = 16,
        proven: bool = False,
        name: str = "given",
    ) -> None:
        """`make` gives the specialist; `proven`: it has answered before. `name` is what an error in loading calls it.

        Raises OpenFlorenceError in one sentence when it cannot be loaded.
        """
        try:
            self._worker: Worker = Child(make, timeout) if isolate else Here(make)
        except OpenFlorenceError as error:
            raise OpenFlorenceError(
                f"the specialist {name} cannot be loaded: {error}" if name else str(error)
            ) from None
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise OpenFlorenceError(f"the specialist {name} cannot be loaded: {reason}") from error
        self.declared = self._worker.declared
        self._batch, self._proven, self._failures = batch, proven, 0

    @property
    def source(self) -> str:
        """What its annotations call their source."""
        return self.declared.source

    def annotate(
        self, samples: Sequence[Sample], on_batch: Callable[[int], object] = lambda images: None
    ) -> list[Answer]:
        """What it says about each of the samples. `on_batch` is told how many have been asked about.

        Raises OpenFlorenceError when the first `FIRST` batches failed for every image, or there are no more and all
        failed: no other would fare better.
        """
        answers: list[Answer] = []
        for start in range(0, len(samples), self._batch):
            found = self._answers(list(samples[start : start + self._batch]))
            answers += found
            self._judge(found)
            on_batch(len(answers))
        if not self._proven and len(answers) >= FIRST:
            self._give_up(answers)
        return answers

    def close(self) -> None:
        """Ends its process, if it has one."""
        self._worker.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _answers(self, samples: list[Sample]) -> list[Answer]:
        found = self._worker.ask(samples)
        if isinstance(found, list):
            return found
        if len(samples) == 1:
            return [found]
        answers: list[Answer] = []
        for sample in samples:
            answers += self._answers([sample])
            slow = [isinstance(answer, Failed) and answer.timed_out for answer in answers]
            if not self._proven and len(slow) == FIRST and all(slow):  # the other images would take hours to fail
                self._give_up(answers)
        return answers

    def _judge(self, answers: Sequence[Answer]) -> None:
        self._proven = self._proven or any(isinstance(answer, list) for answer in answers)
        self._failures += 1
        if not self._proven and self._failures >= FIRST:
            self._give_up(answers)

    def _give_up(self, answers: Sequence[Answer]) -> None:
        reasons = [answer.reason for answer in answers if isinstance(answer, Failed)]
        raise OpenFlorenceError(f"{self.source} failed on every one of the first images: {reasons[0]}")


def _listen(pipe: BinaryIO, heard: queue.Queue[Any]) -> None:
    """Passes on what the process says; None when it has nothing more to say."""
    with contextlib.suppress(Exception):  # the end of the pipe, or what cannot be read here
        while True:
            heard.put(receive(pipe))
    heard.put(None)


def _open(pipe: IO[bytes] | None) -> BinaryIO:
    assert pipe is not None
    return cast(BinaryIO, pipe)


def _process(process: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes]:
    assert process is not None
    return process
