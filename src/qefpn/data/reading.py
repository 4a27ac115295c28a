"""Reading pictures and masks of any common kind into plain 8-bit arrays.

Pillow decodes (it knows CMYK, palettes, 1 and 16 bits, EXIF); what each kind means is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from qefpn.data.colour import to_srgb
from qefpn.data.decoding import decode, open_picture, orientation
from qefpn.data.files import PictureFile
from qefpn.errors import UserError

__all__ = [
    "Layers",
    "decode",
    "on_white",
    "picture_size",
    "read_image",
    "read_layers",
    "read_mask",
    "to_layers",
    "to_mask",
    "to_rgb",
]

Array = npt.NDArray[np.uint8]
T = TypeVar("T")

_FLAT_COLOURS = 32
_COLOUR_TOLERANCE = 24
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    """Turned and mirrored as EXIF says, as every viewer shows it."""
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def picture_size(file: PictureFile) -> tuple[int, int]:
    """(height, width) of a picture as it is shown, that is after EXIF orientation. Parses the whole file.

    Raises:
        UserError: the file is missing, no picture, truncated, or too large.
    """
    image, (width, height) = open_picture(file, draft=1)
    return (width, height) if orientation(image) in (5, 6, 7, 8) else (height, width)


def _from_deep(values: np.ndarray) -> Array:
    """16-bit, 32-bit and float grey values to 8 bits.

    Integers that stay within 0..255 are an 8-bit picture in a wide container; others have 16 bits. Floats
    that stay within 0..1 are shares of white.
    """
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0)
        scale = 255.0 if finite.max(initial=0.0) <= 1.0 else 1.0
        return np.asarray(np.clip(np.rint(finite * scale), 0, 255), dtype=np.uint8)
    wide = np.clip(values.astype(np.int64), 0, 65535)
    if wide.max(initial=0) <= 255:
        return wide.astype(np.uint8)
    return ((wide + 128) // 257).astype(np.uint8)


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


@dataclass(frozen=True)
class Layers:
    """A picture, upright, in 8 bits.

    Attributes:
        colours: (H, W, 3), sRGB: the embedded colour profile is applied.
        alpha: (H, W); None where the picture is opaque.
        own: (H, W, 3), the colours as they are in the file, where ``profile`` gives them another meaning than sRGB.
        profile: the ICC profile of ``own``; None without.
    """

    colours: Array
    alpha: Array | None = None
    own: Array | None = None
    profile: bytes | None = None


def to_layers(image: Image.Image) -> Layers:
    """A decoded picture as its layers; 16 bits are scaled, not cut."""
    image = _upright(image)
    profile = image.info.get("icc_profile")
    alpha: Array | None = None
    if _is_deep(image):
        image = Image.fromarray(_from_deep(np.asarray(image)))
    elif _has_alpha(image):
        rgba = image.convert("RGBA")
        alpha = np.array(rgba.getchannel("A"))
        image = image.getchannel(0) if image.mode == "LA" else rgba.convert("RGB")
        alpha = None if alpha.min() == 255 else alpha
    shown = to_srgb(image, profile)
    if image.mode == "RGB" and shown is not image:  # by its profile
        return Layers(np.array(shown), alpha, np.array(image), profile)
    return Layers(np.array(shown), alpha)


def on_white(colours: Array, alpha: Array | None) -> Array:
    """Colours (H, W, 3) with their alpha (H, W) laid on white, as a page shows them."""
    if alpha is None:
        return colours
    page = Image.new("RGBA", (colours.shape[1], colours.shape[0]), (255, 255, 255, 255))
    page.alpha_composite(Image.fromarray(np.dstack([colours, alpha])))
    return np.array(page.convert("RGB"))


def to_rgb(image: Image.Image) -> Array:
    """A decoded picture as uint8 sRGB (H, W, 3), upright.

    Transparency is laid on white (what hides under alpha 0 is arbitrary); else as :func:`to_layers`.
    """
    layers = to_layers(image)
    return on_white(layers.colours, layers.alpha)


def to_mask(image: Image.Image) -> Array:
    """A decoded mask as uint8 (H, W), upright: 0 background, 255 object, soft edges in between.

    - 1-bit, and 8- or 16-bit grey: the values; a mask of 0 and 1 only is a label map and becomes 0 and 255.
    - Colour: where all channels agree (a grey mask saved as RGB, JPEG noise included) the luminance. A few
      flat colours on black are labels, each of them object. Otherwise the brightest channel, stretched to
      255.
    - Alpha that varies is the mask itself (a cut-out), unless the visible part is a mask in black and white.
    """
    image = _upright(image)
    if _is_deep(image):
        return _labels(_from_deep(np.asarray(image)))
    if image.mode == "1":
        return np.array(image.convert("L"))
    if _has_alpha(image):
        rgba = np.array(image.convert("RGBA"))
        alpha = rgba[:, :, 3]
        if alpha.min() == alpha.max():
            return _from_colour(rgba[:, :, :3])
        solid = rgba[alpha == 255][:, :3]
        spread = int(np.ptp(solid, axis=1).max()) if len(solid) else 0
        if len(solid) and spread <= _COLOUR_TOLERANCE and solid.min() <= 16 and solid.max() >= 128:
            grey = _from_colour(rgba[:, :, :3]).astype(np.uint16)
            return np.asarray((grey * alpha + 127) // 255, dtype=np.uint8)
        return np.ascontiguousarray(alpha)
    if image.mode == "P":
        indices = np.array(image)
        mask = _from_colour(np.array(image.convert("RGB")))
        if mask.min() == mask.max() and indices.min() != indices.max():
            return np.where(indices == 0, 0, 255).astype(np.uint8)  # a palette without colours: only indices speak
        return mask
    if image.mode == "L":
        return _labels(np.array(image))
    return _from_colour(np.array(image.convert("RGB")))


def _labels(grey: Array) -> Array:
    return grey * np.uint8(255) if grey.max(initial=0) == 1 else grey


def _from_colour(rgb: Array) -> Array:
    spread = rgb.max(axis=2).astype(np.int16) - rgb.min(axis=2)
    if int(spread.max(initial=0)) <= _COLOUR_TOLERANCE:
        if int(spread.max(initial=0)) == 0:
            return _labels(np.ascontiguousarray(rgb[:, :, 0]))
        return np.array(Image.fromarray(rgb).convert("L"))
    codes = (rgb[:, :, 0].astype(np.uint32) << 16) | (rgb[:, :, 1].astype(np.uint32) << 8) | rgb[:, :, 2]
    if len(np.unique(codes)) <= _FLAT_COLOURS:
        return np.where(codes == 0, 0, 255).astype(np.uint8)
    bright = rgb.max(axis=2)
    return np.asarray(bright.astype(np.float32) * (255.0 / float(bright.max())) + 0.5, dtype=np.uint8)


def _understood(file: PictureFile | bytes, image: Image.Image, function: Callable[[Image.Image], T]) -> T:
    """What the function makes of the picture, or a line that names it: some modes have no way to RGB."""
    try:
        return function(image)
    except MemoryError:
        raise UserError(f"cannot read {_label(file)}: it does not fit into memory") from None
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:80]
        raise UserError(f"cannot read {_label(file)}: pixels of kind {image.mode} ({reason})") from error


def _label(file: PictureFile | bytes) -> str:
    return "the picture" if isinstance(file, bytes) else str(file)


def read_layers(file: PictureFile | bytes, *, max_megapixels: float | None = None) -> Layers:
    """Read a picture with its transparency and its own colours (see :func:`to_layers`).

    Raises:
        UserError: the file is missing, no picture, truncated, or larger than ``max_megapixels`` (see
            :func:`~qefpn.data.decoding.decode`).
    """
    return _understood(file, decode(file, max_megapixels=max_megapixels), to_layers)


def read_image(file: PictureFile | bytes, *, max_megapixels: float | None = None) -> Array:
    """Read a picture: uint8 RGB (H, W, 3), upright (see :func:`to_rgb`).

    Raises:
        UserError: as :func:`read_layers`.
    """
    return _understood(file, decode(file, max_megapixels=max_megapixels), to_rgb)


def read_mask(file: PictureFile | bytes) -> Array:
    """Read a mask: uint8 (H, W), 0 background to 255 object, soft values kept (see :func:`to_mask`).

    Raises:
        UserError: as :func:`read_layers`.
    """
    return _understood(file, decode(file), to_mask)


def shrink(array: Array, limit: int | None) -> Array:
    """Each side cut down to ``limit`` pixels by area averaging; sides that are shorter stay."""
    height, width = array.shape[:2]
    if limit is None or (height <= limit and width <= limit):
        return array
    size = (min(width, limit), min(height, limit))
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


class TestTransform:
    """Resize a picture to a square: antialiased where a side shrinks, as pictures of ``data.cache=ram`` are, bilinear
    where it grows, rounded alike on every processor; masks keep their own size.

    Args:
        size: side in pixels.
    """

    __test__ = False  # no test case, whatever pytest makes of the name

    def __init__(self, size: int = 352) -> None:
        self.size = size

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 3) to uint8 (size, size, 3)."""
        image = shrink(image, self.size)
        if image.shape[:2] == (self.size, self.size):
            return image
        square = (self.size, self.size)
        return np.asarray(cv2.resize(image, square, interpolation=cv2.INTER_LINEAR_EXACT), dtype=np.uint8)
