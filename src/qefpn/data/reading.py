"""Reading pictures and masks of any common kind into plain 8-bit arrays.

Pillow decodes (it knows CMYK, palettes, 1 and 16 bits, EXIF); what each kind means is decided here.
"""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from qefpn.data.files import PictureFile, read_bytes
from qefpn.errors import UserError

__all__ = ["decode", "picture_size", "read_image", "read_mask", "to_mask", "to_rgb"]

Array = npt.NDArray[np.uint8]

# A file may be called .jpg and be anything: no decoder is tried that runs other programs or reads vector
# formats.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM")
_ORIENTATION = 0x0112
_FLAT_COLOURS = 32
_COLOUR_TOLERANCE = 24


def decode(file: PictureFile | bytes, *, draft: int | None = None, name: str | None = None) -> Image.Image:
    """Decode ``file`` completely.

    Args:
        file: path, zip member or the bytes themselves.
        draft: decode a JPEG at the smallest 1/1, 1/2, 1/4, 1/8 scale of at least this many pixels a side:
            every byte is still parsed, so that truncation shows, in a third of the time.
        name: what to call bytes in an error.

    Raises:
        UserError: missing, no picture, truncated, or too large to be decoded safely.
    """
    label = name or ("the picture" if isinstance(file, bytes) else str(file))
    data = file if isinstance(file, bytes) else _content(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata is no concern of ours; broken pixels raise
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
            if draft is not None:
                image.draft(None, (draft, draft))
            image.load()
    except UnidentifiedImageError as error:
        what = "an empty file" if not data else "not a picture, whatever its name says"
        raise UserError(f"cannot read {label}: {what}") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"cannot read {label}: too many pixels to be a photograph") from error
    except Exception as error:
        # Damaged files make decoders raise anything: OSError, SyntaxError, struct.error, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise UserError(f"cannot read {label}: truncated or damaged ({reason})") from error
    return image


def _content(file: PictureFile) -> bytes:
    try:
        return read_bytes(file)
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {file}: {reason}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turned and mirrored as EXIF says, as every viewer shows it."""
    return ImageOps.exif_transpose(image)


def picture_size(file: PictureFile) -> tuple[int, int]:
    """(height, width) of a picture as it is shown, that is after EXIF orientation. Parses the whole file.

    Raises:
        UserError: the file is missing, no picture, or truncated.
    """
    data = _content(file)
    image = decode(data, draft=1, name=str(file))
    with Image.open(io.BytesIO(data), formats=_FORMATS) as header:
        width, height = header.size  # drafting changed image.size
    turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


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


def to_rgb(image: Image.Image) -> Array:
    """A decoded picture as uint8 RGB (H, W, 3), upright.

    Transparency is laid on white, as a page shows it (what hides under alpha 0 is arbitrary). CMYK is
    converted without a colour profile. 16 bits are scaled, not cut.
    """
    image = _upright(image)
    if _is_deep(image):
        grey = _from_deep(np.asarray(image))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        page = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, rgba)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)


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


def read_image(file: PictureFile | bytes) -> Array:
    """Read a picture: uint8 RGB (H, W, 3), upright (see :func:`to_rgb`).

    Raises:
        UserError: the file is missing, no picture, or truncated.
    """
    return to_rgb(decode(file))


def read_mask(file: PictureFile | bytes) -> Array:
    """Read a mask: uint8 (H, W), 0 background to 255 object, soft values kept (see :func:`to_mask`).

    Raises:
        UserError: the file is missing, no picture, or truncated.
    """
    return to_mask(decode(file))
