"""`qefpn analyze budget` and ``budget=``: what is chosen, where it is kept, and who takes it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.commands.runs import train, words

from qefpn import Predictor, load_model
from qefpn.analysis.budget import ALLOWED, Trial, choose_budgets, ladder, measure
from qefpn.cli import main
from qefpn.data import find_pairs, read_image
from qefpn.data.reading import TestTransform, read_mask
from qefpn.metrics import SaliencyMetrics
from qefpn.models.packed import write_packed
from qefpn.models.weights import read_checkpoint

STEPS = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Path:
    """A run with a solver of six steps and a third of its pictures held out."""
    folder = tmp_path_factory.mktemp("budget") / "run"
    more = (f"solver.max_steps={STEPS}", "solver.rtol=1e-3", "data.val_fraction=0.34", "evaluate=false")
    return train(folder, data_root, *more)


@pytest.fixture
def checkpoint(run: Path, tmp_path: Path) -> Path:
    """A copy, to be written to."""
    return Path(shutil.copyfile(run / "checkpoints" / "best.ckpt", tmp_path / "mine.ckpt"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def keep(checkpoint: Path, **budgets: dict[str, float]) -> None:
    content = read_checkpoint(checkpoint)
    content["qefpn"]["budgets"] = budgets
    torch.save(content, checkpoint)


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    return line


def test_steps_are_measured_on_what_was_held_out_and_kept(
    checkpoint: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = read_checkpoint(checkpoint)
    assert main(["analyze", "budget", f"checkpoint={checkpoint}", f"output={out}", "data.batch_size=3"]) == 0
    assert "4 pictures" in capsys.readouterr().out
    assert {"budget.csv", "budget.png", "budget.svg"} <= {path.name for path in out.iterdir()}
    found = rows(out / "budget.csv")
    at_own = [row for row in found if float(row["rtol"]) == 1e-3]
    assert sorted({int(row["max_steps"]) for row in at_own}) == ladder(STEPS) == [1, 2, 3, 4, 6]
    content = read_checkpoint(checkpoint)
    kept = content["qefpn"].pop("budgets")
    assert {*kept} == {"fast", "balanced"}
    for name, one in kept.items():
        (row,) = [row for row in found if name in row["budget"].split(", ")]
        assert (int(row["max_steps"]), float(row["rtol"])) == (one["max_steps"], one["rtol"])
    assert content["qefpn"] == before["qefpn"] and content["global_step"] == before["global_step"]
    assert all(torch.equal(content["state_dict"][key], value) for key, value in before["state_dict"].items())


def test_figures_are_those_of_the_network_with_that_solver(checkpoint: Path, data_root: Path) -> None:
    pairs = find_pairs(data_root / "SYN-TE")
    images = torch.stack([torch.from_numpy(TestTransform(64)(read_image(pair.image))) for pair in pairs])
    masks = [read_mask(pair.mask) for pair in pairs]
    keep(checkpoint, fast={"max_steps": 2, "rtol": 0.1})
    network = load_model(checkpoint)
    solver = load_model(checkpoint, budget="fast").pyramid.solver
    assert (solver.max_steps, solver.rtol) == (2, 0.1)
    (trial,) = measure(network, [(images.permute(0, 3, 1, 2), masks)], [solver], "f3net")
    assert network.pyramid.solver.max_steps == STEPS  # as it was
    predictor = Predictor(checkpoint, budget="fast")
    metric = SaliencyMetrics(protocol="f3net")
    metric.update(predictor([str(pair.image) for pair in pairs]), masks)
    expected = metric.compute()
    for name in ("max_f", "weighted_f", "mae"):
        assert getattr(trial, name) == pytest.approx(float(expected[name]), abs=1e-12)
    assert 2 <= trial.evaluations <= 3


def test_a_budget_is_the_cheapest_that_loses_no_more_than_allowed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a made-up network whose quality grows with its steps, and falls with its tolerance."""

    def made_up(network: object, batches: object, solvers: list[object], protocol: str) -> list[Trial]:
        trials = []
        for solver in solvers:
            loss = {1: 0.05, 2: 0.008, 3: 0.001}.get(solver.max_steps, 0.0) + (0.02 if solver.rtol > 0.05 else 0.0)
            cost = 1 + solver.max_steps - (0.5 if solver.rtol > 0.005 else 0.0)
            trials.append(Trial(solver.max_steps, solver.rtol, cost, 0.9 - loss, 0.8 - loss, 0.05 + loss / 4))
        return trials

    monkeypatch.setattr("qefpn.analysis.budget.measure", made_up)
    chosen = choose_budgets(load_model(run / "checkpoints" / "best.ckpt"), lambda: iter(()), "f3net")
    assert chosen.exact.max_steps == STEPS
    assert {name: (one.max_steps, one.rtol) for name, one in chosen.budgets.items()} == {
        "balanced": (3, 0.01),
        "fast": (2, 0.01),
    }
    for name, one in chosen.budgets.items():
        assert one.within(chosen.exact, ALLOWED[name]) and one.evaluations < chosen.exact.evaluations


