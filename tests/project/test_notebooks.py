"""The notebooks: clean in git, and run from the first cell to the last with results that can be checked."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NAMES = ("01_quickstart", "02_equilibrium", "03_ablation_report", "04_evaluate_your_maps")
FIGURES = {"01_quickstart": 4, "02_equilibrium": 4, "03_ablation_report": 2, "04_evaluate_your_maps": 4}
"""PNG figures that each displays."""


def test_there_are_four() -> None:
    assert tuple(path.stem for path in NOTEBOOKS) == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_clean_and_small(path: Path) -> None:
    assert path.stat().st_size < 50_000
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert 8 <= len(content["cells"]) <= 14
    for cell in content["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


class Executed:
    """An executed notebook and the folder that it ran in."""

    def __init__(self, name: str, folder: Path) -> None:
        nbformat = pytest.importorskip("nbformat")
        nbclient = pytest.importorskip("nbclient")
        pytest.importorskip("ipykernel")
        self.folder = folder
        path = next(path for path in NOTEBOOKS if path.stem == name)
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        settings = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=settings).execute()
        self.outputs: list[Any] = [one for cell in notebook.cells for one in cell.get("outputs", [])]
        assert self.figures() == FIGURES[name]
        assert {path.name for path in folder.iterdir()} == {"outputs"}  # all that it wrote is there

    def figures(self) -> int:
        return sum("image/png" in one.get("data", {}) for one in self.outputs)

    def text(self) -> str:
        """All that was printed or shown as text."""
        shown = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in self.outputs]
        return "\n".join(shown)


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Executed:
    """Execute a notebook in an empty folder, on one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("QEFPN_CACHE", str(folder.parent / "cache"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel takes its own, which shows figures in the notebook
    monkeypatch.delenv("QEFPN_SWEEP", raising=False)
    folder.mkdir()
    return Executed(name, folder)


@pytest.mark.slow
def test_quickstart_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("01_quickstart", tmp_path / "work", monkeypatch)
    directory = done.folder / "outputs" / "quickstart" / "run"
    assert (directory / "report.html").stat().st_size > 10_000
    figures = json.loads((directory / "metrics.json").read_text())["SYN-TE"]
    floors = json.loads((directory / "floors.json").read_text())["SYN-TE"]
    assert figures["max_f"] > max(floor["max_f"] for floor in floors.values())
    assert figures["mae"] < min(floor["mae"] for floor in floors.values())
    assert len(list((done.folder / "outputs" / "quickstart" / "cutouts").glob("*.png"))) == figures["images"]


@pytest.mark.slow
def test_equilibrium_says_what_quasi_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("02_equilibrium", tmp_path / "work", monkeypatch)
    folder = done.folder / "outputs" / "equilibrium"
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.{k}" for n in ("depth", "convergence") for k in ("png", "svg")
    }
    radii = re.findall(r"spectral radius ([\d.]+), shrinkage a layer ([\d.]+)", done.text())
    assert len(radii) == 6
    for radius, shrinkage in radii:  # two estimates of one figure
        assert 0 < float(radius) < 1
        assert abs(float(radius) - float(shrinkage)) < 0.2
    assert "with p = 5e-7, 28.0% of the pictures have a drop" in done.text()  # of the paper's size
    errors = {name: float(error) for name, error in re.findall(r"(\w+Adjoint) +error ([\d.e+-]+),", done.text())}
    assert errors["ImplicitAdjoint"] < 1e-8
    assert errors["PhantomAdjoint"] < errors["JacobianFreeAdjoint"] < 1


@pytest.mark.slow
def test_ablation_report_has_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("03_ablation_report", tmp_path / "work", monkeypatch)
    folder = done.folder / "outputs" / "ablation"
    with (folder / "report" / "sweep_report.csv").open(newline="") as file:
        ours = [row for row in csv.DictReader(file) if row["source"] == "ours"]
    assert [(row["row"], row["n"]) for row in ours] == [("equilibrium", "2"), ("quasi", "2")]
    assert all(math.isfinite(float(row["weighted_f"])) and math.isfinite(float(row["mae_sd"])) for row in ours)
    states = [json.loads(path.read_text())["state"] for path in (folder / "sweep").glob("*/job.json")]
    assert states == ["done"] * 4
    assert "Quasi-equilibrium" in (folder / "report" / "sweep_report.md").read_text()  # the paper's row


@pytest.mark.slow
def test_a_sweep_of_ones_own_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.reporting.sweep_directories import write_solver_sweep

    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    sweep = write_solver_sweep(tmp_path / "sweep", seeds=2)
    monkeypatch.setenv("QEFPN_SWEEP", str(sweep))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(NOTEBOOKS[2], as_version=4)
    (tmp_path / "work").mkdir()
    settings = {"metadata": {"path": str(tmp_path / "work")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=settings).execute()
    last = notebook.cells[-1].outputs[0].text
    assert last.count("'state': 'done'") == 10 and "'row': 'no pyramid'" in last
    assert not (tmp_path / "work" / "outputs" / "ablation" / "sweep").exists()


@pytest.mark.slow
def test_maps_are_scored_and_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("04_evaluate_your_maps", tmp_path / "work", monkeypatch)
    folder = done.folder / "outputs" / "evaluate" / "benchmark"
    assert (folder / "leaderboard.html").stat().st_size > 10_000
    results = json.loads((folder / "results.json").read_text())["results"]
    scores = {one["method"]: one["scores"] for one in results}
    assert set(scores) == {"soft", "hard", "centre"}
    assert all(one["complete"] and one["scored"] == 40 for one in results)
    assert scores["hard"]["mae"] < scores["soft"]["mae"]  # what the notebook says of cutting at one half
    assert scores["hard"]["max_f"] <= scores["soft"]["max_f"]
    assert scores["centre"]["max_f"] < scores["soft"]["max_f"]
    found = re.findall(r"95 % interval ([+-][\d.]+) to ([+-][\d.]+), p = [\d.]+", done.text())
    assert len(found) == 5 and all(float(low) <= float(high) for low, high in found)
