"""Finding pictures and their masks in the folder layouts that saliency data comes in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import overload

from qefpn.data.files import PictureFile, Tree, open_tree
from qefpn.data.lists import apply_list, read_list
from qefpn.data.pairing import SPLITS, by_name, match_names
from qefpn.data.search import NoMasks, named_folders, search, search_masks
from qefpn.errors import UserError

__all__ = ["Pair", "Pairs", "find_pairs"]


@dataclass(frozen=True)
class Pair:
    """A picture and its mask.

    Attributes:
        name: what both are called, without suffix; also the name of a saved map.
        image, mask: the files (paths, or members of a zip); ``image`` is ``""`` where a set of masks alone was
            asked for.
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
        split: the split that a list beside the pictures or folders within theirs cut the set down to.
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
    split: str | None = None

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


def find_pairs(
    root: str | Path | None,
    *,
    name: str | None = None,
    list_file: str | Path | None = None,
    split: str | None = None,
    layout: str | None = None,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    masks_alone: bool = False,
) -> Pairs:
    """Pictures and masks of one data set, in whichever layout it comes.

    Recognised are two folders, one of pictures and one of masks: under the names that data sets use
    (``DUTS-TR-Image/DUTS-TR-Mask``, ``images/ground_truth_mask``, ``imgs/gt``, ``images/masks``, ...; any of one
    with any of the other, any case), or any two whose names pair and whose files are pictures in one and masks in
    the other; and pictures beside their masks in one folder (``a.jpg`` + ``a.png``, or ``a.png`` + ``a_mask.png``);
    at ``root`` or up to two folders deeper; in a folder or inside a zip, which is read in place. Names pair as
    :func:`qefpn.data.pairing.match_names` says.

    Args:
        root: folder or zip file of one data set; None where ``images`` and ``masks`` are given.
        name: name of the set; also decides where ``root`` holds several. Default: the name of ``root``.
        list_file: text file of the names to use, one a line (see :mod:`qefpn.data.lists`), relative to ``root`` or
            absolute.
        split: ``"train"``, ``"val"`` or ``"test"``: use ``<split>.txt`` or ``<split>.lst`` beside the picture
            folder, if there is one and it names pictures of the set, or the folders of that name within both.
        layout: ``"PICTURES/MASKS"``, two folders below ``root``.
        images, masks: the two folders (or zips) outright, absolute or relative to ``root`` or to the working folder.
        masks_alone: where there are no pictures, take the masks alone.

    Returns:
        :class:`Pairs`; what does not pair is named in it, not raised.

    Raises:
        UserError: nothing at ``root``, no pictures or masks in it, several data sets, or folders of which it cannot
            be told which holds the masks.
    """
    if images is not None or masks is not None:
        pairs, tree, parent = _outright(root, name, images, masks, masks_alone)
    else:
        if root is None:
            raise UserError("data.root is not set; give the folder of the data set, or data.images and data.masks")
        pairs, tree, parent = _searched(root, name, layout, masks_alone)
    for pair in pairs:
        if ".." in pair.name or pair.name.startswith("/") or (os.sep == "\\" and "\\" in pair.name):
            parts = pair.name.replace("\\", "/").split("/")
            if ".." in parts or not parts[0] or ":" in parts[0]:
                raise UserError(f"{pair.mask}: its path leads outside the data set; the archive was not made for this")
    listed = read_list(tree, parent, list_file, split)
    if listed is None:
        return _of_split(pairs, split)
    cut = apply_list(pairs, *listed, required=list_file is not None)
    return replace(cut, split=split) if list_file is None and cut is not pairs else cut


def _of_split(pairs: Pairs, split: str | None) -> Pairs:
    """The part of a set whose folders are called train, val and test within its pictures; all where none are."""
    kinds = [SPLITS.get(PurePosixPath(pair.name).parts[0].lower()) for pair in pairs if "/" in pair.name]
    if split is None or len(kinds) < len(pairs) or None in kinds or split not in kinds or len({*kinds}) < 2:
        return pairs

    def kept(files: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            file for file in files if split in [SPLITS.get(part.lower()) for part in PurePosixPath(file).parts]
        )

    chosen = tuple(pair for pair, kind in zip(pairs, kinds, strict=True) if kind == split)
    return replace(
        pairs,
        layout=f"{pairs.layout}, folders of {split}",
        items=chosen,
        images_without_mask=kept(pairs.images_without_mask),
        masks_without_image=kept(pairs.masks_without_image),
        duplicates=kept(pairs.duplicates),
        unlisted=len(pairs) - len(chosen),
        split=split,
    )


