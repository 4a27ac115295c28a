"""The figures of `qefpn analyze`: files, what they say, and the numbers behind the tables."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from qefpn.reporting.analysis_figures import MOST_POINTS, Convergence, draw_convergence, draw_depth, sampled
from qefpn.reporting.analysis_tables import convergence_summary, convergence_table, depth_table
from qefpn.reporting.renderers import terminal
from qefpn.reporting.tables import Table

SHARES = {"first": 0.25, "second": 0.75}


def depth_curves(layers: int) -> dict[str, np.ndarray]:
    steps = np.arange(1, layers + 1, dtype=float)
    curves = {}
    for name in ("state", "moved", "first", "second"):
        middle = np.ones(layers) if name == "state" else 1 / steps
        curves |= {f"{name}_mean": middle, f"{name}_min": middle / 2, f"{name}_max": middle * 2}
    curves["second_mean"][0] = curves["second_min"][0] = curves["second_max"][0] = np.nan
    curves["first_min"][-1] = 0.0  # two equal states in a row
    return curves


def example(layers: int) -> dict[str, np.ndarray]:
    return {name: values for key, values in depth_curves(layers).items() if (name := key.removesuffix("_mean")) != key}


def texts(path: Path) -> str:
    return " ".join(text for node in ET.parse(path).iter() if (text := node.text))


@pytest.mark.parametrize("layers", [2, 5000])
def test_depth_is_drawn_as_png_and_svg(layers: int, tmp_path: Path) -> None:
    files = draw_depth(
        depth_curves(layers), [example(layers)], tmp_path / "new", threshold=1e-3, shares=SHARES, pictures=3
    )
    assert [path.name for path in files] == ["depth.png", "depth.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["depth.png", "depth.svg"]
    image = np.asarray(Image.open(files[0]).convert("RGB"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    said = texts(files[1])
    assert "25.0% of layers below 0.001" in said
    assert "75.0% of layers below 0.001" in said
    assert "3 pictures" in said


@pytest.mark.slow
def test_the_same_numbers_give_the_same_svg(tmp_path: Path) -> None:
    both = [
        draw_depth(depth_curves(9), [], tmp_path / name, threshold=1e-3, shares=SHARES, pictures=1)[1].read_bytes()
        for name in ("a", "b")
    ]
    assert both[0] == both[1]


def results() -> list[Convergence]:
    generator = np.random.default_rng(0)
    found = []
    for solver in ("broyden", "fixed_point"):
        for residual in ("equilibrium", "quasi, p = 0.01"):
            change = 10 ** generator.normal(-3, 0.5, 30)
            found.append(Convergence(solver, residual, change, generator.integers(3, 28, 30).astype(float)))
    found[2].change[:4] = np.inf
    found[3].change[0] = 0.0
    return found


def test_convergence_is_drawn_with_what_is_infinite_counted(tmp_path: Path) -> None:
    files = draw_convergence(results(), tmp_path)
    assert [path.name for path in files] == ["convergence.png", "convergence.svg"]
    said = texts(files[1])
    assert all(word in said for word in ("broyden", "fixed point", "equilibrium", "quasi, p = 0.01"))
    assert "4 of 30 infinite" in said
    assert f"{results()[0].evaluations.mean():.1f}" in said
    height, width = np.asarray(Image.open(files[0])).shape[:2]
    assert width > height > 300


@pytest.mark.parametrize("change", [np.array([np.inf]), np.array([0.0])])
def test_one_picture_is_enough(change: np.ndarray, tmp_path: Path) -> None:
    files = draw_convergence([Convergence("broyden", "literal, p = 0.1", change, np.array([1.0]))], tmp_path)
    assert all(path.stat().st_size > 1000 for path in files)


def test_sampled_points_keep_both_ends() -> None:
    assert sampled(10).tolist() == list(range(10))
    many = sampled(100_000)
    assert many[0] == 0 and many[-1] == 99_999
    assert len(many) < MOST_POINTS + 100
    assert (np.diff(many) > 0).all() and many[:100].tolist() == list(range(100))


def test_summary_by_hand() -> None:
    found = convergence_summary(
        {
            "relative_change": [0.1, 0.2, 0.3, float("inf")],
            "converged": [1, 1, 0, 0],
            "steps": [1, 2, 3, 6],
            "evaluations": [2, 3, 4, 7],
            "drops": [0, 5, 0, 0],
            "distance": [0.0, 0.4, 0.2, 0.2],
        }
    )
    assert found["pictures"] == 4
    assert found["change_median"] == pytest.approx(0.25)
    assert found["change_q10"] == 0.1 and found["change_q90"] == np.inf and found["change_mean"] == np.inf
    assert (found["converged"], found["steps"], found["evaluations"]) == (0.5, 3.0, 4.0)
    assert found["with_drops"] == 0.25
    assert found["distance_median"] == pytest.approx(0.2)


def printed(table: Table) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(terminal(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_tables_fit_a_terminal() -> None:
    row = {"share_second": 0.5, "share_first": 0.25, "last_first": 1e-6, "last_second": 2e-6, "ratio": None}
    said = printed(depth_table([row | {"settled": 7}, row | {"settled": None}], 100, 1e-3))
    assert "50.00%" in said and "25.00%" in said and "(never: 1)" in said and "…" not in said
    never = printed(depth_table([row | {"settled": None}], 100, 1e-3))
    assert "never" in never
    summary = convergence_summary(
        {
            "relative_change": [0.25],
            "converged": [1],
            "steps": [3],
            "evaluations": [4],
            "drops": [0],
            "distance": [float("nan")],
        }
    )
    said = printed(convergence_table([("fixed_point", "quasi, p = 5e-07"), ("broyden", "equilibrium")], [summary] * 2))
    assert "quasi, p = 5e-07" in said and "fixed_point" in said and "0.25" in said and "…" not in said
