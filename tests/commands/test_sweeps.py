"""`qefpn train -m`, awkward run directories, and wandb."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.commands.runs import losses, train, words

from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.experiments import assemble as assembling
from qefpn.experiments import checks
from qefpn.experiments.command_line import parse_overrides
from qefpn.experiments.composition import compose_config, expand_rows
from qefpn.option_names import option_name
from qefpn.sweeps.jobs import claimed_gpu, read_jobs
from qefpn.sweeps.plan import claim, plan_of, read_plan
from qefpn.sweeps.run import best_score


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
    assert [(config(r)["seed"], option_name(config(r)["solver"])) for r in runs] == [
        (0, "broyden"),
        (0, "anderson"),
        (1, "broyden"),
        (1, "anderson"),
    ]
    assert all((run / "checkpoints" / "last.ckpt").is_file() for run in runs)
    assert losses(runs[0]) != losses(runs[2])


@pytest.mark.slow
def test_a_job_that_fails_fails_alone(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    built = assembling.build_module

    def build_module(config: Any) -> Any:
        if config.seed == 1:
            raise RuntimeError("out of memory")
        return built(config)

    monkeypatch.setattr(assembling, "build_module", build_module)
    assert main(sweep(tmp_path, data_root, "seed=0,1,2")) == 1
    done = [(tmp_path / str(job) / "checkpoints" / "last.ckpt").is_file() for job in range(3)]
    assert done == [True, False, True]
    err = capfd.readouterr().err
    assert "out of memory" in err
    assert err.splitlines()[-1] == "qefpn train: failed: job 1; the other jobs are done"
    assert "RuntimeError: out of memory" in (tmp_path / "1" / "error.txt").read_text()
    assert [job.state for job in read_jobs(tmp_path)] == ["done", "failed", "done"]
    # started again, it runs what failed, and that alone
    monkeypatch.setattr(assembling, "build_module", built)
    kept = [(tmp_path / job / "checkpoints" / "last.ckpt").stat().st_mtime_ns for job in ("0", "2")]
    assert main(sweep(tmp_path, data_root, "seed=0,1,2", "sweep.resume=true")) == 0
    assert kept == [(tmp_path / job / "checkpoints" / "last.ckpt").stat().st_mtime_ns for job in ("0", "2")]
    assert [job.attempts for job in read_jobs(tmp_path)] == [1, 2, 1]
    assert not (tmp_path / "1" / "error.txt").exists()
    assert losses(tmp_path / "0") != losses(tmp_path / "1")


@pytest.mark.slow
def test_a_job_s_mistake_found_late_is_one_line(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whether a set is there is known only when it is looked for."""
    assert main(sweep(tmp_path, data_root, "data.test=[SYN-TE],[SYN-TE,OTHER]")) == 1
    err = capfd.readouterr().err.splitlines()
    assert len(err) == 3  # the mistake, how many are done, which are not
    assert "job 1" in err[0]
    assert (tmp_path / "1" / "error.txt").read_text().strip() in err[0]
    assert (tmp_path / "0" / "checkpoints" / "last.ckpt").is_file()


