"""Which picture belongs to which mask, by the names of folders and files."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from qefpn.data.files import LOSSY, SUFFIXES

__all__ = ["Match", "by_name", "folder_role", "match_names", "side_by_side"]

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
_MASK_SUFFIX = re.compile(r"[ _.-](mask|masks|gt|gts|ground_?truth|segmentation|seg|label|labels|saliency)$", re.I)


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
    return str(PurePosixPath(path).with_suffix(""))


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


def match_names(images: dict[str, str], masks: dict[str, str]) -> Match:
    """Pair by equal names first, then by names that differ in case, Unicode form or a ``_mask`` ending,
    then by the bare file name where one side is nested deeper than the other."""
    result = Match()
    left, right = dict(images), dict(masks)
    for key in sorted(left.keys() & right.keys()):
        result.pairs.append((key, left.pop(key), right.pop(key)))
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
                result.pairs.append((keys[0], left.pop(keys[0]), right.pop(by_key[loose][0])))
    result.images, result.masks = sorted(left.values()), sorted(right.values())
    return result


def side_by_side(files: list[str], base: str) -> Match:
    """Pictures and masks in one folder: ``a.jpg`` + ``a.png``, or ``a.png`` + ``a_mask.png``."""
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
