"""What a user hands in, as a list of pairs of 8-bit pictures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from qefpn.metrics.protocol import Protocol

UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """One saliency map and its mask, ready to be measured.

    Args:
        saliency: (H, W) uint8, C-contiguous.
        mask: (H, W) uint8, C-contiguous; 255 in the foreground and 0 elsewhere.
        blank: the protocol gives this picture 0 in everything.
    """

    saliency: UInt8
    mask: UInt8
    blank: bool


def to_uint8(values: Any, what: str = "map") -> UInt8:
    """8-bit values as a saved PNG would hold them: ``round(255 * x)``, halves to even.

    Args:
        values: torch or NumPy; uint8 0-255 (kept), bool (0 and 255) or float 0-1, any shape. Half precision
            counts as float32.
        what: what to call it in an error.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: a float outside [0, 1], or NaN.
        TypeError: any other type of element.

    >>> to_uint8(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    if isinstance(values, torch.Tensor):
        values = values.detach()
        if values.dtype in (torch.float16, torch.bfloat16):
            values = values.float()
        values = values.cpu().numpy()
    array = np.asarray(values)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind != "f":
        raise TypeError(f"the {what} must be uint8 0-255, bool or float 0-1, not {array.dtype}")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.size:
        check_range(float(array.min()), float(array.max()), what)
    return np.rint(array * 255).astype(np.uint8)


def check_range(low: float, high: float, what: str) -> None:
    """Raise a ``ValueError`` unless floats from ``low`` to ``high`` lie in [0, 1]."""
    if np.isnan(low) or np.isnan(high):
        raise ValueError(f"the {what} holds NaN; its values must be in [0, 1]")
    if low < 0 or high > 1:
        raise ValueError(
            f"the {what} holds floats from {low:.6g} to {high:.6g}, outside [0, 1]; apply a sigmoid, or hand in uint8"
        )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if hasattr(value, "shape") else np.asarray(value).shape


def is_single(value: Any) -> bool:
    """Whether ``value`` is one picture, (H, W), and not a batch or a list of them."""
    return not isinstance(value, (list, tuple)) and len(_shape(value)) == 2


def to_pictures(value: Any, what: str) -> list[UInt8]:
    """Split one argument of a metric into 8-bit pictures.

    Args:
        value: (H, W), (B, H, W) or (B, 1, H, W), torch or NumPy, or a list of (H, W) or (1, H, W).
        what: what to call it in an error.

    Returns:
        B arrays (H, W) of uint8, C-contiguous.

    Raises:
        ValueError: another shape, an empty picture, or values that :func:`to_uint8` refuses.
    """
    if isinstance(value, (list, tuple)):
        items = []
        for position, item in enumerate(value):
            shape = _shape(item)
            if len(shape) == 3 and shape[0] == 1:
                item, shape = item[0], shape[1:]
            if len(shape) != 2:
                raise ValueError(f"{what} {position} of the list has the shape {shape}; it must be (H, W)")
            items.append(to_uint8(item, f"{what} {position}"))
    else:
        shape = _shape(value)
        if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[1] != 1):
            wanted = "(H, W), (B, H, W) or (B, 1, H, W)"
            raise ValueError(f"the {what} has the shape {shape}; it must be {wanted}")
        array = to_uint8(value, what)
        items = [array] if len(shape) == 2 else [item.reshape(shape[-2:]) for item in array]
    for position, picture in enumerate(items):
        if picture.size == 0:
            raise ValueError(f"{what} {position} has no pixel: its shape is {picture.shape}")
    return [np.ascontiguousarray(picture) for picture in items]


def resize_map(saliency: UInt8, size: tuple[int, int]) -> UInt8:
    """Resize as MATLAB's ``imresize`` does: bicubic with ``a = -0.5``, antialiased when it shrinks.

    Pillow's ``BICUBIC`` has the same kernel and the same antialiasing (OpenCV's has ``a = -0.75`` and none).
    Both protocols use it; a map that has its mask's size already comes back as it is.

    Args:
        saliency: (H, W) uint8.
        size: the (rows, columns) wanted.

    Returns:
        (rows, columns) uint8.

    >>> resize_map(np.full((2, 3), 7, np.uint8), (4, 5)).tolist()[3]
    [7, 7, 7, 7, 7]
    """
    rows, columns = int(size[0]), int(size[1])
    if saliency.shape == (rows, columns):
        return saliency
    resized = Image.fromarray(saliency).resize((columns, rows), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8))


def binarize(mask: UInt8, protocol: Protocol) -> UInt8:
    """The foreground of a mask under a protocol: 255 and 0.

    f3net: ``>= 0.5`` after the mask's own min-max, in exact integers (a constant mask is taken as it is,
    of 255); pysod: ``> 128``.
    """
    if protocol.relative_mask:
        low, high = int(mask.min()), int(mask.max())
        if low == high:
            low, high = 0, 255
        threshold = low + (high - low + 1) // 2  # the smallest integer that is at least half way
    else:
        threshold = 129
    return np.negative((mask >= threshold).view(np.uint8))  # 1 wraps to 255


def to_pairs(pred: Any, target: Any, protocol: Protocol) -> list[Picture]:
    """Pair maps with masks; a map of another size than its mask is resized to it.

    Args:
        pred: maps, as :func:`to_pictures` takes them.
        target: masks, the same.
        protocol: how a mask becomes foreground and background.

    Raises:
        ValueError: not as many maps as masks, or input that :func:`to_pictures` refuses.
    """
    maps = to_pictures(pred, "map")
    masks = to_pictures(target, "mask")
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps for {len(masks)} masks; there must be as many of each")
    pictures = []
    for saliency, mask in zip(maps, masks, strict=True):
        saliency = resize_map(saliency, mask.shape)
        binary = binarize(mask, protocol)
        if mask.max() == 1:
            warn_of_ones(protocol)
        blank = protocol.skip_blank and (saliency.max() == 0 or binary.max() == 0)
        pictures.append(Picture(saliency, binary, blank))
    return pictures


def warn_of_ones(protocol: Protocol) -> None:
    """Warn that a mask of 0 and 1 has no foreground, where that is so."""
    if not protocol.relative_mask:
        text = f"a mask of 0 and 1 is empty under {protocol.name!r}, which asks for 0 and 255 (or bool)"
        warnings.warn(text, stacklevel=3)


def check_names(names: Sequence[str] | None, count: int) -> list[str] | None:
    """``names`` as a list of ``count`` strings, or a ``ValueError`` that says how many are wanted."""
    if names is None:
        return None
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    if len(listed) != count:
        raise ValueError(f"{len(listed)} names for {count} pictures; there must be as many of each")
    return listed
