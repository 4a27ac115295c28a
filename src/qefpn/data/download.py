"""The published data sets from their authors' servers, or from a mirror of one's own, into ``data.root``.

The URLs are in :mod:`qefpn.data.registry`. They are as users of the sets report them, and no published
checksum is known: an archive counts as whole when its length is what the server announced, its directory can
be read and every file taken out of it matches the CRC stored with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from qefpn.data.archives import Absent, Damaged, Progress, fetch, unpack, why
from qefpn.data.layouts import find_pairs
from qefpn.data.registry import DATASETS, Archive, SetInfo, close_names, official
from qefpn.data.survey import SetReport, load_set
from qefpn.errors import UserError

__all__ = ["Outcome", "download"]

ARCHIVES = "archives"
"""Folder below ``data.root`` where archives arrive."""


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
    deleted. A set appears whole or not at all. An archive put at ``root/<official name>.zip`` by hand
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
    if mirror is not None and not mirror.lower().startswith(("http://", "https://")):
        raise UserError(f"download.mirror={mirror} is no http(s) URL; give that of a folder with the archives")
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
                outcome = job.run()
            except UserError as error:
                outcome = Outcome(info.name, False, f"{info.name}: {error}")
            except OSError as error:
                outcome = Outcome(info.name, False, f"{info.name}: {error.filename or base}: {why(error)}")
            finally:
                with contextlib.suppress(OSError):
                    (base / ARCHIVES).rmdir()  # only if nothing is in it
            yield outcome


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
                f"its authors offer no plain URL: open {self.info.homepage} in a browser, download it and "
                f"unpack it into {target}, or give download.mirror=URL, a server with {self.info.name}.zip"
            )
        fetched: list[Path] = []
        used = [self._archive(part, place, fetched) for part, place in zip(parts, by_hand, strict=True)]
        self._unpack(list(zip(parts, used, strict=True)), target, fetched)
        if not self.keep:
            for archive in fetched:
                archive.unlink()
        report = load_set(self.root, self.info.name, role=self.info.role, split=self.info.role, check=False)
        return Outcome(self.info.name, report.found == self.info.count, report.line())

    def _there(self) -> SetReport | None:
        """The set as it is found below the root; None where it is not, or only as an archive that arrived."""
        try:
            report = load_set(self.root, self.info.name, role=self.info.role, split=self.info.role, check=False)
        except UserError:
            return None
        return None if (self.root / ARCHIVES) in report.path.parents else report

    def _free_target(self, there: SetReport | None) -> Path:
        target = self.root / self.info.name
        taken = None
        if there is not None and there.path.is_dir() and self.root in (there.path, there.path.parent):
            taken = there.path
        elif os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
            taken = target
        if taken is not None:
            raise UserError(
                f"{taken} is there with {there.found if there else 0} of the {self.info.count} pairs and is "
                f"left as it is; move it away, or give another data.root"
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
        absent: Absent | None = None
        for url in urls:
            try:
                fetch(
                    url,
                    arrived,
                    way_out=way_out,
                    progress=self.progress,
                    timeout=self.timeout,
                    wait=self.wait,
                )
                break
            except Absent as error:
                absent = absent or error
        else:
            assert absent is not None
            raise absent
        fetched.append(arrived)
        return arrived

    def _unpack(self, parts: list[tuple[Archive, Path]], target: Path, fetched: list[Path]) -> None:
        """Everything into a folder beside the target, which then takes the target's name."""
        beside = self.root / f".{self.info.name}.unpacking"
        shutil.rmtree(beside, ignore_errors=True)  # of a run that was killed
        archive = parts[0][1]
        try:
            for part, archive in parts:
                unpack(archive, beside, name=self.info.name, folders=part.folders, progress=self.progress)
            if not find_pairs(beside, name=self.info.name):
                raise UserError("nothing in it pairs")
            if target.is_dir():
                target.rmdir()  # empty, or this fails
            beside.rename(target)
        except Damaged as error:
            if archive in fetched:
                archive.unlink()
                raise UserError(f"{archive.name} arrived damaged ({error}); run the command again") from None
            raise UserError(f"{archive} is damaged ({error}); replace it, or move it away") from None
        except UserError as error:
            reason = str(error).replace(str(beside), "it")
            raise UserError(f"{archive} cannot be used: {reason}; the archive is left there") from None
        except OSError as error:
            raise UserError(f"{archive} cannot be unpacked into {target}: {why(error)}") from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _file_name(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).name
