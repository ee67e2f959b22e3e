"""Labels that people made, as a specialist: what a file holds is found again for each image.

An image is known by its content (`image_id`), by its path, or, where the file knows no more of it than a name, by that
name if only one image of the file has it. Nobody stands higher: what the source "human@..." says is not overruled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from open_florence.data import read
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Annotation, Sample
from open_florence.specialists import HUMAN

CONTENT = re.compile("[0-9a-f]{32}")
"""What `image_id` gives."""


class Labels:
    """The annotations of a file or folder in any format of `data.read`, held in memory.

    Its tasks are those that the file holds, among them `IGNORED` where places are marked as not judged. An image that
    is labelled as empty gets its annotation without regions; one the file does not know gets none.
    """

    name = HUMAN
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        labels: str | Path,
        format: str | None = None,
        tasks: Sequence[str] = (),
        *,
        on_error: Callable[[str], object] = warnings.warn,
    ) -> None:
        """`tasks` are those wanted, all unless given; `on_error` is told what of the file cannot be read. The version
        is a hash of what was read. Raises OpenFlorenceError when there is no such file or nothing wanted in it."""
        self._images: dict[str, Sample] = {}  # by the hash of their content, or else their path
        self._paths: dict[str, str] = {}  # path -> key in `_images`
        self._names: dict[str, set[str]] = {}  # name of a file -> keys in `_images`
        digest = hashlib.blake2b(digest_size=6)
        found: dict[str, None] = {}
        for sample in read(labels, format, on_error):
            kept = tuple(a for a in sample.annotations if not tasks or a.task in tasks)
            self._add(Sample(sample.id, sample.path, sample.size, kept))
            found |= dict.fromkeys(annotation.task for annotation in kept)
            lines = [sample.id, *(annotation.to_json() for annotation in kept)]
            digest.update(json.dumps(lines, sort_keys=True).encode())
        if not found:
            raise OpenFlorenceError(f"{labels} holds no labels" + (f" for {', '.join(tasks)}" if tasks else ""))
        self.tasks = tuple(found)
        self.version = digest.hexdigest()

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """Each sample's labels. Raises OpenFlorenceError where they are of an image of another size."""
        return [list(self._labels_of(sample)) for sample in samples]

    def _add(self, sample: Sample) -> None:
        """Two records of one image are one, with the labels of both. Without the image its id is but a name."""
        path = os.path.abspath(sample.path)
        key = sample.id if CONTENT.fullmatch(sample.id) else path
        earlier = self._images.get(key)
        if earlier is not None:
            new = tuple(a for a in sample.annotations if a not in earlier.annotations)
            sample = Sample(sample.id, earlier.path, earlier.size, earlier.annotations + new)
        self._images[key] = sample
        self._paths[path] = key
        self._names.setdefault(os.path.basename(path), set()).add(key)

    def _labels_of(self, sample: Sample) -> tuple[Annotation, ...]:
        path = os.path.abspath(sample.path)
        known = (
            self._images.get(sample.id)
            or self._images.get(self._paths.get(path, path))
            or self._without_image(os.path.basename(path))
        )
        if known is None:
            return ()
        if tuple(known.size) != tuple(sample.size):
            raise OpenFlorenceError(
                f"the labels of {sample.path} are for an image of {_extent(known)} pixels, and it has {_extent(sample)}"
            )
        return known.annotations

    def _without_image(self, name: str) -> Sample | None:
        """The labels of that file name, where the labelled image is not at hand to be compared."""
        keys = self._names.get(name, set())
        known = self._images[next(iter(keys))] if len(keys) == 1 else None
        return known if known is not None and not os.path.exists(known.path) else None


def _extent(sample: Sample) -> str:
    return " x ".join(f"{side:g}" for side in sample.size)
