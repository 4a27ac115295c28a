"""Picture files, on disk or inside a zip: which there are, reading them, and a key that changes when one does."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import threading
import zipfile
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import features

from qefpn.errors import UserError
from qefpn.text import one_line

__all__ = [
    "FORMATS",
    "LOSSY",
    "SUFFIXES",
    "PictureFile",
    "Tree",
    "ZipMember",
    "cache_dir",
    "file_key",
    "is_picture",
    "left_out",
    "open_file",
    "open_tree",
    "passed_over",
    "read_bytes",
]

# No format that runs another program (EPS), is a drawing (WMF) or a set of icons (ICO, ICNS).
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
}
"""What is read, by Pillow's names, and how such files end. A file is read by its content, not by its name."""
for _feature, _format, _suffixes in (
    ("avif", "AVIF", (".avif", ".avifs")),
    ("jpg_2000", "JPEG2000", (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c")),
):
    if features.check(_feature):
        FORMATS[_format] = _suffixes
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""How the files end that count as pictures where a folder or zip is listed: those of :data:`FORMATS`, no others."""
LOSSY = FORMATS["JPEG"]
"""Of a picture and a mask with one name the one that ends so is the picture."""

MAX_BYTES = 1 << 32
"""Longer files are no pictures: a disk image called .jpg must not fill the memory."""

_SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "$recycle.bin")
_NAMED = 3


@dataclass(frozen=True)
class ZipMember:
    """One file inside a zip that is read in place."""

    archive: str
    member: str

    def __str__(self) -> str:
        return f"{self.archive}!/{self.member}"


PictureFile = str | Path | ZipMember


@dataclass(frozen=True)
class _Archive:
    handle: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    refused: tuple[str, ...]


# Handles are kept per process: a forked worker that shared its parent's file offset would read garbage.
_open_archives: dict[tuple[int, str], _Archive] = {}
_open_lock = threading.Lock()


def _archive(path: str) -> _Archive:
    key = (os.getpid(), path)
    archive = _open_archives.get(key)
    if archive is None:
        with _open_lock:
            archive = _open_archives.get(key)
            if archive is None:
                try:
                    archive = _members(zipfile.ZipFile(path))
                except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
                    raise UserError(f"cannot open the archive {path}: {error}; is it complete?") from error
                for old in [entry for entry in _open_archives if entry[0] != key[0]]:
                    del _open_archives[old]
                _open_archives[key] = archive
    return archive


def _members(handle: zipfile.ZipFile) -> _Archive:
    """The files of a zip by clean posix paths. Links are refused, and what would lie outside the archive: maps are
    saved under these names."""
    members: dict[str, zipfile.ZipInfo] = {}
    refused = []
    for info in handle.infolist():
        name = info.filename
        if not info.flag_bits & 0x800:  # zipfile takes the name for cp437; most that set no flag wrote UTF-8
            with contextlib.suppress(UnicodeError):
                name = name.encode("cp437").decode("utf-8")
        name = name.replace("\\", "/")  # Windows writes both
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.endswith("/") or not parts:
            continue
        if ".." in parts or re.match(r"[A-Za-z]:", parts[0]) or stat.S_ISLNK(info.external_attr >> 16):
            refused.append(name)
        else:
            members["/".join(parts)] = info
    return _Archive(handle, members, tuple(refused))


def _member(file: PictureFile) -> ZipMember | None:
    """``file`` as a member of a zip, if it is one; it may be given as it is printed."""
    if isinstance(file, str) and "!/" in file and not os.path.exists(file):
        archive, member = file.split("!/", 1)
        if os.path.isfile(archive):
            return ZipMember(archive, member)
    return file if isinstance(file, ZipMember) else None


def read_bytes(file: PictureFile) -> bytes:
    """The content of ``file``. ``OSError`` or ``zipfile.BadZipFile`` where it cannot be read.

    A zip member may also be given as it is printed, ``"archive.zip!/folder/picture.jpg"``.
    """
    with open_file(file) as stream:
        return stream.read()


def open_file(file: PictureFile) -> BinaryIO:
    """``file`` as a seekable stream. Errors as :func:`read_bytes`, also where it is longer than any picture."""
    member = _member(file)
    if member is not None:
        archive = _archive(member.archive)
        info = archive.members.get(member.member)
        if info is None:
            raise FileNotFoundError(f"{file} is not in the archive")
        _check_length(info.file_size)
        return io.BytesIO(archive.handle.read(info))
    stream = open(str(file), "rb")  # noqa: SIM115  # the caller closes it
    try:
        _check_length(os.fstat(stream.fileno()).st_size)
        if stream.seekable():
            return stream
        with stream:  # a named pipe
            return io.BytesIO(stream.read(MAX_BYTES))
    except BaseException:
        stream.close()
        raise


def _check_length(count: int) -> None:
    if count > MAX_BYTES:
        raise OSError(errno.EFBIG, f"{count / 2**30:,.0f} GiB are too long for a picture")


def file_key(file: PictureFile) -> tuple[int, int]:
    """(size in bytes, version): changes when the content of ``file`` is replaced. The version is the
    modification time in ns on disk and the checksum inside a zip. ``(-1, -1)`` where there is no such
    file."""
    if isinstance(file, ZipMember):
        info = _archive(file.archive).members.get(file.member)
        return (-1, -1) if info is None else (info.file_size, info.CRC)
    try:
        status = os.stat(file)
    except OSError:
        return (-1, -1)
    return (status.st_size, status.st_mtime_ns)


def left_out(name: str) -> bool:
    """Whether a file or folder of this name is the system's, not the user's: hidden, a resource fork, a list of
    thumbnails."""
    return name.startswith((".", "__MACOSX")) or name.lower() in _SYSTEM_FILES


def is_picture(path: str) -> bool:
    """Whether ``path`` (posix, relative) has a picture's suffix and is none that is :func:`left_out`."""
    return path.lower().endswith(SUFFIXES) and not any(left_out(part) for part in PurePosixPath(path).parts)


def passed_over(names: Sequence[str]) -> str:
    """A line that counts files and names the first, for those that are no pictures by their names.

    >>> passed_over(["a.txt", "b.mp4", "c", "d"])
    'passed over 4 files that do not end as pictures do: a.txt, b.mp4, c and 1 more'
    """
    count = f"{len(names)} files that do not end as pictures do" if len(names) > 1 else "a file that is no picture"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return one_line(f"passed over {count}: {', '.join(names[:_NAMED])}{more}")


@dataclass(frozen=True)
class Tree:
    """The files under a folder or inside a zip, without those that are :func:`left_out`.

    Attributes:
        root: folder or zip file.
        pictures: relative posix paths of all files with a picture's suffix, sorted.
        texts: relative posix paths of ``.txt`` and ``.lst`` files.
        others: relative posix paths of all further files, and of what cannot be opened: folders that may not be
            listed (they end in ``/``), pipes, members of a zip that are links or would lie outside it.
    """

    root: Path
    pictures: tuple[str, ...]
    texts: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def is_zip(self) -> bool:
        """Whether the files are read out of an archive."""
        return self.root.is_file()

    def file(self, relative: str) -> PictureFile:
        """A readable reference to ``relative``."""
        if self.is_zip:
            return ZipMember(str(self.root), relative)
        return str(self.root / relative)


def _walk(root: str, recursive: bool, leave: Collection[str]) -> tuple[list[str], list[str]]:
    """Relative posix paths of the files under ``root``, and of what cannot be opened. Links are followed, each real
    folder is listed once: under its own path where that lies below ``root``, too."""
    files: list[str] = []
    closed: list[str] = []
    seen = set(leave)
    folders, links = deque([("", root)]), deque[tuple[str, str]]()
    while folders or links:
        prefix, folder = folders.popleft() if folders else links.popleft()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not left_out(entry.name)]
        except OSError as error:
            if not prefix:
                raise UserError(f"{root} cannot be listed: {error.strerror}") from error
            closed.append(prefix)
            continue
        for entry in sorted(entries, key=lambda one: one.name):
            mode = _mode(entry.path)
            if stat.S_ISDIR(mode):
                if recursive:
                    (links if entry.is_symlink() else folders).append((f"{prefix}{entry.name}/", entry.path))
            elif stat.S_ISREG(mode) or mode == 0:  # 0: a broken link, which reading names as what it is
                files.append(prefix + entry.name)
            else:
                closed.append(prefix + entry.name)
    return files, closed


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def open_tree(root: str | Path, *, recursive: bool = True, leave: Collection[str | Path] = ()) -> Tree:
    """List the folder or zip file ``root``.

    Args:
        root: folder or zip.
        recursive: also what lies in folders below it.
        leave: folders to leave out with all that is in them.

    Raises:
        UserError: it does not exist, is neither, or cannot be opened.
    """
    path = Path(os.path.expanduser(root))
    if os.path.isdir(path):
        names, others = _walk(str(path), recursive, {os.path.realpath(folder) for folder in leave})
    elif os.path.isfile(path):
        if not zipfile.is_zipfile(path):
            raise UserError(f"{path} is neither a folder nor a readable zip file; give the folder of the data set")
        archive = _archive(str(path))
        names, others = list(archive.members), list(archive.refused)
        names = [name for name in names if not any(left_out(part) for part in name.split("/"))]
    else:
        raise UserError(f"{path} does not exist; give the folder (or zip file) of the data set")
    pictures = sorted(name for name in names if name.lower().endswith(SUFFIXES))
    texts = sorted(name for name in names if name.lower().endswith((".txt", ".lst")))
    others += [name for name in names if not name.lower().endswith((*SUFFIXES, ".txt", ".lst"))]
    return Tree(path, tuple(pictures), tuple(texts), tuple(sorted(others)))


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
