"""A code drawn at a known place is found there and read."""

import cv2
import numpy as np
from PIL import Image

from open_florence import Sample
from open_florence.specialists import load_specialist


def test_a_code_at_a_known_place(tmp_path):
    code = cv2.QRCodeEncoder.create().encode("open florence")
    code = np.kron(code, np.ones((6, 6), np.uint8))
    page = np.full((400, 500), 255, np.uint8)
    page[100 : 100 + code.shape[0], 200 : 200 + code.shape[1]] = code
    Image.fromarray(page).save(tmp_path / "page.png")
    Image.new("RGB", (60, 40), "white").save(tmp_path / "blank.png")

    samples = [
        Sample("0", str(tmp_path / "page.png"), (500.0, 400.0)),
        Sample("1", str(tmp_path / "blank.png"), (60.0, 40.0)),
    ]
    answers = load_specialist("qr_codes").annotate(samples)

    boxes, texts = answers[0]
    (x1, y1), (x2, y2) = boxes.regions[0].parts[0]
    assert boxes.regions[0].label == "qr code"
    assert [region.label for region in texts.regions] == ["open florence"]
    assert 200 <= x1 < 240
    assert 100 <= y1 < 140
    assert x1 + 100 < x2 <= 200 + code.shape[1]
    assert y1 + 100 < y2 <= 100 + code.shape[0]
    assert [annotation.regions for annotation in answers[1]] == [(), ()]
