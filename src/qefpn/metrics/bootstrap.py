"""How sure a mean is: percentile bootstrap intervals over the pictures of a set, alone and between two methods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qefpn.errors import UserError
from qefpn.metrics.protocol import Float

Records = Iterable[Mapping[str, Any]]

_CHUNK = 1 << 20  # drawn pictures held at once: 8 MB


@dataclass(frozen=True)
class Interval:
    """The difference of two methods' means over the pictures that both have.

    Args:
        difference: mean of the first minus mean of the second.
        low: lower end of the interval.
        high: upper end.
        p_value: two-sided, of a difference that is 0; at least ``2 / (resamples + 1)``.
        pictures: pairs in it.
        undefined: pairs left out because a score of theirs is NaN.
        unpaired: pictures of one method that the other lacks.
    """

    difference: float
    low: float
    high: float
    p_value: float
    pictures: int
    undefined: int = 0
    unpaired: int = 0


@dataclass(frozen=True)
class MeanInterval:
    """One method's mean over a set.

    Args:
        mean: over the pictures that have the score.
        low: lower end of the interval.
        high: upper end.
        pictures: pictures in it.
        undefined: pictures left out because their score is NaN.
    """

    mean: float
    low: float
    high: float
    pictures: int
    undefined: int = 0


def paired_bootstrap(
    records_a: Records,
    records_b: Records,
    metric: str,
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of ``mean(a) - mean(b)``, drawing pictures and with each its pair of scores.

    Args:
        records_a: records of ``saliency_scores(..., names=...)``, or rows of ``scores.csv``; paired by ``name``.
        records_b: the other method's.
        metric: an entry of the records. ``max_f``, ``mean_curve_f``, ``max_e`` and ``mean_e`` of a record are of the
            picture's own curve, and their means are not the set's figures of those names.
        resamples: how many sets to draw.
        confidence: share of the resamples inside the interval.
        seed: of the draw. The pairs are put in the order of their names first: equal records give equal intervals.

    Returns:
        the interval, with the number of pairs, of pairs left out for a NaN, and of pictures without a pair.

    Raises:
        UserError: no pair with a score, a name twice, a record without name or metric, or a bad option.

    >>> a = [{"name": str(i), "mae": 0.01 * i} for i in range(50)]
    >>> b = [{"name": str(i), "mae": 0.01 * i + 0.02} for i in range(50)]
    >>> interval = paired_bootstrap(a, b, "mae")
    >>> round(interval.difference, 6), round(interval.low, 6), interval.pictures, interval.p_value < 0.001
    (-0.02, -0.02, 50, True)
    """
    first, second = _by_name(records_a, metric), _by_name(records_b, metric)
    common = sorted(first.keys() & second.keys())
    differences = np.array([first[name] - second[name] for name in common], np.float64)
    defined = differences[~np.isnan(differences)]
    if len(defined) == 0:
        raise UserError(f"the two methods have no picture in common whose {metric!r} is a number")
    means = _resampled_means(defined, resamples, seed)
    low, high = _ends(means, confidence)
    # the sample itself counts as one more draw, so that no p-value is 0
    tail = 1 + min(int(np.count_nonzero(means <= 0)), int(np.count_nonzero(means >= 0)))
    return Interval(
        difference=math.fsum(defined) / len(defined),
        low=low,
        high=high,
        p_value=min(1.0, 2 * tail / (resamples + 1)),
        pictures=len(defined),
        undefined=len(differences) - len(defined),
        unpaired=len(first.keys() ^ second.keys()),
    )


def bootstrap_interval(
    records: Records, metric: str, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> MeanInterval:
    """Percentile bootstrap interval of one method's mean.

    Args:
        records: records of ``saliency_scores``, or rows of ``scores.csv``; names are not needed.
        metric: an entry of the records, as for :func:`paired_bootstrap`.
        resamples: how many sets to draw.
        confidence: share of the resamples inside the interval.
        seed: of the draw.

    Raises:
        UserError: no picture with a score, a record without the metric, or a bad option.

    >>> interval = bootstrap_interval([{"mae": 0.1}, {"mae": 0.3}, {"mae": float("nan")}], "mae")
    >>> interval.mean, interval.low, interval.high, interval.pictures, interval.undefined
    (0.2, 0.1, 0.3, 2, 1)
    """
    scores = np.array([_score(record, metric) for record in records], np.float64)
    defined = scores[~np.isnan(scores)]
    if len(defined) == 0:
        raise UserError(f"there is no picture whose {metric!r} is a number")
    low, high = _ends(_resampled_means(defined, resamples, seed), confidence)
    mean = math.fsum(defined) / len(defined)
    return MeanInterval(mean, low, high, pictures=len(defined), undefined=len(scores) - len(defined))


def _score(record: Mapping[str, Any], metric: str) -> float:
    try:
        return float(record[metric])
    except KeyError:
        names = ", ".join(key for key, value in record.items() if key != "name" and np.ndim(value) == 0)
        raise UserError(f"a record has no score {metric!r}; it has: {names}") from None
    except (TypeError, ValueError):
        raise UserError(f"{metric!r} is not a number: {str(record[metric])[:40]!r}") from None


def _by_name(records: Records, metric: str) -> dict[str, float]:
    scores: dict[str, float] = {}
    for record in records:
        if "name" not in record:
            raise UserError("a record has no 'name'; hand names to saliency_scores, so that pictures can be paired")
        name = str(record["name"])
        if name in scores:
            raise UserError(f"the picture {name!r} has two records")
        scores[name] = _score(record, metric)
    return scores


def _resampled_means(values: Float, resamples: int, seed: int) -> Float:
    """(resamples,) means of as many draws, with replacement, of all the values; in chunks of bounded memory."""
    if resamples < 1:
        raise UserError(f"resamples must be at least 1, not {resamples}")
    rng = np.random.default_rng(seed)
    number = len(values)
    chunk = max(1, _CHUNK // number)
    means = np.empty(resamples, np.float64)
    for first in range(0, resamples, chunk):
        part = means[first : first + chunk]
        drawn = rng.integers(0, number, (len(part), number), dtype=np.int32)
        np.mean(values[drawn], axis=1, out=part)
    return means


def _ends(means: Float, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, not {confidence}")
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
