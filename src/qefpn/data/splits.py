"""Sizes of training pictures, and shares of them that are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from qefpn.data.layouts import Pair

__all__ = ["PAPER_SCALES", "default_scales", "hold_out"]

PAPER_SCALES = (224, 256, 288, 320, 352)


def default_scales(image_size: int) -> tuple[int, ...]:
    """The paper's five sizes, in proportion for other test sizes than 352: multiples of 16, at least 32."""
    return tuple(sorted({max(32, round(scale * image_size / PAPER_SCALES[-1] / 16) * 16) for scale in PAPER_SCALES}))


def hold_out(pairs: Sequence[Pair], fraction: float, limit: int | None, salt: str) -> set[int]:
    """Positions of a share of ``pairs`` that depends on their names only, not on order or seed.

    The pairs whose hashed names come first are taken, so that adding a picture moves at most one other.
    At least one is taken where ``fraction`` > 0, and at least one is left.
    """
    count = min(max(1, round(fraction * len(pairs))), len(pairs) - 1) if fraction > 0 and pairs else 0
    if limit is not None:
        count = min(count, limit)

    def rank(position: int) -> bytes:
        pair = pairs[position]
        return hashlib.blake2b(
            f"{salt}:{pair.dataset}/{pair.name}".encode(errors="surrogateescape"), digest_size=16
        ).digest()

    return set(sorted(range(len(pairs)), key=rank)[:count])