def test_everything_that_uses_a_network_takes_it(checkpoint: Path, data_root: Path, tmp_path: Path) -> None:
    keep(checkpoint, fast={"max_steps": 1, "rtol": 0.5}, balanced={"max_steps": 3, "rtol": 0.1})
    picture = find_pairs(data_root / "SYN-TE")[0].image
    maps = {}
    for budget in ("fast", "balanced", "exact", "null"):
        given = [f"checkpoint={checkpoint}", f"input={picture}", f"output={tmp_path / 'maps'}", f"budget={budget}"]
        assert main(["predict", *given]) == 0
        maps[budget] = next((tmp_path / "maps").glob("*.png")).read_bytes()  # an earlier map is not taken for it
    assert maps["exact"] == maps["null"] and len({*maps.values()}) == 3
    expected = Predictor(checkpoint, budget="balanced")(picture)
    assert np.array_equal(read_mask_of(maps["balanced"]), expected)
    scored = {}
    for budget in ("fast", "exact"):
        out = tmp_path / "scored"
        given = [f"checkpoint={checkpoint}", f"data.root={data_root}", "data.test=[SYN-TE]", f"output={out}"]
        assert main(["evaluate", *given, "floors=false", "report=false", f"budget={budget}"]) == 0
        scored[budget] = json.loads((out / "metrics.json").read_text())["SYN-TE"]
    assert scored["fast"]["mae"] != scored["exact"]["mae"]


def read_mask_of(png: bytes) -> np.ndarray:
    import cv2

    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_the_card_of_a_packed_network_keeps_it(checkpoint: Path, data_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    content = read_checkpoint(checkpoint)
    about = {"data": "drawn", "licence": "none", "recipe": {}, "scores": {}, "config": content["qefpn"]["config"]}
    write_packed(content, path, about)
    given = [f"checkpoint={path}", f"data.root={data_root}", "data.test=[SYN-TE]", f"output={tmp_path / 'out'}"]
    assert main(["analyze", "budget", *given]) == 0
    card = json.loads(path.with_suffix(".json").read_text())
    assert (
        card["data"] == "drawn"
        and load_model(path, budget="fast").pyramid.solver.max_steps == (card["budgets"]["fast"]["max_steps"])
    )


def test_mistakes_are_one_line(
    checkpoint: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = find_pairs(data_root / "SYN-TE")[0].image
    predict = ("predict", f"checkpoint={checkpoint}", f"input={picture}", f"output={tmp_path / 'm.png'}")
    assert "none was chosen" in (line := error_of(capsys, *predict, "budget=fast")) and "analyze budget" in line
    assert "did you mean balanced?" in error_of(capsys, *predict, "budget=balancd")
    evaluate = ("evaluate", f"checkpoint={checkpoint}", f"data.root={data_root}", f"output={tmp_path / 'e'}")
    assert "none was chosen" in error_of(capsys, *evaluate, "budget=fast")
    export = ("export", f"checkpoint={checkpoint}", f"output={tmp_path / 'm.onnx'}")
    assert "give one of the two" in error_of(capsys, *export, "budget=exact", "steps=2")
    assert "give checkpoint=" in error_of(capsys, "analyze", "budget")
    assert "held no pictures out" in error_of(
        capsys, "analyze", "budget", f"checkpoint={without_held_out(checkpoint, tmp_path)}"
    )
    keep(checkpoint, fast={"max_steps": 0, "rtol": 0.1})
    assert "its budget 'fast' is none" in error_of(capsys, *predict, "budget=fast")


def without_held_out(checkpoint: Path, folder: Path) -> Path:
    content = read_checkpoint(checkpoint)
    content["qefpn"]["config"]["data"]["val_fraction"] = 0.0
    torch.save(content, folder / "all.ckpt")
    return folder / "all.ckpt"


def test_a_network_without_a_solve_has_none(
    tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_a_solve = ("solver.", "warmup.", "pyramid.expansion")
    given = [word for word in words(tmp_path / "run", data_root) if not word.startswith(of_a_solve)]
    assert main([*given, "pyramid=none", "evaluate=false"]) == 0
    plain = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert "pyramid=none" in error_of(capsys, "analyze", "budget", f"checkpoint={plain}")
    picture = find_pairs(data_root / "SYN-TE")[0].image
    predict = ("predict", f"checkpoint={plain}", f"input={picture}", f"output={tmp_path / 'm.png'}")
    assert "solves nothing" in error_of(capsys, *predict, "budget=fast")
    assert main([*predict, "budget=exact"]) == 0
