"""The evaluation protocols as records of the choices in which they differ."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from qefpn.text import did_you_mean

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

EPS = 2.0**-52
"""The distance from 1.0 to the next float64, which the field's formulas add to a denominator."""

BETA2 = 0.3
"""The weight of precision in the F-measure (beta squared)."""

_UNIT = np.arange(256) / 255
_INTEGERS = np.arange(256.0)


@dataclass(frozen=True)
class Protocol:
    """What one evaluation code of the field does where the codes differ.

    Args:
        name: the name under which users ask for it.
        source: whose code it is.
        resizing: of a map to its mask: MATLAB's ``imresize`` (bicubic, antialiased), of the 8-bit map or of it as
            floats, or OpenCV's bilinear.
        levels: how 8-bit values become levels in [0, 1], in which order of operations: ``v * d + (-low * d)`` with
            d = 1 / (high - low), as MATLAB's ``mat2gray``; the quotient of differences of ``v / 255``, as PySODMetrics;
            or the quotient of ``v / 255`` and its maximum.
        constant_map: level of a map of one value v > 0: 1, or v / 255.
        constant_mask: whether a mask of one value v > 0 is all foreground; else its threshold decides.
        mask_threshold: the smallest 8-bit value of the foreground; None: half way between the mask's extremes, as
            ``mat2gray`` in floating point has it.
        skip_blank: a picture whose map or mask is all zero adds 0 to every sum, and still counts.
        blank_map_counts: a map that is all zero counts in the mean of F and of the curves (else it adds its scores to
            their sums, and not to their number).
        curve_of_means: the F curve of a set is computed from its mean precision and recall (else it is the mean of the
            pictures' F curves).
        bins: a pixel's threshold is ``floor(255 * level)``, or the largest k with ``k / 255 <= level``.
        mae_again: MAE stretches the map to [0, 1] once more, and is not defined for a map of one value.
        e_again: the E-measure does, by ``mat2gray``.
        strict_e: the adaptive E-measure binarises with ``>`` (else ``>=``).
        matlab_centroid: the centroid of the S-measure rounds halves away from zero on 1-based coordinates (else halves
            to even on 0-based ones).
        clamp_s: a negative S-measure becomes 0.
        single_distances: the weights of the weighted F-measure are computed in single precision, as MATLAB's ``bwdist``
            gives distances.
        column_sums: sums run over the pixels one after the other, column by column (else as NumPy adds): it decides
            where twice the mean equals a level.
    """

    name: str
    source: str
    resizing: Literal["matlab_bicubic", "matlab_bicubic_floats", "opencv_bilinear"]
    levels: Literal["mat2gray", "quotient", "maximum"]
    constant_map: Literal["one", "value"]
    constant_mask: bool
    mask_threshold: int | None
    skip_blank: bool
    blank_map_counts: bool
    curve_of_means: bool
    bins: Literal["floor", "edges"]
    mae_again: bool
    e_again: bool
    strict_e: bool
    matlab_centroid: bool
    clamp_s: bool
    single_distances: bool
    column_sums: bool


F3NET = Protocol(
    name="f3net",
    source="the MATLAB code published with F3Net (AAAI 2020), behind the paper's Table I",
    resizing="matlab_bicubic",
    levels="mat2gray",
    constant_map="one",
    constant_mask=True,
    mask_threshold=None,
    skip_blank=True,
    blank_map_counts=True,
    curve_of_means=True,
    bins="floor",
    mae_again=False,
    e_again=True,
    strict_e=True,
    matlab_centroid=True,
    clamp_s=False,
    single_distances=True,
    column_sums=True,
)

PYSOD = Protocol(
    name="pysod",
    source="PySODMetrics 1.6 on maps resized as PySODEvalToolkit does",
    resizing="opencv_bilinear",
    levels="quotient",
    constant_map="value",
    constant_mask=False,
    mask_threshold=129,
    skip_blank=False,
    blank_map_counts=True,
    curve_of_means=False,
    bins="floor",
    mae_again=False,
    e_again=False,
    strict_e=False,
    matlab_centroid=False,
    clamp_s=True,
    single_distances=False,
    column_sums=False,
)

SALEVAL = Protocol(
    name="saleval",
    source="the MATLAB toolbox sal_eval_toolbox behind many tables before 2020 (E and weighted F as its fork has them)",
    resizing="matlab_bicubic_floats",
    levels="maximum",
    constant_map="one",
    constant_mask=False,
    mask_threshold=26,
    skip_blank=False,
    blank_map_counts=False,
    curve_of_means=True,
    bins="edges",
    mae_again=True,
    e_again=False,
    strict_e=False,
    matlab_centroid=True,
    clamp_s=True,
    single_distances=True,
    column_sums=True,
)

PROTOCOLS = {protocol.name: protocol for protocol in (F3NET, PYSOD, SALEVAL)}


def get_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of that name (or the record itself).

    Raises:
        ValueError: there is no such protocol.

    >>> get_protocol("pysod").clamp_s
    True
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol in PROTOCOLS:
        return PROTOCOLS[protocol]
    hint = did_you_mean(protocol, PROTOCOLS, " (did you mean {!r}?)")
    raise ValueError(f"unknown protocol {protocol!r}{hint}; there are: {', '.join(sorted(PROTOCOLS))}")


def choices_apart(first: Protocol, second: Protocol) -> dict[str, tuple[Any, Any]]:
    """The choices, by field, in which two protocols differ, name and source aside.

    >>> choices_apart(F3NET, PYSOD)["strict_e"]
    (True, False)
    """
    pairs = {field.name: (getattr(first, field.name), getattr(second, field.name)) for field in fields(Protocol)}
    return {name: pair for name, pair in pairs.items() if name not in ("name", "source") and pair[0] != pair[1]}


def levels_of(low: float, high: float, protocol: Protocol, values: Float | None = None) -> Float:
    """(256,) the level in [0, 1] of each 8-bit value, of a map whose extremes are ``low`` and ``high``; (K,) those of
    ``values`` of a map that is not of 8 bits.

    The operations come in the protocol's order, so that every level is its to the last bit. Values outside the
    extremes, which no pixel has, may have any level.

    >>> levels_of(10, 20, PYSOD)[[10, 15, 20]].tolist()
    [0.0, 0.5, 1.0]
    """
    whole, unit = (_INTEGERS, _UNIT) if values is None else (values, values)
    if low == high:
        return (unit > 0).astype(np.float64) if protocol.constant_map == "one" else unit
    least, most = (_UNIT[int(low)], _UNIT[int(high)]) if values is None else (low, high)
    if protocol.levels == "maximum":
        return unit / most
    if protocol.levels == "quotient":
        return (unit - least) / (most - least)
    scale = 1 / (high - low)
    return np.clip(whole * scale + (-low * scale), 0.0, 1.0)
