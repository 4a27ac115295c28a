"""From names to data sets: where they are, what is in them, and what is wrong with them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qefpn.data.archives import archive_stem, unpack_first
from qefpn.data.files import open_tree
from qefpn.data.integrity import Finding, Progress, check_pairs, pairing_findings, summarize, write_findings
from qefpn.data.layouts import Pairs, find_pairs
from qefpn.data.lists import lists_by_set
from qefpn.data.places import children, is_zip, locate
from qefpn.data.registry import DATASETS, official
from qefpn.data.search import Undecided
from qefpn.errors import UserError

__all__ = ["DataReport", "SetReport", "describe", "load_set", "locate"]


@dataclass(frozen=True)
class SetReport:
    """One data set as it was found.

    Attributes:
        name: official spelling for a published set, else the name asked for.
        path: folder or zip.
        layout: the layout that was recognised.
        role: ``"train"`` or ``"test"``.
        found: pairs found.
        usable: the pairs that can be used (all of them where ``checked`` is False).
        sizes: (height, width) of the usable pictures; empty where unchecked.
        official_count: pictures in the official release; None for a set of one's own.
        findings: what is wrong.
        checked: whether the files were opened.
    """

    name: str
    path: Path
    layout: str
    role: str
    found: int
    usable: Pairs
    sizes: tuple[tuple[int, int], ...]
    official_count: int | None
    findings: tuple[Finding, ...]
    checked: bool

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings to which ``data.on_error`` applies."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that are only reported."""
        return tuple(finding for finding in self.findings if finding.level != "error")

    def line(self) -> str:
        """One line: name, counts, layout, findings."""
        text = f"{self.name}: {self.found} pairs"
        if self.official_count is not None and self.official_count != self.found:
            text += f" (the official set has {self.official_count})"
        text += f" in {self.path}, layout {self.layout}"
        if self.usable.unlisted:
            text += f", which leaves out {self.usable.unlisted} pairs"
        if self.checked and len(self.usable) != self.found:
            text += f"; {len(self.usable)} usable"
        return text + (f"; {summarize(self.findings)}" if self.findings else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a table or JSON."""
        return {
            "name": self.name,
            "role": self.role,
            "path": str(self.path),
            "layout": self.layout,
            "pairs": self.found,
            "usable": len(self.usable),
            "official": self.official_count,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "checked": self.checked,
        }


@dataclass(frozen=True)
class DataReport:
    """All sets of a run, or all sets under a root.

    Attributes:
        root: ``data.root``.
        sets: one report a set.
        findings_file: CSV of all findings; None where there is none.
        notes: a line for each folder of pictures and each archive at the root that is no set and left aside.
    """

    root: Path
    sets: tuple[SetReport, ...]
    findings_file: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of all sets."""
        return tuple(finding for one in self.sets for finding in one.findings)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """All findings to which ``data.on_error`` applies."""
        return tuple(finding for finding in self.findings if finding.level == "error")

    def lines(self) -> list[str]:
        """The report in words, a line a set."""
        return [one.line() for one in self.sets]

    def raise_for_errors(self) -> None:
        """``UserError`` that counts the errors, lists the first few and says where all of them are."""
        errors = self.errors
        if not errors:
            return
        first = "; ".join(str(finding) for finding in errors[:3])
        more = f"; and {len(errors) - 3} more" if len(errors) > 3 else ""
        where = f"; all of them: {self.findings_file}" if self.findings_file else ""
        blank = any(finding.kind in ("empty mask", "mask that is all foreground") for finding in errors)
        keep = ", or keep pictures without an object with data.blank_masks=keep" if blank else ""
        plural = "s" if len(errors) > 1 else ""
        raise UserError(
            f"{len(errors)} problem{plural} in the data ({summarize(errors)}): {first}{more}{where}; "
            f"mend them, or leave them out with data.on_error=skip{keep}"
        )


def load_set(
    root: str | Path | None,
    name: str | None,
    *,
    role: str,
    split: str | None = None,
    list_file: str | Path | None = None,
    layout: str | None = None,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    masks_alone: bool = False,
    check: bool = True,
    blank_masks: str = "error",
    progress: Progress | None = None,
) -> SetReport:
    """Locate, pair and check one data set.

    Args:
        root: ``data.root``; may be None where ``images`` and ``masks`` are given and ``name`` is None.
        name: a published set, a folder or zip below ``root``, an absolute path; None for ``root`` itself.
        role: ``"train"`` or ``"test"``: how blank masks count.
        split: which of the lists beside the pictures applies: ``"train"``, ``"val"`` or ``"test"``.
        list_file, layout, images, masks, masks_alone: see :func:`find_pairs`.
        check: open every file (see :func:`check_pairs`).
        blank_masks, progress: see :func:`check_pairs`.

    Raises:
        UserError: there is no such set, or nothing in it that pairs.
    """
    outright = images is not None or masks is not None
    path = None if root is None and outright and not name else locate(root or ".", name or ".")
    if path is None:
        plain = None
    elif name in (None, ".") or Path(str(name)).is_absolute():
        plain = path.stem if is_zip(path) else path.resolve().name
    else:
        plain = str(name)
    info = official(plain) if plain else None
    pairs = find_pairs(
        path,
        name=info.name if info is not None else plain,
        list_file=list_file,
        split=split,
        layout=layout,
        images=images,
        masks=masks,
        masks_alone=masks_alone,
    )
    findings: Sequence[Finding] = pairing_findings(pairs)
    usable = pairs
    sizes: list[tuple[int, int]] = []
    if check:
        usable, sizes, findings = check_pairs(pairs, role=role, blank_masks=blank_masks, progress=progress)
    return SetReport(
        pairs.name,
        path or pairs.root,
        pairs.layout,
        role,
        len(pairs),
        usable,
        tuple(sizes),
        info.count if info is not None else None,
        tuple(findings),
        check,
    )


def _all_sets(root: str | Path, layout: str | None, masks_alone: bool) -> tuple[list[str | None], list[str]]:
    """Names of the published sets below ``root``, then of other folders and zips that hold one; ``[None]``
    where ``root`` itself is the set, or nothing is there. And a line for each folder of pictures and each archive
    that is left aside."""
    found: dict[Path, str | None] = {}
    for known in DATASETS:
        with contextlib.suppress(UserError):
            found.setdefault(locate(root, known), known)
    base = Path(root).expanduser()
    if not found:
        try:
            find_pairs(base, layout=layout, masks_alone=masks_alone)
            return [None], []
        except Undecided:
            masks_alone = False  # each of the folders in question would be a set of masks
        except UserError:
            pass
    notes = []
    if base not in found:
        for child in children(base):
            covered = any(child == path or child in path.parents for path in found)
            if not covered and (child.is_dir() or is_zip(child)):
                try:
                    name = child.stem if is_zip(child) else child.name
                    find_pairs(child, name=name, layout=layout, masks_alone=masks_alone)
                    found[child] = child.name
                except UserError as error:
                    if holds_pictures(child):
                        notes.append(str(error))
            elif not covered and archive_stem(child) is not None and child.is_file():
                notes.append(unpack_first(child))
    return (list(found.values()), notes) if found else ([None], [])


def holds_pictures(path: Path) -> bool:
    """Whether there are any pictures in a folder or zip."""
    try:
        return bool(open_tree(path).pictures)
    except UserError:
        return True  # a zip that cannot be read is told, too


def describe(
    root: str | Path | None,
    names: Iterable[str] | None = None,
    *,
    roles: Mapping[str, str] | None = None,
    lists: Mapping[str, str] | None = None,
    layout: str | None = None,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    masks_alone: bool = False,
    check: bool = True,
    findings_file: str | Path | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """What is under ``root``, for ``qefpn data list`` and ``qefpn data verify``.

    Args:
        root: folder of data sets, or one data set; None where ``images`` and ``masks`` are given.
        names: the sets to look at; by default all that are there, or ``root`` itself.
        roles: ``"train"`` or ``"test"`` a set, which is also the split that is taken of it; by default the official
            role, ``"train"`` and everything for one's own.
        lists: list file a set.
        layout, images, masks, masks_alone: see :func:`find_pairs`.
        check: open every file; False only pairs and counts.
        findings_file: CSV of all findings; by default in the cache folder.
        progress: called as ``progress(what, done, total)``.

    Raises:
        UserError: a set that was asked for is not there, or there is nothing at all.
    """
    wanted: list[str | None]
    notes: list[str] = []
    if names is not None:
        wanted = list(names)
    elif images is not None or masks is not None or root is None:
        wanted = [None]
    else:
        wanted, notes = _all_sets(root, layout, masks_alone)
    files = lists_by_set(lists or {}, wanted, root)
    reports = []
    for name in wanted:
        info = official(name) if name else None
        split = (roles or {}).get(name or "", info.role if info is not None else None)
        reports.append(
            load_set(
                root,
                name,
                role=split or "train",
                split=split,
                list_file=files.get(name),
                layout=layout,
                images=images,
                masks=masks,
                masks_alone=masks_alone,
                check=check,
                progress=progress,
            )
        )
    return replace(make_report(root or reports[0].path, reports, findings_file), notes=tuple(notes))


def make_report(root: str | Path, sets: Sequence[SetReport], findings_file: str | Path | None = None) -> DataReport:
    """A :class:`DataReport` of ``sets`` whose findings, if any, are written to a file."""
    findings = [finding for one in sets for finding in one.findings]
    written = None
    if findings:
        label = f"{Path(root).expanduser().resolve()} {' '.join(f'{one.name}:{one.role}' for one in sets)}"
        written = write_findings(findings, findings_file, label)
    return DataReport(Path(root), tuple(sets), written)
