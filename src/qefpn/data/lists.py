"""List files: which pairs of a set belong to a split.

A line names a picture by its name, its file or a path; or a picture and its mask, in two columns parted by tabs,
commas, semicolons or blanks. Further columns may hold a number (a class, say). Names may hold blanks, quotes and
``#``: a line that begins with ``#`` is a comment where no picture is called that.
"""

from __future__ import annotations

import codecs
import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from qefpn.data.affixes import MASK_WORDS, PICTURE_WORDS, tokens_of
from qefpn.data.files import SUFFIXES, Tree, read_bytes
from qefpn.data.registry import close_names, normalize_name, official
from qefpn.errors import UserError

if TYPE_CHECKING:
    from qefpn.data.layouts import Pair, Pairs

__all__ = ["apply_list", "lists_by_set", "read_list"]


def lists_by_set(
    lists: Mapping[str, str], names: Iterable[str | None], root: str | Path | None
) -> dict[str | None, str]:
    """The list file of each data set that has one; sets are called in any spelling, the root by its name or ``"."``.

    Raises:
        UserError: a list for what is none of the sets, or two for one.
    """
    known: dict[str, str | None] = {}
    names = list(dict.fromkeys(names))
    for name in names:
        info = official(name) if name else None
        at = Path(str(root or ".")).expanduser()
        own = (name, str(name).removesuffix(".zip"), info.name if info else None)
        spellings = own if name not in (None, ".") else (".", at.resolve().stem)
        known |= {normalize_name(spelling): name for spelling in spellings if spelling}
    if len(names) == 1:
        known["."] = names[0]
    found: dict[str | None, str] = {}
    for given, file in lists.items():
        info = official(given)
        keys = [normalize_name(given), normalize_name(info.name) if info is not None else ""]
        key = next((one for one in keys if one and one in known), None)
        if key is None:
            there = [name for name in names if name not in (None, ".")] or ["."]
            close = close_names(given, there)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"data.lists names {given}, and the data sets are {', '.join(map(str, there))}{hint}")
        if known[key] in found:
            raise UserError(f"data.lists has two lists for {known[key] or root}")
        found[known[key]] = file
    return found


def read_list(tree: Tree, parent: str, list_file: str | Path | None, split: str | None) -> tuple[str, list[str]] | None:
    """(name of the list, its lines) or None where there is none.

    Args:
        tree: the set.
        parent: folder of the set inside it, ``""`` or ``"a/"``.
        list_file: a list asked for: absolute, or relative to the set.
        split: look for ``<split>.txt`` and ``<split>.lst`` beside the picture folder.

    Raises:
        UserError: ``list_file`` is not there, or is no text.
    """
    if list_file is not None:
        inside = str(list_file).replace("\\", "/")
        for candidate in (inside, parent + inside):
            if candidate in tree.texts:
                return inside, _lines(read_bytes(tree.file(candidate)), str(list_file))
        path = Path(list_file).expanduser()
        for file in (path, tree.root / path, tree.root.parent / path):
            if file.is_file():
                return str(list_file), _lines(file.read_bytes(), str(list_file))
        raise UserError(f"the list file {list_file} is neither in {tree.root} nor beside it")
    if split is not None:
        for name in (f"{split}.txt", f"{split}.lst"):
            for text in tree.texts:
                if text.lower() == (parent + name).lower():
                    return PurePosixPath(text).name, _lines(read_bytes(tree.file(text)), text)
    return None


