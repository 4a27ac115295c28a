"""`qefpn predict`: a map becomes what is saved, in the format of the file's name."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from qefpn.data.files import FORMATS
from qefpn.data.reading import Layers, on_white
from qefpn.errors import UserError
from qefpn.inference.cutout import Background, background_named, by_strips, laid_on, matte, parted
from qefpn.losses import edges

OUTPUT_TYPES = ("map", "binary", "rgba", "overlay", "edges", "background")
CUT = ("rgba", "background")
"""Those that cut the object out."""
_WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")
_WITH_PROFILE = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
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


@dataclass(frozen=True)
class Rendered:
    """A picture to be saved.

    Attributes:
        picture: uint8 (H, W), RGB (H, W, 3) or RGBA (H, W, 4), in sRGB.
        own: the same in the colours of ``profile``, for formats that can hold one.
        profile: an ICC profile.
    """

    picture: np.ndarray
    own: np.ndarray | None = None
    profile: bytes | None = None

    def encoded(self, suffix: str = ".png") -> bytes:
        """The file's bytes, with the colour profile where there is one and the format can hold it.

        Raises:
            UserError: as :func:`encode`.
        """
        if self.own is not None and _format(suffix) in _WITH_PROFILE:
            return encode(self.own, suffix, self.profile)
        return encode(self.picture, suffix)


@dataclass(frozen=True)
class Rendering:
    """How maps become pictures.

    Args:
        kinds: of ``OUTPUT_TYPES``.
        threshold: of ``binary``, in [0, 1]; "otsu" finds one for each map (Otsu, 1979).
        matting: give cut-outs soft edges as in the picture (:mod:`qefpn.inference.cutout`) in place of the map's.
        background: what ``background`` lays behind the object, as :func:`background_named` gives it.
    """

    kinds: tuple[str, ...] = ("map",)
    threshold: float | str = 0.5
    matting: bool = True
    background: Background | None = None

    def __call__(self, layers: Layers, saliency: np.ndarray) -> dict[str, Rendered]:
        """What is saved of each kind.

        Args:
            layers: the picture.
            saliency: its map, (H, W) uint8.
        """
        made: dict[str, Rendered] = {}
        if set(CUT) & set(self.kinds):
            made = self._cut(layers, self._alpha(layers, saliency))
        if "map" in self.kinds:
            made["map"] = Rendered(saliency)
        if "binary" in self.kinds:
            made["binary"] = Rendered(self._binary(saliency))
        if "edges" in self.kinds:
            made["edges"] = Rendered(by_strips(_edges, saliency, reach=1))
        if "overlay" in self.kinds:
            made["overlay"] = Rendered(by_strips(_overlay, layers.colours, saliency))
        return made

    def _binary(self, saliency: np.ndarray) -> np.ndarray:
        if self.threshold == "otsu":
            return np.asarray(cv2.threshold(saliency, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1])
        return np.where(saliency >= float(self.threshold) * 255, 255, 0).astype(np.uint8)

    def _alpha(self, layers: Layers, saliency: np.ndarray) -> np.ndarray:
        """How much of a pixel is kept: a cut-out is as transparent as it says and as the picture is already."""
        alpha = matte(on_white(layers.colours, layers.alpha), saliency) if self.matting else saliency
        if layers.alpha is None:
            return alpha
        return ((alpha.astype(np.uint16) * layers.alpha + 127) // 255).astype(np.uint8)

    def _cut(self, layers: Layers, alpha: np.ndarray) -> dict[str, Rendered]:
        """Those of ``CUT`` that are asked for."""
        made: dict[str, Rendered] = {}
        front, back = self._front(layers, layers.colours, alpha)
        if "rgba" in self.kinds:
            own = None if layers.own is None else np.dstack([self._front(layers, layers.own, alpha)[0], alpha])
            made["rgba"] = Rendered(np.dstack([front, alpha]), own, layers.profile)
        if self.background is not None:
            made["background"] = Rendered(laid_on(front, alpha, self.background(back, alpha)))
        return made

    def _front(self, layers: Layers, colours: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The object's colours and the background's. A picture that is transparent already shows its object's own."""
        return parted(colours, alpha) if self.matting and layers.alpha is None else (colours, colours)


def _edges(saliency: np.ndarray) -> np.ndarray:
    values = torch.from_numpy(saliency)[None, None].float() / 255
    return (edges(values)[0, 0] * 255).round().byte().numpy()


def chosen_rendering(
    kinds: tuple[str, ...],
    threshold: object,
    matting: bool,
    background: str | None,
    max_megapixels: float | None = None,
) -> Rendering:
    """What a command's options ask for, beside the names of ``kinds``.

    Raises:
        UserError: no such threshold or background, or a background that nothing is laid on.
    """
    if threshold != "otsu" and not (isinstance(threshold, int | float) and 0.0 <= threshold <= 1.0):
        raise UserError(f"threshold must be in [0, 1], or otsu, not {threshold}")
    if (background is None) is ("background" in kinds):
        way_out = "give background=#rrggbb, blur or a picture" if background is None else "add output_type=background"
        raise UserError(f"output_type=background and background= belong together: {way_out}")
    made = None if background is None else background_named(background, max_megapixels)
    return Rendering(kinds, threshold if isinstance(threshold, str) else float(threshold), matting, made)


def _overlay(colours: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    weight = saliency[..., None].astype(np.float32) / 255
    tint = np.array([255, 64, 32], np.float32)
    shaded = colours * (0.45 + 0.55 * weight)
    mixed = shaded * (1 - 0.35 * weight) + tint * 0.35 * weight
    return np.clip(mixed, 0, 255).round().astype(np.uint8)


def encode(picture: np.ndarray, suffix: str = ".png", profile: bytes | None = None) -> bytes:
    """The picture (H, W), RGB or RGBA as a file's bytes, without loss where the format can.

    Args:
        picture: uint8.
        suffix: says the format.
        profile: an ICC profile to embed.

    Raises:
        UserError: the format has no room for it, as WebP above 16383 pixels a side.
    """
    kind = _format(suffix)
    if kind == "PNG" and profile is None:  # OpenCV's encoder takes a third of the time of Pillow's
        channels = picture.ndim == 3 and picture.shape[2]
        code = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(channels or 0)
        done, data = cv2.imencode(".png", picture if code is None else cv2.cvtColor(picture, code))
        if done:
            return data.tobytes()
    stream = io.BytesIO()
    try:
        options = _OPTIONS.get(kind, {}) | ({} if profile is None else {"icc_profile": profile})
        Image.fromarray(picture).save(stream, kind, **options)
    except (OSError, ValueError, KeyError) as error:
        height, width = picture.shape[:2]
        raise UserError(f"{width}x{height} pixels cannot be written as {suffix} ({error}): name a .png file") from error
    return stream.getvalue()
