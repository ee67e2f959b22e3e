import json
import time
from pathlib import Path

import pytest

from open_florence.training.logs import Meters, RunLog, duration


def test_means_are_weighted_and_counts_add_up() -> None:
    meters = Meters()
    meters.add({"loss": 1.0, "<OD>": 4.0}, 1)
    meters.add({"loss": 4.0}, 2)
    meters.add({"empty": 1.0}, 0)
    meters.count("dropped", 2)
    meters.count("dropped", 1)
    assert meters.means() == {"loss": 3.0, "<OD>": 4.0}
    assert meters.counts == {"dropped": 3}


def test_meters_of_several_processes_are_joined_and_survive_as_plain_values() -> None:
    first, second, joined = Meters(), Meters(), Meters()
    first.add({"loss": 1.0}, 1)
    second.add({"loss": 4.0, "<OD>": 2.0}, 2)
    second.count("skipped", 1)
    states = [json.loads(json.dumps(meters.state())) for meters in (first, second)]
    joined.load(states)
    assert joined.means() == {"loss": 3.0, "<OD>": 2.0}
    assert joined.counts == {"skipped": 1}
    joined.load([])
    assert joined.means() == {}


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_resumed_run_cuts_the_log_where_its_state_ends(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 10, 0)
    for step in (2, 4, 4, 6):
        log.write(step, {"loss": 1.0})
    log.close()
    for first, kept in ((4, [2, 4, 4]), (4, [2, 4, 4]), (3, [2]), (0, [])):
        RunLog(tmp_path, 10, first).close()
        assert steps(tmp_path) == kept


@pytest.mark.parametrize("broken", ['{"step": 3, "lo', '{"step": 3}', "not JSON\n"])
def test_a_line_that_a_crash_cut_short_is_cut_off(tmp_path: Path, broken: str) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 2}\n' + broken)
    log = RunLog(tmp_path, 10, 5)
    log.write(6, {})
    log.close()
    assert steps(tmp_path) == [2, 6]


def test_the_screen_shows_progress_in_one_line_and_the_tasks_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 60.0])
    monkeypatch.setattr("open_florence.training.logs.time.perf_counter", lambda: next(clock))
    log = RunLog(tmp_path, 1500, 40)
    log.show(50, {"learning rate": 5e-4, "<OD>": 2.1, "loss": 2.31416, "images/s": 41.23, "dropped": 0})
    log.close()
    shown = "step 50/1500  loss 2.314  images/s 41.23  learning rate 0.0005  2 h 25 min left\n    <OD> 2.1  dropped 0\n"
    assert capsys.readouterr().out == shown


def test_times_are_readable() -> None:
    assert [duration(s) for s in (0.4, 8, 89, 90, 3599, 11100)] == [
        "0 s",
        "8 s",
        "89 s",
        "2 min",
        "1 h 00 min",
        "3 h 05 min",
    ]


def test_tensorboard_has_every_point_once_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    now = time.time()
    for first, last in ((0, 6), (4, 8)):
        monkeypatch.setattr(time, "time", lambda first=first: now + first)  # files are read by their second
        log = RunLog(tmp_path, 10, first)
        for step in range(first + 1, last + 1):
            log.write(step, {"<OD>": float(step), "loss": 1.0})
        log.sync()
        log.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["scalars"] == ["OD", "loss"]
    assert [(e.step, e.value) for e in events.Scalars("OD")] == [(s, float(s)) for s in range(1, 9)]


def test_without_tensorboard_there_is_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    log = RunLog(tmp_path, 10, 0)
    log.write(1, {"loss": 1.0})
    log.sync()
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
