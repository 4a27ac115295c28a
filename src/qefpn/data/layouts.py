"""Finding pictures and their masks in the folder layouts that saliency data comes in."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

from qefpn.data.files import PictureFile, Tree, open_tree
from qefpn.data.lists import apply_list, read_list
from qefpn.data.pairing import Match, by_name, folder_role, match_names, side_by_side
from qefpn.errors import UserError

__all__ = ["Pair", "Pairs", "find_pairs"]


@dataclass(frozen=True)
class Pair:
    """A picture and its mask.

    Attributes:
        name: what both are called, without suffix; also the name of a saved map.
        image, mask: the files (paths, or members of a zip).
        dataset: name of the set that the pair belongs to.
    """

    name: str
    image: PictureFile
    mask: PictureFile
    dataset: str = ""


@dataclass(frozen=True)
class Pairs(Sequence[Pair]):
    """All pairs of one set, and what did not pair.

    Attributes:
        root: folder or zip that was searched.
        layout: which layout was found, for example ``"DUTS-TR-Image/DUTS-TR-Mask"`` or
            ``"Imgs: pictures and masks side by side"``.
        items: the pairs, sorted by name.
        images_without_mask, masks_without_image: relative paths of files that did not pair.
        duplicates: relative paths of files left out because another file has the same name.
        missing: names in the list file that are not in the set.
        unlisted: number of pairs that the list file leaves out.
        name: name of the set.
    """

    root: Path
    layout: str
    items: tuple[Pair, ...]
    images_without_mask: tuple[str, ...] = ()
    masks_without_image: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unlisted: int = 0
    name: str = ""

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Pair, ...]: ...

    def __getitem__(self, index: int | slice) -> Pair | tuple[Pair, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.items)

    def select(self, items: Iterable[Pair]) -> Pairs:
        """The same set with other pairs (a subset of its own)."""
        return replace(self, items=tuple(items))


_MAX_NESTING = 2


@dataclass
class _Candidate:
    """One place where a set may be: ``parent`` ("" or "a/b/"), its layout and how it paired."""

    parent: str
    layout: str
    prefix: str
    match: Match
    others: tuple[str, ...] = ()


def _below(paths: Iterable[str], base: str) -> list[str]:
    return [path for path in paths if path.startswith(base)]


def _two_folders(paths: list[str], parent: str) -> list[_Candidate]:
    """The set or sets in sibling folders of pictures and masks under ``parent``, one a prefix."""
    folders = sorted({path[len(parent) :].split("/", 1)[0] for path in paths if "/" in path[len(parent) :]})
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"image": [], "mask": []})
    for folder in folders:
        found = folder_role(folder)
        if found:
            groups[found[1]][found[0]].append(folder)
    if "" in groups or len(groups) == 2:  # DUT-OMRON-image beside pixelwiseGT-new-PASCAL: one prefix is missing
        lonely = [key for key, roles in groups.items() if not (roles["image"] and roles["mask"])]
        if len(lonely) == 2 and not any(r["image"] and r["mask"] for r in groups.values()):
            merged = {role: groups[lonely[0]][role] + groups[lonely[1]][role] for role in ("image", "mask")}
            groups = defaultdict(lambda: {"image": [], "mask": []}, {"": merged})
    candidates = []
    for prefix, roles in groups.items():
        best: _Candidate | None = None
        for image_folder in roles["image"]:
            image_base = f"{parent}{image_folder}/"
            images, image_extra = by_name(_below(paths, image_base), image_base, lossy_first=True)
            for mask_folder in roles["mask"]:
                mask_base = f"{parent}{mask_folder}/"
                masks, mask_extra = by_name(_below(paths, mask_base), mask_base, lossy_first=False)
                match = match_names(images, masks)
                match.duplicates = sorted(image_extra + mask_extra)
                if best is None or len(match.pairs) > len(best.match.pairs):
                    best = _Candidate(parent, f"{image_folder}/{mask_folder}", prefix, match)
        if best is not None:
            used = best.layout.split("/")
            best.others = tuple(name for name in roles["image"] + roles["mask"] if name not in used)
            candidates.append(best)
    return candidates


def _candidates(below: list[str], parent: str) -> list[_Candidate]:
    """The sets directly at ``parent``; ``below`` are the pictures under it."""
    found = _two_folders(below, parent)
    if any(candidate.match.pairs for candidate in found):
        return [candidate for candidate in found if candidate.match.pairs]
    direct = [path for path in below if "/" not in path[len(parent) :]]
    match = side_by_side(direct, parent)
    if match.pairs:
        return [_Candidate(parent, "pictures and masks side by side", "", match)]
    return found


def _by_parent(paths: Iterable[str], depth: int) -> dict[str, list[str]]:
    """Pictures by the folder ``depth`` levels below the root that they are under: "a/b/" ("" for the
    root)."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        parts = path.split("/")
        if len(parts) > depth:
            groups["/".join(parts[:depth]) + "/" if depth else ""].append(path)
    return dict(sorted(groups.items()))


