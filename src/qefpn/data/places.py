"""Where the data set of a name is, below a folder of data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from qefpn.data.archives import ARCHIVE_SUFFIXES, archive_stem, unpack_first
from qefpn.data.pairing import folder_role
from qefpn.data.registry import close_names, normalize_name, official
from qefpn.errors import UserError

__all__ = ["children", "is_zip", "locate"]

_ARCHIVES = (".zip", *ARCHIVE_SUFFIXES)


def children(folder: Path) -> list[Path]:
    """Folders and archives in a folder, by name; its other files, of which there may be many, are no sets."""
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if (entry.name.lower().endswith(_ARCHIVES) or entry.is_dir())
                and not entry.name.startswith((".", "__MACOSX"))
            ]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


def _called(path: Path, name: str) -> bool:
    stem = path.stem if is_zip(path) else path.name
    known, wanted = official(stem), official(name)
    return normalize_name(stem) == normalize_name(name) or (known is not None and known is wanted)


def _unread(children: Iterable[Path], name: str) -> Path | None:
    """The archive of a set that is there and cannot be read in place."""
    for child in children:
        stem = archive_stem(child)
        if stem is not None and child.is_file():
            known = official(stem)
            if normalize_name(stem).startswith(normalize_name(name)) or (known is not None and known is official(name)):
                return child
    return None


def locate(root: str | Path, name: str) -> Path:
    """The folder or zip of the data set ``name``.

    Tried in this order: an absolute path; a path below ``root``; a folder, then a zip, of that name (any
    case, any separators) in ``root``, then one level deeper; the only zip whose name begins with it
    ("DUTS-TE-300.zip"); and ``root`` itself, if that is its name or its folders carry it ("DUTS-TR-Image").

    Raises:
        UserError: there is no such set; says what is there. It is there as an archive that has to be unpacked first.
    """
    base = Path(root).expanduser()
    if base.is_file() and archive_stem(base) is not None:
        raise UserError(unpack_first(base))
    direct = Path(name).expanduser()
    if direct.is_absolute():
        if not direct.exists():
            raise UserError(f"the data set {name} does not exist")
        if direct.is_file() and archive_stem(direct) is not None:
            raise UserError(unpack_first(direct))
        return direct
    if not base.exists():
        raise UserError(f"data.root={root} does not exist; give the folder that holds the data sets")
    if name in (".", ""):
        return base
    wanted_name = normalize_name(name)
    there = children(base)
    deeper = [inner for child in there if child.is_dir() for inner in children(child)]
    for level in (there, deeper):
        for wanted in (Path.is_dir, is_zip):
            for child in level:
                if wanted(child) and _called(child, name):
                    return child
    if (base / name).exists():
        return base / name
    zips = [child for child in there if is_zip(child) and normalize_name(child.stem).startswith(wanted_name)]
    if len(zips) == 1:
        return zips[0]
    roles = [folder_role(child.name) for child in there if child.is_dir()]
    if _called(base, name) or any(role and normalize_name(role[1]) == wanted_name for role in roles):
        return base
    archive = _unread([*there, *deeper], name)
    if archive is not None:
        raise UserError(unpack_first(archive))
    called = [child.stem if is_zip(child) else child.name for child in there if child.is_dir() or is_zip(child)]
    close = close_names(name, called)
    hint = f"; did you mean {close[0]}?" if close else ""
    if not hint and official(name) is None and close_names(name):
        hint = f"; did you mean {close_names(name)[0]}?"
    listing = ", ".join(called[:8]) + (", ..." if len(called) > 8 else "") if called else "nothing that could be one"
    raise UserError(f"no data set {name} at data.root={base}: there is {listing}{hint}")
