"""The paper's augmentation as albumentations pipelines, seeded per sample instead of per worker.

Order of the recipe: read, normalise, random crop, flip, one size for the batch. Normalising is affine in each
channel, so it commutes with the other three; the network does it (:class:`qefpn.models.QEFPN`), which keeps everything
before it in 8 bits.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qefpn.errors import UserError
from qefpn.text import did_you_mean

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version at import

import albumentations as A  # noqa: E402, N812 - after the line above; A is its own convention
import cv2  # noqa: E402
from albumentations.augmentations.crops.transforms import BaseCrop  # noqa: E402
from albumentations.core.transforms_interface import BaseTransformInitSchema  # noqa: E402
from pydantic import Field  # noqa: E402

__all__ = [
    "RandomTrim",
    "TrainTransform",
    "build_transform",
]

Array = npt.NDArray[np.uint8]


class RandomTrim(BaseCrop):  # type: ignore[misc, unused-ignore]
    """Crop that takes up to a share of the height and of the width away, at a random place.

    How many rows go is drawn uniformly from 0..limit·H, and how many of them at the top uniformly from these;
    the same for columns.

    Args:
        limit: largest share of each side that is removed, in [0, 1).
        p: probability.
    """

    class InitSchema(BaseTransformInitSchema):  # type: ignore[misc, unused-ignore]
        """What albumentations validates the arguments with."""

        limit: float = Field(ge=0.0, lt=1.0)

    def __init__(self, limit: float = 0.125, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.limit = limit

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the crop for a picture of shape ``params["shape"]``."""
        height, width = params["shape"][:2]
        rows = self.py_random.randint(0, int(self.limit * height))
        top = self.py_random.randint(0, rows)
        columns = self.py_random.randint(0, int(self.limit * width))
        left = self.py_random.randint(0, columns)
        return {"crop_coords": (left, top, left + width - columns, top + height - rows)}


def build_transform(name: str, **arguments: Any) -> A.BasicTransform:
    """An albumentations transform (or :class:`RandomTrim`) by name.

    albumentations 2.0.8 only warns about an argument that it does not know and goes on with a default; here
    that is an error.

    Raises:
        UserError: unknown name, unknown argument, or a value out of range.
    """
    kind = RandomTrim if name == "RandomTrim" else getattr(A, name, None)
    if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)):
        names = [entry for entry in dir(A) if isinstance(getattr(A, entry), type)]
        hint = did_you_mean(name, names)
        raise UserError(f"data.augment: albumentations has no transform {name!r}{hint}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return kind(**arguments)
    except (UserWarning, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"data.augment: {name}({', '.join(arguments)}): {reason}") from error


def _augmentations(specs: Sequence[Mapping[str, Any]] | None) -> list[A.BasicTransform]:
    transforms = []
    for spec in specs or ():
        if not isinstance(spec, Mapping) or "name" not in spec:
            raise UserError(f"data.augment takes entries such as {{name: ColorJitter, p: 0.5}}, got {spec!r}")
        arguments = {str(key): _plain(value) for key, value in spec.items() if key != "name"}
        transforms.append(build_transform(str(spec["name"]), **arguments))
    return transforms


def _plain(value: Any) -> Any:
    """Containers of a configuration library as plain ones, which is what albumentations validates."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(entry) for entry in value)
    return value


class TrainTransform:
    """Random crop, flip and further augmentations, then resizing to the batch's size.

    The randomness of a sample is a function of (seed, epoch, index) alone: neither the number of workers, nor
    the order in which they work, nor a resumed run changes a picture.

    Args:
        crop: largest share of each side that is cropped away, in [0, 1).
        flip: probability of a horizontal flip.
        augment: more albumentations transforms, between flip and resizing:
            ``[{"name": "ColorJitter", "p": 0.5}]``.
        seed: seed of the run.

    Raises:
        UserError: values out of range, or an entry of ``augment`` that cannot be built or applied.
    """

    def __init__(
        self,
        *,
        crop: float = 0.125,
        flip: float = 0.5,
        augment: Sequence[Mapping[str, Any]] | None = None,
        seed: int = 0,
    ) -> None:
        if not 0.0 <= crop < 1.0:
            raise UserError(f"data.crop is the largest share of a side to crop away, in [0, 1); got {crop}")
        if not 0.0 <= flip <= 1.0:
            raise UserError(f"data.flip is a probability in [0, 1]; got {flip}")
        self.seed = seed
        self._base: list[A.BasicTransform] = []
        if crop > 0:
            self._base.append(build_transform("RandomTrim", limit=float(crop)))
        if flip > 0:
            self._base.append(build_transform("HorizontalFlip", p=float(flip)))
        self._base.extend(_augmentations(augment))
        self._by_size: dict[int, A.Compose] = {}
        if augment:
            self._try_out()

    def compose(self, size: int) -> A.Compose:
        """The pipeline that ends in (size, size)."""
        pipeline = self._by_size.get(size)
        if pipeline is None:
            resize = A.Resize(size, size, interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_LINEAR)
            pipeline = A.Compose([*self._base, resize], mask_interpolation=cv2.INTER_LINEAR)
            self._by_size[size] = pipeline
        return pipeline

    def __call__(self, image: Array, mask: Array, *, size: int, epoch: int, index: int) -> tuple[Array, Array]:
        """Augment one pair.

        Args:
            image: uint8 (H, W, 3).
            mask: uint8 (H, W).
            size: side of the result.
            epoch, index: which sample this is.

        Returns:
            uint8 (size, size, 3) and (size, size).
        """
        pipeline = self.compose(size)
        # Compose.set_random_seed would give every transform the same stream, so that a flip and a jitter of
        # equal probability always came together; one shared pair of generators keeps them independent.
        sequence = np.random.SeedSequence([self.seed, epoch, index])
        word = int.from_bytes(sequence.generate_state(4).tobytes(), "little")
        pipeline.set_random_state(np.random.Generator(np.random.PCG64(sequence)), random.Random(word))
        result = pipeline(image=image, mask=mask)
        return result["image"], result["mask"]

    def _try_out(self) -> None:
        """Fail now, not in a worker, if the augmentations break a picture."""
        image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
        mask = np.zeros((64, 80), dtype=np.uint8)
        mask[16:48, 20:60] = 255
        for index in range(8):
            try:
                new_image, new_mask = self(image, mask, size=64, epoch=0, index=index)
            except Exception as error:
                raise UserError(f"data.augment cannot be applied: {' '.join(str(error).split())[:200]}") from error
            if new_image.dtype != np.uint8 or new_image.shape != (64, 64, 3) or new_mask.dtype != np.uint8:
                raise UserError(
                    "data.augment must keep 8-bit RGB pictures and 8-bit masks (the network normalises them)"
                )
