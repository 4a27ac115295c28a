"""Writes the synthetic data set as a folder of pictures and masks in the layout of DUTS."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from qefpn.atomic import atomic_file
from qefpn.data.synthetic.scene import render
from qefpn.errors import UserError

GENERATOR = 1  # raised whenever the same seed would give other pictures
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class SyntheticReport:
    """What `synthesize` left on disk.

    Attributes:
        root: Folder that holds both sets.
        train_root, test_root: The two sets; None for one of no pictures.
        train, test: Pictures in each.
        size: Side of a picture in pixels.
        seed: That the pictures were made from.
        written: Pictures made by this call; the others were there already.
        reused: Pictures that were there already.
    """

    root: Path
    train_root: Path | None
    test_root: Path | None
    train: int
    test: int
    size: int
    seed: int
    written: int
    reused: int


@dataclass(frozen=True)
class _Set:
    root: Path
    name: str
    split: str
    count: int

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def record(self) -> Path:
        return self.root / f"{self.name}.json"

    def files(self, index: int) -> tuple[Path, Path]:
        stem = f"{self.split}_{index:05d}"
        image = self.folder / f"{self.name}-Image" / f"{stem}.jpg"
        return image, self.folder / f"{self.name}-Mask" / f"{stem}.png"


def synthesize(
    root: str | os.PathLike[str],
    *,
    train: int = 400,
    test: int = 100,
    size: int = 128,
    seed: int = 0,
    train_name: str = "SYN-TR",
    test_name: str = "SYN-TE",
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> SyntheticReport:
    """Writes a training and a test set: root/NAME/NAME-Image/*.jpg and root/NAME/NAME-Mask/*.png.

    A picture depends on the seed, its split and its index alone, never on the order or the number of workers.
    A set that is there already, made with the same settings (root/NAME.json says so), is kept; pictures that
    it lacks are added.

    Args:
        root: Folder to write to; made if need be.
        train, test: Pictures in each set; a set of 0 is not written.
        size: Side of each picture in pixels, at least 32.
        seed: At least 0.
        train_name, test_name: Folder names of the two sets.
        progress: Called as progress(done, total) after each picture.
        workers: Threads that draw pictures.

    Returns:
        Where the sets are, and how many pictures this call made.

    Raises:
        UserError: if an argument is impossible, a set of other settings or of other origin is in the way, or
            the folder cannot be written.
    """
    target = Path(root)
    _check(train=train, test=test, size=size, seed=seed, workers=workers, names=(train_name, test_name))
    sets = [_Set(target, train_name, "train", train), _Set(target, test_name, "test", test)]
    sets = [one for one in sets if one.count]
    settings = {one.name: _settings(one, size, seed) for one in sets}
    for one in sets:  # both, before a file of either is touched
        _refuse_others(one, settings[one.name])
    try:
        missing = [job for one in sets for job in _prepare(one, settings[one.name])]
        total = train + test
        done = total - len(missing)
        if progress is not None and done:
            progress(done, total)
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(lambda job: _write(*job, size=size, seed=seed), missing):
                done += 1
                if progress is not None:
                    progress(done, total)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"cannot write the synthetic data set under {target}: {reason}; choose another folder"
        raise UserError(message) from error
    return SyntheticReport(
        root=target,
        train_root=target / train_name if train else None,
        test_root=target / test_name if test else None,
        train=train,
        test=test,
        size=size,
        seed=seed,
        written=len(missing),
        reused=total - len(missing),
    )


def _check(*, train: int, test: int, size: int, seed: int, workers: int, names: tuple[str, str]) -> None:
    least = {"train": 0, "test": 0, "size": 32, "seed": 0, "workers": 1}
    for (key, bound), value in zip(least.items(), (train, test, size, seed, workers), strict=True):
        if isinstance(value, bool) or not isinstance(value, int) or value < bound:
            raise UserError(f"synthetic data: {key}={value!r} must be a whole number of at least {bound}")
    if train + test == 0:
        raise UserError("synthetic data: train=0 and test=0 leave nothing to write; set one of them above 0")
    for name in names:
        if not name or name in (".", "..") or Path(name).name != name or "\\" in name:
            raise UserError(f"synthetic data: set name {name!r} must be a plain folder name such as SYN-TR")
    if names[0].casefold() == names[1].casefold():
        raise UserError(f"synthetic data: both sets are called {names[0]!r}; give them different names")


def _settings(one: _Set, size: int, seed: int) -> dict[str, int | str]:
    return {"generator": GENERATOR, "split": one.split, "pictures": one.count, "size": size, "seed": seed}


def _refuse_others(one: _Set, settings: dict[str, int | str]) -> None:
    """Raises if what lies at the set's place is not the set of these settings, whole or in part."""
    way_out = f"delete it (folder and {one.record.name}) or choose another folder or name"
    if one.record.is_file():
        try:
            found = json.loads(one.record.read_text(encoding="utf-8"))
            differing = {key: found.get(key) for key, value in settings.items() if found.get(key) != value}
        except (ValueError, AttributeError, OSError):
            raise UserError(f"{one.record} is not a record of a synthetic data set: {way_out}") from None
        if differing:
            listed = ", ".join(f"{key} {was} (asked for: {settings[key]})" for key, was in differing.items())
            raise UserError(f"{one.folder} was made with other settings, {listed}: {way_out}")
    elif one.folder.exists() and (not one.folder.is_dir() or any(one.folder.iterdir())):
        raise UserError(f"{one.folder} is in the way and was not made by synthesize: {way_out}")


def _prepare(one: _Set, settings: dict[str, int | str]) -> list[tuple[_Set, int]]:
    """Makes the record and the folders; returns the pictures that are still to be written."""
    one.root.mkdir(parents=True, exist_ok=True)
    # First the record: another process that finds the folder knows by it whose it is.
    if not one.record.is_file():
        _replace(one.record, (json.dumps(settings, indent=2) + "\n").encode())
    for path in one.files(0):
        path.parent.mkdir(parents=True, exist_ok=True)
    return [(one, index) for index in range(one.count) if not all(map(_is_there, one.files(index)))]


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _write(one: _Set, index: int, *, size: int, seed: int) -> None:
    image, mask = render(seed, index, size, split=one.split)
    image_path, mask_path = one.files(index)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _replace(image_path, _encoded(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]))
    _replace(mask_path, _encoded(".png", mask, []))


def _encoded(suffix: str, pixels: NDArray[np.uint8], options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:
        raise OSError(f"OpenCV cannot encode {suffix}")
    return data.tobytes()


def _replace(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all, so that a stopped run leaves no half picture behind."""
    with atomic_file(path) as part:
        part.write_bytes(data)
