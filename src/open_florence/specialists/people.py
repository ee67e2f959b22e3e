"""Faces and people, found by the classifiers that OpenCV carries: small, old, without a download, and often wrong.

Faces by a cascade (Viola & Jones, CVPR 2001), people by histograms of oriented gradients (Dalal & Triggs, CVPR 2005):
those seen from the front, and those who stand and are seen whole. On COCO's photos at hand, those without crowds, 4 of
23 faces and 6 of 43 people were right, and they found 4 of 13 faces and 6 of 160 people: a second opinion and no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, clip
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists.inputs import Pixels, pixels_of
from open_florence.specialists.opencv import load_opencv, resized
from open_florence.specialists.versions import version_of

FACE, PERSON = "face", "person"
CASCADE = "haarcascade_frontalface_alt2.xml"
LONGEST = {FACE: 900, PERSON: 800}
"""Pixels of the longer side at which they are looked for; smaller images are enlarged up to twice."""
LEAST_WINDOWS = 3
"""Windows of the cascade that have to agree on a face."""
HALF_WINDOWS = 40
"""A face on which so many windows agree has the score 0.5: n windows give n / (n + 40). It ranks, and is no
probability: on those photos 1 of 18 faces below 0.3 was right and 3 of the 5 above."""
SLOPE, OFFSET = 1.8, -2.4
"""A person at distance w from the classifier's border has the score 1 / (1 + exp(-(1.8 w - 2.4))): a curve through the
share that was right on those photos, a tenth below w = 0.8 and over half above 1.2."""
MARGIN = (0.25, 0.125)
"""The classifier's window is 64 x 128 pixels, with 16 around the person on every side: shares of its width, height."""


@dataclass
class People:
    """<OD>: boxes "face" and "person"; how their scores come about stands beside `HALF_WINDOWS` and `SLOPE`."""

    find: Sequence[str] = (FACE, PERSON)
    """Which of the two are looked for."""
    version: str = field(init=False, compare=False)

    name: ClassVar[str] = "people"
    tasks: ClassVar[tuple[str, ...]] = ("<OD>",)
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._cv2 = load_opencv(self.name)
        if not self.find or not set(self.find) <= {FACE, PERSON}:
            raise OpenFlorenceError(f"people: what it can find is face and person, not {self.find!r}")
        self._faces = self._cv2.CascadeClassifier(self._cv2.data.haarcascades + CASCADE)
        self._people = self._cv2.HOGDescriptor()
        self._people.setSVMDetector(self._cv2.HOGDescriptor_getDefaultPeopleDetector())
        self.version = version_of(self._cv2.__version__, self)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """One annotation for each sample, faces before people, the surest of each first."""
        return [[self._find(pixels_of(sample))] for sample in samples]

    def _find(self, image: Pixels) -> Annotation:
        grey = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY)
        size = (float(image.shape[1]), float(image.shape[0]))
        regions: list[Region] = []
        for label, find in ((FACE, self._find_faces), (PERSON, self._find_people)):
            if label not in self.find:
                continue
            factor = min(LONGEST[label] / max(size), 2.0)
            boxes, scores = find(resized(self._cv2, grey, factor))
            for k in np.argsort(-scores, kind="stable"):
                corners = clip(boxes[k].reshape(2, 2) / factor, size)
                if (corners[0] < corners[1]).all():
                    regions.append(Region.box(*corners.ravel().tolist(), label=label, score=float(scores[k])))
        return Annotation("<OD>", regions=tuple(regions))

    def _find_faces(self, grey: Any) -> tuple[Array, Array]:
        """Boxes (N, 4) and their scores (N,)."""
        found, windows = self._faces.detectMultiScale2(grey, 1.1, LEAST_WINDOWS, minSize=(20, 20))
        counts = np.asarray(windows, dtype=np.float64).ravel()
        return _corners(found), counts / (counts + HALF_WINDOWS)

    def _find_people(self, grey: Any) -> tuple[Array, Array]:
        """Boxes (N, 4) without the window's margin, and their scores (N,)."""
        if grey.shape[0] < 128 or grey.shape[1] < 64:  # smaller than the classifier's window
            return np.zeros((0, 4)), np.zeros(0)
        found, distances = self._people.detectMultiScale(
            grey, winStride=(8, 8), padding=(16, 16), scale=1.05, groupThreshold=1
        )
        boxes = _corners(found)
        margin = (boxes[:, 2:] - boxes[:, :2]) * MARGIN
        scores = [1 / (1 + math.exp(-(SLOPE * w + OFFSET))) for w in np.asarray(distances).ravel().tolist()]
        return np.hstack([boxes[:, :2] + margin, boxes[:, 2:] - margin]), np.array(scores)


def _corners(found: Any) -> Array:
    """OpenCV's rectangles (x, y, width, height) -> boxes (N, 4)."""
    rectangles = np.asarray(found, dtype=np.float64).reshape(-1, 4)
    return np.hstack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]])
