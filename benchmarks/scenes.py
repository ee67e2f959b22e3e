"""Scenes a second on one core: alone, with annotations, with dense labels.

python benchmarks/scenes.py
"""

import time
from collections.abc import Callable, Sequence

from open_florence.scenes import Scene, SceneConfig, dense_labels, make_scene

COUNT, ROUNDS = 300, 3


def rate(work: Callable[[int], object]) -> float:
    """Calls a second of processor time: the best of a few rounds, the first discarded (it fills the banks)."""
    for k in range(COUNT // 3):
        work(k)
    times = []
    for n in range(1, ROUNDS + 1):
        start = time.process_time()
        for k in range(COUNT):
            work(n * COUNT + k)
        times.append(time.process_time() - start)
    return COUNT / min(times)


def main(sizes: Sequence[int] = (128, 160, 192, 256)) -> None:
    """Print a table, a row a size."""
    print("| side | images/s | with all annotations | with dense labels (side/16)² |")
    print("|---|---|---|---|")
    for size in sizes:
        config = SceneConfig(size=size)

        def scene(seed: int, config: SceneConfig = config) -> Scene:
            return make_scene(seed, config)

        def annotated(seed: int, config: SceneConfig = config) -> object:
            return make_scene(seed, config).annotations

        def labelled(seed: int, config: SceneConfig = config, side: int = size // 16) -> object:
            return dense_labels(make_scene(seed, config), (side, side))

        print(f"| {size} | {rate(scene):.0f} | {rate(annotated):.0f} | {rate(labelled):.0f} |")


if __name__ == "__main__":
    main()
