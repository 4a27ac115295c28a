"""What a user hands in, as a list of pairs of pictures. Torch tensors are taken without importing torch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qefpn.metrics.protocol import F3NET, Float, Protocol, levels_of

UInt8 = npt.NDArray[np.uint8]

_NOISE = 1e-6  # how far a float may lie outside [0, 1] and still be taken for rounding
_FORMS = "uint8 0-255, uint16 0-65535, integers 0 and 1, bool or float 0-1"


@dataclass(frozen=True)
class Picture:
    """One saliency map and its mask, ready to be measured.

    Args:
        saliency: (H, W) uint8, C-contiguous; of a map that is not of 8 bits the place of each pixel in ``values``.
        mask: (H, W) uint8, C-contiguous; 255 in the foreground and 0 elsewhere.
        blank: the protocol gives this picture 0 in everything.
        values: (K,) float64, those of a map that is not of 8 bits, rising; None for uint8.
    """

    saliency: npt.NDArray[Any]
    mask: UInt8
    blank: bool
    values: Float | None = None


def to_uint8(values: Any, what: str = "map") -> UInt8:
    """8-bit values as a saved PNG would hold them: of floats ``round(255 * x)``, halves to even.

    Args:
        values: torch, NumPy or nested lists, any shape: uint8 0-255 (kept), bool (0 and 255), float 0-1 up to a
            rounding error of 1e-6 (half precision counts as float32), or other integers: 0 and 1 become 0 and 255,
            values up to 255 are kept, uint16 above that is scaled from 65535.
        what: what to call it in an error.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: a number outside these ranges, or NaN.
        TypeError: any other type of element.

    >>> to_uint8(np.array([0.0, 0.5, 1.0])).tolist(), to_uint8([[0, 1]]).tolist()
    ([0, 128, 255], [[0, 255]])
    """
    array = as_saved(values, what, quantize=True)
    return array if array.dtype == np.uint8 else np.rint(array * 255).astype(np.uint8)


def as_saved(values: Any, what: str = "map", *, quantize: bool = False) -> npt.NDArray[Any]:
    """The same without rounding: uint8 of what is of 8 bits, float of what has more, 16-bit integers among them.

    Args:
        values, what: as :func:`to_uint8` takes them.
        quantize: whether 16-bit integers come as uint8 all the same.
    """
    if hasattr(values, "detach"):  # a torch tensor
        values = values.detach()
        if str(values.dtype) in ("torch.float16", "torch.bfloat16"):
            values = values.float()
        values = values.cpu().numpy()
    array = np.asarray(values)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind in "iu":
        return _from_integers(array, what, quantize)
    if array.dtype.kind != "f":
        raise TypeError(f"the {what} must be {_FORMS}, not {array.dtype}")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return _in_range(array, what) if array.size else array


def _in_range(array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    low, high = float(array.min()), float(array.max())
    if np.isnan(low) or np.isnan(high):
        raise ValueError(f"the {what} holds NaN; its values must be in [0, 1]")
    if low < -_NOISE or high > 1 + _NOISE:
        raise ValueError(
            f"the {what} holds floats from {low:.6g} to {high:.6g}, outside [0, 1]; apply a sigmoid, or hand in uint8"
        )
    return array.clip(0, 1) if low < 0 or high > 1 else array


def _from_integers(array: npt.NDArray[Any], what: str, quantize: bool) -> npt.NDArray[Any]:
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high > (65535 if array.dtype == np.uint16 else 255):
        raise ValueError(f"the {what} holds {array.dtype} from {low} to {high}; it must be {_FORMS}")
    if high <= 1:
        return array.astype(np.uint8) * np.uint8(255)
    if high <= 255:
        return array.astype(np.uint8)
    return ((array.astype(np.int64) + 128) // 257).astype(np.uint8) if quantize else array / 65535


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)


def _is_rows(value: Any) -> bool:
    """Whether a list is a picture written out, a list of lists of numbers."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(
            isinstance(row, (list, tuple)) and all(isinstance(one, (bool, int, float)) for one in row) for row in value
        )
    )


def is_single(value: Any) -> bool:
    """Whether ``value`` is one picture, (H, W), and not a batch or a list of them."""
    return _is_rows(value) or (not isinstance(value, (list, tuple)) and len(_shape(value)) == 2)


def to_pictures(value: Any, what: str, quantize: bool = True) -> list[npt.NDArray[Any]]:
    """Split one argument of a metric into pictures.

    Args:
        value: (H, W), (B, H, W) or (B, 1, H, W), torch, NumPy or nested lists, or a list of (H, W) or (1, H, W). A map
            in a list may be an RGBA cut-out, (H, W, 4): its alpha is taken.
        what: "map" or "mask", also what to call it in an error.
        quantize: whether all become uint8; else as :func:`as_saved`.

    Returns:
        B arrays (H, W), C-contiguous.

    Raises:
        ValueError: another shape, an empty picture, or values that :func:`to_uint8` refuses.
    """
    convert = to_uint8 if quantize else as_saved
    if _is_rows(value):
        value = np.asarray(value)
    if isinstance(value, (list, tuple)):
        items = []
        for position, item in enumerate(value):
            shape = _shape(item)
            if len(shape) == 3 and shape[0] == 1:
                item, shape = item[0], shape[1:]
            elif len(shape) == 3 and shape[2] == 4 and what == "map":
                item, shape = item[..., 3], shape[:2]
            if len(shape) != 2:
                colour = "; take one channel, or its luminance" if len(shape) == 3 and shape[2] == 3 else ""
                raise ValueError(f"{what} {position} of the list has the shape {shape}; it must be (H, W){colour}")
            items.append(convert(item, f"{what} {position}"))
    else:
        shape = _shape(value)
        if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[1] != 1):
            wanted = "(H, W), (B, H, W) or (B, 1, H, W)"
            raise ValueError(f"the {what} has the shape {shape}; it must be {wanted}")
        array = convert(value, what)
        items = [array] if len(shape) == 2 else [item.reshape(shape[-2:]) for item in array]
    for position, picture in enumerate(items):
        if picture.size == 0:
            raise ValueError(f"{what} {position} has no pixel: its shape is {picture.shape}")
    return [np.ascontiguousarray(picture) for picture in items]