def _lines(data: bytes, label: str) -> list[str]:
    """The lines that are not empty. UTF-16 is told by its mark; what is no UTF-8 is read as Windows' western page."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    if "\0" in text:
        raise UserError(f"the list file {label} is no text (UTF-8, or UTF-16 with its mark); save it as one")
    return [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


def _without_suffix(path: str) -> str:
    return path[: path.rfind(".")] if path.lower().endswith(SUFFIXES) else path


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


class _Index:
    """Pairs by everything that a list may call them."""

    def __init__(self, pairs: Pairs, *, files_first: bool) -> None:
        self._pairs = list(pairs)
        self._folders = [self._folders_of(pair) for pair in self._pairs]
        kinds = ("file", "name") if files_first else ("name", "file")
        self._tables: list[dict[str, set[int]]] = []
        for fold in (str, _plain):
            for kind in (*kinds, "stem"):
                table: dict[str, set[int]] = {}
                for number, pair in enumerate(self._pairs):
                    for key in self._keys(pair, kind):
                        table.setdefault(fold(key), set()).add(number)
                self._tables.append(table)

    @staticmethod
    def _keys(pair: Pair, kind: str) -> Iterator[str]:
        files = [PurePosixPath(_posix(str(file))) for file in (pair.image, pair.mask) if file]
        if kind == "name":
            yield PurePosixPath(pair.name).name
        for file in files:
            if kind == "file":
                yield file.name
            elif kind == "stem":
                yield _without_suffix(file.name)

    @staticmethod
    def _folders_of(pair: Pair) -> tuple[list[str], set[str]]:
        """The folders in the name, and all that its files lie in."""
        inside = PurePosixPath(pair.name).parts[:-1]
        around = {part for file in (pair.image, pair.mask) for part in PurePosixPath(_posix(str(file))).parts[:-1]}
        return [_plain(part) for part in inside], {_plain(part) for part in around}

    def find(self, text: str) -> int | None:
        """The one pair that ``text`` names; None where there is none or several."""
        for path in dict.fromkeys((text, text.strip(), _posix(text.strip()))):
            folders, last = _split(path)
            if not last:
                continue
            for number, table in enumerate(self._tables):
                keys = [last] if number % 3 != 2 else [last, _without_suffix(last)]
                for key in keys:
                    found = table.get(key if number < 3 else _plain(key), set())
                    fitting = [one for one in found if self._fits(one, folders)]
                    if len(fitting) > 1:  # of several the one that lies right there
                        fitting = [one for one in fitting if self._folders[one][0] == folders]
                    if len(fitting) == 1:
                        return fitting[0]
        return None

    def _fits(self, number: int, folders: list[str]) -> bool:
        """Whether a pair may lie in the folders that the list names: b/1 is not a/1."""
        inside, around = self._folders[number]
        return not folders or not inside or folders[-len(inside) :] == inside or set(folders) <= around


def _posix(text: str) -> str:
    return text.replace("\\", "/")


def _split(path: str) -> tuple[list[str], str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return [_plain(part) for part in parts[:-1]], parts[-1] if parts else ""


_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def _cells(line: str) -> Iterator[list[str]]:
    """The columns of a line, in every way that it may be parted."""
    for part in ("\t", ",", ";"):
        if part in line or line.lstrip().startswith('"'):
            yield [cell.strip() for cell in line.split(part)]
            with_quotes = next(csv.reader([line.strip()], delimiter=part, skipinitialspace=True), [])
            yield [cell.strip() for cell in with_quotes]
    text = line.strip()
    for mark in re.finditer(r"\s+|[,;]", text):
        yield [text[: mark.start()].strip(), text[mark.end() :].strip()]


_COLUMNS = re.compile(rf"({'|'.join(map(re.escape, SUFFIXES))})[\"']?[\s,;].*/", re.IGNORECASE)
"""What holds a file name, then something that parts columns, then a path."""


def _lookup(line: str, index: _Index) -> int | None:
    """The pair that a line names; None where it names none, or columns name different ones."""
    if not _COLUMNS.search(line):  # images/a.jpg masks/b.png is no path
        found = index.find(line)
        if found is not None:
            return found
    for cells in _cells(line):
        named = [index.find(cell) if cell else None for cell in cells]
        known = {one for one in named if one is not None}
        rest = [cell for cell, one in zip(cells, named, strict=True) if one is None and cell]
        if len(known) == 1 and all(_NUMBER.fullmatch(cell) or _is_word(cell) for cell in rest):
            return known.pop()
    return None


def _is_word(cell: str) -> bool:
    """A class or a split in a further column: no file, no path."""
    return cell.isalpha() and cell.isascii() and len(cell) > 1


def _is_header(line: str) -> bool:
    """Words that are columns' names: image,mask."""
    words = tokens_of(line)
    columns = (
        PICTURE_WORDS | MASK_WORDS | {"name", "names", "file", "filename", "path", "paths", "id", "split", "class"}
    )
    return bool(words) and set(words) <= columns and not re.search(r"\d", line) and any(c in line for c in ",;\t")


def apply_list(pairs: Pairs, label: str, lines: Iterable[str], *, required: bool) -> Pairs:
    """``pairs`` cut down to the names in ``lines``; names that are not there go to ``missing``.

    A list that was only found (not ``required``) and names no picture of the set is something else, and
    ignored.

    Raises:
        UserError: a required list names none of the pictures.
    """
    lines = list(lines)
    chosen, missing = _read(pairs, lines, files_first=True)
    if len({*chosen}) < len(chosen) or missing:  # x.jpg may be the file of x, or the name of x.jpg.jpg
        other = _read(pairs, lines, files_first=False)
        if (len({*other[0]}), -len(other[1])) > (len({*chosen}), -len(missing)):
            chosen, missing = other
    if not chosen:
        if required:
            raise UserError(f"the list file {label} names no picture of {pairs.root}")
        return pairs
    wanted = {*chosen}
    alone = _Alone(missing)
    return replace(
        pairs,
        layout=f"{pairs.layout}, list {label}",
        items=tuple(pair for index, pair in enumerate(pairs) if index in wanted),
        # A listed name that has only a picture or only a mask is named once, as that.
        images_without_mask=alone.of(pairs.images_without_mask),
        masks_without_image=alone.of(pairs.masks_without_image),
        missing=tuple(alone.left),
        unlisted=len(pairs) - len(wanted),
    )


def _read(pairs: Pairs, lines: Sequence[str], *, files_first: bool) -> tuple[list[int], list[str]]:
    """The pairs that the lines name, and the lines that name none."""
    index = _Index(pairs, files_first=files_first)
    chosen: list[int] = []
    missing: list[str] = []
    for number, line in enumerate(lines):
        found = _lookup(line, index)
        if found is not None:
            chosen.append(found)
        elif not line.lstrip().startswith("#") and not (number == 0 and _is_header(line)):
            missing.append(line.strip())
    return chosen, missing


class _Alone:
    """Lines that named no pair: some of them name a picture or a mask that has none."""

    def __init__(self, lines: list[str]) -> None:
        self.left = list(lines)

    def of(self, files: Iterable[str]) -> tuple[str, ...]:
        """Those of the files that lines name, which are then done with."""
        found = []
        for file in files:
            name = PurePosixPath(_posix(file))
            keys = {name.name, _without_suffix(name.name)}
            naming = [line for line in self.left if keys & _all_keys(line)]
            if naming:
                found.append(file)
                self.left = [line for line in self.left if line not in naming]
        return tuple(found)


def _all_keys(line: str) -> set[str]:
    cells = {line, *(cell for cells in _cells(line) for cell in cells)}
    names = {_split(_posix(cell))[1] for cell in cells}
    return {*names, *(_without_suffix(name) for name in names)}
