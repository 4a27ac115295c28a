"""What the page and the figures that compare methods share: styles, axes, and which pictures are worth a look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qefpn.benchmark.maps import read_map
from qefpn.data.layouts import Pair
from qefpn.data.reading import read_image, read_mask
from qefpn.errors import UserError
from qefpn.metrics import resize_map

if TYPE_CHECKING:
    from qefpn.benchmark.entries import Entry

Array = npt.NDArray[Any]

#: Okabe and Ito's colours, told apart by any colour vision, without the yellow, which no white page shows
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
#: dashes as multiples of the line's width; () is solid. Four beside seven colours: 28 styles before one repeats
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.2, 1.5), (6, 1.8, 1.2, 1.8))

#: what tells methods apart on a picture, first one that the scores have
RANKING = ("weighted_f", "s_measure", "mean_f", "mae")


@dataclass(frozen=True)
class Style:
    """How a method's line is drawn, the same in every chart."""

    colour: str
    dashes: tuple[float, ...]


def method_styles(entries: Iterable[Entry]) -> dict[str, Style]:
    """Method → its style, in order of appearance; colour and dashes change together."""
    methods = dict.fromkeys(entry.method for entry in entries)
    return {
        method: Style(COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)])
        for index, method in enumerate(methods)
    }


def datasets_of(entries: Iterable[Entry]) -> list[str]:
    """Data sets in order of appearance."""
    return list(dict.fromkeys(entry.dataset for entry in entries))


def axis_floor(curves: Iterable[Sequence[float]]) -> float:
    """Where an axis of curves in [0, 1] begins: the tenth below all but their lowest twentieth.

    A few extreme thresholds give figures near zero; beginning there would squeeze what is to be compared.
    """
    values = [value for curve in curves for value in curve if math.isfinite(value)]
    if not values:
        return 0.0
    low = float(np.quantile(values, 0.05))
    return min(0.9, max(0.0, math.floor(low * 10 + 1e-9) / 10))


@dataclass(frozen=True)
class Choice:
    """A picture to look at and why: "differ", "worst", "best" or "between"."""

    name: str
    why: str
    key: str  # the score that ranked it
    spread: float  # best minus worst method
    mean: float  # over methods


def picture_scores(entry: Entry) -> dict[str, Mapping[str, Any]]:
    """Picture name → its row of scores."""
    return {str(row["name"]): row for row in entry.pictures}


def choose_pictures(entries: Sequence[Entry], dataset: str, count: int, why: Sequence[str] = ()) -> list[Choice]:
    """The pictures of a data set that say most about its methods, most telling first.

    In turn one where the methods differ most, one of the worst and one of the best on average, and one at even
    distances between them, without repeats. With one method nothing differs, and that reason is left out.

    Args:
        entries: of any data sets; those of ``dataset`` are used.
        count: pictures wanted.
        why: the reasons to choose by, all by default.
    """
    own = [entry for entry in entries if entry.dataset == dataset]
    tables = [picture_scores(entry) for entry in own]
    for key in RANKING:
        choices = _ranked(tables, key)
        if choices:
            return _in_turn(choices, count, why or ("differ", "worst", "best", "between"))
    return []


def _ranked(tables: Sequence[Mapping[str, Mapping[str, Any]]], key: str) -> list[Choice]:
    """Every picture that all methods that scored anything have a score of; of any, where there is none."""
    scores: dict[str, list[float]] = {}
    for table in tables:
        for name, row in table.items():
            value = row.get(key)
            if value is not None and math.isfinite(float(value)):
                scores.setdefault(name, []).append(float(value))
    most = max(map(len, scores.values()), default=0)
    return [
        Choice(name, "", key, max(values) - min(values), math.fsum(values) / len(values))
        for name, values in scores.items()
        if len(values) == most
    ]


def _in_turn(choices: list[Choice], count: int, why: Sequence[str]) -> list[Choice]:
    sign = -1.0 if choices[0].key == "mae" else 1.0
    by_mean = sorted(choices, key=lambda one: (sign * one.mean, one.name))
    differing = sorted((one for one in choices if one.spread > 0), key=lambda one: (-one.spread, one.name))
    wanted = max(1, min(len(choices), count))
    between = [by_mean[int((index + 0.5) * len(by_mean) / wanted)] for index in range(wanted)]
    orders = {"differ": differing, "worst": by_mean, "best": by_mean[::-1], "between": between}
    queues = [(reason, iter(orders[reason])) for reason in why]
    taken: dict[str, Choice] = {}
    while queues and len(taken) < count:
        for reason, queue in list(queues):
            one = next((one for one in queue if one.name not in taken), None)
            if one is None:
                queues.remove((reason, queue))
            elif len(taken) < count:
                taken[one.name] = Choice(one.name, reason, one.key, one.spread, one.mean)
    return list(taken.values())


@dataclass(frozen=True)
class Looks:
    """The files of one picture as arrays; None where one is missing or cannot be read.

    Attributes:
        picture: uint8 RGB (H, W, 3).
        mask: uint8 (H, W).
        maps: uint8 (H, W) a method, resized to the mask as the scores' maps were.
    """

    picture: Array | None
    mask: Array | None
    maps: list[Array | None]


def read_looks(pair: Pair, entries: Sequence[Entry]) -> Looks:
    """The picture, its mask, and the map of each of ``entries``."""
    mask = _try_read(pair.mask, read_mask)
    maps = []
    for entry in entries:
        path = entry.maps.get(pair.name)
        saliency = None if path is None else _try_read(path, _read_map)
        maps.append(saliency if saliency is None or mask is None else resize_map(saliency, mask.shape))
    return Looks(_try_read(pair.image, read_image) if pair.image else None, mask, maps)


def _try_read(file: Any, read: Callable[[Any], Array]) -> Array | None:
    try:
        return read(file)
    except UserError:
        return None


def _read_map(path: Path) -> Array:
    return read_map(path)[0]
