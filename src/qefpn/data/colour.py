"""Colour profiles: any picture's numbers as sRGB, which the network was trained on and screens show."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

__all__ = ["to_srgb"]

_SAME = 2
"""A profile that changes no colour by more (of 255) is sRGB in its maker's spelling."""
_SPACES = {"L": ("GRAY",), "RGB": ("RGB ",), "CMYK": ("CMYK",), "LAB": ("Lab ",)}


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """The picture in sRGB, mode ``RGB``: by its profile, else as Pillow converts its mode.

    Args:
        image: without alpha, of any 8-bit mode.
        profile: the ICC profile that was in the file, bytes. One that is broken or of another kind of colour is
            ignored, and so is what is no bytes.
    """
    image = image if image.mode in _SPACES else image.convert("RGB")
    if isinstance(profile, bytes) and profile:
        for mode in dict.fromkeys((image.mode, "RGB")):  # a grey picture may carry a profile of RGB
            transform = _transform(profile, mode) if mode in _SPACES else None
            if transform is not None:
                source = image if image.mode == mode else image.convert(mode)
                try:
                    shown = ImageCms.applyTransform(source, transform)
                except (ImageCms.PyCMSError, OSError, ValueError):
                    continue
                if shown is not None:
                    return shown
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile to sRGB; None where it is broken, of another kind of colour, or sRGB itself."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space not in _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB":
            steps = np.linspace(0, 255, 9).round().astype(np.uint8)
            grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
            shown = ImageCms.applyTransform(Image.fromarray(grid), transform)
            if shown is None or np.abs(np.asarray(shown, dtype=int) - grid).max() <= _SAME:
                return None
        return transform
    except Exception:  # profiles are broken in as many ways as files are
        return None
