"""Which picture belongs to which mask, by the names of folders and files."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from qefpn.data.affixes import MASK_WORDS, match_affixes, tokens_of
from qefpn.data.files import LOSSY, SUFFIXES

__all__ = ["SPLITS", "Look", "Match", "by_name", "folder_role", "is_aside", "match_names", "side_by_side"]

_IMAGE_NAMES = (
    "image",
    "images",
    "img",
    "imgs",
    "im",
    "jpegimages",
    "picture",
    "pictures",
    "photo",
    "photos",
    "input",
)
_MASK_NAMES = (
    "mask",
    "masks",
    "gt",
    "gts",
    "ground-truth-mask",
    "ground-truth-masks",
    "ground-truth",
    "groundtruth",
    "gt-mask",
    "gt-masks",
    "segmentation",
    "segmentations",
    "segmentationclass",
    "pixelwisegt-new-pascal",
    "pixelwisegt-new-png",
    "annotation",
    "annotations",
    "label",
    "labels",
    "saliency",
)
_ENDING = re.compile(f"({'|'.join(map(re.escape, SUFFIXES))})$", re.I)
_MASK_SUFFIX = re.compile(
    r"[ _.-](masks?|gts?|ground_?truth|segmentations?|segs?|labels?|saliency|sal|mattes?|alphas?|annotations?)$", re.I
)

Look = Callable[[list[str]], str]


_ASIDE = frozenset(
    re.findall(
        r"\w+",
        "edge edges contour contours boundary boundaries border borders depth instance instances",
    )
)


def is_aside(folder: str) -> bool:
    """Whether a folder's name says that its files are like masks and are none: edges, depth, instances."""
    return bool(_ASIDE & set(tokens_of(folder)))


def folder_role(folder: str) -> tuple[str, str] | None:
    """("image" | "mask", what precedes that word) of a folder's name; None if it says neither.

    "DUTS-TR-Mask" is ("mask", "duts-tr"); "imgs" is ("image", "").
    """
    name = re.sub(r"[ _]+", "-", folder.lower())
    for role, words in (("mask", _MASK_NAMES), ("image", _IMAGE_NAMES)):
        if name in words:
            return role, ""
        for word in sorted(words, key=len, reverse=True):
            if name.endswith("-" + word):
                return role, name[: -len(word) - 1]
    return None


def _stem(path: str) -> str:
    at = path.rfind(".")
    return path[:at] if path.rfind("/") + 1 < at < len(path) - 1 else path


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _loose(key: str) -> str:
    """A key without case, Unicode variants and a trailing ``_mask`` or ``.jpg``."""
    key = unicodedata.normalize("NFC", key)
    key = _ENDING.sub("", key)
    return _MASK_SUFFIX.sub("", key).casefold()


@dataclass
class Match:
    """Result of pairing two lists of files."""

    pairs: list[tuple[str, str, str]] = field(default_factory=list)  # name, image, mask
    images: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)


