"""A trained network on pictures of one's own: its logits become 8-bit maps at each picture's own size."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from qefpn.data.files import ZipMember
from qefpn.data.reading import TestTransform, on_white, read_image, to_rgb
from qefpn.errors import UserError
from qefpn.models import QEFPN
from qefpn.models.loading import load_trained
from qefpn.models.remote import pretrained

Picture = str | os.PathLike[str] | ZipMember | Image.Image | np.ndarray | bytes | bytearray | memoryview | IO[bytes]
T = TypeVar("T")

TAKEN = (
    "a path, a PIL picture, a NumPy array of uint8 (H, W, 3) RGB, (H, W) or (H, W, 4), the bytes of a picture file, "
    "a file open in binary mode, or a list of these"
)
BATCH_PIXELS = 50_000_000
"""A batch is closed early when its pictures, kept at their own size, have more pixels together."""


def in_batches(items: Iterable[tuple[T, np.ndarray]], size: int) -> Iterator[list[tuple[T, np.ndarray]]]:
    """The items, each with its picture (H, W, 3), in lists of at most ``size``, fewer where pictures are large."""
    batch: list[tuple[T, np.ndarray]] = []
    pixels = 0
    for item in items:
        batch.append(item)
        pixels += item[1].shape[0] * item[1].shape[1]
        if len(batch) == size or pixels > BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def to_maps(logits: Tensor, sizes: Sequence[tuple[int, int]], quantize: bool = True) -> list[np.ndarray]:
    """Upsample the logits, then sigmoid, then 8 bits unless told otherwise.

    Args:
        logits: (B, 1, h, w), any floating type.
        sizes: (H, W) of each picture.

    Returns:
        One uint8 array (H, W) a picture, 0 to 255: what a saved PNG holds; float32 in [0, 1] without ``quantize``.
    """
    maps = []
    for one, size in zip(logits.float(), sizes, strict=True):
        full = F.interpolate(one[None], size=tuple(int(n) for n in size), mode="bilinear", align_corners=False)
        # in place: three more copies of a photograph of 200 megapixels would be 2.4 GB
        saliency = full[0, 0].sigmoid_()
        maps.append((saliency.mul_(255).round_().to(torch.uint8) if quantize else saliency).cpu().numpy())
    return maps


@torch.no_grad()
def predict_maps(
    network: QEFPN,
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    unroll: int | None = None,
    *,
    flip: bool = False,
    quantize: bool = True,
) -> list[np.ndarray]:
    """Saliency maps of images (B, 3, H, W), uint8 or floating-point in [0, 1], each at its own size; ``unroll`` as
    :meth:`QEFPN.run` has it. ``flip``: of the mean of the logits of the image and of its mirror image. ``quantize``: as
    :func:`to_maps` has it."""
    logits = network.run(images, unroll=unroll).logits
    if flip:
        logits = (logits + network.run(images.flip(3), unroll=unroll).logits.flip(3)) / 2
    return to_maps(logits, sizes, quantize)


class Predictor:
    """A trained network as a function from a picture to its saliency map.

    Pictures are resized to the square that the network was evaluated at, and the map back to the picture's own size:
    what ``qefpn predict`` saves and what ``qefpn evaluate`` scores.

    Args:
        checkpoint: of ``qefpn train``, such as ``RUN/checkpoints/best.ckpt``; the name of a network that comes with the
            package; ``hub:owner/name`` or an https address with its sha256, as :meth:`from_pretrained` has them; None
            for the usual one of the package.
        device: where the network runs, such as "cpu" or "cuda:0".
        image_size: side of the network's square input in pixels; None for that of the checkpoint.
        batch_size: how many pictures of a list go through the network at once, at most.
        max_megapixels: larger pictures are refused; None for the default of
            :func:`~qefpn.data.decoding.decode`.
        flip: take the mean with what the network makes of the mirror image: a little better, and twice the time.
        budget: "fast", "balanced" or "exact": how far the pyramid is solved (``qefpn analyze budget``).

    Raises:
        UserError: no checkpoint, or a damaged one; the message names the file.
        ValueError: ``image_size`` below 32, ``batch_size`` below 1.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        *,
        device: str | torch.device = "cpu",
        image_size: int | None = None,
        batch_size: int = 8,
        max_megapixels: float | None = None,
        flip: bool = False,
        budget: str | None = None,
    ) -> None:
        if image_size is not None and image_size < 32:
            raise ValueError(f"image_size must be at least 32, not {image_size}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        loaded = load_trained(checkpoint, budget)
        self.device = torch.device(device)
        self.network = loaded.network.eval().to(self.device)
        if (channels := self.network.mean.shape[0]) != 3:
            raise UserError(
                f"the network takes pictures of {channels} channels, and files are read as RGB: call it itself"
            )
        self.image_size = image_size or loaded.image_size
        self.batch_size = batch_size
        self.max_megapixels = max_megapixels
        self.flip = flip
        self._resize = TestTransform(self.image_size)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, sha256: str | None = None, **options: Any) -> Self:
        """The predictor of a network that somebody published, fetched once and kept in a cache.

            Predictor.from_pretrained("owner/name")             of the hub; "owner/name@revision" for one commit or tag
            Predictor.from_pretrained("FOLDER")                 of `qefpn export format=hub`
            Predictor.from_pretrained("https://.../model.safetensors", sha256="...")

        Safetensors and JSON are all that is read. Where ``owner/name`` is a folder, the folder is meant.

        Args:
            source: see above; or whatever ``checkpoint`` may be.
            sha256: of the file at an address, unless it ends in ``#sha256=...``.
            options: of :class:`Predictor`.

        Raises:
            UserError: one line: nothing there, not reachable, damaged, or no network of this package.
        """
        return cls(pretrained(source, sha256), **options)

    @overload
    def __call__(self, picture: list[Picture] | tuple[Picture, ...]) -> list[np.ndarray]: ...

    @overload
    def __call__(self, picture: Picture) -> np.ndarray: ...

    def __call__(self, picture: Picture | list[Picture] | tuple[Picture, ...]) -> np.ndarray | list[np.ndarray]:
        """The map (H, W), uint8 from 0 to 255, of a picture; of a list or tuple of pictures a list of maps.

        A picture is a path, a PIL picture, a NumPy array of uint8 ((H, W, 3) RGB, (H, W) grey or (H, W, 4) with
        alpha), the bytes of a picture file, or a file open in binary mode. Files and PIL pictures are turned upright
        as EXIF says, and the map is as the picture is then; alpha is laid on white.

        Raises:
            UserError: a file that cannot be read, or an array of another shape or type.
            TypeError: anything else.
        """
        if not isinstance(picture, (list, tuple)):
            return self.batch([self._colours(picture)])[0]
        batches = in_batches(((None, self._colours(one)) for one in picture), self.batch_size)
        return [one for batch in batches for one in self.batch([image for _, image in batch])]

    def _colours(self, picture: object) -> np.ndarray:
        """The picture as uint8 RGB (H, W, 3)."""
        if isinstance(picture, np.ndarray):
            return _from_array(picture)
        if isinstance(picture, Image.Image):
            try:
                return to_rgb(picture)
            except Exception as error:  # a truncated file that was opened lazily, one closed before, an odd mode
                raise UserError(f"the PIL picture cannot be read: {error}") from error
        if isinstance(picture, (bytes, bytearray, memoryview)):
            return read_image(bytes(picture), max_megapixels=self.max_megapixels)
        if isinstance(picture, (str, os.PathLike)):
            path = os.fsdecode(picture)
            if re.match(r"https?://", path):
                raise UserError(f"{path} is an address: download the picture first, and give its path or bytes")
            return read_image(os.path.expanduser(path), max_megapixels=self.max_megapixels)
        if isinstance(picture, ZipMember):
            return read_image(picture, max_megapixels=self.max_megapixels)
        if hasattr(picture, "read"):
            data = picture.read()
            if isinstance(data, bytes):
                return read_image(data, max_megapixels=self.max_megapixels)
            raise TypeError("the file is open as text: open it in binary mode, open(path, 'rb')")
        raise TypeError(f"a picture is {TAKEN}; not {type(picture).__name__}")

    def batch(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The maps of RGB arrays (H, W, 3), uint8, of any sizes, in one pass through the network.

        Raises:
            UserError: an array of another shape or type.
        """
        for image in images:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
                raise UserError(f"an RGB array (H, W, 3) of uint8 is needed, not {image.shape} of {image.dtype}")
        if not images:
            return []
        resized = [torch.from_numpy(self._resize(image)) for image in images]
        inputs = torch.stack(resized).permute(0, 3, 1, 2)
        sizes = [image.shape[:2] for image in images]
        return predict_maps(self.network, inputs.to(self.device), sizes, flip=self.flip)


def _from_array(array: np.ndarray) -> np.ndarray:
    sound = array.dtype == np.uint8 and array.size > 0
    if sound and array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if sound and array.ndim == 3 and array.shape[2] == 3:
        return array
    if sound and array.ndim == 3 and array.shape[2] == 4:
        return on_white(np.ascontiguousarray(array[:, :, :3]), np.ascontiguousarray(array[:, :, 3]))
    raise UserError(
        f"an array of uint8 (H, W, 3) RGB, (H, W) or (H, W, 4) is needed, not {array.shape} of {array.dtype}"
        + ("; several pictures go as a list" if array.ndim == 4 else "")
    )
