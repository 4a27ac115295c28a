"""List files: which pairs of a set belong to a split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qefpn.data.files import SUFFIXES, Tree, read_bytes
from qefpn.errors import UserError

if TYPE_CHECKING:
    from qefpn.data.layouts import Pairs

__all__ = ["apply_list", "read_list"]


def read_list(tree: Tree, parent: str, list_file: str | Path | None, split: str | None) -> tuple[str, list[str]] | None:
    """(name of the list, its lines) or None where there is none.

    Args:
        tree: the set.
        parent: folder of the set inside it, ``""`` or ``"a/"``.
        list_file: a list asked for: absolute, or relative to the set.
        split: look for ``<split>.txt`` and ``<split>.lst`` beside the picture folder.

    Raises:
        UserError: ``list_file`` is not there.
    """
    if list_file is not None:
        inside = str(list_file).replace("\\", "/")
        for candidate in (inside, parent + inside):
            if candidate in tree.texts:
                return inside, _lines(read_bytes(tree.file(candidate)))
        path = Path(list_file).expanduser()
        for file in (path, tree.root / path, tree.root.parent / path):
            if file.is_file():
                return str(list_file), _lines(file.read_bytes())
        raise UserError(f"the list file {list_file} is neither in {tree.root} nor beside it")
    if split is not None:
        for name in (f"{split}.txt", f"{split}.lst"):
            for text in tree.texts:
                if text.lower() == (parent + name).lower():
                    return PurePosixPath(text).name, _lines(read_bytes(tree.file(text)))
    return None


def _lines(data: bytes) -> list[str]:
    text = data.decode("utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _without_suffix(path: str) -> str:
    return path[: path.rfind(".")] if path.lower().endswith(SUFFIXES) else path


def _lookup(line: str, by_name: dict[str, int], by_tail: dict[str, int]) -> int | None:
    """The pair that a line names: a name, a path to the picture, or picture and mask in two columns."""
    for text in (line, line.split("\t")[0], line.split(",")[0], line.split()[0]):
        key = _without_suffix(text.strip().replace("\\", "/").removeprefix("./"))
        if key in by_name:
            return by_name[key]
        tail = PurePosixPath(key).name
        if tail in by_tail:
            return by_tail[tail]
    return None


def apply_list(pairs: Pairs, label: str, lines: Iterable[str], *, required: bool) -> Pairs:
    """``pairs`` cut down to the names in ``lines``; names that are not there go to ``missing``.

    A list that was only found (not ``required``) and names no picture of the set is something else, and
    ignored.

    Raises:
        UserError: a required list names none of the pictures.
    """
    by_name = {pair.name: index for index, pair in enumerate(pairs)}
    tails: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        tails.setdefault(PurePosixPath(pair.name).name, []).append(index)
    by_tail = {tail: indices[0] for tail, indices in tails.items() if len(indices) == 1}
    chosen: set[int] = set()
    missing: list[str] = []
    for line in lines:
        found = _lookup(line, by_name, by_tail)
        if found is None:
            missing.append(line)
        else:
            chosen.add(found)
    if not chosen:
        if required:
            raise UserError(f"the list file {label} names no picture of {pairs.root}")
        return pairs
    listed = {PurePosixPath(_without_suffix(line.split()[0])).name for line in missing}
    return replace(
        pairs,
        layout=f"{pairs.layout}, list {label}",
        items=tuple(pair for index, pair in enumerate(pairs) if index in chosen),
        # A listed name that has only a picture or only a mask is named once, as that.
        missing=tuple(
            line for line in missing if not _named(line, (*pairs.images_without_mask, *pairs.masks_without_image))
        ),
        images_without_mask=tuple(p for p in pairs.images_without_mask if PurePosixPath(p).stem in listed),
        masks_without_image=tuple(p for p in pairs.masks_without_image if PurePosixPath(p).stem in listed),
        unlisted=len(pairs) - len(chosen),
    )


def _named(line: str, files: Iterable[str]) -> bool:
    wanted = PurePosixPath(_without_suffix(line.split()[0])).name
    return any(PurePosixPath(file).stem == wanted for file in files)
