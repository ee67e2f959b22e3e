"""Task prompts against one generic prompt, and a second stage at a higher resolution against none.

    python benchmarks/experiments/prompts.py --out runs/experiments

With a generic prompt the model is told what is asked about (the phrase, if any) but not what kind of answer is wanted.
The stage at 96 px starts from the model at 64 px; against it, the same number of steps more at 64 px. All are measured
at the size they were last trained at.
"""

from dataclasses import replace
from pathlib import Path

import typer
from world import TRANSFER, Run, calibrate, compare, learn, learn_to_see, measure, new_model

from open_florence.tasks import TASKS, find_task
from open_florence.training.positions import stretch_positions

GENERIC = "Answer about the image"


def generic_tasks() -> None:
    """Gives the four tasks one prompt, in this process only."""
    for token in TRANSFER:
        task = find_task(token)
        TASKS[token] = replace(task, prompt=GENERIC + (": {input}" if task.query else ""))


def main(out: Path = Path("runs/experiments"), seeds: int = 2, dense: int = 300, steps: int = 500) -> None:
    """One line a run in OUT/{prompts,resolution}.jsonl; started again, finished runs are kept."""

    def pretrained(seed: int, folder: Path):  # type: ignore[no-untyped-def]
        model, _ = new_model(seed)
        heads = learn_to_see(model, folder, dense, seed)
        calibrate(model, seed)
        settings = {"dense_weight": 0.2, "tower_scale": 0.3, "freeze_tower": 50}
        learn(model, Run(steps, TRANSFER, seed=seed, **settings), folder, heads)  # type: ignore[arg-type]
        return model

    def resolution(side: int):  # type: ignore[no-untyped-def]
        def run(seed: int, folder: Path) -> dict[str, float]:
            model = pretrained(seed, folder)
            stretch_positions(model, (8, 8), (side // 8, side // 8))
            learn(model, Run(steps // 4, TRANSFER, rate=5e-4, seed=seed + 10, side=side, sigma=3.0), folder / "second")
            return measure(model, side)

        return run

    def prompted(seed: int, folder: Path) -> dict[str, float]:
        return measure(pretrained(seed, folder))

    def unprompted(seed: int, folder: Path) -> dict[str, float]:
        before = dict(TASKS)
        generic_tasks()
        try:
            return measure(pretrained(seed, folder))
        finally:
            TASKS.update(before)

    compare("prompts", {"a prompt for each task": prompted, "one generic prompt": unprompted}, range(seeds), out)
    arms = {"second stage at 64 px": resolution(64), "second stage at 96 px": resolution(96)}
    compare("resolution", arms, range(seeds), out)


if __name__ == "__main__":
    typer.run(main)
