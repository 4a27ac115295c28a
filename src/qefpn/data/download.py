"""The published data sets from their authors' servers, or from a mirror of one's own, into ``data.root``.

The URLs are in :mod:`qefpn.data.registry`. They are as users of the sets report them, and no published checksum
is known: an archive counts as whole when its length is what the server announced, its directory can be read
and every file taken out of it matches the CRC stored with it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import ssl
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from qefpn.data.layouts import find_pairs
from qefpn.data.registry import DATASETS, Archive, SetInfo, close_names, normalize_name, official
from qefpn.data.survey import SetReport, load_set
from qefpn.errors import UserError

__all__ = ["Outcome", "download", "fetch", "unpack"]

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, bytes done, bytes in all); the last two agree where the length is not known."""

ARCHIVES = "archives"
"""Folder below ``data.root`` where archives arrive."""
_CHUNK = 1 << 18
_PASSING = (408, 425, 429)  # and 5xx: worth another try
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Outcome:
    """What became of one data set.

    Attributes:
        name: official name.
        complete: whether it is there now with its official count.
        line: what to tell the user, one line.
    """

    name: str
    complete: bool
    line: str


class _Interrupted(Exception):
    """A transfer that may go on at another try."""


class _Absent(UserError):
    """The server has no such file."""


class _Damaged(Exception):
    """An archive that cannot be read to its end."""


def download(
    root: str | Path,
    names: Iterable[str] | None = None,
    *,
    mirror: str | None = None,
    keep: bool = False,
    progress: Progress | None = None,
    timeout: float = 30.0,
    wait: float = 1.0,
) -> Iterator[Outcome]:
    """Bring published data sets below ``root``, each to ``root/<official name>``, one after the other.

    A set that is there with its official count is left as it is; nothing that is there is ever overwritten or
    deleted. A set appears whole or not at all. An archive that was put at ``root/<official name>.zip`` by hand
    (``root/ECSSD-images.zip`` where a set comes in several) is used instead of downloading it, and stays.

    Args:
        root: ``data.root``; made if it is not there.
        names: the sets, in any spelling; by default all whose authors offer a plain URL.
        mirror: URL of a folder that holds the archives, under their own names or those of ``root/archives``;
            also serves sets without a plain URL (``HKU-IS.zip``).
        keep: leave the archives in ``root/archives``.
        progress: called as ``progress(what, bytes done, bytes in all)``.
        timeout: seconds without an answer after which a try has failed.
        wait: seconds before the second try; twice as many before the third.

    Yields:
        An :class:`Outcome` a set, when it is done. A set that fails does not stop the others.

    Raises:
        UserError: an unknown set, an unusable ``root`` or ``mirror``, or another download into ``root``.
    """
    if mirror is not None and (urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc):
        raise UserError(f"download.mirror={mirror} is no http(s) URL; give the folder that holds the archives")
    sets = [info for info in DATASETS.values() if info.archives] if names is None else _known(names)
    base = Path(root).expanduser()
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"data.root={root} cannot be a folder ({error.strerror}); give another") from None
    with _alone(base):
        for info in sets:
            job = _Job(base, info, mirror, keep, progress, timeout, wait)
            try:
                yield job.run()
            except UserError as error:
                yield Outcome(info.name, False, f"{info.name}: {error}")


