"""Archives: what they are called, fetched over HTTP with resumption, unpacked so that nothing ends outside a folder."""

from __future__ import annotations

import http.client
import re
import shlex
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from qefpn.data.registry import normalize_name
from qefpn.errors import UserError

__all__ = [
    "ARCHIVE_SUFFIXES",
    "Absent",
    "Damaged",
    "Progress",
    "archive_stem",
    "fetch",
    "unpack",
    "unpack_first",
    "why",
]

Progress = Callable[[str, int, int], None]
"""Called as (what is done, bytes done, bytes in all), the latter the former where the length is unknown."""

_CHUNK = 1 << 18
_PASSING = (408, 425, 429)  # and 5xx: worth another try
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)

_UNPACK = {
    **dict.fromkeys(
        (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz"), "tar -xf {file} -C {to}"
    ),
    **dict.fromkeys((".tar.zst", ".tzst"), "tar --zstd -xf {file} -C {to}"),
    ".rar": "unrar x {file} {to}/",
    ".7z": "7z x {file} -o{to}",
}
"""Of archives that are not read in place: the suffix, and the command that unpacks them."""
ARCHIVE_SUFFIXES = tuple(sorted(_UNPACK, key=len, reverse=True))


class Absent(UserError):
    """The server has no such file."""


class Damaged(Exception):
    """An archive that cannot be read to its end."""


class _Interrupted(Exception):
    """A transfer that may go on at another try."""


def why(error: BaseException) -> str:
    """An exception in a few words."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return why(reason)
    return str(getattr(error, "strerror", None) or reason or error or type(error).__name__)


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix)), None)


def archive_stem(path: Path) -> str | None:
    """The name without the suffix of an archive that has to be unpacked first; None for any other file."""
    suffix = _suffix(path)
    return None if suffix is None else path.name[: -len(suffix)]


def unpack_first(path: Path) -> str:
    """One line that names the archive and the command that unpacks it beside itself."""
    suffix = _suffix(path)
    assert suffix is not None
    command = _UNPACK[suffix].format(file=shlex.quote(str(path)), to=shlex.quote(str(path.parent)))
    return f"{path} is an archive that is not read in place (only .zip is): unpack it with `{command}`"


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def fetch(
    url: str,
    file: Path,
    *,
    way_out: str = "try again later",
    progress: Progress | None = None,
    timeout: float = 30.0,
    tries: int = 3,
    wait: float = 1.0,
    sound: Callable[[Path], bool] | None = None,
    unsound: str = "is not a zip file (a web page, perhaps)",
    place: str = "data.root",
    limit: int | None = None,
) -> None:
    """Download a zip, or what ``sound`` tells, to ``file`` by way of ``<file>.part``, going on where an earlier try
    ended.

    A server that ignores ``Range`` sends everything again. A try that got further than any before it gives
    back the tries that were used up, so that a slow line that is cut often still ends.

    Args:
        url, file: from where to where.
        way_out: end of the message of errors.
        progress: called as ``progress("downloading <file name>", bytes done, bytes in all)``.
        timeout, tries, wait: seconds, number, and seconds after the first failure, doubled each time.
        sound: whether a file is what it should be, once it has arrived; None for a zip that can be read.
        unsound: what to say of one that is not.
        place: the option that names another disk.
        limit: bytes at most; None for no limit but the disk's.

    Raises:
        UserError: one line, where it cannot be had, is not sound, is too large, or does not fit on the disk.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{part.parent} cannot be written: {why(error)}") from None
    report = progress or (lambda what, done, total: None)
    earlier = furthest = _size(part)
    left = tries
    while True:
        try:
            _transfer(
                url, part, way_out, lambda *sizes: report(f"downloading {file.name}", *sizes), timeout, place, limit
            )
        except _Interrupted as error:
            reached = _size(part)
            left = (tries if reached > furthest else left) - 1
            furthest = max(furthest, reached)
            if left <= 0:
                kept = f" after {reached:,} bytes, which are kept" if reached else ""
                raise UserError(f"{url} could not be downloaded ({error}){kept}; {way_out}") from None
            time.sleep(wait * 2 ** (tries - 1 - left))
            continue
        if (sound or _opens)(part):
            part.replace(file)
            return
        part.unlink()
        if not earlier:
            raise UserError(f"{url} {unsound}; {way_out}")
        earlier = 0  # what an earlier run left may be of another version of the file


def _opens(part: Path) -> bool:
    """Whether it is a zip whose directory can be read; the files' CRCs are checked as they are unpacked."""
    try:
        with zipfile.ZipFile(part) as archive:
            return bool(archive.infolist())
    except (OSError, *_UNREADABLE):
        return False


def _transfer(
    url: str,
    part: Path,
    way_out: str,
    progress: Callable[[int, int], None],
    timeout: float,
    place: str,
    limit: int | None,
) -> None:
    """One try: the rest of ``part``, or all of it."""
    have = _size(part)
    headers = {"User-Agent": "qefpn", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                return  # the part is all there is
            part.unlink()
            raise _Interrupted("the server has less than was downloaded before") from None
        answer = f"{error.code} {error.reason}"
        if error.code in _PASSING or error.code >= 500:
            raise _Interrupted(answer) from None
        kind = Absent if error.code in (404, 410) else UserError
        raise kind(f"{url} answers {answer}; {way_out}") from None
    except (ValueError, http.client.InvalidURL) as error:
        raise UserError(f"{url} is no URL ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise UserError(f"{url} cannot be trusted ({why(error)}); {way_out}") from None
        raise _Interrupted(why(error)) from None
    with response:
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink()
            raise _Interrupted("the server sent another range than it was asked for")
        done = have if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdigit() else None
        try:
            free = shutil.disk_usage(part.parent).free
            if total is not None and total - have > free:
                raise UserError(
                    f"{url} needs {_mib(total)} and {part.parent} has {_mib(free)} free; make room, "
                    f"or give another {place}"
                )
            _refuse_oversized(url, part, total, limit)
            with open(part, "ab" if resumed else "wb") as stream:
                while chunk := _read(response):
                    stream.write(chunk)
                    done += len(chunk)
                    _refuse_oversized(url, part, done, limit)
                    progress(done, max(done, total or 0))
        except OSError as error:
            raise UserError(f"{part} cannot be written: {why(error)}; make room, or free the path") from None
    if total is not None and done != total:
        raise _Interrupted(f"the connection ended at {done:,} of {total:,} bytes")


def _refuse_oversized(url: str, part: Path, size: int | None, limit: int | None) -> None:
    if limit is not None and size is not None and size > limit:
        part.unlink(missing_ok=True)
        raise UserError(f"{url} is larger than the {_mib(limit)} that are fetched at most")


def _read(response: http.client.HTTPResponse) -> bytes:
    """What has come in, so that a cut connection loses nothing; its errors are not the disk's."""
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(why(error)) from None


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def unpack(
    archive: Path,
    folder: Path,
    *,
    name: str = "",
    folders: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> None:
    """The files of a zip into ``folder``, each checked against its CRC.

    A single outer folder that carries the set's ``name`` is left out; so are links, hidden files and what
    macOS adds. See :class:`~qefpn.data.registry.Archive` for ``folders``.

    Raises:
        UserError: a member would end outside ``folder`` (nothing is written then), or the disk has no room.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            plan = _plan(source.infolist(), name, folders or {})
            total = sum(info.file_size for info, _ in plan)
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if total > free:
                raise UserError(f"it needs {_mib(total)}, {folder.parent} has {_mib(free)} free; make room")
            done = 0
            for info, relative in plan:
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                with source.open(info) as member, open(folder / relative, "wb") as stream:
                    shutil.copyfileobj(member, stream, _CHUNK)
                done += info.file_size
                if progress is not None:
                    progress(f"unpacking {archive.name}", done, total)
    except _UNREADABLE as error:
        raise Damaged(str(error) or type(error).__name__) from None


def _plan(
    members: list[zipfile.ZipInfo], name: str, folders: Mapping[str, str]
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The members to take, and where each goes."""
    files: list[tuple[zipfile.ZipInfo, PurePosixPath]] = []
    for info in members:
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", str(path)):
            raise UserError(f"its member {info.filename!r} would be written outside the folder of the set")
        plain = not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
        if plain and path.parts and not any(part.startswith((".", "__MACOSX")) for part in path.parts):
            files.append((info, path))
    chosen = []
    for info, path in files:
        for inside, becomes in folders.items():
            _, found, rest = f"/{path}".partition(f"/{inside}/")
            if found:
                chosen.append((info, PurePosixPath(becomes) / rest))
    files = chosen or files
    outer = {path.parts[0] for _, path in files}
    nested = len(outer) == 1 and all(len(path.parts) > 1 for _, path in files)
    if nested and name and normalize_name(outer.pop()) == normalize_name(name):
        files = [(info, PurePosixPath(*path.parts[1:])) for info, path in files]
    return files
