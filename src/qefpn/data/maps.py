"""Saliency maps of any methods: where they are, which picture each belongs to, and reading them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from qefpn.data.files import left_out, open_tree
from qefpn.data.layouts import Pair
from qefpn.data.pairing import by_name, match_names
from qefpn.data.reading import decode
from qefpn.data.registry import normalize_name, official
from qefpn.errors import UserError
from qefpn.text import one_line

__all__ = ["FoundMaps", "MapFolder", "find_maps", "match_maps", "read_map"]

_MAX_DEPTH = 2
"""How far below the root the folders of methods and data sets may lie."""


@dataclass(frozen=True)
class MapFolder:
    """The maps of one method on one data set.

    Attributes:
        method, dataset: their names; of several folders that name the same pair the first counts.
        folder: where the maps lie, at any depth.
    """

    method: str
    dataset: str
    folder: Path


@dataclass(frozen=True)
class FoundMaps:
    """Which maps belong to the pictures of a data set.

    Attributes:
        maps: name of a picture → its map.
        missing: names of pictures without a map.
        extra: maps, relative to their folder, that belong to no picture.
        twice: maps, relative to their folder, that were passed over because another one has the same name.
    """

    maps: dict[str, Path]
    missing: list[str]
    extra: list[str]
    twice: list[str] = field(default_factory=list)


def _key(name: str) -> str:
    known = official(name)
    return normalize_name(known.name if known else name)


def _folders(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [entry for entry in entries if entry.is_dir() and not left_out(entry.name)]


def find_maps(root: str | Path, datasets: Mapping[str, Sequence[Pair]]) -> tuple[list[MapFolder], list[str]]:
    """The maps below a folder: ``<method>/<data set>/``, ``<data set>/<method>/``, or those of one method alone.

    A folder is a data set's where its name is (in any case, with any separators). Where no folder is, a folder of
    maps belongs to the data set that shares the most names with it, and is named as its method.

    Args:
        root: the folder.
        datasets: the pictures by data set.

    Returns:
        the folders found, sorted by method then by the order of ``datasets``, and the names of published data sets
        that have maps there but are not in ``datasets``.

    Raises:
        UserError: there is no such folder, or no maps of these data sets in it.
    """
    base = Path(os.path.expanduser(root))
    if not base.is_dir():
        raise UserError(f"maps={root}: there is no such folder; it should hold METHOD/DATA SET/NAME.png")
    keys = {_key(name): name for name in datasets}
    found: dict[tuple[str, str], Path] = {}
    unknown: set[str] = set()
    _search(base, base.resolve().name, keys, found, unknown, depth=0)
    if not found:
        direct = any("/" not in name for name in open_tree(base).pictures)
        for folder in [base] if direct else _folders(base):
            name = _most_alike(folder, datasets)
            if name is not None:
                found[(folder.resolve().name, name)] = folder
    if not found:
        raise UserError(
            f"maps={root}: no map there belongs to a picture of {', '.join(datasets) or 'any data set'}; "
            f"maps lie in METHOD/DATA SET/NAME.png or DATA SET/METHOD/NAME.png"
            + (f" (there are maps of {', '.join(sorted(unknown))})" if unknown else "")
        )
    order = list(datasets)
    folders = [MapFolder(one_line(method), dataset, folder) for (method, dataset), folder in found.items()]
    return sorted(folders, key=lambda one: (one.method.casefold(), order.index(one.dataset))), sorted(unknown)


def _search(
    folder: Path,
    method: str,
    keys: Mapping[str, str],
    found: dict[tuple[str, str], Path],
    unknown: set[str],
    depth: int,
) -> None:
    """Note the data sets' folders at and below ``folder``, whose maps are of ``method`` if no folder says more."""
    for child in _folders(folder):
        dataset = keys.get(_key(child.name))
        if dataset is not None:
            methods = [one for one in _folders(child) if open_tree(one).pictures]
            direct = any("/" not in name for name in open_tree(child).pictures)
            if direct or not methods:
                found.setdefault((method, dataset), child)
            else:
                for one in methods:
                    found.setdefault((one.name, dataset), one)
        elif official(child.name) is not None:
            unknown.add(child.name)
        elif depth < _MAX_DEPTH:
            # a run's maps lie in RUN/maps/DATA SET: the run is the method
            inner = method if child.name.lower() in ("maps", "saliency", "saliency_maps") else child.name
            _search(child, inner, keys, found, unknown, depth + 1)