def _known(names: Iterable[str]) -> list[SetInfo]:
    found: dict[str, SetInfo] = {}
    for name in names:
        info = official(name)
        if info is None:
            close = close_names(name)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(DATASETS)}"
            raise UserError(f"{name} is no published data set that can be downloaded; {hint}")
        found[info.name] = info
    return list(found.values())


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Holds a lock on the folder, where the system has such locks: two downloads would mix their files."""
    try:
        import fcntl

        handle = os.open(base, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another download into {base} is running; wait for it to end") from None
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class _Job:
    """One set on its way."""

    root: Path
    info: SetInfo
    mirror: str | None
    keep: bool
    progress: Progress | None
    timeout: float
    wait: float

    def run(self) -> Outcome:
        there = self._there()
        if there is not None and there.found == self.info.count:
            return Outcome(self.info.name, True, f"already there: {there.line()}")
        target = self._free_target(there)
        parts = self.info.archives or (Archive(f"{self.info.name}.zip"),)
        by_hand = [self.root / self._local(part, parts) for part in parts]
        if not self.info.archives and self.mirror is None and not by_hand[0].is_file():
            raise UserError(
                f"its authors offer no plain URL: open {self.info.homepage} in a browser, download it and unpack "
                f"it into {target}, or give download.mirror=URL of a server that has {self.info.name}.zip"
            )
        fetched: list[Path] = []
        used = [self._archive(part, place, fetched) for part, place in zip(parts, by_hand, strict=True)]
        self._unpack(list(zip(parts, used, strict=True)), target, fetched)
        if not self.keep:
            for archive in fetched:
                archive.unlink()
            with contextlib.suppress(OSError):
                (self.root / ARCHIVES).rmdir()  # only if nothing is in it
        report = load_set(self.root, self.info.name, role=self.info.role, check=False)
        return Outcome(self.info.name, report.found == self.info.count, report.line())

    def _there(self) -> SetReport | None:
        """The set as it is found below the root; None where it is not, or only as an archive that arrived."""
        try:
            report = load_set(self.root, self.info.name, role=self.info.role, check=False)
        except UserError:
            return None
        return None if (self.root / ARCHIVES) in report.path.parents else report

    def _free_target(self, there: SetReport | None) -> Path:
        target = self.root / self.info.name
        taken = there.path if there and there.path.is_dir() and self.root in (there.path, there.path.parent) else None
        if taken is None and os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
            taken = target
        if taken is not None:
            raise UserError(
                f"{taken} is there with {there.found if there else 0} of the {self.info.count} pairs and is not "
                f"touched; move it away, or give another data.root"
            )
        return target

    def _local(self, part: Archive, parts: tuple[Archive, ...]) -> str:
        """Name of an archive below the root."""
        if len(parts) == 1:
            return f"{self.info.name}.zip"
        name = _file_name(part.url)
        return name if name.startswith(self.info.name) else f"{self.info.name}-{name}"

    def _archive(self, part: Archive, by_hand: Path, fetched: list[Path]) -> Path:
        """The archive, downloaded unless it is there."""
        arrived = self.root / ARCHIVES / by_hand.name
        for place in (by_hand, arrived):
            if place.is_file():
                return place
        urls = [part.url]
        if self.mirror is not None:
            names = dict.fromkeys((_file_name(part.url), by_hand.name))
            urls = [f"{self.mirror.rstrip('/')}/{name}" for name in names]
        way_out = f"get it by hand ({self.info.homepage}) and put it at {by_hand}"
        for url in urls:
            try:
                fetch(
                    url,
                    arrived,
                    label=f"downloading {by_hand.name}",
                    way_out=way_out,
                    progress=self.progress,
                    timeout=self.timeout,
                    wait=self.wait,
                )
                break
            except _Absent:
                if url == urls[-1]:
                    raise
        fetched.append(arrived)
        return arrived

    def _unpack(self, parts: list[tuple[Archive, Path]], target: Path, fetched: list[Path]) -> None:
        """Everything into a folder beside the target, which then takes the target's name."""
        beside = self.root / f".{self.info.name}.unpacking"
        shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
        archive = parts[0][1]
        try:
            for part, archive in parts:
                label = f"unpacking {archive.name}"
                unpack(archive, beside, name=self.info.name, folders=part.folders, label=label, progress=self.progress)
            if not find_pairs(beside, name=self.info.name):
                raise UserError("nothing in it pairs")
            if target.is_dir():
                target.rmdir()  # empty, or this fails
            beside.rename(target)
        except _Damaged as error:
            if archive in fetched:
                archive.unlink()
                raise UserError(f"{archive.name} arrived damaged ({error}); run the command again") from None
            raise UserError(f"{archive} is damaged ({error}); replace it, or move it away") from None
        except UserError as error:
            reason = str(error).replace(str(beside), "it")
            raise UserError(f"{archive} cannot be used: {reason}; the archive is left there") from None
        except OSError as error:
            raise UserError(f"unpacking {archive} into {target} failed: {_why(error)}; make room or mend it") from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _file_name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name


