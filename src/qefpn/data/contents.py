"""Telling pictures from masks by what is in the files, where names do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from qefpn.data.files import Tree
from qefpn.data.reading import decode
from qefpn.errors import UserError

__all__ = ["contents_of", "look_of"]

_SAMPLES = 5
_SIDE = 256  # longest side that is looked at
_FEW_LEVELS = 8
_FLAT_COLOURS = 32
_TOLERANCE = 24
_EXTREME = 0.85


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
