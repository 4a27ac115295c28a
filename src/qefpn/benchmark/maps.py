"""Saliency maps of any methods: where they are, which picture each belongs to, and reading them."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from qefpn.data.archives import archive_stem, unpack_first
from qefpn.data.files import PictureFile, Tree, ZipMember, open_tree, read_bytes
from qefpn.data.layouts import Pair
from qefpn.data.pairing import by_name, match_names
from qefpn.data.reading import decode
from qefpn.data.registry import normalize_name, official
from qefpn.errors import UserError
from qefpn.metrics.inputs import as_saved, to_uint8
from qefpn.text import one_line

__all__ = ["FoundMaps", "MapFolder", "find_maps", "match_maps", "read_map"]

ARRAYS = (".npy", ".npz")
"""How files of NumPy's end, in which maps may be beside pictures' formats; an .npz holds one array."""

_MAX_DEPTH = 2
"""How far below the root the folders of methods and data sets may lie."""


@dataclass(frozen=True)
class MapFolder:
    """The maps of one method on one data set.

    Attributes:
        method, dataset: their names; of several folders that name the same pair the first counts.
        folder: where the maps lie, at any depth; a zip, where they are the whole of one.
        tree: the files of the folder or zip that was searched.
        inside: the folder within ``tree``, ``""`` or ``"a/b/"``.
        affixes: what precedes and what follows a picture's name in its map's; other files are no maps then.
    """

    method: str
    dataset: str
    folder: Path
    tree: Tree
    inside: str = ""
    affixes: tuple[str, str] = ("", "")

    @property
    def others(self) -> list[str]:
        """Files there that are no maps by their names, relative to it."""
        others = (path for path in self.tree.others if not path.lower().endswith(ARRAYS))
        return [path[len(self.inside) :] for path in others if path.startswith(self.inside)]


@dataclass(frozen=True)
class FoundMaps:
    """Which maps belong to the pictures of a data set.

    Attributes:
        maps: name of a picture → its map, a file or a member of a zip.
        missing: names of pictures without a map.
        extra: maps, relative to their folder, that belong to no picture.
        twice: maps, relative to their folder, that were passed over because another one has the same name.
    """

    maps: dict[str, Path | ZipMember]
    missing: list[str]
    extra: list[str]
    twice: list[str] = field(default_factory=list)


def _map_files(tree: Tree) -> list[str]:
    return [*tree.pictures, *(path for path in tree.others if path.lower().endswith(ARRAYS))]


def _key(name: str) -> str:
    known = official(name)
    return normalize_name(known.name if known else name)


@dataclass(frozen=True)
class _Place:
    """A folder of maps, on disk or in a zip."""

    name: str
    tree: Tree
    inside: str

    @property
    def pictures(self) -> list[str]:
        """Files at any depth, relative to it."""
        return [path[len(self.inside) :] for path in _map_files(self.tree) if path.startswith(self.inside)]

    @property
    def is_direct(self) -> bool:
        """Whether maps lie right in it."""
        return any("/" not in path for path in self.pictures)

    @property
    def path(self) -> Path:
        return self.tree.root / self.inside if self.inside else self.tree.root

    def folders(self) -> list[_Place]:
        """What is right below it and holds pictures: folders, and zips on disk."""
        found = {path.split("/", 1)[0] for path in self.pictures if "/" in path}
        if not self.tree.is_zip:
            found |= {file.parent.name for file in self.path.glob("[!.]*/*.[zZ][iI][pP]")}
        names = sorted(found)
        below = [_Place(name, self.tree, f"{self.inside}{name}/") for name in names]
        for file in [] if self.tree.is_zip else sorted(self.path.glob("*.[zZ][iI][pP]")):
            if not file.name.startswith(".") and file.stem not in names:
                below.append(_Place(file.stem, open_tree(file), ""))
        return below

    def archives(self) -> list[Path]:
        """Archives below it that are not read."""
        if self.tree.is_zip:
            return []
        files = (file for depth in ("*", "*/*", "*/*/*") for file in self.path.glob(depth))
        return sorted(file for file in files if archive_stem(file) is not None and file.is_file())

    def holding(self, method: str, dataset: str, affixes: tuple[str, str]) -> MapFolder:
        return MapFolder(one_line(method), dataset, self.path, self.tree, self.inside, affixes)


def find_maps(
    root: str | Path, datasets: Mapping[str, Sequence[Pair]], prefix: str = "", suffix: str = ""
) -> tuple[list[MapFolder], list[str]]:
    """The maps below a folder or zip: ``<method>/<data set>/``, ``<data set>/<method>/``, or those of one method alone.

    A folder is a data set's where its name is (in any case, with any separators). Where no folder is, a folder of
    maps belongs to the data set that shares the most names with it, and is named as its method. A zip stands for a
    folder everywhere.

    Args:
        root: the folder or zip.
        datasets: the pictures by data set.
        prefix, suffix: what precedes and what follows a picture's name in those of its maps (``F3Net_`` and ``_sal`` of
            ``F3Net_0001_sal.png``). One beginning and ending of all maps is seen through without.

    Returns:
        the folders found, sorted by method then by the order of ``datasets``, and what is left aside: the names of
        published data sets that have maps there but are not in ``datasets``, and archives that are not read.

    Raises:
        UserError: there is no such folder, or no maps of these data sets in it.
    """
    base, affixes = Path(os.path.expanduser(root)), (prefix, suffix)
    if base.is_file() and archive_stem(base) is not None:
        raise UserError(f"maps={root}: {unpack_first(base)}")
    if not base.exists():
        raise UserError(f"maps={root}: there is no such folder; it should hold METHOD/DATA SET/NAME.png")
    name = base.stem if base.is_file() else base.resolve().name
    top = _Place(name, open_tree(base), "")
    if top.tree.is_zip and not top.is_direct and len(inner := top.folders()) == 1 and _key(inner[0].name) == _key(name):
        top = inner[0]  # maps.zip with maps/ in it
    keys = {_key(name): name for name in datasets}
    found: dict[tuple[str, str], _Place] = {}
    unknown: set[str] = set()
    groups = {
        name: {pair.name.partition("/")[0] for pair in pairs if "/" in pair.name} for name, pairs in datasets.items()
    }
    _search(top, top.name, keys, groups, found, unknown, depth=0)
    if not found:
        for place in [top] if top.is_direct else top.folders():
            dataset = _most_alike(place, datasets, affixes)
            if dataset is not None:
                found[(place.name, dataset)] = place
    archives = top.archives()
    if not found:
        aside = [*sorted(unknown), *(unpack_first(file) for file in archives[:1])]
        raise UserError(
            f"maps={root}: no map there belongs to a picture of {', '.join(datasets) or 'any data set'}; "
            f"maps lie in METHOD/DATA SET/NAME.png or DATA SET/METHOD/NAME.png"
            + (f" (there are maps of {', '.join(aside)})" if aside else "")
        )
    order = list(datasets)
    folders = [place.holding(method, dataset, affixes) for (method, dataset), place in found.items()]
    left = [*sorted(unknown), *(unpack_first(file) for file in archives)]
    return sorted(folders, key=lambda one: (one.method.casefold(), order.index(one.dataset))), left


def _search(
    place: _Place,
    method: str,
    keys: Mapping[str, str],
    groups: Mapping[str, set[str]],
    found: dict[tuple[str, str], _Place],
    unknown: set[str],
    depth: int,
) -> None:
    """Note the data sets' folders at and below ``place``, whose maps are of ``method`` if no folder says more; folders
    that are named as those of a data set's own pictures (``groups``: videos, classes) say nothing."""
    for child in place.folders():
        dataset = keys.get(_key(child.name))
        if dataset is not None:
            methods = child.folders()
            if child.is_direct or not methods or {one.name for one in methods} <= groups[dataset]:
                found.setdefault((method, dataset), child)
            else:
                for one in methods:
                    found.setdefault((one.name, dataset), one)
        elif official(child.name) is not None:
            unknown.add(child.name)
        elif depth < _MAX_DEPTH:
            # a run's maps lie in RUN/maps/DATA SET: the run is the method
            inner = method if child.name.lower() in ("maps", "saliency", "saliency_maps") else child.name
            _search(child, inner, keys, groups, found, unknown, depth + 1)


