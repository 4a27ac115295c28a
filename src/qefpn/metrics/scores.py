"""Every score of every picture, from one pass over the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qefpn.metrics.device import DeviceBatch, device_batch, device_histogram
from qefpn.metrics.device_weighted_f import device_weighted_f
from qefpn.metrics.exact import LIMBS, mean, split
from qefpn.metrics.histogram import Float, JointHistogram, of_counts
from qefpn.metrics.histogram_scores import f_measure
from qefpn.metrics.inputs import Picture, check_names, is_single, to_pairs
from qefpn.metrics.kernels import kernels
from qefpn.metrics.protocol import F3NET, Protocol, get_protocol

SCORES = ("mae", "mean_f", "weighted_f", "s_measure", "e_measure", "binary_ratio")
"""The scores a picture whose mean over a set is the set's figure, and which may be NaN for a picture."""

CURVES = ("precision", "recall", "f_curve", "e_curve")
"""The curves a picture, of 256 values; index 0 is the threshold 255."""


@dataclass(frozen=True)
class Measured:
    """Scores and curves of a batch of B pictures.

    Args:
        protocol: the protocol they follow.
        values: by the names of :data:`SCORES` (B,) and of :data:`CURVES` (B, 256), float64.
    """

    protocol: Protocol
    values: Mapping[str, Float]

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def records(self, names: Sequence[str] | None = None, curves: bool = False) -> list[dict[str, Any]]:
        """One record a picture, of plain Python values. See :func:`saliency_scores`."""
        records = []
        for i in range(len(self)):
            record: dict[str, Any] = {} if names is None else {"name": names[i]}
            record.update({name: float(self.values[name][i]) for name in SCORES})
            f_curve, e_curve = self.values["f_curve"][i], self.values["e_curve"][i]
            record["max_f"], record["mean_curve_f"] = float(f_curve.max()), float(f_curve.mean())
            record["max_e"], record["mean_e"] = float(e_curve.max()), float(e_curve.mean())
            if curves:
                record.update({name: self.values[name][i].tolist() for name in CURVES})
            records.append(record)
        return records


Pictures = Sequence[Picture] | DeviceBatch

SCORERS: Mapping[str, tuple[str, ...]] = {
    **{name: (name,) for name in SCORES},
    "curves": ("precision", "recall", "f_curve"),
    "e_curve": ("e_curve",),
}
"""What can be asked for, by name, and the entries of :attr:`Measured.values` that it gives."""


def joint_histogram(pictures: Sequence[Picture], protocol: Protocol) -> JointHistogram:
    """Read the pixels of B pictures, of any sizes, into one :class:`JointHistogram`."""
    batch, count = len(pictures), kernels().count
    counts = np.empty((batch, 2, 4, 256), np.int64)
    sizes = np.array([picture.mask.shape for picture in pictures], np.int64).reshape(batch, 2)
    split = np.empty((batch, 2), np.int64)
    for i, picture in enumerate(pictures):
        split[i] = count(picture.saliency, picture.mask, protocol.matlab_centroid, counts[i])
    blank = np.array([picture.blank for picture in pictures], np.bool_)
    return of_counts(counts, sizes, split, blank, lambda i: pictures[i].saliency)


def weighted_scores(histogram: JointHistogram, pictures: Pictures) -> Float:
    """(B,) weighted F-measure; 0 for a blank picture."""
    if isinstance(pictures, DeviceBatch):
        return device_weighted_f(pictures, histogram)
    weighted_f = kernels().weighted_f
    scores = [
        0.0 if picture.blank else weighted_f(picture.saliency, picture.mask, levels)
        for picture, levels in zip(pictures, histogram.levels, strict=True)
    ]
    return np.array(scores, np.float64)


def measure(
    pred: Any, target: Any, protocol: str | Protocol = F3NET, scorers: Iterable[str] = tuple(SCORERS)
) -> Measured:
    """Measure a batch of maps against their masks.

    Tensors of one size that lie on a CUDA device are measured there, with the same result to 1e-12 (weighted F 1e-10).

    Args:
        pred: maps: (H, W), (B, H, W) or (B, 1, H, W), torch or NumPy, or a list of (H, W) of mixed sizes;
            uint8 0-255 or float 0-1. A map of another size than its mask is resized to it, bicubically.
        target: masks, the same.
        protocol: "f3net" or "pysod".
        scorers: which of :data:`SCORERS` to run.

    Raises:
        ValueError: unknown protocol, shapes that do not fit, floats outside [0, 1], NaN.
        TypeError: elements that are neither uint8, bool nor float.
    """
    protocol = get_protocol(protocol)
    on_device = device_batch(pred, target, protocol)
    pictures: Pictures
    if on_device is None:
        pictures = to_pairs(pred, target, protocol)
        histogram = joint_histogram(pictures, protocol)
    else:
        pictures = on_device
        histogram = device_histogram(on_device, protocol)
    entries = [entry for name in scorers for entry in SCORERS[name]]
    values: dict[str, Float] = {}
    if entries != ["weighted_f"]:
        values.update(kernels().scores(histogram, protocol))
    if "weighted_f" in entries:
        values["weighted_f"] = weighted_scores(histogram, pictures)
    values = {entry: values[entry] for entry in entries}
    if histogram.blank.any():
        values = {name: np.where(_like(histogram.blank, v), 0.0, v) for name, v in values.items()}
    return Measured(protocol, values)