def by_name(files: Iterable[str], base: str, lossy_first: bool) -> tuple[dict[str, str], list[str]]:
    """Files by their name below ``base``; of two with one name the JPEG is the picture and the other the
    mask."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in files:
        groups[_stem(path[len(base) :])].append(path)
    kept: dict[str, str] = {}
    extra: list[str] = []
    for key, paths in groups.items():
        paths.sort(key=lambda path: (path.lower().endswith(LOSSY) != lossy_first, path))
        kept[key] = paths[0]
        extra.extend(paths[1:])
    return kept, extra


def match_names(images: dict[str, str], masks: dict[str, str], *, single: bool = False) -> Match:
    """Pair by equal names first, then by names that differ in case, Unicode form or a ``_mask`` ending,
    then by the bare file name where one side is nested deeper than the other, and what is left by a beginning and an
    ending that all names of a side carry (:func:`match_affixes`). Where such a rule pairs every name of a side and
    equal names do not, it is the rule that counts.

    Args:
        images, masks: files by name.
        single: one name that holds another is pair enough where there is no second (maps of a method).
    """
    result = _match_equal(images, masks)
    if not result.images or not result.masks:
        return result
    ruled = match_affixes(images, masks, single=single)
    if len(ruled) == min(len(images), len(masks)) > len(result.pairs):
        result = Match()
        left, right = images, masks
    else:
        alone = {*result.images}, {*result.masks}
        left = {key: file for key, file in images.items() if file in alone[0]}
        right = {key: file for key, file in masks.items() if file in alone[1]}
        ruled = match_affixes(left, right, others=len(result.pairs), single=single)
    result.pairs += [(key, left[key], right[mask]) for key, mask in ruled.items()]
    paired = {file for _, image, mask in result.pairs for file in (image, mask)}
    result.images = sorted(file for file in images.values() if file not in paired)
    result.masks = sorted(file for file in masks.values() if file not in paired)
    return result


def _match_equal(images: dict[str, str], masks: dict[str, str]) -> Match:
    result = Match()
    left, right = dict(images), dict(masks)
    for key in sorted(left.keys() & right.keys()):
        result.pairs.append((key, left.pop(key), right.pop(key)))
    shared = _shared_folders(images), _shared_folders(masks)
    for simplify in (_loose, lambda key: _loose(PurePosixPath(key).name)):
        if not left or not right:
            break
        by_key: dict[str, list[str]] = defaultdict(list)
        for key in right:
            by_key[simplify(key)].append(key)
        taken: dict[str, list[str]] = defaultdict(list)
        for key in left:
            taken[simplify(key)].append(key)
        for loose, keys in taken.items():
            if len(keys) == 1 and len(by_key[loose]) == 1:
                one, other = keys[0].split("/")[:-1], by_key[loose][0].split("/")[:-1]
                if _one_place(one, other, shared):
                    result.pairs.append((keys[0], left.pop(keys[0]), right.pop(by_key[loose][0])))
    result.images, result.masks = sorted(left.values()), sorted(right.values())
    return result


def _shared_folders(keys: Iterable[str]) -> int:
    """How many of the leading folders all keys share."""
    folders = [key.split("/")[:-1] for key in keys]
    return len(os.path.commonprefix(folders)) if folders else 0


SPLITS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "te"), "test"),
}
"""What folders of a split are called."""


def _one_place(one: list[str], other: list[str], shared: tuple[int, int]) -> bool:
    """Whether two files of one name may belong together: train/1 and test/1 are different pictures."""
    splits = [{SPLITS[part.lower()] for part in parts if part.lower() in SPLITS} for parts in (one, other)]
    if splits[0] and splits[1] and splits[0] != splits[1]:
        return False
    one, other = one[shared[0] :], other[shared[1] :]
    return _nested(one, other) or _nested(other, one)


def _nested(short: list[str], long: list[str]) -> bool:
    """Whether the folders of one are among those of the other, in their order."""
    rest = iter(part.casefold() for part in long)
    return all(part.casefold() in rest for part in short)


def side_by_side(files: list[str], base: str, look: Look | None = None) -> Match:
    """Pictures and masks in one folder: ``a.jpg`` + ``a.png``, ``a.png`` + ``a_mask.png``, or ``img_1`` + ``mask_1``.

    Args:
        files: paths.
        base: the folder, with its slash.
        look: says of some of the files whether they are a "mask" or a "picture"; asked only where names do not say.
    """
    match = _by_suffix(files, base)
    if match.images or match.masks:
        other = _by_words(files, base, look)
        if other is not None and len(other.pairs) > len(match.pairs):
            return other
    return match


def _by_words(files: list[str], base: str, look: Look | None) -> Match | None:
    """Files told apart by the first or last word of their names."""
    best: Match | None = None
    for at in (-1, 0):
        groups: dict[str, list[str]] = defaultdict(list)
        for path in files:
            words = tokens_of(PurePosixPath(_stem(path)).name)
            groups[words[at] if words else ""].append(path)
        marked = [path for word, paths in groups.items() if word in MASK_WORDS for path in paths]
        plain = [path for word, paths in groups.items() if word not in MASK_WORDS for path in paths]
        if not marked and look is not None and len(groups) > 1:
            largest = sorted(groups.values(), key=len)[-2:]
            if sum(map(len, largest)) < 0.8 * len(files):
                continue
            kinds = [look(paths) for paths in largest]
            if sorted(kinds) == ["mask", "picture"]:
                marked, plain = largest[kinds.index("mask")], largest[kinds.index("picture")]
        if not marked or not plain or (look is not None and look(marked) == "picture"):
            continue  # mask_1.jpg may be a photograph of one
        images, doubled = by_name(plain, base, lossy_first=True)
        masks, more = by_name(marked, base, lossy_first=False)
        match = match_names(images, masks)
        rest = set(files) - {*plain, *marked}
        match.images = sorted({*match.images, *rest})
        match.duplicates = sorted(doubled + more)
        if match.pairs and (best is None or len(match.pairs) > len(best.pairs)):
            best = match
    return best


def _by_suffix(files: list[str], base: str) -> Match:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in files:
        groups[_loose(_stem(path[len(base) :]))].append(path)
    result = Match()
    alone: list[str] = []
    for paths in groups.values():
        marked = [path for path in paths if _MASK_SUFFIX.search(_stem(path))]
        if len(marked) == len(paths) and len(paths) > 1:  # face_mask.jpg + face_mask.png: the word is no mark here
            marked = []
        plain = [path for path in paths if path not in marked]
        # Of two plain files with one name the JPEG is the picture; of two lossless ones the PNG is the mask.
        plain.sort(key=lambda path: (not path.lower().endswith(LOSSY), path.lower().endswith(".png"), path))
        if plain and marked:
            image, mask, extra = plain[0], marked[0], plain[1:] + marked[1:]
        elif len(plain) >= 2 and _suffix(plain[0]) != _suffix(plain[1]):
            image, mask, extra = plain[0], plain[1], plain[2:]
        else:
            alone.extend(plain)
            result.masks.extend(marked)
            continue
        result.pairs.append((_stem(image[len(base) :]), image, mask))
        result.duplicates.extend(extra)
    mask_suffixes = {_suffix(mask) for _, _, mask in result.pairs if not _MASK_SUFFIX.search(_stem(mask))}
    image_suffixes = {_suffix(image) for _, image, _ in result.pairs}
    for path in alone:
        suffix = _suffix(path)
        is_mask = suffix in mask_suffixes and suffix not in image_suffixes
        (result.masks if is_mask else result.images).append(path)
    result.images.sort()
    result.masks.sort()
    return result
