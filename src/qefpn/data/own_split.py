"""How a data set of one's own is split already: by folders, by list files, or by folders within its folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qefpn.data.layouts import Pairs, find_pairs
from qefpn.data.pairing import SPLITS
from qefpn.errors import UserError

__all__ = ["OwnSplit", "Part", "own_split", "unused_val"]

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