def _most_alike(place: _Place, datasets: Mapping[str, Sequence[Pair]], affixes: tuple[str, str]) -> str | None:
    """The data set that most of the maps pair with, by their names with or without a common beginning and ending."""
    shared = {name: len(_match(place.tree, place.inside, pairs, affixes).maps) for name, pairs in datasets.items()}
    best = max(shared, key=lambda name: shared[name], default=None)
    return best if best is not None and shared[best] else None


def match_maps(folder: MapFolder | str | Path, pairs: Sequence[Pair]) -> FoundMaps:
    """Pair the maps below a folder with pictures by name, in any folders and letter case, a ``_sal`` or the like at
    the end, or one beginning and ending of all maps, aside. Of two maps with one name the lossless one counts.
    """
    if isinstance(folder, MapFolder):
        return _match(folder.tree, folder.inside, pairs, folder.affixes)
    return _match(open_tree(folder), "", pairs)


def _match(tree: Tree, inside: str, pairs: Sequence[Pair], affixes: tuple[str, str] = ("", "")) -> FoundMaps:
    files, twice = by_name([path for path in _map_files(tree) if path.startswith(inside)], inside, lossy_first=False)
    strangers: list[str] = []
    if any(affixes):
        files, strangers = _without(files, affixes)
    match = match_names({pair.name: pair.name for pair in pairs}, files, single=True)
    maps: dict[str, Path | ZipMember] = {}
    for name, _, file in match.pairs:
        found = tree.file(file)
        maps[name] = found if isinstance(found, ZipMember) else Path(found)
    relative = [[path[len(inside) :] for path in paths] for paths in ([*match.masks, *strangers], twice)]
    return FoundMaps(maps, sorted(match.images), sorted(relative[0]), sorted(relative[1]))


