"""Looking at every picture and mask before training, so that no worker meets a bad one hours later."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qefpn.data.contents import colour_labels, label_values
from qefpn.data.files import PictureFile, cache_dir, file_key
from qefpn.data.layouts import Pairs
from qefpn.data.reading import decode, picture_size, to_mask
from qefpn.data.registry import official
from qefpn.data.workers import cpu_count, mapped
from qefpn.errors import UserError
from qefpn.text import open_text

__all__ = ["MIN_SIDE", "Finding", "check_pairs", "pairing_findings", "summarize", "write_findings"]

MIN_SIDE = 8
"""Pictures with a shorter side (in pixels) are reported: nothing can be seen in them."""

_VERSION = 2  # of the checks: another number makes old verdicts void
_AT_ONCE = 512  # files that are handed out at a time
_SAVE_EVERY = 20.0  # seconds
_THRESHOLD = 128  # of 255: what counts as object
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a data set.

    Attributes:
        dataset: name of the set.
        kind: what is wrong, the same words for the same fault ("unreadable picture").
        file: the file or name it is about.
        detail: more, in words; may be empty.
        level: ``"error"`` (the choice ``data.on_error`` applies) or ``"warning"`` (reported, used all the
            same).
    """

    dataset: str
    kind: str
    file: str
    detail: str = ""
    level: str = "error"

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


def _look_at_image(file: PictureFile) -> dict[str, Any]:
    try:
        return {"size": list(picture_size(file))}
    except UserError as error:
        return {"error": _reason(error)}


def _look_at_mask(file: PictureFile) -> dict[str, Any]:
    try:
        image = decode(file)
        mask = to_mask(image)
    except UserError as error:
        return {"error": _reason(error)}
    seen = {"size": list(mask.shape), "low": int(mask.min()), "high": int(mask.max())}
    labels, colours = label_values(mask), colour_labels(image)
    return seen | ({"labels": labels} if labels else {}) | ({"colours": colours} if colours else {})


def _reason(error: UserError) -> str:
    return str(error).rsplit(": ", 1)[-1]


class _Verdicts:
    """What was seen in each file, kept between runs and void once the file changes."""

    def __init__(self, root: Path) -> None:
        folder = cache_dir()
        name = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=10).hexdigest()
        self._path = folder / "verdicts" / f"{name}.json" if folder else None
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                stored = json.loads(self._path.read_text(encoding="utf-8"))
                if stored["version"] == _VERSION:
                    self._known = stored["files"]

    def get(self, role: str, file: PictureFile) -> dict[str, Any] | None:
        entry = self._known.get(f"{role}:{file}")
        if entry is not None and tuple(entry[0]) == file_key(file):
            verdict: dict[str, Any] = entry[1]
            return verdict
        return None

    def put(self, role: str, file: PictureFile, verdict: dict[str, Any]) -> None:
        self._known[f"{role}:{file}"] = [file_key(file), verdict]
        self._changed = True

    def save(self) -> None:
        if self._path is None or not self._changed:
            return
        with contextlib.suppress(OSError):  # a full or read-only disk costs the next start its speed, nothing else
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"version": _VERSION, "files": self._known}, stream)
            os.replace(temporary, self._path)
            self._changed = False


