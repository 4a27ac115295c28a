"""The two evaluation protocols as records of the choices in which they differ."""

from __future__ import annotations

from dataclasses import dataclass

from qefpn.text import did_you_mean

EPS = 2.0**-52
"""The distance from 1.0 to the next float64, which the field's formulas add to a denominator."""

BETA2 = 0.3
"""The weight of precision in the F-measure (beta squared)."""


@dataclass(frozen=True)
class Protocol:
    """What one evaluation code of the field does where the codes differ.

    Args:
        name: the name under which users ask for it.
        relative_mask: the mask is ``>= 0.5`` after its own min-max (else ``> 128`` of 255).
        skip_blank: a picture whose map or mask is all zero adds 0 to every sum, and still counts.
        curve_of_means: the F curve of a set is computed from its mean precision and recall (else it is the
            mean of the pictures' F curves).
        strict_e: the adaptive E-measure binarises with ``>`` (else ``>=``).
        matlab_centroid: the centroid of the S-measure rounds halves away from zero on 1-based coordinates
            (else halves to even on 0-based ones).
        clamp_s: a negative S-measure becomes 0.
    """

    name: str
    relative_mask: bool
    skip_blank: bool
    curve_of_means: bool
    strict_e: bool
    matlab_centroid: bool
    clamp_s: bool


F3NET = Protocol(
    name="f3net",
    relative_mask=True,
    skip_blank=True,
    curve_of_means=True,
    strict_e=True,
    matlab_centroid=True,
    clamp_s=False,
)
"""The MATLAB code published with F3Net, behind the Table I of the paper."""

PYSOD = Protocol(
    name="pysod",
    relative_mask=False,
    skip_blank=False,
    curve_of_means=False,
    strict_e=False,
    matlab_centroid=False,
    clamp_s=True,
)
"""PySODMetrics 1.6."""

PROTOCOLS = {protocol.name: protocol for protocol in (F3NET, PYSOD)}


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