def _without(files: Mapping[str, str], affixes: tuple[str, str]) -> tuple[dict[str, str], list[str]]:
    """Files by what is left of their names, and those that do not carry the affixes."""
    kept, strangers = {}, []
    for name, path in files.items():
        folder, slash, last = name.rpartition("/")
        core = last.removeprefix(affixes[0])
        core = core.removesuffix(affixes[1])
        if len(core) == len(last) - sum(map(len, affixes)) > 0:
            kept[folder + slash + core] = path
        else:
            strangers.append(path)
    return kept, strangers


def read_map(file: PictureFile | bytes, *, quantize: bool = True) -> tuple[npt.NDArray[Any], str]:
    """Read a saliency map as (H, W), and say what about it is unusual.

    Grey values are taken as they are. Colour becomes luminance (a grey map saved as RGB keeps its values); of a
    cut-out, whose alpha is not the same everywhere, alpha is the map. 16 bits and floats in [0, 1], of a TIFF, an
    ``.npy`` or an ``.npz`` of one array, are scaled to 8 bits, or with ``quantize=False`` stay as they are.

    Returns:
        the map, uint8 or float in [0, 1], and a remark such as ``"16-bit"`` or ``"colour, read as luminance"``, empty
        for plain 8-bit maps.

    Raises:
        UserError: missing, no map, truncated, or with values that no map has.
    """
    if not isinstance(file, bytes) and str(file).lower().endswith(ARRAYS):
        return _from_array(file, quantize)
    image = decode(file)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _from_deep(np.asarray(image), quantize)
    if image.mode == "1":
        return np.asarray(image.convert("L")), ""
    if image.mode == "L" and "transparency" not in image.info:
        return np.array(image), ""
    remark = ""
    if image.mode in ("RGBA", "LA", "PA"):
        alpha = np.array(image.convert("RGBA").getchannel("A"))
        if alpha.min() < alpha.max():
            return alpha, "cut-outs, of which alpha is taken"
        remark = "with alpha, which is one value and ignored"
    if image.mode in ("L", "LA"):
        return np.array(image.getchannel(0)), remark
    rgb = np.asarray(image.convert("RGB"))
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
        return np.ascontiguousarray(rgb[..., 0]), remark
    colour = "colour, read as luminance"
    return np.array(Image.fromarray(rgb).convert("L")), f"{colour}; {remark}" if remark else colour


def _from_deep(values: np.ndarray, quantize: bool) -> tuple[npt.NDArray[Any], str]:
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise UserError("the map holds NaN or infinity")
        scale = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
        levels = np.clip(values / scale, 0, 1)
        return (to_uint8(levels), "floats, scaled to 8 bits") if quantize else (levels, "floats, as they are")
    wide = np.clip(values.astype(np.int64), 0, 65535).astype(np.uint16)
    if wide.max(initial=0) <= 255:
        return wide.astype(np.uint8), "16-bit file with 8-bit values"
    return (to_uint8(wide), "16-bit, scaled to 8 bits") if quantize else (as_saved(wide), "16-bit, as they are")


def _from_array(file: PictureFile, quantize: bool) -> tuple[npt.NDArray[Any], str]:
    try:
        found = np.load(io.BytesIO(read_bytes(file)), allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            if len(found.files) != 1:
                raise UserError(f"{file} holds {len(found.files)} arrays ({', '.join(found.files[:4])}); save the map")
            found = found[found.files[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} holds no array that can be read ({error})") from None
    array = np.asarray(found).squeeze()
    if array.ndim != 2:
        raise UserError(f"{file} has the shape {np.shape(found)}; a map is (H, W)")
    saved = as_saved(array, f"map {file}", quantize=quantize)
    if saved.dtype == np.uint8:
        return np.ascontiguousarray(saved), ""
    return (to_uint8(saved), "floats, scaled to 8 bits") if quantize else (saved, "floats, as they are")