def _like(blank: np.ndarray, values: Float) -> np.ndarray:
    return blank if values.ndim == 1 else blank[:, None]


def saliency_scores(
    pred: Any,
    target: Any,
    protocol: str | Protocol = "f3net",
    names: Sequence[str] | None = None,
    *,
    curves: bool = False,
) -> Any:
    """Scores a picture: what ``scores.csv`` holds.

    Args:
        pred: maps, as :func:`measure` takes them.
        target: masks, the same.
        protocol: "f3net" or "pysod".
        names: one name a picture; it becomes the entry ``name``.
        curves: add the picture's ``precision``, ``recall``, ``f_curve`` and ``e_curve``, lists of 256 values,
            index 0 the threshold 255.

    Returns:
        for (H, W) input one record, else a list of one record a picture: a dict of floats ``mae``, ``mean_f``
        (adaptive), ``weighted_f``, ``s_measure``, ``e_measure`` (adaptive), ``binary_ratio`` (percent),
        ``max_f``, ``mean_curve_f``, ``max_e`` and ``mean_e``, the last four from the picture's own curves. A
        score that is not defined is NaN. :func:`combine` turns records into the figures of a set.

    Raises:
        ValueError: as :func:`measure`, or another number of names than pictures.
        TypeError: as :func:`measure`.

    >>> mask = np.zeros((8, 8), np.uint8)
    >>> mask[2:6, 2:6] = 255
    >>> record = saliency_scores(mask, mask, protocol="pysod")
    >>> record["mae"], record["max_f"], round(record["s_measure"], 6)
    (0.0, 1.0, 1.0)
    """
    measured = measure(pred, target, protocol)
    checked = check_names(names, len(measured))
    records = measured.records(checked, curves)
    return records[0] if is_single(pred) and is_single(target) else records


def f_curve_of_means(precision: Any, recall: Any) -> Any:
    """F-measure at each threshold of a set's mean precision and recall (f3net).

    ``1.3 P R / (0.3 P + R)``, 0 where ``P R`` is 0.
    """
    return f_measure(np.asarray(precision, np.float64), np.asarray(recall, np.float64))


def combine(records: Iterable[Mapping[str, Any]], protocol: str | Protocol = "f3net") -> dict[str, Any]:
    """The figures of a set from the records of its pictures, without the pictures.

    Args:
        records: of :func:`saliency_scores`, or rows of ``scores.csv`` turned into floats.
        protocol: the protocol of the records.

    Returns:
        floats as ``SaliencyMetrics.compute`` gives them: means that leave NaN out, ``images`` and
        ``undefined`` (scores left out). ``max_f``, ``mean_curve_f``, ``max_e``, ``mean_e`` and the curves
        need the pictures' curves, and are there only where every record was made with ``curves=True``.

    >>> mask = np.zeros((2, 8, 8), np.uint8)
    >>> mask[:, 2:6, 2:6] = 255
    >>> figures = combine(saliency_scores(mask, mask))
    >>> figures["mean_f"], figures["images"]
    (1.0, 2)
    """
    protocol = get_protocol(protocol)
    sums, curve_sums = np.zeros((LIMBS, len(SCORES)), np.int64), np.zeros((LIMBS, len(CURVES), 256), np.int64)
    defined = np.zeros(len(SCORES), np.int64)
    images, with_curves = 0, True
    for record in records:  # one at a time: the curves of 20,000 pictures are 160 MB
        images += 1
        scores = np.array([record[name] for name in SCORES], np.float64)
        there = ~np.isnan(scores)
        defined += there
        sums += split(np.where(there, scores, 0.0))
        with_curves = with_curves and all(name in record for name in CURVES)
        if with_curves:
            curve_sums += split(np.array([record[name] for name in CURVES], np.float64))
    figures: dict[str, Any] = dict(zip(SCORES, mean(sums, defined).tolist(), strict=True))
    undefined = len(SCORES) * images - int(defined.sum())
    if images and with_curves:
        figures.update(curve_figures(dict(zip(CURVES, mean(curve_sums, images), strict=True)), protocol))
    return {**figures, "images": images, "undefined": undefined}


def curve_figures(means: Mapping[str, Float], protocol: Protocol) -> dict[str, Any]:
    """What a set's mean curves say: ``max_f``, ``mean_curve_f``, ``max_e``, ``mean_e`` and three curves.

    Args:
        means: by the names of :data:`CURVES`, (256,) each, the mean over the pictures.
        protocol: f3net takes the F curve of the mean precision and recall, pysod the mean F curve.
    """
    f_curve, e_curve = means["f_curve"], means["e_curve"]
    if protocol.curve_of_means:
        f_curve = f_curve_of_means(means["precision"], means["recall"])
    return {
        "max_f": float(f_curve.max()),
        "mean_curve_f": float(f_curve.mean()),
        "max_e": float(e_curve.max()),
        "mean_e": float(e_curve.mean()),
        "precision": means["precision"],
        "recall": means["recall"],
        "f_curve": f_curve,
    }