def _look(pairs: Pairs, progress: Progress | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    verdicts = _Verdicts(pairs.root)
    todo = []
    seen: dict[tuple[str, int], dict[str, Any]] = {}
    for index, pair in enumerate(pairs):
        for role, file in (("image", pair.image), ("mask", pair.mask)):
            known = verdicts.get(role, file)
            if known is None:
                todo.append((role, index, file))
            else:
                seen[role, index] = known

    def look(job: tuple[str, int, PictureFile]) -> dict[str, Any]:
        return _look_at_image(job[2]) if job[0] == "image" else _look_at_mask(job[2])

    done, saved = 0, time.monotonic()
    try:
        for some in (todo[first : first + _AT_ONCE] for first in range(0, len(todo), _AT_ONCE)):
            for job, verdict in mapped(look, some, cpu_count()):
                seen[job[0], job[1]] = verdict
                verdicts.put(job[0], job[2], verdict)
                done += 1
                if progress is not None and (done % 100 == 0 or done == len(todo)):
                    progress(f"checking {pairs.name}", done, len(todo))
            if time.monotonic() - saved > _SAVE_EVERY:  # a run that is killed loses little
                verdicts.save()
                saved = time.monotonic()
    finally:  # one that is stopped loses nothing
        verdicts.save()
    return [(seen["image", index], seen["mask", index]) for index in range(len(pairs))]


def check_pairs(
    pairs: Pairs,
    *,
    role: str = "train",
    blank_masks: str = "error",
    progress: Progress | None = None,
) -> tuple[Pairs, list[tuple[int, int]], list[Finding]]:
    """Read every picture and mask once.

    Errors are: a picture without a mask or a mask without a picture, a listed name that is not there, a file
    that cannot be read, a picture smaller than :data:`MIN_SIDE`, sizes that differ, a mask of classes instead of
    black and white, and for training a mask that is empty or all foreground. For testing an empty or full mask is a
    warning: the protocols say what it scores.
    Known faults of the official sets are warnings too; for training such pairs are left out.

    Verdicts are kept between runs, by path, size and modification time.

    Args:
        pairs: the set.
        role: ``"train"``, ``"val"`` or ``"test"``.
        blank_masks: ``"keep"`` lets empty and full masks into training (pictures without an object, on
            purpose).
        progress: called as ``progress(what, done, total)``.

    Returns:
        (the pairs that can be used, the (height, width) of each, all findings).
    """
    info = official(pairs.name)
    defects = info.defects if info is not None else {}
    findings = pairing_findings(pairs)
    good, sizes = [], []
    for pair, (image, mask) in zip(pairs, _look(pairs, progress), strict=True):
        found = _judge(pairs.name, pair.image, pair.mask, image, mask)
        if pair.name in defects:
            found = [replace(one, level="warning", detail=f"{one.detail}; {defects[pair.name]}") for one in found]
            usable = not found or (role != "train" and "error" not in image and "error" not in mask)
        else:
            if role != "train" or blank_masks == "keep":
                found = [replace(one, level="warning") if one.kind in _BLANK else one for one in found]
            usable = all(one.level == "warning" for one in found)
        findings.extend(found)
        if usable:
            good.append(pair)
            sizes.append((int(image["size"][0]), int(image["size"][1])))
    return pairs.select(good), sizes, findings


def pairing_findings(pairs: Pairs) -> list[Finding]:
    """What names alone show: files that did not pair, and listed names that are not there."""
    return [
        *(Finding(pairs.name, "picture without a mask", path) for path in pairs.images_without_mask),
        *(Finding(pairs.name, "mask without a picture", path) for path in pairs.masks_without_image),
        *(Finding(pairs.name, "listed but not there", name) for name in pairs.missing),
        *(Finding(pairs.name, "second file of one name", path, "left out", "warning") for path in pairs.duplicates),
    ]


_BLANK = ("empty mask", "mask that is all foreground")


def _judge(
    name: str, image_file: PictureFile, mask_file: PictureFile, image: dict[str, Any], mask: dict[str, Any]
) -> list[Finding]:
    found = []
    if "error" in image:
        found.append(Finding(name, "unreadable picture", str(image_file), image["error"]))
    if "error" in mask:
        found.append(Finding(name, "unreadable mask", str(mask_file), mask["error"]))
    if "size" in image and min(image["size"]) < MIN_SIDE:
        found.append(Finding(name, "tiny picture", str(image_file), f"{_size(image)}, needs {MIN_SIDE} px a side"))
    if "size" in image and "size" in mask and image["size"] != mask["size"]:
        detail = f"picture {_size(image)}, mask {_size(mask)}"
        if image["size"] == mask["size"][::-1]:
            detail += ", turned: one of the two lacks the other's EXIF orientation"
        found.append(Finding(name, "sizes differ", str(image_file), detail))
    if mask.get("colours"):
        detail = f"{mask['colours']} colours, each of them read as object, a border between them too"
        found.append(Finding(name, "mask in colours", str(mask_file), detail, "warning"))
    if "labels" in mask:
        detail = f"{mask['labels']}: make the object 255 and the rest 0"
        found.append(Finding(name, "label map", str(mask_file), detail))
    elif "size" in mask and mask["high"] < _THRESHOLD:
        detail = "" if mask["high"] == 0 else f"its brightest value is {mask['high']} of 255; is it a label map?"
        found.append(Finding(name, _BLANK[0], str(mask_file), detail))
    elif "size" in mask and mask["low"] >= _THRESHOLD:
        found.append(Finding(name, _BLANK[1], str(mask_file)))
    return found


def _size(verdict: dict[str, Any]) -> str:
    return f"{verdict['size'][1]}x{verdict['size'][0]}"


def summarize(findings: Iterable[Finding]) -> str:
    """ "2 unreadable pictures, 1 mask without a picture": how many of each kind, most frequent first."""
    counts = Counter(finding.kind for finding in findings)
    return ", ".join(f"{count} x {kind}" for kind, count in counts.most_common())


def write_findings(findings: Sequence[Finding], path: str | Path | None, label: str) -> Path | None:
    """Write all findings as CSV (dataset, level, kind, file, detail).

    Args:
        findings: what to write.
        path: file to write; by default one in the cache folder, named after ``label``.
        label: what was checked.

    Returns:
        The file, or None where nothing can be written.
    """
    if path is None:
        folder = cache_dir()
        if folder is None:
            return None
        name = hashlib.blake2b(os.fsencode(label), digest_size=5).hexdigest()
        path = folder / "findings" / f"{name}.csv"
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_text(path) as stream:
            writer = csv.writer(stream)
            writer.writerow(["dataset", "level", "kind", "file", "detail"])
            writer.writerows((f.dataset, f.level, f.kind, f.file, f.detail) for f in findings)
    except OSError:
        return None
    return path
