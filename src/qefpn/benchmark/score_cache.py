"""Scores of maps, and figures of them, by content: a second run of `qefpn benchmark` computes only what changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import threading
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from qefpn.data.files import PictureFile, file_key, read_bytes
from qefpn.metrics.figures import Figures

LIMIT = 1 << 30
"""Bytes that the outcomes of a cache may take; those not used for longest go first."""

_MAKES_SCORES = ("numpy", "numba", "pillow", "opencv-python-headless", "opencv-python", "scipy", "scikit-image")
_DRAWS = ("matplotlib", "jinja2", "pillow", "opencv-python-headless", "opencv-python", "scipy")
_OWN = ("colour.py", "contents.py", "decoding.py", "files.py", "labels.py", "reading.py")  # what decodes a file


@dataclass(frozen=True)
class Outcome:
    """What became of one map.

    Attributes:
        record: the scores of the picture with its curves, of ``saliency_scores``; empty where it failed.
        resized: the map had another size than its mask.
        remark: what was unusual about the file, or empty.
        failure: why it could not be scored, or empty.
    """

    record: dict[str, Any] = field(default_factory=dict)
    resized: bool = False
    remark: str = ""
    failure: str = ""


_AT_ONCE = 500  # questions in one; SQLite takes 999

_OUTCOMES = "key, value FROM outcomes WHERE key"
_NOTHING = (-2, -2, b"")  # what is known of a file that was never read


def _path(file: PictureFile) -> str:
    return os.path.abspath(str(file)).encode(errors="backslashreplace").decode()  # SQLite takes UTF-8


def content_hash(data: bytes) -> bytes:
    """32 bytes that stand for a file's content."""
    return hashlib.blake2b(data, digest_size=32).digest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def code_version() -> bytes:
    """A hash of the code that makes scores, ours and others': they are computed again when it changes."""
    digest = hashlib.blake2b(repr([_version(package) for package in _MAKES_SCORES]).encode(), digest_size=16)
    for package, names in (
        ("qefpn.metrics", None),
        ("qefpn.data", _OWN),
        ("qefpn.benchmark", ("attributes.py", "maps.py")),
    ):
        for file in sorted(resources.files(package).iterdir(), key=lambda one: one.name):
            if file.name.endswith(".py") and (names is None or file.name in names):
                digest.update(file.read_bytes())
    return digest.digest()


@cache
def drawing_version() -> bytes:
    """The same of the code that makes figures and pages of scores."""
    digest = hashlib.blake2b(repr([_version(package) for package in _DRAWS]).encode(), digest_size=16)
    files = Path(str(resources.files("qefpn.reporting"))).rglob("*.*")
    for file in sorted(one for one in files if one.suffix in (".py", ".html", ".css", ".js", ".yaml")):
        digest.update(file.read_bytes())
    return digest.digest()


def score_key(map_hash: bytes, mask_hash: bytes, protocol: str, figures: Figures) -> bytes:
    """What the scores of a map depend on: both files' content, the protocol, what is measured, and the code."""
    parts = map_hash + mask_hash + code_version() + repr((protocol, figures)).encode()
    return hashlib.blake2b(parts, digest_size=20).digest()


