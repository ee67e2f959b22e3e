"""What befalls a whole image: light, grain, blur, low contrast, exposure, loss of colour. Labels do not change."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from open_florence.scenes.opencv import cv2
from open_florence.scenes.textures import clouds, cut, grain

Bytes = NDArray[np.uint8]


def light(image: Bytes, rng: random.Random) -> Bytes:
    """Uneven light, up to a tenth darker or brighter, and a breath of grain: every scene has it."""
    height, width = image.shape[:2]
    shade = cut(clouds(2 * max(width, height), max(width, height) // 2, 11), width, height, rng)
    uneven: Bytes = cv2.LUT(shade, _SHADE)
    lit: Bytes = cv2.multiply(image, cv2.merge((uneven, uneven, uneven)), scale=1 / 128)
    return grainy(lit, rng, 0.02, 0.12)


_SHADE = np.linspace(128 * 0.9, 128 * 1.1, 256).round().astype(np.uint8)


def grainy(image: Bytes, rng: random.Random, least: float = 0.2, most: float = 0.4) -> Bytes:
    """Film grain with a standard deviation of 40 grey levels times a share drawn between the two."""
    height, width = image.shape[:2]
    noise = cut(grain(2 * max(width, height), 3), width, height, rng)
    share = rng.uniform(least, most)
    changed: Bytes = cv2.addWeighted(image, 1.0, noise, share, -128 * share)
    return changed


def blurred(image: Bytes, rng: random.Random) -> Bytes:
    """A lens out of focus, measured against the image."""
    sigma = rng.uniform(0.5, 0.95) * min(image.shape[:2]) / 160
    changed: Bytes = cv2.GaussianBlur(image, (0, 0), sigma)
    return changed


def flat(image: Bytes, rng: random.Random) -> Bytes:
    """Low contrast: everything nearer to a middle grey."""
    keep = rng.uniform(0.62, 0.85)
    changed: Bytes = cv2.convertScaleAbs(image, alpha=keep, beta=(1 - keep) * rng.uniform(90, 165))
    return changed


def exposed(image: Bytes, rng: random.Random) -> Bytes:
    """A little too dark or too bright."""
    gain = rng.uniform(0.78, 0.92) if rng.random() < 0.5 else rng.uniform(1.06, 1.2)
    changed: Bytes = cv2.convertScaleAbs(image, alpha=gain, beta=0)
    return changed


def colourless(image: Bytes, rng: random.Random) -> Bytes:
    """Shades of grey with a slight tint; only for scenes whose colour words are grey, black and white."""
    grey: Bytes = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    tint = [rng.uniform(0.95, 1.0) for _ in range(3)]
    changed: Bytes = cv2.merge([cv2.convertScaleAbs(grey, alpha=share, beta=0) for share in tint])
    return changed


VARIATIONS = (blurred, grainy, flat, exposed)


def vary(image: Bytes, rng: random.Random) -> Bytes:
    """One or two of the variations."""
    for change in rng.sample(VARIATIONS, 2 if rng.random() < 0.3 else 1):
        image = change(image, rng)
    return image