def resize_map(saliency: npt.NDArray[Any], size: tuple[int, int], protocol: Protocol = F3NET) -> npt.NDArray[Any]:
    """Resize a map to its mask as the protocol does; one of that size already comes back as it is.

    MATLAB's ``imresize`` is bicubic with ``a = -0.5`` and antialiased when it shrinks; so is Pillow's ``BICUBIC``, up
    to a border of two pixels where MATLAB mirrors, which serves for 8-bit maps that stay of 8 bits. PySODEvalToolkit
    resizes bilinearly by OpenCV.

    Args:
        saliency: (H, W) uint8, or float in [0, 1].
        size: the (rows, columns) wanted.
        protocol: whose way.

    Returns:
        (rows, columns), uint8 where the map is and the protocol keeps it so; else float64, which may reach a little
        beyond [0, 1] after a bicubic resize, as in MATLAB.

    >>> resize_map(np.full((2, 3), 7, np.uint8), (4, 5)).tolist()[3]
    [7, 7, 7, 7, 7]
    """
    rows, columns = int(size[0]), int(size[1])
    if saliency.shape == (rows, columns):
        return saliency
    if protocol.resizing == "opencv_bilinear":
        import cv2

        return np.asarray(cv2.resize(saliency, (columns, rows), interpolation=cv2.INTER_LINEAR))
    if saliency.dtype == np.uint8 and protocol.resizing == "matlab_bicubic":
        from PIL import Image

        resized = Image.fromarray(saliency).resize((columns, rows), Image.Resampling.BICUBIC)
        return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8))
    levels = saliency / 255 if saliency.dtype == np.uint8 else saliency.astype(np.float64)
    floats: Float = _bicubic(saliency.shape[0], rows) @ levels @ _bicubic(saliency.shape[1], columns).T
    return floats.round(13)  # a map of one value stays one


def _bicubic(before: int, after: int) -> Float:
    """(after, before) the weights of MATLAB's ``imresize`` along one side, whose border mirrors the picture."""
    scale = min(after / before, 1.0)
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    reach = int(np.ceil(4 / scale)) + 2
    places = np.floor(centres - 2 / scale).astype(np.int64)[:, None] + np.arange(reach)
    x = np.abs(scale * (centres[:, None] - places))
    weights = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x <= 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0.0))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = places % (2 * before)
    mirrored = np.where(mirrored < before, mirrored, 2 * before - 1 - mirrored)
    matrix = np.zeros((after, before))
    np.add.at(matrix, (np.arange(after)[:, None], mirrored), weights)
    return matrix


def binarize(mask: UInt8, protocol: Protocol) -> UInt8:
    """The foreground of a mask under a protocol: 255 and 0."""
    threshold = protocol.mask_threshold
    low, high = (0, 0) if threshold is not None and not protocol.constant_mask else (int(mask.min()), int(mask.max()))
    if protocol.constant_mask and low == high:
        threshold = 1
    elif threshold is None:
        threshold = low + (high - low + 1) // 2  # the smallest integer that is at least half way
        if levels_of(low, high, protocol)[threshold] < 0.5:  # exactly half way, and rounded down
            threshold += 1
    return np.negative((mask >= threshold).view(np.uint8))  # 1 wraps to 255


def to_pairs(pred: Any, target: Any, protocol: Protocol, quantize: bool = True) -> list[Picture]:
    """Pair maps with masks; a map of another size than its mask is resized to it.

    Args:
        pred: maps, as :func:`to_pictures` takes them.
        target: masks, the same.
        protocol: how maps are resized, and how a mask becomes foreground and background.
        quantize: whether maps of floats or 16 bits are rounded to 8.

    Raises:
        ValueError: not as many maps as masks, or input that :func:`to_pictures` refuses.
    """
    maps = to_pictures(pred, "map", quantize)
    masks = to_pictures(target, "mask")
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps for {len(masks)} masks; there must be as many of each")
    pictures = []
    for saliency, mask in zip(maps, masks, strict=True):
        saliency = resize_map(saliency, mask.shape, protocol)
        binary = binarize(mask, protocol)
        if protocol.mask_threshold is not None and mask.max() == 1:
            text = f"a mask of 0 and 1 is empty under {protocol.name!r}, which asks for 0 and 255 (or bool)"
            warnings.warn(text, stacklevel=3)
        blank = protocol.skip_blank and (saliency.max() == 0 or binary.max() == 0)
        if saliency.dtype == np.uint8:
            pictures.append(Picture(saliency, binary, blank))
        else:
            values, places = np.unique(saliency, return_inverse=True)
            pictures.append(Picture(places.reshape(mask.shape), binary, blank, values.astype(np.float64)))
    return pictures


def check_names(names: Sequence[str] | None, count: int) -> list[str] | None:
    """``names`` as a list of ``count`` strings, or a ``ValueError`` that says how many are wanted."""
    if names is None:
        return None
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    if len(listed) != count:
        raise ValueError(f"{len(listed)} names for {count} pictures; there must be as many of each")
    return listed
