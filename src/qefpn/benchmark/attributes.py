"""Results split by what the pictures are like: object size, number of objects, border contact, contrast."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from qefpn.benchmark.score_cache import Outcome, ScoreCache, code_version, content_hash
from qefpn.data.layouts import Pair
from qefpn.data.reading import read_image, read_mask
from qefpn.data.workers import cpu_count, mapped
from qefpn.errors import UserError

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

Array = npt.NDArray[Any]

#: scores whose mean over pictures is the figure of a set. Max F is none: its threshold belongs to a whole set
SCORES = ("mae", "mean_f", "weighted_f", "s_measure", "e_measure")

#: a mask's pixels from this value on are object
OBJECT_FROM = 128
#: a connected component counts as an object from this share of the picture on: smaller ones are specks of the mask
LEAST_OBJECT = 0.001
#: share of the picture that is object: small below the first, large from the second on
SIZE_BOUNDS = (0.10, 0.30)
#: chi-square distance of object and background: low below the first, high from the second on. Between the thirds of
#: 300 pictures each of ECSSD (0.68 and 0.83) and DUTS-TE (0.54 and 0.71)
CONTRAST_BOUNDS = (0.60, 0.77)
#: bins along L, a and b
LAB_BINS = (8, 16, 16)
#: longest side at which colours are counted
LONGEST = 400

#: attribute → its groups, in the order of the table
GROUPS: Mapping[str, tuple[str, ...]] = {
    "object size": (
        f"small (< {SIZE_BOUNDS[0]:.0%} of the picture)",
        f"medium ({SIZE_BOUNDS[0]:.0%} to {SIZE_BOUNDS[1]:.0%})",
        f"large (≥ {SIZE_BOUNDS[1]:.0%})",
        "no object",
    ),
    "number of objects": ("one", "two", "three or more", "no object"),
    "border contact": ("inside the picture", "touches the border", "no object"),
    "contrast": (
        f"low (χ² < {CONTRAST_BOUNDS[0]:.2f})",
        f"medium ({CONTRAST_BOUNDS[0]:.2f} to {CONTRAST_BOUNDS[1]:.2f})",
        f"high (≥ {CONTRAST_BOUNDS[1]:.2f})",
        "not defined",
    ),
}


@dataclass(frozen=True)
class Attributes:
    """What one picture is like.

    Attributes:
        size: share of the picture that is object, 0 to 1.
        objects: number of connected components that count as objects (`LEAST_OBJECT`); the group "one" also takes
            masks of nothing but specks.
        touches_border: whether an object has a pixel in the outermost rows or columns.
        contrast: chi-square distance of the colours of object and background, 0 to 1; None where the picture is
            all object, has none, or cannot be read.
    """

    size: float
    objects: int
    touches_border: bool
    contrast: float | None

    @property
    def groups(self) -> dict[str, str]:
        """Attribute → the group of `GROUPS` that the picture is in."""
        sizes, numbers, borders, contrasts = GROUPS.values()
        empty = self.size == 0
        chosen = (
            sizes[-1] if empty else sizes[_interval(self.size, SIZE_BOUNDS)],
            numbers[-1] if empty else numbers[min(max(self.objects, 1), 3) - 1],
            borders[-1] if empty else borders[int(self.touches_border)],
            contrasts[-1] if self.contrast is None else contrasts[_interval(self.contrast, CONTRAST_BOUNDS)],
        )
        return dict(zip(GROUPS, chosen, strict=True))


def _interval(value: float, bounds: Sequence[float]) -> int:
    return sum(value >= bound for bound in bounds)


def picture_attributes(mask: Array, picture: Array | None) -> Attributes:
    """Measure a picture.

    Args:
        mask: uint8 (H, W), 0 background to 255 object.
        picture: uint8 RGB (H', W', 3); None where there is none, then contrast is None.
    """
    inside = (mask >= OBJECT_FROM).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    border = (inside[0], inside[-1], inside[:, 0], inside[:, -1])
    return Attributes(
        size=float(inside.mean()),
        objects=int((areas >= LEAST_OBJECT * inside.size).sum()),
        touches_border=any(bool(side.any()) for side in border),
        contrast=None if picture is None else lab_contrast(picture, inside),
    )


def lab_contrast(picture: Array, inside: Array) -> float | None:
    """How unlike in colour object and background are, 0 (the same colours) to 1 (no colour in common).

    The chi-square distance ½ Σ (o − b)² / (o + b) of the joint CIE Lab histograms o of the object and b of the
    background, each with `LAB_BINS` bins and divided by its sum. Pictures above `LONGEST` pixels are shrunk first,
    as finer detail than that holds no other colours, only more noise.

    Args:
        picture: uint8 RGB (H, W, 3).
        inside: (H', W'), non-zero where the object is; fitted to the picture where its size differs.

    Returns:
        None where object or background has no pixel.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if scale < 1:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if inside.shape != picture.shape[:2]:
        inside = cv2.resize(inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    lab = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2LAB)  # 8 bits: L is 0..255, a and b + 128
    weight = np.array(LAB_BINS, np.int64)
    length = int(np.prod(weight))
    codes = length * (inside > 0)
    for channel, number in enumerate(weight):
        stride = np.prod(weight[channel + 1 :], dtype=np.int64)
        codes += (np.arange(256) * number // 256 * stride)[lab[..., channel]]
    background, object_ = np.bincount(codes.ravel(), minlength=2 * length).reshape(2, length)
    if not object_.sum() or not background.sum():
        return None
    o, b = object_ / object_.sum(), background / background.sum()
    seen = (o + b) > 0
    return float(0.5 * ((o - b)[seen] ** 2 / (o + b)[seen]).sum())


def _read_attributes(pair: Pair) -> Attributes | None:
    """None where the mask cannot be read."""
    try:
        mask = read_mask(pair.mask)
    except UserError:
        return None
    try:
        picture: Array | None = read_image(pair.image) if pair.image else None
    except UserError:
        picture = None
    return picture_attributes(mask, picture)


def _attributes(pairs: Sequence[Pair], cache: ScoreCache | None) -> dict[str, Attributes]:
    """Name → what the picture is like, of those with a readable mask."""
    keys: dict[str, bytes] = {}
    found: dict[str, Attributes] = {}
    if cache is not None:
        cache.ask_for([file for pair in pairs for file in (pair.mask, pair.image) if file])
        for pair in pairs:
            with contextlib.suppress(OSError):
                picture = cache.hash_of(pair.image) if pair.image else b""
                keys[pair.name] = content_hash(b"attributes" + cache.hash_of(pair.mask) + picture + code_version())
        for name, outcome in zip(keys, cache.get_all(list(keys.values())), strict=True):
            if outcome is not None:
                found[name] = Attributes(**outcome.record)
    rest = [pair for pair in pairs if pair.name not in found]
    read = mapped(_read_attributes, rest, cpu_count())  # decoding and OpenCV release the interpreter
    new = {pair.name: one for pair, one in read if one is not None}
    if cache is not None:
        cache.put((keys[name], Outcome(asdict(one))) for name, one in new.items() if name in keys)
    return found | new


def attribute_table(
    entries: Sequence[Entry], pairs_by_dataset: Mapping[str, Sequence[Pair]], cache: ScoreCache | None = None
) -> list[dict[str, str | int | float]]:
    """Every method's results, split by what the pictures are like.

    Groups have fixed bounds, so that they mean the same in every data set and report: see `GROUPS`,
    `SIZE_BOUNDS`, `CONTRAST_BOUNDS`, `LEAST_OBJECT` and `lab_contrast`.

    Args:
        entries: the methods' results.
        pairs_by_dataset: the pictures and masks of each data set.
        cache: of what pictures are like, by their content.

    Returns:
        rows ``{method, dataset, attribute, group, images, mae, mean_f, weighted_f, s_measure, e_measure}``, methods
        of a group next to each other. ``images`` is how many of the group's pictures the method has scores of: a
        method with missing maps shows fewer. A score is the mean over pictures, those left out where it is not
        defined (NaN where it is for none). Groups without a picture are left out, and so are pictures without a
        readable mask.
    """
    rows: list[dict[str, str | int | float]] = []
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        own = [entry for entry in entries if entry.dataset == dataset]
        scored = {str(row["name"]) for entry in own for row in entry.pictures}
        pairs = [pair for pair in pairs_by_dataset.get(dataset, ()) if pair.name in scored]
        groups = {name: tuple(found.groups.values()) for name, found in _attributes(pairs, cache).items()}
        for place, (attribute, names) in enumerate(GROUPS.items()):
            if attribute == "contrast" and not any(pair.image for pair in pairs):
                continue  # masks alone: there are no colours
            for group in names:
                members = {name for name, one in groups.items() if one[place] == group}
                rows += [
                    {"method": entry.method, "dataset": dataset, "attribute": attribute, "group": group, **means}
                    for entry in own
                    if (means := means_over(entry, members))["images"]
                ]
    return rows


def means_over(entry: Entry, members: set[str]) -> dict[str, int | float]:
    """How many of some pictures a method has scores of, and the means of :data:`SCORES` over them."""
    pictures = [row for row in entry.pictures if str(row["name"]) in members]
    means: dict[str, int | float] = {"images": len(pictures)}
    for key in SCORES:
        values = [float(row[key]) for row in pictures if row.get(key) is not None and not math.isnan(float(row[key]))]
        means[key] = math.fsum(values) / len(values) if values else math.nan
    return means
