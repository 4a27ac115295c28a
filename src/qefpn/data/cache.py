"""Decoded pictures in memory, so that a small machine trains instead of decoding JPEGs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from qefpn.data.layouts import Pair
from qefpn.data.reading import read_image, read_mask, shrink
from qefpn.data.workers import cpu_count
from qefpn.errors import UserError

__all__ = ["PictureCache", "available_memory"]

Array = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
"""Called as (what is being done, done, total)."""


def available_memory() -> int | None:
    """Bytes of memory that are free to use; None where the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


class PictureCache:
    """All pictures and masks of a training set, decoded, in one block of memory.

    One block, because forked workers share it without copying (nothing in it is reference-counted); held as a
    tensor, because spawned workers then get it through shared memory.

    Args:
        pairs: what to hold.
        sizes: (height, width) of each pair, as read.
        limit: longest side kept, in pixels: each side that is longer is shrunk to it by area averaging. The
            aspect ratio may change; training resizes to a square anyway.
        progress: called as ``progress("decoding", done, total)``.
        threads: decoding threads; the number of processors by default.

    Raises:
        UserError: the pictures do not fit into memory, or one cannot be read.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        sizes: Sequence[tuple[int, int]],
        *,
        limit: int | None = None,
        progress: Progress | None = None,
        threads: int | None = None,
    ) -> None:
        shapes = [(min(h, limit), min(w, limit)) if limit else (h, w) for h, w in sizes]
        self._shapes = np.asarray(shapes, dtype=np.int64).reshape(-1, 2)
        pixels = self._shapes.prod(axis=1)
        self._starts = np.concatenate([[0], np.cumsum(4 * pixels)])
        total = int(self._starts[-1])
        free = available_memory()
        if free is not None and total > 0.8 * free:
            raise UserError(
                f"data.cache=ram needs {total / 2**30:.1f} GiB for {len(pairs)} pictures and "
                f"{free / 2**30:.1f} GiB are free; set data.cache_size to a smaller side or data.cache=none"
            )
        self._block = torch.empty(total, dtype=torch.uint8)
        self.limit = limit
        view = self._block.numpy()

        def load(index: int) -> None:
            pair = pairs[index]
            image, mask = shrink(read_image(pair.image), limit), shrink(read_mask(pair.mask), limit)
            start, count = int(self._starts[index]), int(pixels[index])
            if image.shape[:2] != shapes[index] or mask.shape != shapes[index]:
                raise UserError(f"{pair.image} changed while it was being read; start again")
            view[start : start + 3 * count] = image.reshape(-1)
            view[start + 3 * count : start + 4 * count] = mask.reshape(-1)

        with ThreadPoolExecutor(threads or cpu_count()) as pool:
            for done, _ in enumerate(pool.map(load, range(len(pairs))), start=1):
                if progress is not None and (done % 50 == 0 or done == len(pairs)):
                    progress("decoding", done, len(pairs))

    @property
    def nbytes(self) -> int:
        """Size of the block in bytes."""
        return self._block.numel()

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Views, not copies: uint8 (H, W, 3) and (H, W)."""
        height, width = (int(side) for side in self._shapes[index])
        start, middle, end = int(self._starts[index]), 0, int(self._starts[index + 1])
        middle = start + 3 * height * width
        block = self._block.numpy()
        return block[start:middle].reshape(height, width, 3), block[middle:end].reshape(height, width)
