"""QR codes for OpenFlorence: boxes labelled "qr code", and quads with what the codes say."""

from collections.abc import Sequence

import cv2
import numpy as np

from open_florence import Annotation, Region, Sample
from open_florence.images import open_image


class QrCodes:
    """<OD>: a box a code; <OCR_WITH_REGION>: a quad with the text of each code that can be read."""

    name = "qr_codes"
    version = cv2.__version__
    tasks = ("<OD>", "<OCR_WITH_REGION>")
    needs = ()

    def __init__(self, label: str = "qr code") -> None:
        """`label` is what the boxes are called."""
        self.label = label
        self._detector = cv2.QRCodeDetector()

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """Both tasks for each sample, in pixels of its image."""
        return [self._read(sample) for sample in samples]

    def _read(self, sample: Sample) -> list[Annotation]:
        pixels = np.asarray(open_image(sample.path))  # (H, W, 3), upright; one sentence for what is no image
        found, texts, corners, _ = self._detector.detectAndDecodeMulti(np.ascontiguousarray(pixels[:, :, ::-1]))
        boxes, quads = [], []
        for text, quad in zip(texts, corners, strict=True) if found else ():
            quad = np.clip(quad, 0, sample.size).astype(float)  # (4, 2), clockwise from the top-left
            boxes.append(Region.box(*quad.min(axis=0), *quad.max(axis=0), label=self.label))
            if text:
                quads.append(Region("quad", (tuple((x, y) for x, y in quad.tolist()),), text))
        return [Annotation("<OD>", regions=tuple(boxes)), Annotation("<OCR_WITH_REGION>", regions=tuple(quads))]
