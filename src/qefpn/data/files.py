"""Picture files, on disk or inside a zip: listing, reading, and a key that changes when the file does."""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from qefpn.errors import UserError

__all__ = [
    "SUFFIXES",
    "PictureFile",
    "Tree",
    "ZipMember",
    "cache_dir",
    "file_key",
    "is_picture",
    "open_tree",
    "read_bytes",
]

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_MAX_DEPTH = 6


@dataclass(frozen=True)
class ZipMember:
    """One file inside a zip that is read in place."""

    archive: str
    member: str

    def __str__(self) -> str:
        return f"{self.archive}!/{self.member}"


PictureFile = str | Path | ZipMember

# Handles are kept per process: a forked worker that shared its parent's file offset would read garbage.
_open_archives: dict[tuple[int, str], zipfile.ZipFile] = {}
_open_lock = threading.Lock()


def _archive(path: str) -> zipfile.ZipFile:
    key = (os.getpid(), path)
    handle = _open_archives.get(key)
    if handle is None:
        with _open_lock:
            handle = _open_archives.get(key)
            if handle is None:
                try:
                    handle = zipfile.ZipFile(path)
                except (OSError, zipfile.BadZipFile) as error:
                    raise UserError(f"cannot open the archive {path}: {error}; is it complete?") from error
                for old in [entry for entry in _open_archives if entry[0] != key[0]]:
                    del _open_archives[old]
                _open_archives[key] = handle
    return handle


def read_bytes(file: PictureFile) -> bytes:
    """The content of ``file``. ``OSError`` or ``zipfile.BadZipFile`` where it cannot be read.

    A zip member may also be given as it is printed, ``"archive.zip!/folder/picture.jpg"``.
    """
    if isinstance(file, str) and "!/" in file and not os.path.exists(file):
        archive, member = file.split("!/", 1)
        if os.path.isfile(archive):
            file = ZipMember(archive, member)
    if isinstance(file, ZipMember):
        try:
            return _archive(file.archive).read(file.member)
        except KeyError as error:
            raise FileNotFoundError(f"{file} is not in the archive") from error
    with open(file, "rb") as stream:
        return stream.read()


def file_key(file: PictureFile) -> tuple[int, int]:
    """(size in bytes, version): changes when the content of ``file`` is replaced. The version is the
    modification time in ns on disk and the checksum inside a zip. ``(-1, -1)`` where there is no such
    file."""
    if isinstance(file, ZipMember):
        try:
            info = _archive(file.archive).getinfo(file.member)
        except KeyError:
            return (-1, -1)
        return (info.file_size, info.CRC)
    try:
        status = os.stat(file)
    except OSError:
        return (-1, -1)
    return (status.st_size, status.st_mtime_ns)


def is_picture(path: str) -> bool:
    """Whether ``path`` (posix, relative) has a picture's suffix and is no hidden or resource-fork file."""
    parts = PurePosixPath(path).parts
    if any(part.startswith((".", "__MACOSX")) for part in parts):
        return False
    return path.lower().endswith(SUFFIXES)


@dataclass(frozen=True)
class Tree:
    """The files under a folder or inside a zip.

    Attributes:
        root: folder or zip file.
        pictures: relative posix paths of all files with a picture's suffix, sorted.
        texts: relative posix paths of ``.txt`` and ``.lst`` files.
    """

    root: Path
    pictures: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def is_zip(self) -> bool:
        """Whether the files are read out of an archive."""
        return self.root.is_file()

    def file(self, relative: str) -> PictureFile:
        """A readable reference to ``relative``."""
        if self.is_zip:
            return ZipMember(str(self.root), relative)
        return str(self.root / relative)


def _walk(root: Path) -> Iterator[str]:
    """Relative posix paths under ``root``; follows links, each real folder once, a few levels deep."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        relative = os.path.relpath(folder, root)
        depth = 0 if relative == "." else relative.count(os.sep) + 1
        if real in seen or depth > _MAX_DEPTH:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = "" if depth == 0 else relative.replace(os.sep, "/") + "/"
        for name in names:
            yield prefix + name


def open_tree(root: str | Path) -> Tree:
    """List the folder or zip file ``root``. ``UserError`` where it does not exist or is neither."""
    path = Path(root).expanduser()
    if path.is_dir():
        names = list(_walk(path))
    elif path.is_file():
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path} is neither a folder nor a readable zip file; give the folder of the data set")
        names = [info.filename for info in _archive(str(path)).infolist() if not info.is_dir()]
    else:
        raise UserError(f"{path} does not exist; give the folder (or zip file) of the data set")
    pictures = sorted(name for name in names if is_picture(name))
    texts = sorted(
        name
        for name in names
        if name.lower().endswith((".txt", ".lst")) and not any(p.startswith(".") for p in name.split("/"))
    )
    return Tree(path, tuple(pictures), tuple(texts))


def cache_dir() -> Path | None:
    """Folder for verdicts and lists of findings: ``$QEFPN_CACHE``, else ``$XDG_CACHE_HOME/qefpn``, else
    ``~/.cache/qefpn``. None where none can be written."""
    base = os.environ.get("QEFPN_CACHE")
    folder = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qefpn"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
