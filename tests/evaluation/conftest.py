"""A stand-in for a model: it looks up the true answers and gives them back, whole or spoilt in a known way."""

import contextlib
from collections.abc import Callable

import pytest
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.evaluate import _source
from open_florence.images import image_id, open_image
from open_florence.schema import Annotation


class Oracle:
    """Answers every question of a data set with its first truth, as `change` makes it. Counts the images of each call.

    Like a `Predictor` it refuses a whole batch in which one image cannot be opened.
    """

    source = "oracle"

    def __init__(self, data, change: Callable[[Annotation], Annotation] = lambda annotation: annotation, limit=None):
        self.change = change
        self.known = {}
        self.calls = []
        for item in _source(data, limit, []).items:
            for question in item.questions:
                with contextlib.suppress(OpenFlorenceError):
                    self.known[self._key(item.image), question.task, question.query] = question.truths[0]

    @staticmethod
    def _key(image):
        return image_id(open_image(image) if isinstance(image, str) else Image.fromarray(image))

    def predict_each(self, requests, *, generation=None):
        self.calls.append(len(requests))
        return [
            [self.change(self.known[self._key(image), task, query]) for task, query in asked]
            for image, asked in requests
        ]


@pytest.fixture(scope="session")
def oracle():
    return Oracle
