"""`qefpn predict`: a map becomes what is saved, in the format of the file's name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from qefpn.data.files import FORMATS
from qefpn.errors import UserError
from qefpn.losses import edges

OUTPUT_TYPES = ("map", "binary", "rgba", "overlay", "edges")
_WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_deflate"},
    "AVIF": {"quality": 95},
}


def _format(suffix: str) -> str:
    return next(kind for kind, suffixes in FORMATS.items() if suffix.lower() in suffixes)


def check_suffix(target: Path, output_type: str) -> None:
    """``UserError`` where the format of the file's name cannot hold the output."""
    if output_type == "rgba" and _format(target.suffix) not in _WITH_ALPHA:
        raise UserError(
            f"output={target}: a {target.suffix} file has no transparency, output_type=rgba needs it: name a .png file"
        )
    if target.suffix.lower() == ".pfm":
        raise UserError(f"output={target}: .pfm is not written; name a .png file")


def render(
    colours: np.ndarray, alpha: np.ndarray | None, saliency: np.ndarray, output_type: str, threshold: float
) -> np.ndarray:
    """What is saved: uint8 (H, W), RGB (H, W, 3) or RGBA (H, W, 4).

    Args:
        colours: (H, W, 3) uint8 RGB.
        alpha: (H, W) uint8, the picture's own, or None: a cut-out is as transparent as both say.
        saliency: (H, W) uint8.
        output_type: one of ``OUTPUT_TYPES``.
        threshold: for ``binary``, in [0, 1].
    """
    if output_type == "map":
        return saliency
    if output_type == "binary":
        return np.where(saliency >= threshold * 255, 255, 0).astype(np.uint8)
    if output_type == "rgba":
        if alpha is not None:
            saliency = ((saliency.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
        return np.dstack([colours, saliency])
    if output_type == "edges":
        values = torch.from_numpy(saliency)[None, None].float() / 255
        return (edges(values)[0, 0] * 255).round().byte().numpy()
    weight = saliency[..., None].astype(np.float32) / 255
    tint = np.array([255, 64, 32], np.float32)
    shaded = colours * (0.45 + 0.55 * weight)
    mixed = shaded * (1 - 0.35 * weight) + tint * 0.35 * weight
    return np.clip(mixed, 0, 255).round().astype(np.uint8)


def encode(picture: np.ndarray, suffix: str = ".png") -> bytes:
    """The picture (H, W), RGB or RGBA as a file's bytes, without loss where the format can.

    Raises:
        UserError: the format has no room for it, as WebP above 16383 pixels a side.
    """
    kind = _format(suffix)
    if kind == "PNG":  # OpenCV's encoder takes a third of the time of Pillow's
        channels = picture.ndim == 3 and picture.shape[2]
        code = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(channels or 0)
        done, data = cv2.imencode(".png", picture if code is None else cv2.cvtColor(picture, code))
        if done:
            return data.tobytes()
    stream = io.BytesIO()
    try:
        Image.fromarray(picture).save(stream, kind, **_OPTIONS.get(kind, {}))
    except (OSError, ValueError, KeyError) as error:
        height, width = picture.shape[:2]
        raise UserError(f"{width}x{height} pixels cannot be written as {suffix} ({error}): name a .png file") from error
    return stream.getvalue()