def _why(error: BaseException) -> str:
    """An exception in a few words."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _why(reason)
    return str(getattr(error, "strerror", None) or reason or error or type(error).__name__)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def fetch(
    url: str,
    file: Path,
    *,
    label: str | None = None,
    way_out: str = "try again later",
    progress: Progress | None = None,
    timeout: float = 30.0,
    tries: int = 3,
    wait: float = 1.0,
) -> None:
    """Download a zip to ``file`` by way of ``<file>.part``, going on where an earlier try ended.

    A server that ignores ``Range`` sends everything again. A try that got further than any before it gives
    back the tries that were used up, so that a slow line that is cut often still ends.

    Args:
        url, file: from where to where.
        label: first argument of ``progress``.
        way_out: end of the message of errors.
        progress: called as ``progress(label, bytes done, bytes in all)``.
        timeout, tries, wait: seconds, number, and seconds after the first failure, doubled each time.

    Raises:
        UserError: one line, where it cannot be had, is no zip, or does not fit on the disk.
    """
    part = file.with_name(f"{file.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{part.parent} cannot be written: {_why(error)}") from None
    told = progress or (lambda what, done, total: None)
    earlier = furthest = _size(part)
    left = tries
    while True:
        try:
            _transfer(url, part, way_out, lambda done, total: told(label or file.name, done, total), timeout)
        except _Interrupted as error:
            reached = _size(part)
            left = (tries if reached > furthest else left) - 1
            furthest = max(furthest, reached)
            if left <= 0:
                kept = f" after {reached:,} bytes, which are kept" if reached else ""
                raise UserError(f"{url} could not be downloaded ({error}){kept}; {way_out}") from None
            time.sleep(wait * 2 ** (tries - 1 - left))
            continue
        if _opens(part):
            part.replace(file)
            return
        part.unlink()
        if not earlier:
            raise UserError(f"{url} is not a zip file (a web page, perhaps); {way_out}")
        earlier = 0  # what an earlier run left may be of another version of the file


def _opens(part: Path) -> bool:
    """Whether it is a zip whose directory can be read; the files' CRCs are checked as they are unpacked."""
    try:
        with zipfile.ZipFile(part) as archive:
            return bool(archive.infolist())
    except (OSError, *_UNREADABLE):
        return False


def _transfer(
    url: str, part: Path, way_out: str, progress: Callable[[int, int], None], timeout: float
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
        kind = _Absent if error.code in (404, 410) else UserError
        raise kind(f"{url} answers {answer}; {way_out}") from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise UserError(f"{url} cannot be trusted ({_why(error)}); {way_out}") from None
        raise _Interrupted(_why(error)) from None
    except ValueError as error:
        raise UserError(f"{url} is no URL ({error})") from None
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
            if total is not None and total - (done if resumed else have) > free:
                raise UserError(
                    f"{url} needs {_mib(total)} and {part.parent} has {_mib(free)} free; make room, "
                    f"or give another data.root"
                )
            with open(part, "ab" if resumed else "wb") as stream:
                while chunk := _read(response):
                    stream.write(chunk)
                    done += len(chunk)
                    progress(done, max(done, total or 0))
        except OSError as error:
            raise UserError(f"{part} cannot be written: {_why(error)}; make room or give another data.root") from None
    if total is not None and done != total:
        raise _Interrupted(f"the connection ended at {done:,} of {total:,} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    """What has come in, so that a cut connection loses nothing; an error here is the line's, not the disk's."""
    try:
        return response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(_why(error)) from None


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def unpack(
    archive: Path,
    folder: Path,
    *,
    name: str = "",
    folders: Mapping[str, str] | None = None,
    label: str | None = None,
    progress: Progress | None = None,
) -> None:
    """The files of a zip into ``folder``, each checked against its CRC.

    A single outer folder that carries the set's ``name`` is left out; so are links, hidden files and what macOS
    adds. See :class:`~qefpn.data.registry.Archive` for ``folders``.

    Raises:
        UserError: a member would end outside ``folder`` (nothing is written then), or the disk has no room.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            plan = _plan(archive, source.infolist(), name, folders or {})
            total = sum(info.file_size for info, _ in plan)
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if total > free:
                raise UserError(f"unpacked it has {_mib(total)} and {folder.parent} has {_mib(free)} free; make room")
            done = 0
            for info, relative in plan:
                (folder / relative).parent.mkdir(parents=True, exist_ok=True)
                with source.open(info) as member, open(folder / relative, "wb") as stream:
                    shutil.copyfileobj(member, stream, _CHUNK)
                done += info.file_size
                if progress is not None:
                    progress(label or f"unpacking {archive.name}", done, total)
    except _UNREADABLE as error:
        raise _Damaged(str(error) or type(error).__name__) from None


def _plan(
    archive: Path, members: list[zipfile.ZipInfo], name: str, folders: Mapping[str, str]
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
