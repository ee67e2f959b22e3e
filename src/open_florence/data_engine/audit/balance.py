"""How often each image is drawn in training, so that rare classes are seen often enough.

Repeat-factor sampling (Gupta, Dollár & Girshick 2019, LVIS, arXiv 1908.03195): a class on a share f of the images
has the factor max(1, sqrt(t / f)), an image the largest factor of its classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from open_florence.data_engine.fusion import is_human
from open_florence.data_engine.ontology.classes import classes_of
from open_florence.errors import OpenFlorenceError
from open_florence.schema import Sample

MOST = 10.0
"""The largest factor, that of LVIS's rarest classes: a name that one source made up once is not drawn all day."""


def image_weights(samples: Sequence[Sample], threshold: float = 0.1, human: float = 1.0) -> list[float]:
    """A weight >= 1 for each sample, in their order: how often to draw it, against one with nothing rare in it.

    `threshold`: the share of the images, 0 to 1, under which a class is rare; 0 draws all alike. `human`: how much more
    often images that a person labelled are drawn, >= 1. Raises OpenFlorenceError for other numbers.
    """
    if not 0 <= threshold <= 1:
        raise OpenFlorenceError(f"the share under which a class is rare lies between 0 and 1, not at {threshold}")
    if not 1 <= human < math.inf:
        raise OpenFlorenceError(f"the factor of images that a person labelled is at least 1, not {human}")
    factors = repeat_factors(samples, threshold)
    return [
        max((factors[name] for name in _classes(sample)), default=1.0)
        * (human if any(map(is_human, sample.annotations)) else 1.0)
        for sample in samples
    ]


def repeat_factors(samples: Sequence[Sample], threshold: float) -> dict[str, float]:
    """Class -> max(1, sqrt(threshold / share of the samples that hold it)), at most `MOST`."""
    counts = Counter(name for sample in samples for name in _classes(sample))
    return {name: min(MOST, max(1.0, math.sqrt(threshold * len(samples) / count))) for name, count in counts.items()}


def _classes(sample: Sample) -> set[str]:
    return {name for annotation in sample.annotations for name in classes_of(annotation)}