def _explicit(paths: list[str], layout: str, root: Path) -> _Candidate:
    folders = [folder.strip("/ ") for folder in layout.split(":" if ":" in layout else "/")]
    if len(folders) != 2:
        raise UserError(f"layout {layout!r} must name two folders below {root}: 'PICTURES/MASKS' (or 'a/b:c/d')")
    sides = []
    for folder, lossy in zip(folders, (True, False), strict=True):
        base = folder + "/"
        files = _below(paths, base)
        if not files:
            raise UserError(f"layout {layout!r}: no pictures in {root / folder}")
        sides.append(by_name(files, base, lossy_first=lossy))
    match = match_names(sides[0][0], sides[1][0])
    match.duplicates = sorted(sides[0][1] + sides[1][1])
    return _Candidate("", layout, "", match)


def _search(tree: Tree, hint: str | None) -> _Candidate:
    paths = list(tree.pictures)
    unpaired: list[_Candidate] = []
    for depth in range(_MAX_NESTING + 1):
        found = [
            candidate for parent, below in _by_parent(paths, depth).items() for candidate in _candidates(below, parent)
        ]
        unpaired.extend(candidate for candidate in found if not candidate.match.pairs)
        found = [candidate for candidate in found if candidate.match.pairs]
        if hint and len(found) > 1:
            wanted = re.sub(r"[^a-z0-9]+", "", hint.lower())
            named = [
                one
                for one in found
                if wanted in {re.sub(r"[^a-z0-9]+", "", part.lower()) for part in (one.prefix, *one.parent.split("/"))}
            ]
            found = named or found
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(one.parent.strip("/") or one.layout for one in found[:6])
            raise UserError(f"{tree.root} holds {len(found)} data sets ({names}); give the folder of one of them")
    if unpaired:
        return unpaired[0]
    if not paths:
        raise UserError(f"no pictures (jpg, png, bmp, ...) under {tree.root}; is it the folder of the data set?")
    raise UserError(
        f"{tree.root} holds pictures ({len(paths)}) but no masks that were recognised: put them into folders "
        f"such as images/ and masks/, or side by side as a.jpg and a.png"
    )


def find_pairs(
    root: str | Path,
    *,
    name: str | None = None,
    list_file: str | Path | None = None,
    split: str | None = None,
    layout: str | None = None,
) -> Pairs:
    """Pictures and masks of one data set, in whichever layout it comes.

    Recognised are two folders, one of pictures and one of masks, under the names that data sets use
    (``DUTS-TR-Image/DUTS-TR-Mask``, ``Image/Mask``, ``images/ground_truth_mask``, ``images/GT``, ``imgs/gt``,
    ``images/masks``, ``images/segmentations``, ``im/gt``, ``img/gt_mask``, ...; any of one with any of the
    other, any case), and pictures beside their masks in one folder (``a.jpg`` + ``a.png``, or ``a.png`` +
    ``a_mask.png``); at ``root`` or up to two folders deeper; in a folder or inside a zip, which is read in
    place.

    Args:
        root: folder or zip file of one data set.
        name: name of the set; also decides where ``root`` holds several. Default: the name of ``root``.
        list_file: text file of the names to use, one a line (with or without suffix; two columns of paths as
            in ``train_pair.lst`` also work), relative to ``root`` or absolute.
        split: ``"train"`` or ``"test"``: use ``<split>.txt`` or ``<split>.lst`` beside the picture folder, if
            there is one and it names pictures of the set.
        layout: ``"PICTURES/MASKS"``, the two folders, where their names are not recognised.

    Returns:
        :class:`Pairs`; what does not pair is named in it, not raised.

    Raises:
        UserError: nothing at ``root``, no pictures or masks in it, or several data sets.
    """
    tree = open_tree(root)
    found = _explicit(list(tree.pictures), layout, tree.root) if layout else _search(tree, name)
    match = found.match
    label = found.layout
    if found.parent:
        label = f"{found.parent.rstrip('/')}: {label}" if "side by side" in label else found.parent + label
    if found.others:
        label += f" ({', '.join(found.others)} left aside)"
    if tree.is_zip:
        label += ", read inside the zip"
    set_name = name or (tree.root.stem if tree.is_zip else tree.root.resolve().name)

    names = _short_names([entry[0] for entry in match.pairs])
    items = sorted(
        (
            Pair(short, tree.file(image), tree.file(mask), set_name)
            for short, (_, image, mask) in zip(names, match.pairs, strict=True)
        ),
        key=lambda pair: pair.name,
    )
    pairs = Pairs(
        tree.root,
        label,
        tuple(items),
        tuple(match.images),
        tuple(match.masks),
        tuple(sorted(match.duplicates)),
        name=set_name,
    )
    listed = read_list(tree, found.parent, list_file, split)
    return pairs if listed is None else apply_list(pairs, *listed, required=list_file is not None)


def _short_names(keys: list[str]) -> list[str]:
    """The keys without the folders that all of them share."""
    split = [key.split("/") for key in keys]
    shared = 0
    while keys and all(len(parts) > shared + 1 and parts[shared] == split[0][shared] for parts in split):
        shared += 1
    return ["/".join(parts[shared:]) for parts in split]