class ScoreCache:
    """Outcomes by key, and hashes of files by path, size and time, in one SQLite file that processes may share.

    A file that is broken, or that another program keeps locked, is done without: what is computed then lives in memory.

    Args:
        path: the file; None keeps everything in memory.
        limit: bytes that outcomes may take on disk once the cache is closed.
    """

    def __init__(self, path: Path | None, limit: int = LIMIT) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._used: set[bytes] = set()
        self._hashes: dict[str, tuple[int, int, bytes]] = {}  # not written yet
        self._known: dict[str, tuple[int, int, bytes]] = {}  # asked for before
        self._kept: dict[bytes, bytes] = {}  # outcomes that could not be written
        self._database = self._open(path)

    @staticmethod
    def _open(path: Path | None) -> sqlite3.Connection:
        tables = (
            "DROP TABLE IF EXISTS scores",  # of former versions, whose keys nothing asks for
            "CREATE TABLE IF NOT EXISTS outcomes (key BLOB PRIMARY KEY, value BLOB, used INT) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INT, version INT, hash BLOB) WITHOUT ROWID",
        )
        for place in ([str(path)] if path is not None else []) + [":memory:"]:
            try:
                database = sqlite3.connect(place, timeout=30, check_same_thread=False)
                database.execute("PRAGMA journal_mode=WAL")  # readers do not wait for a writer
                for table in tables:
                    database.execute(table)
                database.commit()
                return database
            except sqlite3.Error:
                continue
        raise RuntimeError("SQLite cannot even work in memory")

    def hash_of(self, file: PictureFile) -> bytes:
        """The hash of a file's content, read only where size or time changed. ``OSError`` where it cannot be read."""
        known, key = self.known_hash(file), file_key(file)
        if known is not None:
            return known
        found = content_hash(read_bytes(file))
        with self._lock:
            self._hashes[_path(file)] = (*key, found)
        return found

    def known_hash(self, file: PictureFile) -> bytes | None:
        """The same where the file need not be read for it."""
        path = _path(file)
        if path not in self._hashes and path not in self._known:
            self.ask_for([file])
        row = self._hashes.get(path) or self._known[path]
        return row[2] if row[:2] == file_key(file) else None

    def ask_for(self, files: Sequence[PictureFile]) -> None:
        """Read what is known of files in one go, which takes a tenth of the time of asking for each."""
        paths = [_path(file) for file in files]
        self._known.update(dict.fromkeys(paths, _NOTHING))
        for path, size, version, found in self._rows("path, size, version, hash FROM files WHERE path", paths):
            self._known[path] = (size, version, bytes(found))

    def _rows(self, query: str, keys: Sequence[str | bytes]) -> list[Any]:
        try:
            with self._lock:
                return [
                    row
                    for some in (keys[first : first + _AT_ONCE] for first in range(0, len(keys), _AT_ONCE))
                    for row in self._database.execute(f"SELECT {query} IN ({','.join('?' * len(some))})", some)
                ]
        except sqlite3.Error:
            return []

    def get(self, key: bytes) -> Outcome | None:
        """The outcome under a key, or None."""
        return next(self.get_all([key]))

    def get_all(self, keys: Sequence[bytes]) -> Iterator[Outcome | None]:
        """The outcomes under keys, in their order, None where there is none; a few are in memory at a time."""
        for some in (keys[first : first + 64] for first in range(0, len(keys), 64)):
            self._used.update(some)
            found = dict(self._rows(_OUTCOMES, some))
            found |= {key: self._kept[key] for key in some if key in self._kept}
            yield from (_unpack(found[key]) if key in found else None for key in some)

    def has(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those under which there is an outcome."""
        return {*self._kept.keys() & {*keys}, *(key for (key,) in self._rows("key FROM outcomes WHERE key", keys))}

    def files(self, key: bytes) -> dict[str, bytes]:
        """Files by name that were kept under a key; none where none were."""
        values = [self._kept[key]] if key in self._kept else [row[1] for row in self._rows(_OUTCOMES, [key])]
        if not values:
            return {}
        self._used.add(key)
        with zipfile.ZipFile(io.BytesIO(values[0])) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    def keep_files(self, key: bytes, files: Mapping[str, bytes]) -> None:
        """Keep files under a key."""
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        self.put([(key, stream.getvalue())])

    def put(self, outcomes: Iterable[tuple[bytes, Outcome | bytes]]) -> None:
        """Keep outcomes, packed or not, at once on disk: a run that is stopped loses nothing that it computed."""
        now = int(time.time())
        rows = [(key, one if isinstance(one, bytes) else pack(one), now) for key, one in outcomes]
        with self._lock:
            hashes, self._hashes = self._hashes, {}
            try:
                with self._database:
                    files = [(path, *row) for path, row in hashes.items()]
                    self._database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", files)
                    self._database.executemany("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)", rows)
            except sqlite3.Error:  # the disk is full, or another program keeps the file locked
                self._kept.update((key, value) for key, value, _ in rows)

    def close(self) -> None:
        """Write what is pending, and let go of what was not used for longest where there is too much."""
        self.put([])
        now = int(time.time())
        try:
            with self._lock, self._database:
                used = [(now, key) for key in self._used]
                self._database.executemany("UPDATE outcomes SET used = ? WHERE key = ?", used)
                (size,) = self._database.execute("SELECT total(length(value)) FROM outcomes").fetchone()
                if size > self._limit:
                    self._database.execute(
                        "DELETE FROM outcomes WHERE key IN (SELECT key FROM (SELECT key, sum(length(value)) OVER "
                        "(ORDER BY used DESC, key) AS running FROM outcomes) WHERE running > ?)",
                        (self._limit,),
                    )
        except sqlite3.Error:
            pass  # the next run does it
        self._database.close()


def pack(outcome: Outcome) -> bytes:
    """An outcome as it lies in the file."""
    curves = {key: value for key, value in outcome.record.items() if isinstance(value, list)}
    scalars = {key: value for key, value in outcome.record.items() if key not in curves}
    head = json.dumps([scalars, list(curves), outcome.resized, outcome.remark, outcome.failure]).encode()
    numbers = np.array(list(curves.values()), "<f8").tobytes()
    return zlib.compress(len(head).to_bytes(4, "big") + head + numbers, 1)


def _unpack(data: bytes) -> Outcome:
    raw = zlib.decompress(data)
    length = 4 + int.from_bytes(raw[:4], "big")
    scalars, names, resized, remark, failure = json.loads(raw[4:length])
    curves = np.frombuffer(raw, "<f8", offset=length).reshape(len(names), -1) if names else ()
    return Outcome({**scalars, **dict(zip(names, curves, strict=True))}, resized, remark, failure)
