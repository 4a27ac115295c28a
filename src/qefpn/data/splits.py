"""Training, validation and test parts: as a set comes with them, held out by name, and what is in two of them.

A set is split already by folders, by list files, or by folders within its folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from qefpn.data.files import PictureFile, file_key, read_bytes
from qefpn.data.layouts import Pair, Pairs, find_pairs
from qefpn.data.pairing import SPLITS
from qefpn.errors import UserError

__all__ = [
    "OwnSplit", "Part", "chosen_parts", "hold_out", "own_split", "shared_lines", "shared_pictures", "unused_val",
    "without",
]  # fmt: skip

T = TypeVar("T")
Part = tuple[str | None, str | None]
"""Name of a data set below the root (None: the root itself), and the split to take of it."""


@dataclass(frozen=True)
class OwnSplit:
    """What is trained on, validated on and tested on.

    Attributes:
        train, val, test: where the pictures are; None where the split has none.
        notes: what there is to say, a line each.
    """

    train: Part
    val: Part | None = None
    test: Part | None = None
    notes: tuple[str, ...] = ()


def own_split(root: Path) -> OwnSplit | None:
    """The split that a set comes with: at least a training part and one more. None where there is none.

    - folders train/, val/ (valid, validation) and test/, each a data set;
    - ``train.txt``, ``val.txt`` and ``test.txt`` (or ``.lst``) beside the pictures;
    - images/train, images/val, ..., masks/train, masks/val, ...

    With a training part and only one more, that one is for testing.
    """
    parts: dict[str, Part] = {}
    called: dict[str, str] = {}
    notes: list[str] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else []:
        kind = SPLITS.get(folder.name.lower())
        if kind is None or not folder.is_dir():
            continue
        if kind in parts:
            notes.append(f"{folder.name}/ is not used: {called[kind]} is taken for it")
        elif _holds_set(folder):
            parts[kind], called[kind] = (folder.name, None), f"{folder.name}/"
        else:
            notes.append(f"{folder.name}/ is not used: no pictures with masks are in it")
    if not _is_split(parts):
        notes.clear()
        parts = _by_lists_or_names(root)
        called = dict.fromkeys(parts, "") | {kind: f"the {kind} part" for kind in parts}
    if not _is_split(parts):
        return None
    if "test" not in parts:
        notes.append(f"{called['val']} is the test set, as there is no other")
        parts["test"] = parts.pop("val")
    return OwnSplit(parts["train"], parts.get("val"), parts["test"], tuple(notes))


def unused_val(root: Path | None, named: Sequence[str]) -> list[str]:
    """Folders of validation pictures at ``root`` where the data sets were named, and they were not among them."""
    if root is None or not root.is_dir() or not any(SPLITS.get(name.lower()) == "train" for name in named):
        return []
    return [
        folder.name
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        and SPLITS.get(folder.name.lower()) == "val"
        and folder.name not in named
        and _holds_set(folder)
    ]


def chosen_parts(
    root: Path | None,
    train: Sequence[str] | None,
    test: Sequence[str] | None,
    *,
    outright: bool,
    validates: bool,
) -> tuple[list[Part], list[Part], list[Part] | None, list[str]]:
    """What to load for training, validation and testing (None: a share of training), and what there is to say.

    Args:
        root: of the sets; one's own may be split already.
        train: sets that were named; None: the root itself.
        test: sets that were named; None: what the root holds for it, or a share.
        outright: whether folders were named, so that nothing is looked for.
        validates: whether validation is wanted.
    """
    tests: list[Part] | None = None if test is None else [(name, None) for name in test]
    if train is not None:
        unused = unused_val(root, [*train, *(test or ())]) if validates else []
        notes = [f"{name}/ is not used: training pictures are held out; data.train=null uses it" for name in unused]
        return [(name, None) for name in train], [], tests, notes
    found = None if outright or root is None or test is not None else own_split(root)
    if found is None:
        return [(None, None)], [], tests, []
    notes = list(found.notes)
    if found.val is not None and not validates:
        notes.append(f"{found.val[0] or 'the val part'} is not used, as data.val_fraction=0 asks for no validation")
    return [found.train], [found.val] if found.val and validates else [], [found.test] if found.test else [], notes


def _is_split(parts: dict[str, Part]) -> bool:
    return "train" in parts and len(parts) > 1


def _pairs(root: Path, split: str | None) -> Pairs | None:
    try:
        return find_pairs(root, split=split)
    except UserError:
        return None


def _holds_set(folder: Path) -> bool:
    found = _pairs(folder, None)
    return found is not None and len(found) > 0


def _by_lists_or_names(root: Path) -> dict[str, Part]:
    whole = _pairs(root, None)
    if whole is None:
        return {}
    found = {kind: _pairs(root, kind) for kind in ("train", "val", "test")}
    return {kind: (None, kind) for kind, pairs in found.items() if pairs is not None and pairs.split == kind}


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


def without(items: Sequence[T], positions: set[int]) -> list[T]:
    """The items but for those at some positions."""
    return [item for position, item in enumerate(items) if position not in positions]
