"""`qefpn profile`: a fresh network and a run's; what it writes; what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tests.commands.runs import TINY

from qefpn import load_model
from qefpn.cli import main

FEW = ["sizes=[64]", "budgets=[1,3]", "batches=[1,2]", "repeats=3", "seconds=0.5", "device=cpu"]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_fresh_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = [word for word in TINY if not word.startswith("data.")]
    assert main(["profile", *network, *FEW, f"output={tmp_path}/out"]) == 0
    out, err = capsys.readouterr()
    assert "64 px, 3 steps: training step" in err  # what is being measured, where there is no terminal
    for heading in ("MACs and time by stage", "Speed and memory", "Table III"):
        assert heading in out
    result = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert result["network"]["channels"] == 8
    assert [row["budget"] for row in result["stages"]] == [1, 3]
    assert {row["mode"] for row in result["speed"]} == {"backbone", "forward", "training"}
    assert result["quality"] == []
    assert len(rows(tmp_path / "out" / "speed.csv")) == len(result["speed"])
    assert float(rows(tmp_path / "out" / "stages.csv")[0]["macs.total"]) == result["stages"][0]["macs"]["total"]
    text = (tmp_path / "out" / "profile.md").read_text()
    assert "MINet (paper)" in text
    assert "torch.profiler" in text  # how memory was measured


def test_a_run_and_what_its_budget_costs(
    tiny_run: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tiny_run / "checkpoints" / "best.ckpt"
    words = [f"checkpoint={checkpoint}", f"data.root={data_root}", "quality.steps=[1,4]", "training=false"]
    assert main(["profile", *words, *FEW, f"output={tmp_path}"]) == 0
    assert "What a solver budget costs" in capsys.readouterr().out
    result = json.loads((tmp_path / "profile.json").read_text())
    assert result["parameters"]["total"] == sum(p.numel() for p in load_model(checkpoint).parameters())
    quality = rows(tmp_path / "quality.csv")
    assert [(row["dataset"], row["steps"], row["own"]) for row in quality] == [
        ("SYN-TE", "1", "False"),
        ("SYN-TE", "2", "True"),  # the run's own
        ("SYN-TE", "4", "False"),
    ]
    assert [row["images"] for row in quality] == ["3"] * 3
    assert float(quality[0]["relative_residual"]) > float(quality[2]["relative_residual"])
    assert float(quality[0]["evaluations"]) == 2
    scores = json.loads((tiny_run / "metrics.json").read_text())["SYN-TE"]
    for key in ("max_f", "mae"):
        assert float(quality[1][key]) == pytest.approx(scores[key], abs=1e-3)
    assert "training" not in {row["mode"] for row in result["speed"]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sizes=[16]"], "sizes"),
        (["sizes=[]"], "sizes"),
        (["sizes=large"], "sizes"),
        (["budgets=[0]"], "budgets"),
        (["batches=[1.5]"], "batches"),
        (["sizes=[32]"], "train_batch"),
        (["train_batch=0"], "train_batch"),
        (["seconds=0"], "seconds"),
        (["repeats=many"], "repeats"),
        (["siezs=[64]"], "did you mean sizes"),
        (["budget=[3]"], "did you mean budgets"),
        (["backbone=resnet5"], "resnet50"),
        (["solver.max_step=3"], "solver.max_steps"),
        (["experiment=smal"], "small"),
        (["checkpoint=nowhere.ckpt"], "no such file"),
        (["checkpoint=nowhere.ckpt", "backbone=resnet18"], "the network is the checkpoint's"),
        (["data.root=somewhere"], "checkpoint"),
        (["device=abacus"], "device=abacus"),
        (["--fast"], "unknown option"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = [] if any(word.startswith(("checkpoint", "backbone", "experiment")) for word in words) else TINY[:5]
    assert main(["profile", *network, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--help"]) == 0
    out = capsys.readouterr().out
    for key in ("sizes", "budgets", "batches", "train_batch", "quality"):
        assert key in out


def test_an_output_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["profile", *TINY[:5], *FEW, f"output={tmp_path}/file"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be made" in line
