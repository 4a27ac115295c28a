"""Learning-rate schedules: the factor of the peak rate as a function of the share of training done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

from qefpn.registry import Registry

SCHEDULES: Registry[Callable[..., float]] = Registry("schedule")


@SCHEDULES.register("linear")
def linear(progress: float, peak: float = 0.5) -> float:
    """Linear warm-up to ``peak``, linear decay to zero at the end (the paper's recipe with ``peak=0.5``)."""
    _check_peak(peak)
    if progress < peak:
        return progress / peak
    return max(0.0, (1.0 - progress) / (1.0 - peak)) if peak < 1.0 else 1.0


@SCHEDULES.register("cosine")
def cosine(progress: float, peak: float = 0.1) -> float:
    """Linear warm-up to ``peak``, half a cosine down to zero."""
    _check_peak(peak)
    if progress < peak:
        return progress / peak
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - peak) / max(1.0 - peak, 1e-12))))


@SCHEDULES.register("constant")
def constant(progress: float) -> float:
    """The peak rate throughout."""
    return 1.0


def build_schedule(name: str, **options: float) -> Callable[[float], float]:
    """A function from progress in [0, 1] to a factor in [0, 1].

    Raises:
        ValueError: for an unknown name, an unknown option, or a peak outside [0, 1].
    """
    schedule = SCHEDULES.get(name)
    known = [key for key in inspect.signature(schedule).parameters if key != "progress"]
    for key in options:
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}; it takes {', '.join(known) or 'none'}")
    schedule(0.0, **options)
    return lambda progress: schedule(min(max(progress, 0.0), 1.0), **options)


def _check_peak(peak: object) -> None:
    if isinstance(peak, bool) or not isinstance(peak, int | float) or not 0.0 <= peak <= 1.0:
        raise ValueError(f"peak must be in [0, 1], not {peak!r}")
