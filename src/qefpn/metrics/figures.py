"""Which figures there are, by name, and those that thresholds give: IoU, Dice, F1, and their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np

from qefpn.errors import UserError
from qefpn.metrics.protocol import BETA2, Float
from qefpn.text import did_you_mean

BASE = ("mae", "mean_f", "weighted_f", "s_measure", "e_measure", "binary_ratio")
"""The scores a picture that are always there."""

CURVES = ("precision", "recall", "f_curve", "e_curve")
"""The curves a picture that are always there, of 256 values; index 0 is the threshold 255."""

ALIASES = {
    "f_adaptive": "mean_f", "f_mean": "mean_curve_f", "f_max": "max_f",
    "e_adaptive": "e_measure", "e_mean": "mean_e", "e_max": "max_e",
}  # fmt: skip
"""Names that say which mean, beside the older names of the same figures."""

OF_CURVES = ("max_f", "mean_curve_f", "max_e", "mean_e")

PASSES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "msiou": (("msiou_adaptive", "msiou_binary"), ()),
    "hce": (("hce",), ()),
    "biou": (("biou",), ()),
    "mba": (("mba",), ()),
    "si_mae": (("si_mae",), ()),
    "si_f": (("si_f_adaptive",), ("si_f_curve",)),
    "context_measure": (("context_measure",), ()),
}
"""What takes a pass of its own, with its scores and its curves; computed in ``passes``."""


COUNTED = ("iou", "dice", "f1", "specificity", "fpr", "ber", "kappa", "overall_accuracy")
"""What the numbers of true and false positives and negatives give; computed in ``counted``."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "sod": (),
    "cod": ("iou", "dice"),
    "dis": ("hce", "biou", "mba"),
    "all": (*COUNTED, *PASSES),
}
"""What a field's papers print beside the figures that are always there."""


@dataclass(frozen=True)
class Figures:
    """What is measured beside :data:`BASE` and :data:`CURVES`, and of what.

    Args:
        counted: names of :data:`COUNTED`.
        passes: names of :data:`PASSES`.
        quantize: whether maps of floats or of 16 bits become 8-bit ones, as a saved PNG would hold them; else they are
            measured as they are.
    """

    counted: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()
    quantize: bool = True

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Names of the scores a picture; their means over a set are the set's figures."""
        counted = (f"{name}_{kind}" for name in self.counted for kind in ("adaptive", "binary"))
        return (*BASE, *counted, *(score for name in self.passes for score in PASSES[name][0]))

    @cached_property
    def curves(self) -> tuple[str, ...]:
        """Names of the curves a picture."""
        counted = (f"{name}_curve" for name in self.counted)
        return (*CURVES, *counted, *(curve for name in self.passes for curve in PASSES[name][1]))

    def of_curves(self, curves: Mapping[str, Float]) -> dict[str, float]:
        """The largest and the mean value of curves, by the figures' names."""
        found = {}
        for name in self.curves[2:]:
            stem = name.removesuffix("_curve")
            mean_name, max_name = ("mean_curve_f" if stem == "f" else f"mean_{stem}"), f"max_{stem}"
            if stem not in ("f", "e"):
                mean_name, max_name = f"{stem}_mean", f"{stem}_max"
            found[max_name], found[mean_name] = float(curves[name].max()), float(curves[name].mean())
        return found


def f_curve_of_means(precision: Any, recall: Any) -> Float:
    """F-measure at each threshold of a set's mean precision and recall.

    ``1.3 P R / (0.3 P + R)``, 0 where ``P R`` is 0.
    """
    precision, recall = np.asarray(precision, np.float64), np.asarray(recall, np.float64)
    numerator = (1 + BETA2) * precision * recall
    return numerator / np.where(numerator == 0, 1, BETA2 * precision + recall)


def with_aliases(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures, and those of :data:`ALIASES` that are among them under their second names."""
    return figures | {name: figures[old] for name, old in ALIASES.items() if old in figures}


def known_names() -> list[str]:
    """Everything that ``metrics=`` takes: groups, families and single figures."""
    everything = Figures(COUNTED, tuple(PASSES))
    of_curves = (f"{name.removesuffix('_curve')}_{kind}" for name in everything.curves[4:] for kind in ("mean", "max"))
    return list(
        dict.fromkeys(
            (*GROUPS, *COUNTED, *PASSES, *everything.scores, *of_curves, *OF_CURVES, *ALIASES, *everything.curves)
        )
    )


def choose(metrics: str | Sequence[str] | Figures, quantize: bool = True) -> Figures:
    """What to measure.

    Args:
        metrics: a group ("sod", "cod", "dis", "all"), the name of a figure ("iou", "iou_max", "hce"), or a list of
            them; the figures of "sod" are always there.
        quantize: as :class:`Figures` has it; those that are handed in keep their own.

    Raises:
        UserError: there is no such group or figure, or it needs a package that is not there.

    >>> choose(["iou_max", "hce"])
    Figures(counted=('iou',), passes=('hce',), quantize=True)
    """
    if isinstance(metrics, Figures):
        return metrics
    found = _chosen((metrics,) if isinstance(metrics, str) else tuple(metrics))
    if "hce" in found.passes and find_spec("skimage.morphology") is None:
        raise UserError("hce needs scikit-image: pip install scikit-image, or ask for other metrics")
    return replace(found, quantize=quantize)


@cache
def _chosen(metrics: tuple[str, ...]) -> Figures:
    wanted: set[str] = set()
    for name in metrics:
        if name not in (known := known_names()):
            hint = did_you_mean(name, known, "; did you mean {!r}?")
            raise UserError(f"there is no metric {name!r}{hint}; groups are {', '.join(GROUPS)}; see docs/metrics.md")
        wanted |= set(GROUPS.get(name, ()))
        families = [family for family in (*COUNTED, *PASSES) if name == family or name.startswith(f"{family}_")]
        wanted |= set(families[-1:])
    return Figures(tuple(name for name in COUNTED if name in wanted), tuple(name for name in PASSES if name in wanted))
