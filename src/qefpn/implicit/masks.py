"""Which elements of a state are dropped (Eq. 8), drawn sparsely and exactly.

At p = 5e-7 a dense Bernoulli draw from float32 uniforms is off (their grid is 2⁻²⁴ ≈ 6e-8) and reads N
numbers to find, on average, a third of one. The number of drops is Binomial(N, p), and given the number the
positions are a uniform set: both are drawn directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qefpn.implicit.layout import StateLayout
from qefpn.implicit.problem import Problem
from qefpn.implicit.torch_private import forward_derivative

_WORD = (1 << 64) - 1


def draw_drops(size: int, p: float, entropy: Sequence[int]) -> np.ndarray:
    """Positions dropped from a sample of ``size`` elements, each independently with probability ``p``.

    Args:
        entropy: integers that alone decide the draw (negative ones are taken modulo 2⁶⁴).

    Returns:
        int64 (n,), distinct, in no particular order; empty where nothing is dropped.
    """
    generator = np.random.default_rng([int(word) & _WORD for word in entropy])
    count = int(generator.binomial(size, p))
    return generator.choice(size, size=count, replace=False, shuffle=False).astype(np.int64, copy=False)


def draw_masks(batch: int, size: int, p: float, seed: int, keys: Tensor | None) -> list[np.ndarray]:
    """One array of dropped positions a sample.

    Args:
        seed: the residual's seed.
        keys: (B,) integers, one a sample: a sample's mask depends on ``seed`` and its key alone, whatever
            else is in the batch. None: one number is drawn from torch's default generator for this solve, as
            dropout would, and combined with ``seed`` and the sample's position. Gradient checkpointing
            restores that generator, so a recomputed solve gets the masks of the first one; a private
            counter would not be restored.
    """
    if p <= 0.0:
        return [np.empty(0, dtype=np.int64)] * batch
    if keys is None:
        solve = int(torch.randint(1 << 62, (), dtype=torch.int64))
        return [draw_drops(size, p, (seed, solve, row)) for row in range(batch)]
    return [draw_drops(size, p, (seed, key)) for key in keys.tolist()]


@dataclass(frozen=True)
class Drops:
    """Dropped elements of a batch: the samples that have any, flat positions among those samples, and the ``most`` that
    a sample has."""

    rows: Tensor
    positions: Tensor
    batch: int
    size: int
    most: int

    @classmethod
    def draw(cls, z: Tensor, layout: StateLayout, p: float, seed: int, keys: Tensor | None) -> Drops:
        """For the flat state ``z``. Positions are drawn in the order of its levels' shapes: a sample's mask does not
        depend on their memory format."""
        batch, size = z.shape
        masks = [layout.in_memory(mask) for mask in draw_masks(batch, size, p, seed, keys)]
        rows = [row for row, mask in enumerate(masks) if mask.size]
        flat = [masks[row] + place * size for place, row in enumerate(rows)]
        positions = np.concatenate(flat) if flat else np.empty(0, dtype=np.int64)
        return cls(
            torch.tensor(rows, dtype=torch.int64, device=z.device),
            torch.from_numpy(positions).to(z.device),
            batch,
            size,
            max((mask.size for mask in masks), default=0),
        )

    def other_rows(self) -> Tensor:
        """The samples without a drop."""
        dropped = set(self.rows.tolist())
        return torch.tensor(
            [row for row in range(self.batch) if row not in dropped], dtype=torch.int64, device=self.rows.device
        )

    def whole(self) -> Drops:
        """The same drops with positions counted in the whole batch."""
        place = torch.div(self.positions, self.size, rounding_mode="floor")
        column = self.positions - place * self.size
        positions = self.rows[place] * self.size + column
        return Drops(torch.arange(self.batch, device=self.rows.device), positions, self.batch, self.size, self.most)

    def linearised(self, problem: Problem, z: Tensor, args: tuple[object, ...] | None) -> Tensor:
        """f(ẑ) + J_f(ẑ)(z − ẑ), (R, N), for the samples z (R, N) that ``positions`` refer to."""
        dropped = z.reshape(-1).index_select(0, self.positions)
        # z − ẑ is z at the drops and 0 elsewhere; subtracting would turn an infinity into a NaN
        tangent = torch.zeros_like(z).view(-1).index_copy(0, self.positions, dropped).view_as(z)
        kept = z.reshape(-1).index_fill(0, self.positions, 0.0).view_as(z)
        value, slope = forward_derivative(lambda state: problem(state, args), kept, tangent)
        return value + slope

    def by_difference(self, problem: Problem, z: Tensor, args: tuple[object, ...] | None, step: float) -> Tensor:
        """As :meth:`linearised`, the derivative by (f(ẑ + hv) − f(ẑ))/h, v = z − ẑ; h is ``step``.

        Args:
            args: of every sample twice, one after the other, so that both points go through f in one batch; None: f
                closes over its own, and is called for each point.
        """
        dropped = z.reshape(-1).index_select(0, self.positions)
        kept = z.reshape(-1).index_fill(0, self.positions, 0.0)
        moved = kept.index_copy(0, self.positions, dropped * step).view_as(z)
        kept = kept.view_as(z)
        if args is None:
            value, further = problem(kept), problem(moved)
        else:
            value, further = problem(torch.cat([kept, moved]), args).chunk(2)
        return torch.add(value, further - value, alpha=1 / step)
