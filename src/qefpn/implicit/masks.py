"""Which elements of a state are dropped (Eq. 8), drawn sparsely and exactly.

At p = 5e-7 a dense Bernoulli draw from float32 uniforms is off (their grid is 2⁻²⁴ ≈ 6e-8) and reads N
numbers to find, on average, a third of one. The number of drops is Binomial(N, p), and given the number the
positions are a uniform set: both are drawn directly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

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
