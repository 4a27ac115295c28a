"""`qefpn predict`: which pictures, and where each result goes."""

from __future__ import annotations

import glob
import mimetypes
import os
import stat
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qefpn.data.files import SUFFIXES, is_picture, left_out, open_tree
from qefpn.errors import UserError
from qefpn.inference.output import check_suffix

_NO_FOLDERS = {".heic", ".heif", ".psd", ".exr", ".tga", ".ico", ".dng", ".cr2", ".nef", ".arw", ".xcf", ".npy", ".mat"}
"""Endings of files that Python's table of types lacks: a folder is not called so."""


@dataclass(frozen=True)
class Job:
    """A picture and its results.

    Attributes:
        source: None is standard input.
        targets: output type → file; None is standard output.
    """

    source: Path | None
    targets: Mapping[str, Path | None]

    @property
    def label(self) -> str:
        """The picture's name in messages."""
        return "standard input" if self.source is None else str(self.source)


@dataclass(frozen=True)
class Found:
    """The pictures that ``input`` names.

    Attributes:
        pictures: sorted; empty where the picture comes from standard input.
        base: what the results' places are relative to; None where they go side by side.
        others: files that were passed over.
    """

    pictures: tuple[Path, ...]
    base: Path | None = None
    others: tuple[str, ...] = ()


def find_inputs(text: str, *, recursive: bool, output: Path | None, made: Collection[Path] = ()) -> Found:
    """The pictures that a file, folder or pattern names.

    Args:
        text: ``input=``.
        recursive: a folder's subfolders too, links followed.
        output: a folder that is left out where it lies inside the input.
        made: real paths of files that are left out: what an earlier run wrote.

    Raises:
        UserError: where there is none.
    """
    path = os.path.expanduser(text)
    if os.path.isdir(path):
        leave = [] if output is None or os.path.realpath(output) == os.path.realpath(path) else [output]
        tree = open_tree(path, recursive=recursive, leave=leave)
        pictures = tuple(tree.root / name for name in tree.pictures)
        if made:
            pictures = tuple(one for one in pictures if Path(os.path.realpath(one)) not in made)
        others = tuple(sorted((*tree.texts, *tree.others)))
        if not pictures:
            below = "" if recursive else "; those of its subfolders too: recursive=true"
            raise UserError(f"input={text}: the folder holds no picture ({' '.join(SUFFIXES)}){below}")
        return Found(pictures, tree.root, others)
    if os.path.isfile(path) or _is_pipe(path):
        return Found((Path(path),))
    if os.path.lexists(path):
        raise UserError(f"input={text}: a link to what is not there, or no file that can be read")
    matches = [Path(one) for one in glob.glob(path, recursive=True)]
    files = sorted(one for one in matches if os.path.isfile(one) and not left_out(one.name))
    pictures = tuple(one for one in files if is_picture(one.name)) or tuple(files)
    if not pictures:
        only = ": only folders match; name one, or end the pattern in /*" if matches else ""
        raise UserError(f"input={text}: there is no such file, folder or match{only}")
    return Found(pictures, None, tuple(str(one) for one in files if one not in set(pictures)))


def _is_pipe(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def output_folder(text: str) -> Path | None:
    """The folder that ``output`` names; None where it names a file or standard output.

    Raises:
        UserError: it names one kind and is another.
    """
    if text == "-":
        return None
    path = Path(os.path.expanduser(text))
    suffix = path.suffix.lower()
    if text.endswith(("/", os.sep)):
        if os.path.isfile(path):
            raise UserError(f"output={text} is a file: name a folder")
        return path
    if suffix in SUFFIXES:
        if os.path.isdir(path):
            raise UserError(f"output={text} is a folder, though it is called as a file: give output={text}/ for it")
        return None
    if os.path.isfile(path):
        raise UserError(f"output={text} is a file: name a folder, or a .png file for one picture")
    if not os.path.isdir(path) and (suffix in mimetypes.types_map or suffix in _NO_FOLDERS):
        raise UserError(f"output={text}: {suffix} is not written; name a .png or .jpg file, or a folder, {text}/")
    return path


def plan(found: Sequence[Path], base: Path | None, text: str, folder: Path | None, kinds: Sequence[str]) -> list[Job]:
    """Where each result goes: below the output folder as the picture lies below the input folder, as PNG; several
    output types into a folder each, out/map/a.png and out/rgba/a.png.

    Pictures that would share a name keep more of theirs: a.jpg.png and a.png.png, and where a pattern matches in
    several folders, one/a.png and two/a.png.

    Args:
        found: the pictures; none for standard input.
        base: the input folder, if it was one.
        text: ``output=``.
        folder: what :func:`output_folder` says of it.
        kinds: the output types.

    Raises:
        UserError: a result would take the place of a picture, or several go to one file.
    """
    pictures: Sequence[Path | None] = found or [None]
    if folder is None:
        target = None if text == "-" else Path(os.path.expanduser(text))
        place = "standard output" if target is None else f"output={text}"
        if len(pictures) > 1:
            raise UserError(f"{place} is one file, but there are {len(pictures)} pictures: name a folder")
        if len(kinds) > 1:
            raise UserError(f"{place} is one file, but output_type names {len(kinds)}: name a folder")
        if target is not None:
            check_suffix(target, kinds[0])
        jobs = [Job(pictures[0], {kinds[0]: target})]
    else:
        names = _names(found, base) if found else [Path("stdin.png")]
        places = {kind: folder / kind if len(kinds) > 1 else folder for kind in kinds}
        jobs = [
            Job(one, {kind: place / name for kind, place in places.items()})
            for one, name in zip(pictures, names, strict=True)
        ]
    _keep_inputs(jobs)
    return jobs


def _names(pictures: Sequence[Path], base: Path | None) -> list[Path]:
    """A name of its own for every picture's result."""
    names = [Path(one.stem) if base is None else one.relative_to(base).with_suffix("") for one in pictures]
    names = [_named(one, one.name) for one in names]
    if base is None and len({one.parent for one in pictures}) > 1:
        common = Path(os.path.commonpath([one.absolute().parent for one in pictures]))
        for index in _sharing(names):
            below = pictures[index].absolute().parent.relative_to(common)
            names[index] = below / names[index]
    for index in _sharing(names):
        names[index] = _named(names[index], pictures[index].name)
    taken: set[str] = set()
    for index, name in enumerate(names):
        number, free = 0, name
        while _folded(free) in taken:
            number += 1
            free = _named(name, f"{name.name.removesuffix('.png')}_{number}")
        taken.add(_folded(free))
        names[index] = free
    return names


def _named(path: Path, stem: str) -> Path:
    return path.parent / f"{stem}.png"


def _folded(path: Path) -> str:
    """The path as file systems compare it that know no case, or compose letters."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _sharing(names: Sequence[Path]) -> list[int]:
    """Which of the names are there more than once."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(_folded(name), []).append(index)
    return [index for indices in places.values() if len(indices) > 1 for index in indices]


def _keep_inputs(jobs: Sequence[Job]) -> None:
    inputs = {os.path.realpath(job.source): job.source for job in jobs if job.source is not None}
    for target in (target for job in jobs for target in job.targets.values() if target is not None):
        source = inputs.get(os.path.realpath(target))
        if source is not None:
            raise UserError(f"{target} would overwrite the picture {source}: choose another output")
