"""A COCO file of many annotations, read to the last one: seconds and growth of memory.

    python benchmarks/read_coco.py [--annotations 100000]

The file is made up: 10 annotations an image, each with a polygon of 20 points, in random order, the images at the end,
so that nothing can be said of an image before the whole file has been read. The images themselves are not there; with
them, reading is as slow as opening every image.
"""

import json
import random
import resource
import tempfile
import time
from pathlib import Path

import typer

from open_florence.data import read


def main(annotations: int = 100_000) -> None:
    """Prints one line of JSON with what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        write_file(path, annotations)
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        boxes = sum(len(sample.annotations[0].regions) for sample in read(path))
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_SELF)
        figures = {
            "annotations": boxes,
            "file MB": round(path.stat().st_size / 1e6),
            "seconds": round(seconds, 1),
            "processor seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
            "memory grew by MB": round((after.ru_maxrss - before.ru_maxrss) / 1024),
        }
    print(json.dumps(figures))


def write_file(path: Path, count: int) -> None:
    """The made-up file."""
    rng = random.Random(0)
    images = range(max(1, count // 10))
    with path.open("w") as file:
        file.write('{"annotations": [\n')
        for number in range(count):
            x, y = rng.randrange(500), rng.randrange(300)
            polygon = [round((y if k % 2 else x) + 100 * rng.random(), 2) for k in range(40)]
            box = {"bbox": [x, y, 100, 100], "area": 5000, "segmentation": [polygon], "iscrowd": 0}
            ids = {"id": number, "image_id": rng.choice(images), "category_id": 1 + number % 80}
            file.write(",\n" * (number > 0) + json.dumps({**ids, **box}))
        names = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]
        file.write(f'],\n"categories": {json.dumps(names)},\n"images": [\n')
        rows = ({"id": number, "file_name": f"{number:012d}.jpg", "width": 640, "height": 480} for number in images)
        file.write(",\n".join(map(json.dumps, rows)) + "]}\n")


if __name__ == "__main__":
    typer.run(main)
