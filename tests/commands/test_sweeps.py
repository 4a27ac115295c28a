"""`qefpn train -m`, awkward run directories, and wandb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.commands.runs import losses, train, words

from qefpn.cli import main
from qefpn.training import run as training_run


def sweep(folder: Path, data: Path, *more: str) -> list[str]:
    given = [w for w in words(folder, data, "evaluate=false", "trainer.max_steps=1") if "hydra.run.dir" not in w]
    return [*given, "-m", f"hydra.sweep.dir={folder}", *more]


def config(run: Path) -> Any:
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


def test_a_run_for_each_choice(tmp_path: Path, data_root: Path) -> None:
    folder = tmp_path / "it's [a], sweep"
    assert main(sweep(folder, data_root, "seed=0,1", "solver=broyden,anderson")) == 0
    runs = sorted(p for p in folder.iterdir() if p.is_dir())
    assert [run.name for run in runs] == ["0", "1", "2", "3"]
    assert [(config(r)["seed"], config(r)["solver"]["name"]) for r in runs] == [
        (0, "broyden"),
        (0, "anderson"),
        (1, "broyden"),
        (1, "anderson"),
    ]
    assert all((run / "checkpoints" / "last.ckpt").is_file() for run in runs)
    assert losses(runs[0]) != losses(runs[2])


def test_a_job_that_fails_fails_alone(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    built = training_run.build_module

    def build_module(config: Any) -> Any:
        if config.seed == 1:
            raise RuntimeError("out of memory")
        return built(config)

    monkeypatch.setattr(training_run, "build_module", build_module)
    assert main(sweep(tmp_path, data_root, "seed=0,1,2")) == 1
    done = [(tmp_path / str(job) / "checkpoints" / "last.ckpt").is_file() for job in range(3)]
    assert done == [True, False, True]
    err = capfd.readouterr().err
    assert "out of memory" in err
    assert "failed: job 1" in err.splitlines()[-1]


@pytest.mark.slow
def test_a_job_s_mistake_found_late_is_one_line(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether a set is there is known only when it is looked for."""
    assert main(sweep(tmp_path, data_root, "data.test=[SYN-TE],[SYN-TE,OTHER]")) == 1
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 2
    assert "job 1" in err[0]
    assert (tmp_path / "0" / "checkpoints" / "last.ckpt").is_file()


def test_a_mistake_in_one_choice_stops_all_before_they_start(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for axis in ("solver=broyden,andersen", "residual.p=0,2", "+trainer.max_epoch=1,2"):
        assert main(sweep(tmp_path, data_root, axis)) == 2
        assert len(capfd.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        " é it's [ab] (1) a=b&c,d {x} $ #1",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("back\\slash\\", "[ab]", "'a'", "a,b")),
    ],
)
def test_run_directories_and_roots_of_any_name(name: str, tmp_path: Path) -> None:
    run = train(
        tmp_path / f"{name}" / "run",
        tmp_path / name / "data",
        "trainer.max_steps=1",
        "data.synthetic.train=8",
    )
    assert (run / "report.html").is_file()
    assert config(run)["data"]["root"] == str(tmp_path / name / "data")
    assert (tmp_path / name / "data" / "SYN-TR").is_dir()
    last = run / "checkpoints" / "last.ckpt"
    assert main(["evaluate", f"checkpoint={last}", f"output={tmp_path}/{name}/out", "report=false"]) == 0
    written = [json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path / name / "out")]
    assert written[0]["SYN-TE"]["images"] == written[1]["SYN-TE"]["images"] == 3


@pytest.mark.slow
def test_a_root_that_looks_like_an_interpolation(tmp_path: Path) -> None:
    run = train(tmp_path / "run", tmp_path / "${seed}", "trainer.max_steps=1", "data.synthetic.train=8")
    assert (tmp_path / "${seed}" / "SYN-TE").is_dir()
    assert main(["evaluate", f"checkpoint={run}/checkpoints/last.ckpt", "report=false"]) == 0


def test_wandb_without_a_login_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", None)
    assert main(words(tmp_path / "run", tmp_path / "data", "logger=wandb")) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "wandb login" in line
    assert "logger.offline=true" in line
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = train(tmp_path / "run", data_root, "logger=wandb", "logger.offline=true", "report=false")
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(losses(run)) == 3
    assert main(sweep(tmp_path / "m", data_root, "logger=wandb", "logger.offline=true", "seed=0,1")) == 0
    for job in range(2):  # a run of its own each
        assert len(list((tmp_path / "m" / str(job) / "wandb").glob("offline-run-*"))) == 1
