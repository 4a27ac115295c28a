"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qefpn.text import open_text


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, which takes its place when the block ends.

    A reader never sees half a file, a stopped run leaves none, and several processes may write the same one. The
    directory is made. If the block fails, what was there before stays.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "made" / "figures.txt"
    >>> with whole_file(target) as part:
    ...     _ = part.write_text("1")
    ...     target.exists()
    False
    >>> target.read_text(), len(list(target.parent.iterdir()))
    ('1', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{_short(path.name)}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _short(name: str) -> str:
    """The name, cut where what is added to it would make it longer than file systems take."""
    data = os.fsencode(name)
    return name if len(data) <= 200 else f"{name[:40]}.{hashlib.blake2b(data, digest_size=8).hexdigest()}"


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text by :func:`whole_file`; what is no character is written as its escape."""
    with whole_file(path) as part, open_text(part) as file:
        file.write(text)
