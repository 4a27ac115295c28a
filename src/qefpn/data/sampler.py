"""Which picture goes into which batch, at which size: pure functions of (seed, epoch, batch number)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DistributedSampler, Sampler, SequentialSampler

from qefpn.errors import UserError

__all__ = [
    "MultiScaleBatchSampler",
    "SampleKey",
    "ShardSampler",
    "batch_of",
    "batch_scale",
    "epoch_order",
    "growing_scale",
]

_ORDER, _SCALE = 0x0DE5, 0x5CA1E  # two streams of random numbers out of one seed


@dataclass(frozen=True)
class SampleKey:
    """What a worker needs to make one training sample: nothing else, worker state least of all.

    Attributes:
        index: position in the data set.
        epoch: epoch that the sample belongs to (seeds its augmentation).
        size: side of the square it is resized to, in pixels; the same for its whole batch.
    """

    index: int
    epoch: int
    size: int


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of ``range(count)`` (int64) in which epoch ``epoch`` visits the pictures."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(count)


def batch_scale(scales: Sequence[int], seed: int, epoch: int, batch: int) -> int:
    """The size of batch number ``batch`` of epoch ``epoch``: one of ``scales``, equal on every rank."""
    if len(scales) == 1:
        return int(scales[0])
    return int(scales[int(np.random.default_rng([_SCALE, seed, epoch, batch]).integers(len(scales)))])


def growing_scale(scales: Sequence[int], share: float, until: float) -> int:
    """The size at ``share`` of training: each of ``scales`` in turn, smallest first, the largest from ``until`` on.

    >>> [growing_scale((64, 80, 96), share, 0.8) for share in (0.0, 0.39, 0.4, 0.79, 0.8, 1.0)]
    [64, 64, 80, 80, 96, 96]
    """
    last = len(scales) - 1
    return int(sorted(scales)[min(last, int(share / until * last))])


def batch_of(count: int, batch_size: int, world_size: int) -> int:
    """Pictures in a batch: ``batch_size``, or as many as go round all ranks where there are fewer."""
    return min(batch_size, count - count % world_size)


class MultiScaleBatchSampler(Sampler[list[SampleKey]]):
    """Batches of :class:`SampleKey` for one rank.

    Global batch ``b`` of an epoch holds the pictures ``order[b·B : (b+1)·B]``; rank r takes every
    ``world_size``-th of them from r on. The ranks together cover the global batch, which does not depend on
    how many ranks there are. The last, incomplete batch of an epoch is left out (other pictures each epoch);
    a set smaller than one batch makes one batch of all it has.

    Args:
        count: pictures in the data set.
        batch_size: pictures in a batch, over all ranks together.
        scales: sizes to draw from, in pixels.
        seed: with the epoch decides order and sizes.
        rank, world_size: this process and how many there are.
        shuffle: False visits the pictures in their order.
        progressive: sizes grow over this share of training (see :func:`growing_scale`); None: one is drawn a batch.
        progress: the share of training done after so many batches, which ``progressive`` asks for.

    Raises:
        UserError: ``batch_size`` is no multiple of ``world_size``, or there are too few pictures for the
        ranks.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        scales: Sequence[int],
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        progressive: float | None = None,
        progress: Callable[[int], float] | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"data.batch_size must be at least 1, got {batch_size}")
        if batch_size % world_size:
            nearest = max(1, round(batch_size / world_size)) * world_size
            raise UserError(
                f"data.batch_size={batch_size} is the batch of all devices together and must be a multiple "
                f"of their number, {world_size}; the nearest is {nearest}"
            )
        if count < world_size:
            raise UserError(f"{count} training pictures do not go round {world_size} devices")
        self.count = count
        self.batch_size = batch_of(count, batch_size, world_size)
        self.scales = tuple(int(size) for size in scales)
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.shuffle = shuffle
        self.progressive = progressive
        self.progress = progress
        self.epoch = 0
        self._resume = (0, 0)

    @property
    def sampler(self) -> MultiScaleBatchSampler:
        """Itself: Lightning looks for ``set_epoch`` at ``batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration makes."""
        self.epoch = epoch

    def resume(self, epoch: int, batch: int) -> None:
        """Let the next iteration start at ``epoch``, and that epoch (no other) at batch number ``batch``."""
        self.epoch = epoch
        self._resume = (epoch, batch)

    def __len__(self) -> int:
        """Batches in a whole epoch, also when a resumed one has fewer left."""
        return self.count // self.batch_size

    def batch(self, epoch: int, number: int) -> list[SampleKey]:
        """This rank's share of batch ``number`` of ``epoch``."""
        return self._share(self._order(epoch), epoch, number)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch = self.epoch
        order = self._order(epoch)
        start = self._resume[1] if self._resume[0] == epoch else 0
        for number in range(start, len(self)):
            yield self._share(order, epoch, number)

    def _order(self, epoch: int) -> np.ndarray:
        return epoch_order(self.count, self.seed, epoch) if self.shuffle else np.arange(self.count)

    def _share(self, order: np.ndarray, epoch: int, number: int) -> list[SampleKey]:
        if self.progressive is None or self.progress is None:
            size = batch_scale(self.scales, self.seed, epoch, number)
        else:
            size = growing_scale(self.scales, self.progress(epoch * len(self) + number), self.progressive)
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        return [SampleKey(int(index), epoch, size) for index in chosen[self.rank :: self.world_size]]


class ShardSampler(DistributedSampler[int], SequentialSampler):
    """Every ``world_size``-th picture from ``rank`` on: over all ranks each picture exactly once.

    PyTorch's own repeats pictures to even out the ranks, which would count them twice in a score; here ranks may differ
    by one picture. It is one of those, and a sequential one, so that Lightning does not put its own in its place.
    """

    def __init__(self, count: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(range(count), num_replicas=world_size, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.indices = range(rank, count, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
