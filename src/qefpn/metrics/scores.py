"""Every score of every picture, from one pass over the pixels, and the figures of a set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from qefpn.metrics.figures import COUNTED, Figures, choose, with_aliases
from qefpn.metrics.inputs import Picture, check_names, is_single, to_pairs
from qefpn.metrics.protocol import F3NET, Float, Protocol, get_protocol

BLANK_MAP = "blank_map"
"""The entry of a record, 1 or 0, in protocols in which a blank map does not count in every mean."""


@dataclass(frozen=True)
class Measured:
    """Scores and curves of a batch of B pictures.

    Args:
        protocol: the protocol they follow.
        figures: what was measured.
        values: by the names of ``figures.scores`` (B,) and of ``figures.curves`` (B, 256), float64.
        blank_maps: (B,) maps that are all zero.
    """

    protocol: Protocol
    figures: Figures
    values: Mapping[str, Float]
    blank_maps: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.blank_maps)

    def records(self, names: Sequence[str] | None = None, curves: bool = False) -> list[dict[str, Any]]:
        """One record a picture, of plain Python values. See :func:`saliency_scores`."""
        records = []
        for i in range(len(self)):
            record: dict[str, Any] = {} if names is None else {"name": names[i]}
            record.update({name: float(self.values[name][i]) for name in self.figures.scores})
            record.update(self.figures.of_curves({name: self.values[name][i] for name in self.figures.curves}))
            record = with_aliases(record)
            if not self.protocol.blank_map_counts:
                record[BLANK_MAP] = float(self.blank_maps[i])
            if curves:
                record.update({name: self.values[name][i].tolist() for name in self.figures.curves})
            records.append(record)
        return records


def measure(
    pred: Any, target: Any, protocol: str | Protocol = F3NET, metrics: str | Sequence[str] | Figures = "sod"
) -> Measured:
    """Measure a batch of maps against their masks.

    Args:
        pred: maps: (H, W), (B, H, W) or (B, 1, H, W), torch or NumPy, or a list of (H, W) of mixed sizes; 8-bit,
            16-bit, bool or float 0-1, as ``inputs.to_uint8`` takes them. A map of another size than its mask is resized
            to it.
        target: masks, the same.
        protocol: "f3net", "pysod" or "saleval".
        metrics: what to measure beside the figures that are always there, as ``figures.choose`` takes it.

    Raises:
        ValueError: unknown protocol or metric, shapes that do not fit, floats outside [0, 1], NaN.
        TypeError: elements that are no numbers.
    """
    protocol, figures = get_protocol(protocol), choose(metrics)
    pictures = to_pairs(pred, target, protocol, figures.quantize)
    parts = [[i for i, one in enumerate(pictures) if one.values is None]]  # together; each of the others alone
    parts += [[i] for i, one in enumerate(pictures) if one.values is not None]
    found = [_measured([pictures[i] for i in part], protocol, figures) for part in parts if part or len(parts) == 1]
    if len(found) == 1:
        return found[0]
    order = np.argsort([i for part in parts for i in part])
    values = {name: np.concatenate([one.values[name] for one in found])[order] for name in found[0].values}
    return Measured(protocol, figures, values, np.concatenate([one.blank_maps for one in found])[order])


def _measured(pictures: Sequence[Picture], protocol: Protocol, figures: Figures) -> Measured:
    from qefpn.metrics.histogram import joint_histogram  # numba, which takes time to import, at the first measurement
    from qefpn.metrics.histogram_scores import histogram_scores
    from qefpn.metrics.weighted_f import weighted_scores

    histogram = joint_histogram(pictures, protocol)
    scored = histogram_scores(histogram, protocol)
    values = {**scored.values, "weighted_f": weighted_scores(histogram, pictures, protocol)}
    if figures.counted:
        from qefpn.metrics.counted import counted_values

        values |= counted_values(figures.counted, scored.selected, histogram.positives, histogram.pixels)
    if figures.passes:
        from qefpn.metrics.passes import pass_values

        values |= pass_values(figures, pictures, histogram)
    if histogram.blank.any():
        for name, value in values.items():
            values[name] = np.where(histogram.blank.reshape(-1, *[1] * (value.ndim - 1)), 0.0, value)
    return Measured(protocol, figures, values, histogram.ends[:, 1] == 0)


def compile_all() -> None:
    """Have every compiled function ready, and its machine code where other processes find it."""
    blank = np.zeros((1, 1), np.uint8)
    measure(blank, blank, metrics=COUNTED[:1])


def saliency_scores(
    pred: Any,
    target: Any,
    protocol: str | Protocol = "f3net",
    names: Sequence[str] | None = None,
    *,
    curves: bool = False,
    metrics: str | Sequence[str] | Figures = "sod",
    quantize: bool = True,
) -> Any:
    """Scores a picture: what ``scores.csv`` holds.

    Args:
        pred: maps, as :func:`measure` takes them.
        target: masks, the same.
        protocol: "f3net", "pysod" or "saleval".
        names: one name a picture; it becomes the entry ``name``.
        curves: add the picture's ``precision``, ``recall``, ``f_curve`` and ``e_curve`` (and those of ``metrics``),
            lists of 256 values, index 0 the threshold 255.
        metrics: what to measure beside, as ``figures.choose`` takes it.
        quantize: whether maps of floats or of 16 bits become 8-bit ones, as a saved PNG would hold them; else they are
            measured as they are, which takes 15 times as long.

    Returns:
        for (H, W) input one record, else a list of one record a picture: a dict of floats ``mae``, ``mean_f``
        (adaptive), ``weighted_f``, ``s_measure``, ``e_measure`` (adaptive), ``binary_ratio`` (percent), ``max_f``,
        ``mean_curve_f``, ``max_e`` and ``mean_e``, the last four from the picture's own curves; the F and E among them
        once more as ``f_adaptive``, ``f_mean``, ``f_max``, ``e_adaptive``, ``e_mean``, ``e_max``; and those of
        ``metrics``. A score that is not defined is NaN. :func:`combine` turns records into the figures of a set.

    Raises:
        ValueError: as :func:`measure`, or another number of names than pictures.
        TypeError: as :func:`measure`.

    >>> mask = np.zeros((8, 8), np.uint8)
    >>> mask[2:6, 2:6] = 255
    >>> record = saliency_scores(mask, mask, protocol="pysod", metrics=["iou"])
    >>> record["mae"], record["max_f"], round(record["s_measure"], 6), record["iou_binary"]
    (0.0, 1.0, 1.0, 1.0)
    """
    measured = measure(pred, target, protocol, choose(metrics, quantize))
    checked = check_names(names, len(measured))
    records = measured.records(checked, curves)
    return records[0] if is_single(pred) and is_single(target) else records


def combine(
    records: Iterable[Mapping[str, Any]],
    protocol: str | Protocol = "f3net",
    metrics: str | Sequence[str] | Figures = "sod",
) -> dict[str, Any]:
    """The figures of a set from the records of its pictures, without the pictures.

    Args:
        records: of :func:`saliency_scores`, or rows of ``scores.csv`` turned into floats.
        protocol: the protocol of the records.
        metrics: of the records.

    Returns:
        floats as ``SaliencyMetrics.compute`` gives them: means that leave NaN out, ``images`` and ``undefined`` (scores
        left out). What comes from curves needs the pictures' curves, and is there only where every record was made with
        ``curves=True``.

    >>> mask = np.zeros((2, 8, 8), np.uint8)
    >>> mask[:, 2:6, 2:6] = 255
    >>> figures = combine(saliency_scores(mask, mask))
    >>> figures["mean_f"], figures["images"]
    (1.0, 2)
    """
    from qefpn.metrics.sums import Sums

    figures = choose(metrics)
    sums, with_curves = Sums(get_protocol(protocol), figures), True
    for some in _batched(records):
        with_curves = with_curves and all(name in record for record in some for name in figures.curves)
        names = (*figures.scores, *(figures.curves if with_curves else ()))
        values = {name: [record[name] for record in some] for name in names}
        sums.add(values, [float(record.get(BLANK_MAP, 0)) for record in some], curves=with_curves)
    return sums.compute(curves=with_curves and bool(sums.images[0]))


def _batched(records: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Some at a time: the curves of 20,000 pictures are 160 MB."""
    rest = iter(records)
    while some := list(islice(rest, 64)):
        yield some
