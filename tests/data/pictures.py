"""Pictures and masks made on the spot."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """Smooth noise, so that JPEG keeps it roughly as it is."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def blob(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """A binary ellipse, never touching all of the picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    cy, cx = rng.uniform(0.3, 0.7) * height, rng.uniform(0.3, 0.7) * width
    return (((y - cy) / (0.25 * height)) ** 2 + ((x - cx) / (0.2 * width)) ** 2 < 1).astype(np.uint8) * 255
