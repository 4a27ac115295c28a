"""Between a state as the user writes it and the flat (B, N) matrix that the solvers work on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

State = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class _Leaf:
    shape: tuple[int, ...]
    """Shape without the batch axis."""
    channels_last: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def flatten(self, leaf: Tensor) -> Tensor:
        if self.channels_last:  # in memory order, so that neither direction copies
            leaf = leaf.permute(0, 2, 3, 1)
        return leaf.reshape(leaf.shape[0], self.size)

    def in_memory(self, positions: np.ndarray) -> np.ndarray:
        """Where the elements that ``positions`` count in the order of the shape lie in the flat matrix."""
        if not self.channels_last:
            return positions
        channels, height, width = self.shape
        return positions % (height * width) * channels + positions // (height * width)

    def unflatten(self, flat: Tensor) -> Tensor:
        if self.channels_last:
            channels, height, width = self.shape
            return flat.contiguous().unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
        return flat.contiguous().view(flat.shape[0], *self.shape)


@dataclass(frozen=True)
class StateLayout:
    """How a tensor (B, ...) or a tuple of such lies in one matrix (B, N).

    A level in ``channels_last`` memory keeps that format: its elements are laid out in memory order.
    """

    leaves: tuple[_Leaf, ...]
    is_tuple: bool

    @classmethod
    def of(cls, state: State) -> StateLayout:
        """The layout of ``state``.

        Raises:
            TypeError: for anything but a floating tensor or a non-empty tuple of them.
            ValueError: when levels differ in batch size, type or device, or a sample is empty (a batch may be).
        """
        is_tuple = isinstance(state, (tuple, list))
        leaves = tuple(state) if is_tuple else (state,)
        if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
            raise TypeError(f"z0 must be a tensor or a tuple of tensors, got {type(state).__name__}")
        first = leaves[0]
        for leaf in leaves:
            if not leaf.is_floating_point():
                raise TypeError(f"z0 must be of a floating type, got {leaf.dtype}")
            if leaf.dim() < 2:
                raise ValueError(f"z0 must have a batch axis and at least one more, got {tuple(leaf.shape)}")
            if leaf.shape[0] != first.shape[0]:
                raise ValueError(f"z0: batch sizes differ: {first.shape[0]} and {leaf.shape[0]}")
            if leaf.dtype != first.dtype or leaf.device != first.device:
                raise ValueError(
                    f"z0: types or devices differ: {first.dtype} on {first.device} and {leaf.dtype} on {leaf.device}"
                )
            if math.prod(leaf.shape[1:]) == 0:
                raise ValueError(f"z0: a sample is empty: {tuple(leaf.shape)}")
        return cls(tuple(_Leaf(tuple(leaf.shape[1:]), _is_channels_last(leaf)) for leaf in leaves), is_tuple)

    @property
    def size(self) -> int:
        """N: elements a sample."""
        return sum(leaf.size for leaf in self.leaves)

    def flatten(self, state: State) -> Tensor:
        """``state`` as (B, N); a view where the memory allows it."""
        if not self.is_tuple:
            assert isinstance(state, Tensor)
            return self.leaves[0].flatten(state)
        parts = [leaf.flatten(part) for leaf, part in zip(self.leaves, state, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def unflatten(self, flat: Tensor) -> State:
        """(B, N) as the state's own shapes, dense in their memory format: a view of a single tensor, copies
        of the levels of a tuple (a convolution would copy them otherwise, once for each use)."""
        if not self.is_tuple:
            return self.leaves[0].unflatten(flat)
        parts = flat.split([leaf.size for leaf in self.leaves], dim=1)
        return tuple(leaf.unflatten(part) for leaf, part in zip(self.leaves, parts, strict=True))

    def in_memory(self, positions: np.ndarray) -> np.ndarray:
        """Columns of the flat matrix, of elements that ``positions`` (int64, (n,)) count level by level in the order of
        their shapes, whatever memory format these have."""
        ends = np.cumsum([leaf.size for leaf in self.leaves])
        found, which = np.empty_like(positions), np.searchsorted(ends, positions, side="right")
        for number, leaf in enumerate(self.leaves):
            start, own = ends[number] - leaf.size, which == number
            found[own] = start + leaf.in_memory(positions[own] - start)
        return found

    def check_output(self, output: State, flat: Tensor) -> None:
        """``output`` of f has the shapes, device and kind of the state ``flat``: otherwise ``ValueError``."""
        if isinstance(output, Tensor):
            if self.is_tuple:
                raise ValueError(f"f got a tuple of {len(self.leaves)} tensors and returned one tensor")
            parts: tuple[Tensor, ...] = (output,)
        elif isinstance(output, (tuple, list)):
            parts = tuple(output)
            if not self.is_tuple or len(parts) != len(self.leaves):
                got = f"a tuple of {len(self.leaves)} tensors" if self.is_tuple else "one tensor"
                raise ValueError(f"f got {got} and returned a tuple of {len(parts)}")
        else:
            raise ValueError(f"f must return a tensor or a tuple of tensors, got {type(output).__name__}")
        batch = flat.shape[0]
        for leaf, part in zip(self.leaves, parts, strict=True):
            if part.dim() != len(leaf.shape) + 1 or part.shape[0] != batch or part.shape[1:] != leaf.shape:
                raise ValueError(
                    f"f must keep the shape of the state: expected {(batch, *leaf.shape)}, got {tuple(part.shape)}"
                )
            if part.device != flat.device:
                raise ValueError(f"z0 is on {flat.device}, but f returned a tensor on {part.device}")
            if not part.is_floating_point():
                raise ValueError(f"f must return a floating type, got {part.dtype}")


def _is_channels_last(leaf: Tensor) -> bool:
    return leaf.dim() == 4 and not leaf.is_contiguous() and leaf.is_contiguous(memory_format=torch.channels_last)
