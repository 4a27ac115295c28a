"""f3net and saleval in their edge cases, against the published code run by octave (``octave/make.py`` says how)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qefpn.metrics import combine, saliency_scores
from qefpn.metrics.protocol import EPS

KEPT = np.load(Path(__file__).parent / "octave" / "edge_cases.npz")
NAMES = list(KEPT["names"])
SCORES = ("mae", "mean_f", "weighted_f", "s_measure", "e_measure")
BOUND = 5e-12
pytestmark = pytest.mark.filterwarnings("ignore:a mask of 0 and 1 is empty")


@pytest.mark.parametrize("protocol", ["f3net", "saleval"])
@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_an_edge_case(number: int, protocol: str) -> None:
    found = saliency_scores(KEPT[f"map{number}"], KEPT[f"mask{number}"], protocol, curves=True)
    expected = dict(zip(SCORES, KEPT[f"{protocol}_scores"][number], strict=True))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=BOUND, nan_ok=True), name
    for name in ("precision", "recall"):
        curve = KEPT[f"{protocol}_{name}"][number]
        if not np.isnan(curve).any():  # the code ends in an error, or divides by 0, where a mask has one value
            np.testing.assert_allclose(found[name], curve, rtol=0, atol=BOUND)


def test_the_cases_are_what_they_are_for() -> None:
    scores, toolbox = KEPT["f3net_scores"], KEPT["saleval_scores"]
    assert len(NAMES) > 40 and np.isnan(scores[:, 3]).sum() >= 2
    assert not scores[[NAMES.index("map of 0"), NAMES.index("mask of 0")]].any()
    flat = [NAMES.index(f"map of {value}") for value in (1, 25, 127, 254)]
    assert (scores[flat] == scores[NAMES.index("map of 255")]).all()  # a map of one value is clipped to 1
    assert np.isnan(toolbox[flat, 0]).all() and not np.isnan(scores[flat, 0]).any()
    half_way = [i for i, name in enumerate(NAMES) if name.startswith("greys half way")]
    assert (np.abs(scores[half_way, 0] - toolbox[half_way, 0]) > 0.01).any()


@pytest.mark.parametrize("protocol", ["f3net", "saleval"])
def test_the_figures_of_the_set(protocol: str) -> None:
    curves = KEPT[f"{protocol}_precision"] + KEPT[f"{protocol}_recall"]
    kept = [i for i in range(len(NAMES)) if not np.isnan(curves[i]).any()]
    records = [saliency_scores(KEPT[f"map{i}"], KEPT[f"mask{i}"], protocol, curves=True) for i in kept]
    # the toolbox adds the scores of blank maps, and leaves them out of the number that it divides by
    number = len(kept) - (sum(not KEPT[f"map{i}"].any() for i in kept) if protocol == "saleval" else 0)
    assert number < len(kept) or protocol == "f3net"
    precision, recall = (KEPT[f"{protocol}_{name}"][kept].sum(axis=0) / number for name in ("precision", "recall"))
    found = combine(records, protocol)
    expected = (1.3 * precision * recall / (0.3 * precision + recall + EPS)).max()
    assert found["max_f"] == pytest.approx(expected, abs=BOUND)
    scores = KEPT[f"{protocol}_scores"][kept]
    assert found["mean_f"] == pytest.approx(scores[:, 1].sum() / number, abs=BOUND)
    assert found["mae"] == pytest.approx(np.nanmean(scores[:, 0]), abs=BOUND)
    assert found["s_measure"] == pytest.approx(np.nanmean(scores[:, 3]), abs=BOUND)
