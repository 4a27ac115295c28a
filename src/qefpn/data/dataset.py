"""Pairs as samples and batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from qefpn.data.cache import PictureCache
from qefpn.data.layouts import Pair, find_pairs
from qefpn.data.reading import TestTransform, read_image, read_mask
from qefpn.data.sampler import SampleKey
from qefpn.data.transforms import TrainTransform

__all__ = ["SaliencyDataset", "collate_test", "collate_train"]

Sample = dict[str, Any]


class SaliencyDataset(Dataset[Sample]):
    """Pictures with their masks.

    Args:
        source: folder or zip of one data set (see :func:`qefpn.data.find_pairs`), or pairs.
        transform: :class:`TrainTransform` (needs :class:`SampleKey` as index, or ``size``),
            :class:`TestTransform`, or None for the arrays as they were read.
        cache: decoded pictures, in the order of the pairs.
        size: side of a training sample that is asked for by a plain index.
        **find: passed to ``find_pairs`` where ``source`` is a path.

    Raises:
        UserError: nothing usable at ``source``; on access, a file that cannot be read.
    """

    def __init__(
        self,
        source: str | Path | Iterable[Pair],
        *,
        transform: TrainTransform | TestTransform | None = None,
        cache: PictureCache | None = None,
        size: int = 352,
        **find: Any,
    ) -> None:
        found = find_pairs(source, **find) if isinstance(source, (str, Path)) else source
        self.pairs: tuple[Pair, ...] = tuple(found)
        if cache is not None and len(cache) != len(self.pairs):
            raise ValueError(f"the cache holds {len(cache)} pictures, the data set {len(self.pairs)}")
        self.transform = transform
        self.cache = cache
        self.size = size

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The picture, uint8 (H, W, 3), and the mask, uint8 (H, W), as stored."""
        if self.cache is not None:
            return self.cache[index]
        pair = self.pairs[index]
        return read_image(pair.image), read_mask(pair.mask)

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """One sample: ``image`` uint8 (h, w, 3), ``mask`` uint8 (h, w), ``name``, ``index``, ``dataset`` and
        ``size``, the (H, W) of the mask as stored."""
        if not isinstance(key, SampleKey):
            index = int(key)
            if not -len(self) <= index < len(self):
                raise IndexError(f"picture {index} of {len(self)}")
            key = SampleKey(index % len(self), 0, self.size)
        image, mask = self.read(key.index)
        size = (int(mask.shape[0]), int(mask.shape[1]))
        if isinstance(self.transform, TrainTransform):
            image, mask = self.transform(image, mask, size=key.size, epoch=key.epoch, index=key.index)
        elif isinstance(self.transform, TestTransform):
            image = self.transform(image)
        pair = self.pairs[key.index]
        return {
            "image": image,
            "mask": mask,
            "name": pair.name,
            "index": key.index,
            "dataset": pair.dataset,
            "size": size,
        }


def _common(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    images = torch.from_numpy(np.stack([sample["image"] for sample in samples]))
    return {
        "image": images.permute(0, 3, 1, 2),  # as they lie in memory, which is channels last
        "name": [sample["name"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.int64),
        "dataset": [sample["dataset"] for sample in samples],
    }


def collate_train(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A training batch: ``image`` uint8 (B, 3, S, S), ``mask`` float32 (B, 1, S, S) in [0, 1],
    ``name`` and ``dataset`` lists of B strings, ``index`` int64 (B,)."""
    masks = torch.from_numpy(np.stack([sample["mask"] for sample in samples]))
    return _common(samples) | {"mask": masks.unsqueeze(1).to(torch.float32).div_(255.0)}


def collate_test(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A test batch: ``image`` as in training; ``mask`` a list of uint8 arrays (H_i, W_i) at their own sizes;
    ``size`` a list of (H_i, W_i)."""
    # Arrays, since each tensor from a loading process would hold a file descriptor and shared memory of its own.
    masks = [np.ascontiguousarray(sample["mask"]) for sample in samples]
    return _common(samples) | {"mask": masks, "size": [sample["size"] for sample in samples]}
