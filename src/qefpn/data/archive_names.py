"""Archives that are not read in place: what they are called, and the command that unpacks each."""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["ARCHIVE_SUFFIXES", "archive_stem", "unpack_first"]

_COMMANDS = {
    **dict.fromkeys(
        (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz"), "tar -xf {file} -C {to}"
    ),
    **dict.fromkeys((".tar.zst", ".tzst"), "tar --zstd -xf {file} -C {to}"),
    ".rar": "unrar x {file} {to}/",
    ".7z": "7z x {file} -o{to}",
}
"""Suffix to command."""
ARCHIVE_SUFFIXES = tuple(sorted(_COMMANDS, key=len, reverse=True))


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
    command = _COMMANDS[suffix].format(file=shlex.quote(str(path)), to=shlex.quote(str(path.parent)))
    return f"{path} is an archive that is not read in place (only .zip is): unpack it with `{command}`"