def _searched(root: str | Path, name: str | None, layout: str | None, masks_alone: bool) -> tuple[Pairs, Tree, str]:
    tree = open_tree(root)
    set_name = name or (tree.root.stem if tree.is_zip else tree.root.resolve().name)
    inside = ", read inside the zip" if tree.is_zip else ""
    try:
        found = named_folders(tree, layout) if layout else search(tree, name)
    except NoMasks:
        if not masks_alone:
            raise
        found = None
    if found is None or (masks_alone and not found.match.pairs and not found.match.images):
        parent, named, extra = search_masks(tree)
        pairs = _masks_of(tree, named, extra, f"{parent}masks without pictures{inside}", set_name)
        return pairs, tree, parent
    match = found.match
    label = found.layout
    if found.parent:
        label = f"{found.parent.rstrip('/')}: {label}" if "side by side" in label else found.parent + label
    if found.others:
        label += f" ({', '.join(found.others)} left aside)"
    names = _short_names([entry[0] for entry in match.pairs])
    items = (
        Pair(short, tree.file(image), tree.file(mask), set_name)
        for short, (_, image, mask) in zip(names, match.pairs, strict=True)
    )
    return (
        _pairs(tree.root, label + inside, items, match.images, match.masks, match.duplicates, set_name),
        tree,
        found.parent,
    )


def _masks_of(tree: Tree, named: dict[str, str], extra: Iterable[str], label: str, set_name: str) -> Pairs:
    items = (
        Pair(short, "", tree.file(file), set_name)
        for short, file in zip(_short_names(list(named)), named.values(), strict=True)
    )
    return _pairs(tree.root, label, items, (), (), extra, set_name)


def _pairs(
    root: Path,
    label: str,
    items: Iterable[Pair],
    images: Iterable[str],
    masks: Iterable[str],
    duplicates: Iterable[str],
    name: str,
) -> Pairs:
    ordered = tuple(sorted(items, key=lambda pair: pair.name))
    return Pairs(root, label, ordered, tuple(images), tuple(masks), tuple(sorted(duplicates)), name=name)


def _outright(
    root: str | Path | None,
    name: str | None,
    images: str | Path | None,
    masks: str | Path | None,
    masks_alone: bool,
) -> tuple[Pairs, Tree, str]:
    """The set in two folders that were named, or in one of masks."""
    if masks is None or (images is None and not masks_alone):
        given, other = ("images", "masks") if masks is None else ("masks", "images")
        raise UserError(f"data.{given} is given and data.{other} is not: name both folders, pictures and masks")
    mask_tree = open_tree(_place(root, masks, "masks"))
    named, more = by_name(mask_tree.pictures, "", lossy_first=False)
    if not named:
        raise UserError(f"data.masks={masks}: no pictures in {mask_tree.root}")
    if images is None:
        set_name = name or mask_tree.root.resolve().stem
        return _masks_of(mask_tree, named, more, f"{masks}: masks without pictures", set_name), mask_tree, ""
    tree = open_tree(_place(root, images, "images"))
    pictures, doubled = by_name(tree.pictures, "", lossy_first=True)
    if not pictures:
        raise UserError(f"data.images={images}: no pictures in {tree.root}")
    match = match_names(pictures, named)
    set_name = name or tree.root.resolve().stem
    names = _short_names([entry[0] for entry in match.pairs])
    items = (
        Pair(short, tree.file(image), mask_tree.file(mask), set_name)
        for short, (_, image, mask) in zip(names, match.pairs, strict=True)
    )
    above = Path(root).expanduser() if root is not None else tree.root.parent
    pairs = _pairs(
        above,
        f"{images} with {masks}",
        items,
        [str(tree.file(path)) for path in match.images],
        [str(mask_tree.file(path)) for path in match.masks],
        [*(str(tree.file(path)) for path in doubled), *(str(mask_tree.file(path)) for path in more)],
        set_name,
    )
    texts = tuple(sorted(path.name for path in above.glob("*") if path.suffix in (".txt", ".lst")))
    return pairs, Tree(above, (), texts), ""


def _place(root: str | Path | None, folder: str | Path, key: str) -> Path:
    path = Path(folder).expanduser()
    below = None if root is None else Path(root).expanduser() / path
    for place in (below, path):
        if place is not None and place.exists():
            return place
    where = f" below {root}, nor one {path}" if root is not None and not path.is_absolute() else ""
    raise UserError(f"data.{key}={folder}: there is no such folder{where}")


def _short_names(keys: list[str]) -> list[str]:
    """The keys without the folders that all of them share."""
    split = [key.split("/") for key in keys]
    shared = 0
    while keys and all(len(parts) > shared + 1 and parts[shared] == split[0][shared] for parts in split):
        shared += 1
    return ["/".join(parts[shared:]) for parts in split]
