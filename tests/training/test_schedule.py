"""The factors of the peak rate against NumPy's interpolation and PyTorch's own schedulers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from qefpn.training.schedule import SCHEDULES, build_schedule, constant, cosine, linear

STEPS = np.linspace(0, 1, 201)


@pytest.mark.parametrize("peak", [0.1, 0.5, 0.85])
def test_linear_interpolates_between_start_peak_and_end(peak: float) -> None:
    factor = build_schedule("linear", peak=peak)
    expected = np.interp(STEPS, [0, peak, 1], [0, 1, 0])
    np.testing.assert_allclose([factor(x) for x in STEPS], expected, atol=1e-12)


def annealed(steps: int) -> list[float]:
    """PyTorch's cosine from 1 down to 0, in so many steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    factors = [1.0]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        factors.append(optimizer.param_groups[0]["lr"])
    return factors


@pytest.mark.parametrize("peak", [0.0, 0.1, 0.5])
def test_cosine_is_torchs_annealing_behind_a_linear_warm_up(peak: float) -> None:
    factor = build_schedule("cosine", peak=peak)
    down = np.linspace(peak, 1, 41)
    np.testing.assert_allclose([factor(x) for x in down], annealed(40), atol=1e-9)
    up = np.linspace(0, peak, 20, endpoint=False) if peak else np.empty(0)
    np.testing.assert_allclose([factor(x) for x in up], np.linspace(0, 1, len(up), endpoint=False), atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_peak_at_an_end(name: str) -> None:
    assert build_schedule(name, peak=0.0)(0.0) == 1.0
    assert build_schedule(name, peak=1)(1.0) == 1.0
    assert [build_schedule(name, peak=1.0)(x) for x in (0.0, 0.25, 0.999)] == [0.0, 0.25, 0.999]


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_factors_stay_in_the_unit_interval_and_training_may_overrun(name: str) -> None:
    factor = build_schedule(name)
    assert all(0 <= factor(x) <= 1 for x in STEPS)
    assert factor(-0.5) == factor(0.0) and factor(1.5) == factor(1.0)


def test_the_functions_alone_hold_their_last_value() -> None:
    assert linear(1.25) == 0.0 and cosine(1.25) == pytest.approx(0.0, abs=1e-12) and constant(1.25) == 1.0


def test_peaks_that_are_not_told() -> None:
    """The paper's recipe peaks half way; the cosine's warm-up is a tenth."""
    for function, name, peak in ((linear, "linear", 0.5), (cosine, "cosine", 0.1)):
        assert function(peak) == build_schedule(name)(peak) == 1.0
        assert function(peak - 0.01) < 1 > function(peak + 0.01)


@pytest.mark.parametrize("peak", [-1e-9, 1 + 1e-9, 1.5, True, "0.5", None, float("nan")])
def test_impossible_peaks(peak: object) -> None:
    with pytest.raises(ValueError, match=r"peak must be in \[0, 1\], not"):
        build_schedule("linear", peak=peak)  # type: ignore[arg-type]


def test_mistakes_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="linear has no option 'warm'; it takes peak$"):
        build_schedule("linear", warm=0.1)
    with pytest.raises(ValueError, match="constant has no option 'peak'; it takes none$"):
        build_schedule("constant", peak=0.1)
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        build_schedule("cosin")
