"""Where below a folder the pictures of a data set are, and where its masks: by names, then by what is in the files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePosixPath

from qefpn.data.affixes import MASK_WORDS, PICTURE_WORDS, tokens_of
from qefpn.data.contents import contents_of
from qefpn.data.files import Tree
from qefpn.data.pairing import Match, by_name, folder_role, is_aside, match_names, side_by_side
from qefpn.errors import UserError

__all__ = ["Found", "NoMasks", "Undecided", "named_folders", "search", "search_masks"]

_MAX_NESTING = 2
_MOST_FOLDERS = 16
"""Of more sibling folders than that no two are compared by what is in them: they are classes, or people."""
_ENOUGH = 0.5


class Undecided(UserError):
    """Several folders may hold the masks, or the pictures."""


class NoMasks(UserError):
    """There are pictures and nothing that could be their masks."""


@dataclass
class Found:
    """One place where a set may be: ``parent`` ("" or "a/b/"), its layout and how it paired."""

    parent: str
    layout: str
    prefix: str
    match: Match
    others: tuple[str, ...] = ()


def _below(paths: Iterable[str], base: str) -> list[str]:
    return [path for path in paths if path.startswith(base)]


def _folders(paths: Iterable[str], parent: str) -> list[str]:
    return sorted({path[len(parent) :].split("/", 1)[0] for path in paths if "/" in path[len(parent) :]})


def _match(paths: list[str], parent: str, images: str, masks: str) -> Match:
    sides = [
        by_name(_below(paths, base), base, lossy_first=lossy)
        for base, lossy in ((f"{parent}{images}/", True), (f"{parent}{masks}/", False))
    ]
    match = match_names(sides[0][0], sides[1][0])
    match.duplicates = sorted(sides[0][1] + sides[1][1])
    return match


def _two_folders(tree: Tree, paths: list[str], parent: str) -> list[Found]:
    """The set or sets in sibling folders whose names say which they are, one a prefix."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"image": [], "mask": []})
    for folder in _folders(paths, parent):
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
        ways = [
            Found(parent, f"{one}/{other}", prefix, _match(paths, parent, one, other))
            for one in roles["image"]
            for other in roles["mask"]
        ]
        if not ways:
            continue
        most = max(len(way.match.pairs) for way in ways)
        best = [way for way in ways if len(way.match.pairs) == most]
        chosen = best[0]
        if most and len(best) > 1:
            chosen = _settle(tree, best)
        used = chosen.layout.split("/")
        chosen.others = tuple(name for name in roles["image"] + roles["mask"] if name not in used)
        candidates.append(_turned(tree, paths, chosen))
    return candidates


def _settle(tree: Tree, ways: list[Found]) -> Found:
    """The first of several that hold the same files; refused where they do not."""
    files = [[(tree.file(i), tree.file(m)) for _, i, m in sorted(way.match.pairs)[:3]] for way in ways]
    contents = {tuple(_bytes(file) for pair in some for file in pair) for some in files}
    if len(contents) > 1:
        raise _undecided(tree, ways)
    return ways[0]


def _bytes(file: object) -> bytes:
    from qefpn.data.files import read_bytes

    try:
        return read_bytes(file)  # type: ignore[arg-type]
    except OSError:
        return b""


def _turned(tree: Tree, paths: list[str], found: Found) -> Found:
    """The same with the sides exchanged where the files say so plainly."""
    images, masks = found.layout.split("/")
    looks = [contents_of(tree, [pair[side] for pair in found.match.pairs]) for side in (1, 2)]
    if looks != ["mask", "picture"]:
        return found
    turned = _match(paths, found.parent, masks, images)
    return Found(found.parent, f"{masks}/{images}", found.prefix, turned, found.others)


def _undecided(tree: Tree, ways: Sequence[Found]) -> Undecided:
    where = tree.root / ways[0].parent if ways[0].parent else tree.root
    names = " or ".join(way.layout for way in ways[:4])
    return Undecided(f"{where}: pictures and masks may be {names}; say which with data.layout={ways[0].layout}")


