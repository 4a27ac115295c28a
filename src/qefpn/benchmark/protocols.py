"""The same maps under every protocol: how far the figures part, on which picture most, and which choice does it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from qefpn.benchmark.entries import Entry
from qefpn.benchmark.maps import read_map
from qefpn.data.layouts import Pair
from qefpn.data.reading import read_mask
from qefpn.errors import UserError
from qefpn.metrics import PROTOCOLS, Protocol, saliency_scores
from qefpn.metrics.protocol import choices_apart

FIGURES = ("mae", "mean_f", "weighted_f", "s_measure", "e_measure", "max_f")

CHOICES: Mapping[str, str] = {
    "resizing": "how a map is resized to its mask",
    "levels": "how a map is normalised",
    "constant_map": "what a map of one value counts as",
    "constant_mask": "what a mask of one value counts as",
    "mask_threshold": "from which grey on a mask is foreground",
    "skip_blank": "that a blank map or mask scores 0",
    "blank_map_counts": "whether a blank map counts in the mean",
    "curve_of_means": "whether the F curve of a set is that of its mean precision and recall",
    "bins": "which threshold a level reaches",
    "mae_again": "that MAE stretches the map to [0, 1]",
    "e_again": "that E normalises once more",
    "strict_e": "whether E selects above the threshold or from it on",
    "matlab_centroid": "how S rounds the centroid",
    "clamp_s": "whether a negative S becomes 0",
    "single_distances": "the precision of distances",
    "column_sums": "the order of additions",
}
"""Every field of a protocol in which protocols may differ, in words."""

_SAME = 5e-4
"""Figures nearer than this print alike."""


def partings(
    by_protocol: Mapping[str, Sequence[Entry]], pairs: Mapping[str, Sequence[Pair]], quantize: bool = True
) -> list[dict[str, str | float | int]]:
    """Where protocols part, a row a data set, method, figure and protocol other than the first.

    Args:
        by_protocol: of each protocol's name, its entries, in one order.
        pairs: the pictures and masks of each data set.
        quantize: whether maps were scored as 8-bit ones.

    Returns:
        rows ``{dataset, method, metric, protocol, value, first, difference, pictures, picture, of_picture, why}``:
        the set's figure under a protocol and under the first one, their difference; how many pictures print another
        score, the one that differs most and by how much, and the choice that, made as the other protocol makes it,
        moves its score furthest. For max F of a set, whose scores of pictures do not add up, ``why`` may say so.
    """
    names = list(by_protocol)
    rows: list[dict[str, str | float | int]] = []
    for place, entry in enumerate(by_protocol[names[0]]):
        if not entry.pictures:
            continue
        masks = {pair.name: pair.mask for pair in pairs[entry.dataset]}
        for name in names[1:]:
            other = by_protocol[name][place]
            for metric in FIGURES:
                value, first = other.scores.get(metric, math.nan), entry.scores.get(metric, math.nan)
                apart = _apart(entry, other, metric)
                row: dict[str, str | float | int] = {
                    "dataset": entry.dataset, "method": entry.method, "metric": metric, "protocol": name,
                    "value": value, "first": first, "difference": value - first,
                    "pictures": sum(not abs(gap) < _SAME for gap in apart.values()),
                    "picture": "", "of_picture": 0.0, "why": "",
                }  # fmt: skip
                if apart:
                    picture = max(apart, key=lambda one: _size(apart[one]))
                    row |= {"picture": picture, "of_picture": apart[picture]}
                    if _size(apart[picture]) > 1e-9:
                        files = entry.maps[picture], masks[picture]
                        row["why"] = _why(files, PROTOCOLS[names[0]], PROTOCOLS[name], metric, quantize)
                if metric == "max_f" and PROTOCOLS[name].curve_of_means != PROTOCOLS[names[0]].curve_of_means:
                    row["why"] = CHOICES["curve_of_means"]
                rows.append(row)
    return rows


def _size(gap: float) -> float:
    return math.inf if math.isnan(gap) else abs(gap)


def _apart(first: Entry, second: Entry, metric: str) -> dict[str, float]:
    """Name of a picture → how much higher its score is under the second; NaN where one of the two is not defined."""
    scores = {str(row["name"]): float(row[metric]) for row in first.pictures}
    found = {}
    for row in second.pictures:
        before, after = scores.get(str(row["name"])), float(row[metric])
        if before is not None:
            found[str(row["name"])] = 0.0 if math.isnan(before) and math.isnan(after) else after - before
    return found


def _why(files: tuple[Any, Any], first: Protocol, second: Protocol, metric: str, quantize: bool) -> str:
    """The one choice that moves a picture's score furthest from the first protocol's."""
    try:
        saliency, mask = read_map(files[0], quantize=quantize)[0], read_mask(files[1])
    except (UserError, OSError):
        return ""
    before = float(saliency_scores(saliency, mask, first, quantize=quantize)[metric])
    moved: dict[str, float] = {}
    for choice, (_, value) in choices_apart(first, second).items():
        changed = dataclasses.replace(first, **{choice: value})
        score = float(saliency_scores(saliency, mask, changed, quantize=quantize)[metric])
        if not math.isnan(before) or not math.isnan(score):
            moved[choice] = _size(score - before)
    furthest = max(moved, key=lambda choice: moved[choice], default="")
    return CHOICES[furthest] if furthest and moved[furthest] > 1e-9 else "several choices together"


def sentences(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a data set, method and protocol: the figure that parts most, where and why."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["dataset"], row["protocol"]), []).append(row)
    first = next(iter(PROTOCOLS))
    lines = []
    for (method, dataset, protocol), some in groups.items():
        row = max(some, key=lambda one: _size(one["difference"]))
        where = f"{method} on {dataset}, {protocol} against {first}"
        if _size(row["difference"]) < _SAME:
            lines.append(f"{where}: all figures agree to three decimals")
            continue
        most = f"most on {row['picture']} ({row['of_picture']:+.3f})" if row["picture"] else ""
        why = f", by {row['why']}" if row["why"] else ""
        lines.append(f"{where}: {row['metric']} {row['value']:.4f} for {row['first']:.4f}, {most}{why}")
    return lines
