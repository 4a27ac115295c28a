"""Masks that hold numbers of classes instead of black and white."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["colour_labels", "label_values"]

_LARGEST = 63
"""Largest number of a class: data sets have 2 to 60."""
_MOST = 32
_BORDER = 255
_LEAST_SHARE = 0.005  # of the pixels: fewer are noise


def label_values(mask: npt.NDArray[np.uint8]) -> str:
    """The values of a mask, uint8 (H, W), that are classes and no shades; empty for a mask in black, white and grey.

    Classes are at most 63, with nothing brighter, or with nothing but 255, the border that VOC leaves out. (0 and 1
    alone are read as black and white: :func:`qefpn.data.reading.to_mask`.)
    """
    counts = np.bincount(mask.reshape(-1), minlength=256)
    classes = np.flatnonzero(counts[: _LARGEST + 1])
    if counts[_LARGEST + 1 : _BORDER].any() or not 0 < len(classes[classes > 0]) <= _MOST:
        return ""
    if counts[_BORDER] and counts[1 : _LARGEST + 1].sum() < _LEAST_SHARE * mask.size:
        return ""
    values = [int(value) for value in classes] + ([_BORDER] if counts[_BORDER] else [])
    shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    return f"its values are {shown}"


def colour_labels(image: Image.Image) -> int:
    """How many colours besides black a mask in flat colours has, each of which is read as object; 0 where it has one
    alone, or is no such mask."""
    if image.mode not in ("P", "RGB"):
        return 0
    colours = image.convert("RGB").getcolors(_MOST)
    if colours is None:
        return 0
    values = {value for _, value in colours if isinstance(value, tuple) and any(value)}
    plain = all(max(value) - min(value) <= 24 for value in values)
    return 0 if plain or len(values) < 2 else len(values)