def _by_contents(tree: Tree, paths: list[str], parent: str) -> list[Found]:
    """The set or sets in sibling folders whose names pair and whose files are pictures here and masks there."""
    folders = _folders(paths, parent)
    if not 2 <= len(folders) <= _MOST_FOLDERS:
        return []
    names = {folder: by_name(_below(paths, f"{parent}{folder}/"), f"{parent}{folder}/", False)[0] for folder in folders}
    looks: dict[str, str] = {}
    ways = []
    for one, other in combinations(folders, 2):
        match = match_names(names[one], names[other])
        if len(match.pairs) < max(1, _ENOUGH * min(len(names[one]), len(names[other]))):
            continue
        for folder in (one, other):
            if folder not in looks:
                looks[folder] = contents_of(tree, list(names[folder].values()))
        kinds = [_kind(folder, looks[folder]) for folder in (one, other)]
        if sorted(kinds) == ["mask", "picture"]:
            images, masks = (one, other) if kinds[0] == "picture" else (other, one)
            ways.append(Found(parent, f"{images}/{masks}", "", _match(paths, parent, images, masks)))
    return _sets_of(tree, ways)


def _kind(folder: str, look: str) -> str:
    """What a folder holds: by its files, by its name where they do not say."""
    if look != "unsure":
        return look
    words = set(tokens_of(folder))
    return "mask" if words & MASK_WORDS else "picture" if words & PICTURE_WORDS else look


def _sets_of(tree: Tree, ways: list[Found]) -> list[Found]:
    """Ways that share a folder are readings of one set: the one that names speak for, or none without a word."""
    sets: list[list[Found]] = []
    for way in sorted(ways, key=lambda way: way.layout):
        folders = set(way.layout.split("/"))
        touching = [one for one in sets if any(folders & set(other.layout.split("/")) for other in one)]
        sets = [one for one in sets if one not in touching] + [[way, *(other for one in touching for other in one)]]
    chosen = []
    for readings in sets:
        best = readings
        if len(best) > 1:
            points = [_points(way) for way in best]
            best = [way for way, point in zip(best, points, strict=True) if point == max(points)]
        found = best[0] if len(best) == 1 else None
        if found is None:
            raise _undecided(tree, sorted(best, key=lambda way: way.layout))
        used = found.layout.split("/")
        every = {folder for way in readings for folder in way.layout.split("/")}
        found.others = tuple(sorted(every - set(used)))
        chosen.append(found)
    return chosen


def _points(way: Found) -> tuple[bool, int]:
    """Whether most files have equal names, and how far the names of the two folders say what is in them."""
    equal = sum(PurePosixPath(image).stem == PurePosixPath(mask).stem for _, image, mask in way.match.pairs)
    images, masks = way.layout.split("/")
    points = 2 * bool(set(tokens_of(masks)) & MASK_WORDS) + bool(set(tokens_of(images)) & PICTURE_WORDS)
    return 2 * equal > len(way.match.pairs), points - 4 * (is_aside(masks) or is_aside(images))


def _named(tree: Tree, below: list[str], parent: str) -> list[Found]:
    """The sets directly at ``parent`` by the names of folders and files; ``below`` are the pictures under it."""
    found = _two_folders(tree, below, parent)
    if any(candidate.match.pairs for candidate in found):
        return [candidate for candidate in found if candidate.match.pairs]
    direct = [path for path in below if "/" not in path[len(parent) :]]
    match = side_by_side(direct, parent, lambda paths: contents_of(tree, paths))
    if match.pairs:
        return [Found(parent, "pictures and masks side by side", "", match)]
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


