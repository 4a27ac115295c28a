"""Cut-outs: soft edges with the object's own colours, and what is laid behind them.

A map says how likely a pixel is salient; where it is in between, at hair and at its own blurred edges, a cut-out needs
how much of the pixel the object covers (its alpha), and the object's colour without that of the old background.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from qefpn.data.reading import read_image
from qefpn.errors import UserError

MATTING_PIXELS = 500_000
"""Alpha is solved for on at most so many pixels, and enlarged: it costs about 3 s a megapixel."""
COLOUR_PIXELS = 2_000_000
"""Colours of object and background are told apart on at most so many pixels, and enlarged: a second a megapixel."""
STRIP_PIXELS = 4_000_000
"""What is done pixel by pixel is done on about so many at once."""
_SURE = 0.9
_REACH = 2 / 224
"""How far a map's edge may be off, of the longer side: two pixels of what the network sees."""
_FARTHEST = 32
"""In pixels: only strips of one to 30 reach it, on which a band of its own width would take minutes."""
_one_at_a_time = threading.Lock()
"""Held while pymatting works: numba's threads take one caller at a time, and end the process where two come."""


def _matting() -> Any:
    """pymatting, which compiles itself when it is imported for the first time."""
    if "pymatting" in sys.modules:
        return sys.modules["pymatting"]
    text = "compiling what makes cut-outs (pymatting), once: about half a minute"
    notice = threading.Timer(5.0, lambda: print(text, file=sys.stderr))
    notice.daemon = True
    notice.start()
    try:
        import pymatting
    finally:
        notice.cancel()
    return pymatting