def _most_alike(folder: Path, datasets: Mapping[str, Sequence[Pair]]) -> str | None:
    files = open_tree(folder).pictures
    stems = {PurePosixPath(name).stem for name in files}
    shared = {name: len(stems & {PurePosixPath(pair.name).name for pair in pairs}) for name, pairs in datasets.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    return best if best is not None and shared[best] else None


def match_maps(folder: Path, pairs: Sequence[Pair]) -> FoundMaps:
    """Pair the maps below a folder with pictures by name, in any folders and letter case, a ``_sal`` or the like at
    the end aside. Of two maps with one name the lossless one counts.
    """
    tree = open_tree(folder)
    files, twice = by_name(tree.pictures, "", lossy_first=False)
    match = match_names({pair.name: pair.name for pair in pairs}, files)
    _match_common_ending(match.pairs, match.images, match.masks)
    maps = {name: folder / file for name, _, file in match.pairs}
    return FoundMaps(maps, sorted(match.images), sorted(match.masks), sorted(twice))


def _match_common_ending(pairs: list[tuple[str, str, str]], missing: list[str], extra: list[str]) -> None:
    """Pair what is left where all maps carry one ending of the method's own: ``0001_BASNet.png``."""
    by_start: dict[str, list[str]] = defaultdict(list)
    stems = {file: PurePosixPath(file).stem for file in extra}
    for name in missing:
        last = PurePosixPath(name).name
        by_start[name] = [file for file, stem in stems.items() if stem != last and stem.startswith(last)]
    endings: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, files in by_start.items():
        for file in files:
            endings[stems[file][len(PurePosixPath(name).name) :]].append((name, file))
    ending = max(endings, key=lambda one: len(endings[one]), default=None)
    if ending is None or not ending.startswith(("_", "-", ".", " ")):
        return
    for name, file in endings[ending]:
        if name in missing and file in extra:
            pairs.append((name, name, file))
            missing.remove(name)
            extra.remove(file)


def read_map(file: str | Path | bytes) -> tuple[npt.NDArray[np.uint8], str]:
    """Read a saliency map as uint8 (H, W), and say what about it is unusual.

    Grey values are taken as they are. Colour becomes luminance (a grey map saved as RGB keeps its values), alpha is
    ignored, 16 bits and floats in [0, 1] are scaled to 8 bits.

    Returns:
        the map, and a remark such as ``"16-bit"`` or ``"colour, read as luminance"``, empty for plain 8-bit maps.

    Raises:
        UserError: missing, no picture, or truncated.
    """
    image = decode(file)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _from_deep(np.asarray(image))
    if image.mode == "1":
        return np.asarray(image.convert("L")), ""
    if image.mode == "L" and "transparency" not in image.info:
        return np.array(image), ""
    remark = "with alpha, which is ignored" if image.mode in ("RGBA", "LA", "PA") else ""
    if image.mode in ("L", "LA"):
        return np.array(image.getchannel(0)), remark
    rgb = np.asarray(image.convert("RGB"))
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
        return np.ascontiguousarray(rgb[..., 0]), remark
    colour = "colour, read as luminance"
    return np.array(Image.fromarray(rgb).convert("L")), f"{colour}; {remark}" if remark else colour


def _from_deep(values: np.ndarray) -> tuple[npt.NDArray[np.uint8], str]:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise UserError("the map holds NaN or infinity")
        scale = 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
        return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8), "floats, scaled to 8 bits"
    wide = np.clip(values.astype(np.int64), 0, 65535)
    if wide.max(initial=0) <= 255:
        return wide.astype(np.uint8), "16-bit file with 8-bit values"
    return ((wide + 128) // 257).astype(np.uint8), "16-bit, scaled to 8 bits"
