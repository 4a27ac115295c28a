"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qefpn.errors import UserError
from qefpn.text import open_text

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(UserError):
    """There is no room for a file; what lay in its place is as it was."""


@contextmanager
def atomic_file(path: Path, *, flush: bool = False) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place when the block ends.

    A reader never sees half a file, a stopped run leaves none, and several processes on several machines may write
    the same one. The directory is made. If the block fails, what was there before stays.

    Args:
        path: the file.
        flush: wait until the content is on the disk before it takes the place of the former, so that a machine that
            goes down loses neither.

    Raises:
        DiskFull: the disk is.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "made" / "figures.txt"
    >>> with atomic_file(target) as part:
    ...     _ = part.write_text("1")
    ...     target.exists()
    False
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('1', 1)
    """
    # Short, since names have a limit; by chance, since process numbers are equal on different machines.
    part = path.with_name(f".{secrets.token_hex(6)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if flush:
            _to_disk(part)
        os.replace(part, path)
        if flush and os.name == "posix":
            _to_disk(path.parent)  # its entry
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(f"{path} is not written: {disk_is_full(path)}") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def disk_is_full(path: Path) -> str:
    """What to say where there is no room for ``path``."""
    return f"no space is left on the disk of {path.parent}; make room there, or choose another directory"


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_atomic(source: Path, target: Path) -> None:
    """Copy a file by :func:`atomic_file`, flushed to the disk."""
    with atomic_file(target, flush=True) as part:
        shutil.copyfile(source, part)


def write_atomic(path: Path, text: str) -> None:
    """Write a UTF-8 text by :func:`atomic_file`; what is no character is written as its escape."""
    with atomic_file(path) as part, open_text(part) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=1))
