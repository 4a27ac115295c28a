"""The same pictures in two sets, whatever they are called there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from qefpn.data.files import PictureFile, file_key, read_bytes
from qefpn.data.layouts import Pair

__all__ = ["shared_lines", "shared_pictures"]


def _digest(file: PictureFile) -> bytes | None:
    try:
        return hashlib.blake2b(read_bytes(file), digest_size=16).digest()
    except OSError:
        return None


def _by_size(pairs: Iterable[Pair]) -> dict[int, list[Pair]]:
    sizes: dict[int, list[Pair]] = {}
    for pair in pairs:
        sizes.setdefault(file_key(pair.image)[0], []).append(pair)
    return sizes


def shared_pictures(some: Iterable[Pair], others: Iterable[Pair]) -> Sequence[Pair]:
    """The pairs of ``others`` whose picture is, byte for byte, one of ``some``.

    Only files of equal size are read.
    """
    left, right = _by_size(some), _by_size(others)
    found = []
    for size in left.keys() & right.keys():
        if size < 0:  # not there
            continue
        known = {_digest(pair.image) for pair in left[size]} - {None}
        found += [pair for pair in right[size] if _digest(pair.image) in known]
    return sorted(found, key=lambda pair: (pair.dataset, pair.name))


def shared_lines(
    known: Sequence[Pair], trained: Sequence[Pair], validated: Sequence[Pair], tested: Sequence[Pair]
) -> list[str]:
    """A line for each kind of picture that is, by its content, where it should not be.

    Args:
        known: pictures that a network has seen when it is tested: trained on or chosen by.
        trained, validated, tested: the parts.
    """
    lines = []
    for what, pictures, others, why in (
        ("test", tested, known, "their scores say nothing about new ones"),
        ("validation", validated, trained, "best.ckpt is chosen by pictures that were learned"),
    ):
        shared = shared_pictures(others, pictures)
        if shared:
            names = ", ".join(f"{pair.dataset}/{pair.name}" for pair in shared[:3])
            more = ", ..." if len(shared) > 3 else ""
            lines.append(f"{len(shared)} {what} pictures are training pictures too: {why} ({names}{more})")
    return lines