def _at_most(pixels: int, colours: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as they are, or made smaller to so many pixels."""
    height, width = alpha.shape
    scale = (pixels / alpha.size) ** 0.5
    if scale >= 1:
        return colours, alpha
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small, soft = (np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA)) for one in (colours, alpha))
    return small, soft


def matte(colours: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """How much of each pixel the object covers: closed-form matting (Levin et al., TPAMI 2008) where the map is unsure.

    Args:
        colours: (H, W, 3) uint8 RGB.
        saliency: (H, W) uint8. Pixels above 90 % are the object, below 10 % the background, but for a band at their
            border as wide as a map may be off.

    Returns:
        (H, W) uint8; ``saliency`` itself where it has no object, no background, or nothing in between, or where the
        picture is too thin for the 3 × 3 windows of the method.

    Raises:
        UserError: no alpha could be solved for.
    """
    height, width = saliency.shape
    small, share = _at_most(MATTING_PIXELS, colours, saliency)
    reach = max(1, min(_FARTHEST, round(max(share.shape) * _REACH)))
    band = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    inside, outside = (share > 255 * _SURE).astype(np.uint8), (share < 255 * (1 - _SURE)).astype(np.uint8)
    object_, background = cv2.erode(inside, band) > 0, cv2.erode(outside, band) > 0
    if min(share.shape) < 3 or not object_.any() or not background.any() or (object_ | background).all():
        return saliency
    trimap = np.where(object_, 1.0, np.where(background, 0.0, 0.5))
    try:
        with _one_at_a_time:
            alpha = _matting().estimate_alpha_cf(small / 255.0, trimap)
    except ValueError as error:  # its equations have no solution that its method finds
        raise UserError(f"no soft edges were found ({error}): matting=false takes those of the map") from error
    found = np.asarray(np.clip(alpha * 255, 0, 255).round(), dtype=np.uint8)
    if share is saliency:
        return found
    return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR))


def parted(colours: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The colours of the object and of what is behind it, each as if it were alone (Germer et al., Fast Multi-Level
    Foreground Estimation, ICPR 2020): where alpha is in between, a pixel is a mixture of both.

    Args:
        colours: (H, W, 3) uint8 RGB.
        alpha: (H, W) uint8.

    Returns:
        Two arrays (H, W, 3), uint8.
    """
    height, width = alpha.shape
    if alpha.size == 1:  # pymatting's levels begin at two pixels
        return colours, colours
    small, soft = _at_most(COLOUR_PIXELS, colours, alpha)
    with _one_at_a_time:
        parts = _matting().estimate_foreground_ml(
            small.astype(np.float32) / 255, soft.astype(np.float32) / 255, return_background=True
        )
    front, back = (np.clip(part * 255, 0, 255).round().astype(np.uint8) for part in parts)
    if soft is not alpha:
        front, back = (cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in (front, back))
    for part, sure in ((front, 255), (back, 0)):
        np.copyto(part, colours, where=(alpha == sure)[..., None])  # to the bit
    return front, back


def laid_on(front: np.ndarray, alpha: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Colours with their alpha (H, W) laid on a background (H, W, 3); uint8."""

    def laid(front: np.ndarray, alpha: np.ndarray, behind: np.ndarray) -> np.ndarray:
        share = alpha[..., None].astype(np.float32) / 255
        return np.asarray((front * share + behind * (1 - share)).round(), dtype=np.uint8)

    return by_strips(laid, front, alpha, behind)


def by_strips(function: Callable[..., np.ndarray], *arrays: np.ndarray, reach: int = 0) -> np.ndarray:
    """What a function makes of arrays (H, W, ...), strip by strip of their rows: its copies in floating point, of a
    photograph of 50 megapixels 600 MB each, are of one strip then.

    Args:
        function: gives an array of as many rows as it is given.
        arrays: of the same height.
        reach: rows above and below that a row of the result depends on.
    """
    height, width = arrays[0].shape[:2]
    step = max(1, STRIP_PIXELS // width)
    parts = []
    for top in range(0, height, step):
        first, end = max(0, top - reach), min(height, top + step)
        made = function(*(one[first : end + reach] for one in arrays))
        parts.append(made[top - first : end - first])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


Background = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Makes what is laid behind a cut-out of the picture's own background (H, W, 3) and its alpha (H, W)."""


def background_named(given: str, max_megapixels: float | None = None) -> Background:
    """What ``background=`` names: a colour, ``blur``, or a picture that is to fill the frame.

    Args:
        given: ``#rrggbb`` or ``#rgb``, ``blur``, or the path of a picture.
        max_megapixels: as of :func:`~qefpn.data.decoding.decode`.

    Raises:
        UserError: none of these; a picture that cannot be read.
    """
    if given == "blur":
        return _blurred
    if re.fullmatch(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})", given):
        digits = given[1:] if len(given) == 7 else "".join(2 * digit for digit in given[1:])
        colour = np.array([int(digits[at : at + 2], 16) for at in (0, 2, 4)], np.uint8)
        return lambda back, _alpha: np.broadcast_to(colour, back.shape)
    path = Path(given).expanduser()
    if not path.is_file():
        raise UserError(f"background={given} is no colour (#rrggbb), not blur, and no picture is there")
    try:
        picture = read_image(path, max_megapixels=max_megapixels)
    except UserError as error:
        raise UserError(f"background={given}: {error}") from error
    return lambda back, _alpha: _filling(picture, back.shape[:2])


def _blurred(back: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The picture's own background out of focus; the object's pixels do not bleed into it."""
    height, width = alpha.shape
    sigma = max(height, width) / 50
    share = 1 - alpha[..., None].astype(np.float32) / 255
    # at a smaller size, since a wide Gaussian is slow and leaves no detail
    scale = min(1.0, 4 / sigma)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    weight = cv2.resize(share, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], 1) + 1e-4
    small = cv2.resize(back, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    blurred = cv2.GaussianBlur(small * weight, (0, 0), sigma * scale)
    blurred /= cv2.GaussianBlur(weight, (0, 0), sigma * scale)[..., None]
    return np.asarray(cv2.resize(blurred.round().astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR))


def _filling(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of a picture, scaled to cover (height, width)."""
    height, width = size
    scale = max(height / picture.shape[0], width / picture.shape[1])
    tall, wide = max(height, round(picture.shape[0] * scale)), max(width, round(picture.shape[1] * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(picture, (wide, tall), interpolation=kind)
    top, left = (tall - height) // 2, (wide - width) // 2
    return np.asarray(scaled[top : top + height, left : left + width])
