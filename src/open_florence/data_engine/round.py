"""A round: annotate -> filter -> enhance -> train -> annotate anew -> merge -> audit -> promote or stop.

Each step reads what an earlier one committed and commits what it makes; what is finished is not done again. A round
that was killed goes on where it was, and several processes may work on one together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from open_florence.data_engine.asking import Hired, annotate, elaborate, hire
from open_florence.data_engine.closing import STEPS, close, last_promoted, train
from open_florence.data_engine.deciding import context, enhance, filter, merge, migrate
from open_florence.data_engine.job import Job
from open_florence.data_engine.learning import unstable
from open_florence.data_engine.student import graduate
from open_florence.errors import OpenFlorenceError

__all__ = ["STEPS", "run_round"]


def run_round(job: Job, until: str | None = None) -> dict[str, Any] | None:
    """Does what is left of the round, up to and with the step `until`, and returns its manifest once it has one.

    Raises OpenFlorenceError for a specialist that cannot be loaded, before anything is annotated; for a step that was
    begun with other settings; and for a step there is not.
    """
    if until is not None and until not in STEPS:
        raise OpenFlorenceError(f"a round has the steps {', '.join(STEPS)}, not {until!r}")
    hired = _Staff(job)
    for step in STEPS:
        manifest = job.round.manifest()
        if manifest is not None:
            return manifest
        if job.round.outcome(step) is None:
            _DO[step](job, hired)
        if step == until:
            break
    return job.round.manifest()


class _Staff:
    """Who works on the round; specialists are loaded when the first step needs them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._hired: list[Hired] | None = None

    @property
    def hired(self) -> list[Hired]:
        """The specialists, and the last promoted student, those that need nothing first."""
        if self._hired is None:
            self._hired = hire([*self._job.recipe.specialists, *self._students()])
        return self._hired

    @property
    def sources(self) -> list[str]:
        """Those that annotated pixels, as noted when they were finished; the most trusted first."""
        return list((self._job.round.outcome("annotate") or {})["sources"])

    @property
    def elaborators(self) -> list[str]:
        """Those that annotated labels."""
        return list((self._job.round.outcome("elaborate") or {})["sources"])

    @property
    def merged(self) -> list[str]:
        """The sources that the merge decides between: with the new student in the place of the last one."""
        student = f"student@{self._job.round.name}"
        if self._job.recipe.student is None:
            return self.sources
        return [*(source for source in self.sources if source.partition("@")[0] != "student"), student]

    def _students(self) -> list[Any]:
        last = last_promoted(self._job.round.labels, before=self._job.number)
        student = self._job.recipe.student
        if student is None or last is None or not last.checkpoint.is_dir():
            return []
        return [graduate(student, last.checkpoint, last.name)]


def _annotate(job: Job, staff: _Staff) -> None:
    started = time.monotonic()
    looking = [one for one in staff.hired if not one.declared.needs]
    for one in looking:
        annotate(job, one)
    sources, elaborating = [one.source for one in looking], len(staff.hired) - len(looking)
    job.round.finish_step("annotate", _took(started, sources=sources, elaborating=elaborating))


def _migrate(job: Job, staff: _Staff) -> None:
    started = time.monotonic()
    migrate(job, staff.sources)
    job.round.finish_step("migrate", _took(started))


def _filter(job: Job, staff: _Staff) -> None:
    started = time.monotonic()
    _begin(job, "filter", sources=staff.sources)
    filter(job, staff.sources)
    found = unstable(job, staff.sources)
    for sentence in found:
        job.say(f"unstable label: {sentence}")
    job.round.finish_step("filter", _took(started, unstable=found))


def _elaborate(job: Job, staff: _Staff) -> None:
    started = time.monotonic()
    done: list[str] = []
    if (job.round.outcome("annotate") or {})["elaborating"]:
        for one in staff.hired:
            if one.declared.needs:
                elaborate(job, one, context(job, one.declared.needs, done))
                done.append(one.source)
    job.round.finish_step("elaborate", _took(started, sources=done))


def _enhance(job: Job, staff: _Staff) -> None:
    started = time.monotonic()
    _begin(job, "enhance", sources=staff.elaborators)
    enhance(job, staff.elaborators)
    job.round.finish_step("enhance", _took(started))


def _train(job: Job, staff: _Staff) -> None:
    if job.recipe.student is None:
        job.round.finish_step("train", {"seconds": 0})
        return
    _begin(job, "train")

    def piece() -> None:
        started = time.monotonic()
        job.round.finish_step("train", {**train(job), **_took(started)})

    _alone(job, "train", piece)


def _reannotate(job: Job, staff: _Staff) -> None:
    started = time.monotonic()
    if job.recipe.student is not None:
        student = graduate(job.recipe.student, job.round.checkpoint, job.round.name)
        for one in hire([student]):
            annotate(job, one, "reannotate")
    job.round.finish_step("reannotate", _took(started))


def _merge(job: Job, staff: _Staff) -> None:
    started = time.monotonic()
    if job.recipe.student is not None:
        _begin(job, "merge", sources=staff.merged)
        merge(job, staff.merged, staff.elaborators)
    job.round.finish_step("merge", _took(started))


def _audit(job: Job, staff: _Staff) -> None:
    labels_step = "enhance" if job.recipe.student is None else "merge"

    def piece() -> None:
        close(job, staff.merged, labels_step)

    _alone(job, "audit", piece)


_DO: dict[str, Callable[[Job, _Staff], None]] = {
    "annotate": _annotate,
    "migrate": _migrate,
    "filter": _filter,
    "elaborate": _elaborate,
    "enhance": _enhance,
    "train": _train,
    "reannotate": _reannotate,
    "merge": _merge,
    "audit": _audit,
}


def _begin(job: Job, step: str, sources: Sequence[str] = ()) -> None:
    job.round.begin_step(step, {**dict(job.recipe.settings.get(step, {})), "specialists": list(sources)})


def _alone(job: Job, step: str, piece: Callable[[], None]) -> None:
    """Does a step that is one piece, unless another process does: then waits for it."""
    job.show(step, 0, 1)
    wait = f"another process is at the step {step}: waiting for it"
    with job.locks.wait(f"{job.round.name}/{step}", lambda: job.say(wait)):
        if job.round.outcome(step) is None and job.round.manifest() is None:
            piece()
    job.show(step, 1, 1)


def _took(started: float, **more: Any) -> dict[str, Any]:
    return {"seconds": round(time.monotonic() - started, 3), **more}
