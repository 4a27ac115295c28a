"""Scores of maps by content: a second run of `qefpn benchmark` computes only what changed."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from qefpn.data.files import PictureFile, file_key, read_bytes
from qefpn.metrics.scores import CURVES


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


@cache
def code_version() -> bytes:
    """A hash of the code that makes scores: they are computed again when it changes."""
    digest = hashlib.blake2b(np.__version__.encode(), digest_size=16)
    own = ("decoding.py", "labels.py", "maps.py", "reading.py")
    for package, names in (("qefpn.metrics", None), ("qefpn.data", own)):
        for file in sorted(resources.files(package).iterdir(), key=lambda one: one.name):
            if file.name.endswith(".py") and (names is None or file.name in names):
                digest.update(file.read_bytes())
    return digest.digest()


def score_key(map_hash: bytes, mask_hash: bytes, protocol: str) -> bytes:
    """What the scores of a map depend on."""
    return hashlib.blake2b(map_hash + mask_hash + code_version() + protocol.encode(), digest_size=20).digest()


class ScoreCache:
    """Outcomes by key, and hashes of files by path, size and time, in one SQLite file.

    A file that is broken or locked by another program is done without: the cache then lives in memory.

    Args:
        path: the file; None keeps everything in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        self._database = self._open(path)

    @staticmethod
    def _open(path: Path | None) -> sqlite3.Connection:
        tables = (
            "CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INT, version INT, hash BLOB) WITHOUT ROWID",
        )
        for place in ([str(path)] if path is not None else []) + [":memory:"]:
            try:
                database = sqlite3.connect(place, timeout=30, check_same_thread=False)
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
        with self._lock:
            row = self._database.execute("SELECT size, version, hash FROM files WHERE path = ?", (path,)).fetchone()
        if row is not None and row[:2] == (size, version):
            return bytes(row[2])
        found = content_hash(read_bytes(file))
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (path, size, version, found))
        return found

    def get(self, key: bytes) -> Outcome | None:
        """The outcome under a key, or None."""
        with self._lock:
            row = self._database.execute("SELECT value FROM scores WHERE key = ?", (key,)).fetchone()
        return None if row is None else _unpack(row[0])

    def has(self, key: bytes) -> bool:
        """Whether there is an outcome under a key."""
        with self._lock:
            return self._database.execute("SELECT 1 FROM scores WHERE key = ?", (key,)).fetchone() is not None

    def put(self, outcomes: Iterable[tuple[bytes, Outcome]]) -> None:
        """Keep outcomes, at once on disk: a run that is stopped loses nothing that it computed."""
        rows = [(key, _pack(outcome)) for key, outcome in outcomes]
        with self._lock:
            self._database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
            self._database.commit()

    def close(self) -> None:
        """Write what is pending."""
        with self._lock:
            self._database.commit()
            self._database.close()


def _pack(outcome: Outcome) -> bytes:
    scalars = {key: value for key, value in outcome.record.items() if key not in CURVES}
    head = json.dumps([scalars, outcome.resized, outcome.remark, outcome.failure]).encode()
    stream = io.BytesIO()
    if outcome.record:
        np.save(stream, np.array([outcome.record[key] for key in CURVES], np.float64))
    return zlib.compress(len(head).to_bytes(4, "big") + head + stream.getvalue(), 1)


def _unpack(data: bytes) -> Outcome:
    raw = zlib.decompress(data)
    length = 4 + int.from_bytes(raw[:4], "big")
    scalars, resized, remark, failure = json.loads(raw[4:length])
    record: dict[str, Any] = scalars
    if record:
        curves: Mapping[str, Any] = dict(zip(CURVES, np.load(io.BytesIO(raw[length:])), strict=True))
        record = {**scalars, **curves}
    return Outcome(record, resized, remark, failure)
