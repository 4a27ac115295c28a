"""What the pixels of a file say: whether it is a picture or a mask, and whether a mask holds numbers of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from qefpn.data.files import Tree
from qefpn.data.reading import decode
from qefpn.errors import UserError

__all__ = ["colour_labels", "contents_of", "label_values", "look_of"]

_SAMPLES = 5
_SIDE = 256  # longest side that is looked at
_FEW_LEVELS = 8
_FLAT_COLOURS = 32
_TOLERANCE = 24
_EXTREME = 0.85

_LARGEST_CLASS = 63
"""Largest number of a class: data sets have 2 to 60."""
_MOST_CLASSES = 32
_BORDER = 255
_SHARES = (21, 42, 43)
"""Shades of the masks of PASCAL-S as it was published: one or two of twelve people took a pixel for object."""
_LEAST_LABELLED = 0.005  # of the pixels: fewer are noise


def look_of(image: Image.Image) -> str:
    """``"mask"`` or ``"picture"``: a mask has few grey levels or flat colours, or is nearly all black and white."""
    if image.mode == "1":
        return "mask"
    image = image.resize(
        (min(image.width, _SIDE), min(image.height, _SIDE)), Image.Resampling.NEAREST
    )  # no new colours
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.float64)
        grey = (wide - wide.min()) * (255.0 / max(float(np.ptp(wide)), 1e-9))
    else:
        rgb = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(np.int32)
        if float((np.ptp(rgb, axis=1) > _TOLERANCE).mean()) > 0.01:
            codes = rgb @ np.array([65536, 256, 1])
            flat = len(np.unique(codes)) <= _FLAT_COLOURS and float((codes == codes.min()).mean()) > 0.1
            return "mask" if flat else "picture"
        grey = rgb[:, 0].astype(np.float64)
    if len(np.unique(grey)) <= _FEW_LEVELS:
        return "mask"
    dark, bright = float((grey <= 16).mean()), float((grey >= 239).mean())
    return "mask" if dark + bright >= _EXTREME else "picture"


def contents_of(tree: Tree, paths: Sequence[str], share: float = 0.6) -> str:
    """``"mask"``, ``"picture"`` or ``"unsure"``: what at least a share of a few files, evenly spaced, look like."""
    looks = []
    for at in np.linspace(0, len(paths) - 1, min(len(paths), _SAMPLES)).round():
        try:
            looks.append(look_of(decode(tree.file(paths[int(at)]), draft=64)))
        except UserError:
            continue  # said where every file is checked
    for kind in ("mask", "picture"):
        if looks and looks.count(kind) >= share * len(looks):
            return kind
    return "unsure"


def label_values(mask: npt.NDArray[np.uint8]) -> str:
    """The values of a mask, uint8 (H, W), that are classes and no shades; empty for a mask in black, white and grey.

    Classes are at most 63, with nothing brighter, or with nothing but 255, the border that VOC leaves out, unless they
    are the twelfths of 255 in which PASCAL-S has the people who agreed. (0 and 1
    alone are read as black and white: :func:`qefpn.data.reading.to_mask`.)
    """
    counts = np.bincount(mask.reshape(-1), minlength=256)
    classes = np.flatnonzero(counts[: _LARGEST_CLASS + 1])
    if counts[_LARGEST_CLASS + 1 : _BORDER].any() or not 0 < len(classes[classes > 0]) <= _MOST_CLASSES:
        return ""
    if counts[_BORDER] and {*classes.tolist()} <= {0, *_SHARES}:
        return ""
    if counts[_BORDER] and counts[1 : _LARGEST_CLASS + 1].sum() < _LEAST_LABELLED * mask.size:
        return ""
    values = [int(value) for value in classes] + ([_BORDER] if counts[_BORDER] else [])
    shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    return f"its values are {shown}"


def colour_labels(image: Image.Image) -> int:
    """How many colours besides black a mask in flat colours has, each of which is read as object; 0 where it has one
    alone, or is no such mask."""
    if image.mode not in ("P", "RGB"):
        return 0
    colours = image.convert("RGB").getcolors(_MOST_CLASSES)
    if colours is None:
        return 0
    values = {value for _, value in colours if isinstance(value, tuple) and any(value)}
    plain = all(max(value) - min(value) <= 24 for value in values)
    return 0 if plain or len(values) < 2 else len(values)
