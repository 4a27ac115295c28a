"""What a run leaves behind."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.commands.runs import log, train, words

from qefpn import load_model
from qefpn.cli import main

SCORES = {"mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure", "binary_ratio", "images"}
SCORES |= {"mean_curve_f", "max_e", "mean_e", "f_adaptive", "f_mean", "f_max", "e_adaptive", "e_mean", "e_max"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_is_there_and_nothing_half_written(tiny_run: Path) -> None:
    names = {str(p.relative_to(tiny_run)) for p in tiny_run.rglob("*") if p.is_file()}
    assert names >= {
        "config.yaml",
        "metrics.json",
        "scores.csv",
        "floors.json",
        "log.csv",
        "report.html",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    }
    assert not [name for name in names if name.endswith(".part")]


def test_metrics_hold_data_sets_only(tiny_run: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert list(metrics) == ["SYN-TE"]
    assert set(metrics["SYN-TE"]) == SCORES
    assert metrics["SYN-TE"]["images"] == 3


def test_floors_are_scored_like_the_network(tiny_run: Path) -> None:
    floors = json.loads((tiny_run / "floors.json").read_text())
    assert set(floors["SYN-TE"]) == {"gaussian", "untrained"}
    assert all(set(one) == SCORES for one in floors["SYN-TE"].values())


def test_scores_have_a_row_a_picture_whose_mean_is_the_metric(tiny_run: Path) -> None:
    scores = rows(tiny_run / "scores.csv")
    assert [(r["dataset"], r["name"]) for r in scores] == [("SYN-TE", f"test_{i:05d}") for i in range(3)]
    metrics = json.loads((tiny_run / "metrics.json").read_text())["SYN-TE"]
    for key in ("mae", "mean_f", "weighted_f", "s_measure", "e_measure"):
        assert np.mean([float(r[key]) for r in scores]) == pytest.approx(metrics[key], abs=1e-12)


def test_the_log_tells_each_step(tiny_run: Path) -> None:
    steps = log(tiny_run)
    assert [int(r["step"]) for r in steps] == [0, 1, 2]
    for key in ("loss", "loss_ce", "loss_iou", "loss_edge", "lr", "seconds", "epoch"):
        assert all(r[key] != "" for r in steps), key
    for key in ("backward_steps", "backward_residual", "backward_fallbacks"):
        assert [r[key] != "" for r in steps] == [False, True, True], key  # one step of warm-up
    assert [r["unrolled_layers"] for r in steps] == ["5", "0", "0"]
    for key in ("solver_steps", "solver_residual", "solver_evaluations", "solver_norm", "solver_converged"):
        assert all(float(r[key]) >= 0 for r in steps), key
    assert float(steps[0]["solver_steps"]) == float(steps[0]["solver_evaluations"]) == 5
    for r in steps[1:]:
        assert 1 <= float(r["solver_steps"]) <= 2
        assert 1 <= float(r["backward_steps"]) <= 2
    assert any(r["val_weighted_f"] for r in rows(tiny_run / "log.csv"))


def test_the_configuration_is_resolved(tiny_run: Path) -> None:
    text = (tiny_run / "config.yaml").read_text()
    config = yaml.safe_load(text)
    assert config["optimizer"]["lr"] == 1e-3
    assert config["backbone"]["name"] == "timm/resnet10t"
    assert config["adjoint"] == {"_target_": "qefpn.implicit.ImplicitAdjoint"}
    assert "${" not in text
    assert "???" not in text


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_hold_plain_values(tiny_run: Path, name: str) -> None:
    path = tiny_run / "checkpoints" / f"{name}.ckpt"
    content = torch.load(path, weights_only=True)
    assert {"state_dict", "global_step", "epoch", "optimizer_states", "lr_schedulers"} <= content.keys()
    if name == "last":
        assert content["global_step"] == 3
    network = load_model(path)
    assert not network.training
    assert network(torch.zeros(1, 3, 70, 50)).shape == (1, 1, 70, 50)


def test_maps_have_the_size_of_their_pictures(tiny_run: Path) -> None:
    maps = sorted((tiny_run / "maps" / "SYN-TE").iterdir())
    assert [p.name for p in maps] == [f"test_{i:05d}.png" for i in range(3)]
    assert all(Image.open(p).size == (64, 64) and Image.open(p).mode == "L" for p in maps)


def test_the_report_stands_alone(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert "SYN-TE" in page
    assert not re.search(r'src="(?!data:)|<link(?![^>]*href="data:)|@import|url\((?!["\']?(data:|#))', page)
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    (copy / "report.html").unlink()
    assert main(["report", f"run={copy}"]) == 0
    assert capsys.readouterr().out.strip() == str(copy / "report.html")
    assert (copy / "report.html").is_file()
    assert main(["report", f"run={copy}", f"output={tmp_path}/é (1).html"]) == 0
    assert (tmp_path / "é (1).html").is_file()


def test_a_run_without_evaluation(tmp_path: Path, data_root: Path) -> None:
    run = train(tmp_path / "run", data_root, "evaluate=false", "trainer.max_steps=1")
    assert not (run / "metrics.json").exists()
    assert not (run / "report.html").exists()
    assert (run / "checkpoints" / "last.ckpt").is_file()


def test_no_validation_leaves_last_alone(tmp_path: Path, data_root: Path) -> None:
    run = train(tmp_path / "run", data_root, "data.val_fraction=0", "trainer.max_steps=1", "report=false")
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["last.ckpt"]
    assert json.loads((run / "metrics.json").read_text())["SYN-TE"]["images"] == 3


def test_the_last_weights_compete_for_best(tmp_path: Path, data_root: Path) -> None:
    """One step of an epoch of two: no validation falls due before the end."""
    run = train(tmp_path / "run", data_root, "trainer.max_steps=1", "evaluate=false")
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["global_step"] == 1


def test_fewer_test_batches_where_asked_for(tmp_path: Path, data_root: Path) -> None:
    run = train(
        tmp_path / "run",
        data_root,
        "trainer.max_steps=1",
        "trainer.limit_test_batches=1",
        "data.eval_batch_size=2",
    )
    assert json.loads((run / "metrics.json").read_text())["SYN-TE"]["images"] == 2
    assert len(json.loads((run / "samples.json").read_text())) == 2


def test_a_trial_run_keeps_nothing(tmp_path: Path, data_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path / "run", data_root, "trainer.fast_dev_run=true")) == 0
    assert "nothing was kept" in capsys.readouterr().out
    names = {p.name for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert names == {"config.yaml"}


def test_libraries_say_nothing_of_themselves(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", data_root, "trainer.max_steps=2", "evaluate=false")
    out, err = capfd.readouterr()
    assert err == ""
    for chatter in ("Tip", "GPU available", "was configured", "weights_only", "FutureWarning"):
        assert chatter not in out
    assert "step 1" in out  # progress in lines, where there is no terminal
    assert "loss" in out


def test_hydra_keeps_what_it_was_given(tiny_run: Path) -> None:
    """As in any Hydra program; config.yaml beside it is what was made of it."""
    given = yaml.safe_load((tiny_run / ".hydra" / "overrides.yaml").read_text())
    assert "optimizer=adamw" in given
    assert (
        yaml.safe_load((tiny_run / ".hydra" / "config.yaml").read_text())["optimizer"]["_target_"]
        == "qefpn.training.optimizers.adamw"
    )
