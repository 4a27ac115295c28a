"""Scores of maps by content: a second run of `qefpn benchmark` computes only what changed."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable
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
    for package, names in (("qefpn.metrics", None), ("qefpn.data", _OWN), ("qefpn.benchmark", ("maps.py",))):
        for file in sorted(resources.files(package).iterdir(), key=lambda one: one.name):
            if file.name.endswith(".py") and (names is None or file.name in names):
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
        size, version = file_key(file)
        path = str(Path(str(file)).absolute()).encode(errors="backslashreplace").decode()  # SQLite takes UTF-8
        row = self._hashes.get(path) or self._row("SELECT size, version, hash FROM files WHERE path = ?", path)
        if row is not None and tuple(row[:2]) == (size, version):
            return bytes(row[2])
        found = content_hash(read_bytes(file))
        with self._lock:
            self._hashes[path] = (size, version, found)
        return found

    def _row(self, query: str, key: str | bytes) -> Any:
        try:
            with self._lock:
                return self._database.execute(query, (key,)).fetchone()
        except sqlite3.Error:
            return None

    def get(self, key: bytes) -> Outcome | None:
        """The outcome under a key, or None."""
        self._used.add(key)
        value = self._kept.get(key)
        if value is None:
            row = self._row("SELECT value FROM outcomes WHERE key = ?", key)
            value = None if row is None else row[0]
        return None if value is None else _unpack(value)

    def has(self, key: bytes) -> bool:
        """Whether there is an outcome under a key."""
        return key in self._kept or self._row("SELECT 1 FROM outcomes WHERE key = ?", key) is not None

    def put(self, outcomes: Iterable[tuple[bytes, Outcome]]) -> None:
        """Keep outcomes, at once on disk: a run that is stopped loses nothing that it computed."""
        now = int(time.time())
        rows = [(key, _pack(outcome), now) for key, outcome in outcomes]
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


def _pack(outcome: Outcome) -> bytes:
    curves = {key: value for key, value in outcome.record.items() if isinstance(value, list)}
    scalars = {key: value for key, value in outcome.record.items() if key not in curves}
    head = json.dumps([scalars, list(curves), outcome.resized, outcome.remark, outcome.failure]).encode()
    stream = io.BytesIO()
    np.save(stream, np.array(list(curves.values()), np.float64))
    return zlib.compress(len(head).to_bytes(4, "big") + head + stream.getvalue(), 1)


def _unpack(data: bytes) -> Outcome:
    raw = zlib.decompress(data)
    length = 4 + int.from_bytes(raw[:4], "big")
    scalars, names, resized, remark, failure = json.loads(raw[4:length])
    curves = np.load(io.BytesIO(raw[length:]))
    return Outcome({**scalars, **dict(zip(names, curves, strict=True))}, resized, remark, failure)
