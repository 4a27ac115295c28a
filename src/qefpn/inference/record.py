"""`qefpn predict`: what was made of what, so that a second run does only what is missing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qefpn.atomic import write_atomic
from qefpn.data.files import cache_dir, file_key
from qefpn.inference.files import Job
from qefpn.version import __version__

_VERSION = 1
_EVERY = 10.0
"""Seconds between two saves: what a killed run made since the last is made again."""


def made_by(checkpoint: Path, options: Mapping[str, Any]) -> str:
    """A name for what decides how a picture comes out: the content of the checkpoint, the options, this version."""
    digest = hashlib.sha256()
    with open(checkpoint, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    settings = json.dumps([_VERSION, __version__, digest.hexdigest(), dict(options)], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


class Record:
    """The results in an output folder: of which picture, and by which checkpoint and options.

    It is kept in the cache folder, not among the results, which are for other programs to read. A result counts only
    while picture and result are as they were (path, size, time of change): where anything is in doubt it is made again.

    Args:
        folder: the output folder.
        made: see :func:`made_by`.
    """

    def __init__(self, folder: Path, made: str = "") -> None:
        self.folder = Path(os.path.realpath(folder))
        self.made = made
        cache = cache_dir()
        name = hashlib.blake2b(os.fsencode(self.folder), digest_size=10).hexdigest()
        self._path = None if cache is None else cache / "predict" / f"{name}.json"
        self._entries: dict[str, list[Any]] = {}
        self._changed = False
        self._saved = time.monotonic()
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                content = json.loads(self._path.read_text(encoding="utf-8"))
                if content["version"] == _VERSION:
                    self._entries = {_name(key): list(value) for key, value in content["files"].items()}

    def results(self) -> set[Path]:
        """The files that earlier runs wrote and nobody changed since."""
        named = {self.folder / name: entry for name, entry in self._entries.items()}
        return {path for path, entry in named.items() if list(file_key(path)) == entry[2:4]}

    def has(self, job: Job) -> bool:
        """Whether the job is done as it would be now."""
        entries = self._of(job)
        return all(self._entries.get(key) == entry for key, entry in entries.items())

    def add(self, job: Job) -> None:
        """The job is done; now and then all is saved."""
        self._entries.update(self._of(job))
        self._changed = True
        if time.monotonic() - self._saved > _EVERY:
            self.save()

    def _of(self, job: Job) -> dict[str, list[Any]]:
        """Place in the folder → what would be kept of it."""
        assert job.source is not None
        source = os.path.realpath(job.source)
        seen = hashlib.blake2b(os.fsencode(source) + str(file_key(source)).encode(), digest_size=8).hexdigest()
        targets = [target for target in job.targets.values() if target is not None]
        places = [os.path.join(os.path.realpath(target.parent), target.name) for target in targets]
        return {
            os.path.relpath(place, self.folder): [self.made, seen, *file_key(target)]
            for place, target in zip(places, targets, strict=True)
        }

    def save(self) -> None:
        """Write it; where that fails the next run makes everything again."""
        if self._path is None or not self._changed:
            return
        with contextlib.suppress(OSError):
            files = {_bytes(key): value for key, value in self._entries.items()}
            write_atomic(self._path, json.dumps({"version": _VERSION, "files": files}))
        self._changed, self._saved = False, time.monotonic()


def _bytes(name: str) -> str:
    """A file's name as its bytes, which are the same under every locale."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _name(stored: str) -> str:
    return os.fsdecode(stored.encode("utf-8", "surrogateescape"))
