"""The same pictures in two sets, whatever they are called there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from qefpn.data.files import PictureFile, file_key, read_bytes
from qefpn.data.layouts import Pair

__all__ = ["shared_pictures"]


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