def test_a_mistake_in_one_choice_stops_all_before_they_start(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for axis in ("solver=broyden,andersen", "residual.p=0,2", "+trainer.max_epoch=1,2"):
        assert main(sweep(tmp_path, data_root, axis)) == 2
        assert len(capfd.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_devices_that_are_not_there(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for devices, said in (
        (["trainer.accelerator=gpu", "trainer.devices=[0,7]"], "trainer.devices=[0, 7]: there are GPUs 0 to 1"),
        (["trainer.accelerator=gpu", "trainer.devices=3"], "only 2 GPU(s) are there"),
        (["trainer.accelerator=cpu", "trainer.devices=0"], "trainer.devices"),
        (["trainer.accelerator=mps"], "trainer.accelerator=mps"),
    ):
        given = [word for word in sweep(tmp_path, data_root, *devices) if word != "trainer=cpu"]
        assert main(given) == 2, devices
        (line,) = capfd.readouterr().err.splitlines()
        assert said in line
    assert not list(tmp_path.iterdir())


def test_a_port_in_use(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    given = [word for word in words(tmp_path / "run", data_root, *two) if word != "trainer=cpu"]
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", port)
        assert main(given) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert f"MASTER_PORT={port} " in line
        for value in ("many", "70000"):
            with pytest.raises(UserError, match=f"MASTER_PORT={value} "):
                checks.check_port(2, {"MASTER_PORT": value})
        checks.check_port(1, {"MASTER_PORT": port})  # one process meets nobody
        checks.check_port(2, {"MASTER_PORT": port, "LOCAL_RANK": "0"})  # torchrun's own
    checks.check_port(2, {"MASTER_PORT": port})
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_sweep_goes_on_in_its_own_directory_alone(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sweep"
    words = [w for w in sweep(folder, data_root, "ablation=p")[1:] if w != "-m"]
    claim(folder, plan_of(expand_rows(words), parse_overrides(expand_rows(words))), resume=False)
    plan = read_plan(folder)
    assert plan is not None
    assert (plan.axes, plan.jobs) == (["ablation"], 4)
    for more, said in (
        (["ablation=p"], "sweep.resume=true"),
        (["ablation=p", "seed=0,1"], "another sweep (seed=0,1)"),
        (["ablation=adjoint", "sweep.resume=true"], "another sweep (ablation=adjoint/implicit,"),
        (["ablation=p", "sweep.resume=maybe"], "sweep.resume"),
        (["ablation=p", "sweep.resume=true", f"hydra.sweep.dir={tmp_path}"], "holds no sweep"),
        (["ablation=p", "hydra.sweep.dir=a/${hydra.job.name}"], "${now:...}"),
        (["ablation=p", "hydra/launcher=jobli"], "hydra/launcher=jobli"),
    ):
        assert main(sweep(folder, data_root, *more)) == 2, more
        (line,) = capfd.readouterr().err.splitlines()
        assert said in line
    assert main([w for w in sweep(folder, data_root, "seed=1", "sweep.resume=true") if w != "-m"]) == 2
    assert "-m" in capfd.readouterr().err
    given = [w for w in sweep(folder, data_root, "seed=0,1", "sweep.resume=true") if "sweep.dir" not in w]
    assert main(given) == 2
    assert "hydra.sweep.dir=DIR" in capfd.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["sweep.json"]


@pytest.mark.slow
def test_a_job_says_what_it_is(tmp_path: Path, data_root: Path) -> None:
    given = [w for w in sweep(tmp_path, data_root, "seed=3,4") if not w.startswith("solver.")]
    assert main([*given, "ablation=solver", "ablation.row=quasi,unroll_1"]) == 0
    jobs = read_jobs(tmp_path)
    assert [job.overrides for job in jobs] == [
        [f"seed={seed}", f"ablation=solver/{row}"] for seed in (3, 4) for row in ("quasi", "unroll_1")
    ]
    assert [(job.ablation or {})["row"] for job in jobs] == ["quasi", "unroll_1"] * 2
    for job in jobs:
        found = config(tmp_path / str(job.number))
        assert found["ablation"] == job.ablation
        assert found["logger"]["group"] == tmp_path.name
        assert found["logger"]["tags"] == ["ablation=solver"]
        assert found["logger"]["run_name"] == " ".join(job.overrides)
    assert config(tmp_path / "1")["solver"] == {"_target_": "qefpn.implicit.Unroll", "max_steps": 1, "rtol": 0.0}


def test_one_gpu_a_job(tmp_path: Path) -> None:
    with claimed_gpu(tmp_path, 2) as first, claimed_gpu(tmp_path, 2) as second, claimed_gpu(tmp_path, 2) as third:
        assert (first, second, third) == (0, 1, None)
    with claimed_gpu(tmp_path, 2) as again:
        assert again == 0


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers(launcher: str, tmp_path: Path, data_root: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    own = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else ["hydra.launcher.timeout_min=5"]
    given = sweep(tmp_path, data_root, "seed=0,1", "data.test=[SYN-TE],[SYN-TE,OTHER]", f"hydra/launcher={launcher}")
    assert main([*given, *own]) == 1  # a job that fails in another process is known here
    jobs = read_jobs(tmp_path)
    assert [job.state for job in jobs] == ["done", "failed"] * 2
    assert [config(tmp_path / str(job))["seed"] for job in (0, 2)] == [0, 1]
    assert "one test set" in (tmp_path / "1" / "error.txt").read_text()


@pytest.mark.slow
def test_a_search(tmp_path: Path, data_root: Path) -> None:
    pytest.importorskip("optuna")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    axes = [
        "optimizer.lr=tag(log,interval(1e-4,1e-2))",
        "solver.max_steps=range(1,4)",
        "hydra.sweeper.direction=maximize",
    ]
    given = [w for w in sweep(tmp_path, data_root) if not w.startswith("solver.max_steps")]
    assert main([*given, *search, *axes]) == 0
    jobs = read_jobs(tmp_path)
    assert [job.state for job in jobs] == ["done"] * 3
    rates = [config(tmp_path / str(job.number))["optimizer"]["lr"] for job in jobs]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    best = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    assert best["best_value"] == pytest.approx(max(best_score(tmp_path / str(job.number)) for job in jobs))


@pytest.mark.parametrize("launcher", ["slurm"])
def test_launchers_of_ours_compose(launcher: str) -> None:
    compose_config("train", [f"hydra/launcher={launcher}", "hydra.launcher.partition=gpu", "data.root=x"])


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
    assert list((run / "wandb").rglob("precision_recall*.table.json"))  # scored while the run was open
    assert len(losses(run)) == 3
    assert main(sweep(tmp_path / "m", data_root, "logger=wandb", "logger.offline=true", "seed=0,1")) == 0
    for job in range(2):  # a run of its own each
        assert len(list((tmp_path / "m" / str(job) / "wandb").glob("offline-run-*"))) == 1
