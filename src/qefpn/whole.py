"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 text by :func:`whole_file`."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