def named_folders(tree: Tree, layout: str) -> Found:
    """The set in the two folders that ``layout`` names.

    Raises:
        UserError: it names no two folders, or there are no pictures in one of them.
    """
    folders = [folder.strip("/ ") for folder in layout.split(":" if ":" in layout else "/")]
    if len(folders) != 2 or not all(folders):
        raise UserError(f"layout {layout!r} must name two folders below {tree.root}: 'PICTURES/MASKS' (or 'a/b:c/d')")
    paths = list(tree.pictures)
    parents = {""}
    if not all(_below(paths, f"{folder}/") for folder in folders):  # the one place further down that has both
        parents = {f"{path.split(f'/{folders[0]}/', 1)[0]}/" for path in paths if f"/{folders[0]}/" in path} & {
            f"{path.split(f'/{folders[1]}/', 1)[0]}/" for path in paths if f"/{folders[1]}/" in path
        }
    if len(parents) != 1:
        lacking = next((f for f in folders if not _below(paths, f"{f}/")), folders[0])
        raise UserError(f"layout {layout!r}: no pictures in {tree.root / lacking}")
    (parent,) = parents
    return Found(parent, layout, "", _match(paths, parent, *folders))


def search(tree: Tree, hint: str | None) -> Found:
    """The data set in ``tree``, ``hint`` its name.

    Raises:
        UserError: there is none, there are several, or it cannot be told which files are the masks.
    """
    paths = list(tree.pictures)
    unpaired: list[Found] = []
    for look in (_named, _by_contents):
        for depth in range(_MAX_NESTING + 1):
            found = [one for parent, below in _by_parent(paths, depth).items() for one in look(tree, below, parent)]
            unpaired.extend(one for one in found if not one.match.pairs)
            found = [one for one in found if one.match.pairs]
            alone = len(found) == 1
            if hint and len(found) > 1:
                wanted = re.sub(r"[^a-z0-9]+", "", hint.lower())
                named = [
                    one
                    for one in found
                    if wanted
                    in {re.sub(r"[^a-z0-9]+", "", part.lower()) for part in (one.prefix, *one.parent.split("/"))}
                ]
                found = named or found
            if len(found) == 1:
                if alone:
                    found[0].others = _others(paths, found[0])
                return found[0]
            if found:
                names = ", ".join(one.parent.strip("/") or one.layout for one in found[:6])
                raise UserError(f"{tree.root} holds {len(found)} data sets ({names}); give the folder of one of them")
    if unpaired:
        return unpaired[0]
    if not paths:
        raise UserError(f"no pictures (jpg, png, bmp, ...) under {tree.root}; is it the folder of the data set?")
    raise NoMasks(
        f"{tree.root} holds pictures ({len(paths)}) but no masks that were recognised: put them into folders "
        f"such as images/ and masks/, or side by side as a.jpg and a.png, or name the two folders with "
        f"data.layout=PICTURES/MASKS"
    )


def _others(paths: Iterable[str], found: Found) -> tuple[str, ...]:
    """Folders beside those of a set, or beside the folder it is in, that hold pictures too."""
    beside = found.layout.split("/") if "side by side" not in found.layout else []
    others = set(found.others)
    for path in paths:
        inside = path.startswith(found.parent)
        first, _, rest = path[len(found.parent) if inside else 0 :].partition("/")
        if rest and first not in beside:
            others.add(first)
    return tuple(sorted(others))


def search_masks(tree: Tree) -> tuple[str, dict[str, str], list[str]]:
    """The masks of a set whose pictures are not there: (their folder "a/", masks by name, files of a second name).

    The folder whose name says that it holds masks, or the root where all its files look like masks.

    Raises:
        UserError: there is no such folder, or there are several.
    """
    paths = list(tree.pictures)
    for depth in range(_MAX_NESTING + 1):
        places = [
            f"{parent}{folder}/"
            for parent, below in _by_parent(paths, depth).items()
            for folder in _folders(below, parent)
            if (folder_role(folder) or ("", ""))[0] == "mask" and not is_aside(folder)
        ]
        if len(places) == 1:
            return places[0], *by_name(_below(paths, places[0]), places[0], lossy_first=False)
        if places:
            names = ", ".join(place.rstrip("/") for place in places)
            raise UserError(f"{tree.root} holds several folders of masks ({names}); name one with data.masks=FOLDER")
    if paths and contents_of(tree, paths, share=1.0) == "mask":
        return "", *by_name(paths, "", lossy_first=False)
    raise UserError(f"{tree.root} holds no masks that were recognised; name their folder with data.masks=FOLDER")
