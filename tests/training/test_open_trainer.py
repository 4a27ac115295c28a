"""`trainer.X` for any argument of Lightning's trainer, its callbacks and profilers, and the groups for debugging."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from tests.commands.runs import log, losses, train, words
from tests.training.breaking import KILL, assert_same_run, at_random, broken_run, run_once

from qefpn.cli import main
from qefpn.experiments.composition import compose_config
from qefpn.experiments.config_files import config_of, read_config
from qefpn.experiments.schema import OWNED, TrainerConfig, parse_config
from qefpn.experiments.trainer import trainer_options
from qefpn.reporting.sections import settings
from qefpn.training.callbacks import EarlyStopping, build_callbacks
from qefpn.training.module import SaliencyModule

QUICK = ["evaluate=false", "warmup.steps=1"]


def test_every_argument_of_the_trainer_is_taken_or_told_where_it_is_set() -> None:
    arguments = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    ours = {"rank_timeout", "fp32_precision", "num_threads", "_target_"}
    assert set(vars(TrainerConfig())) - ours == arguments - set(OWNED)
    assert set(OWNED) < arguments
    config = compose_config("train", ["data.root=x"])
    assert set(config.trainer) - ours == arguments - set(OWNED)  # without a plus


def test_arguments_arrive(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {
        **{"gradient_clip_val": 0.5, "gradient_clip_algorithm": "value", "benchmark": True, "detect_anomaly": True},
        **{"inference_mode": False, "num_sanity_val_steps": 1, "reload_dataloaders_every_n_epochs": 1},
        **{"min_epochs": 1, "limit_predict_batches": 2, "enable_model_summary": True, "val_check_interval": 0.5},
    }
    asked: list[dict[str, Any]] = []
    own = pl.Trainer.__init__

    def init(self: pl.Trainer, *args: Any, **options: Any) -> None:
        asked.append(options)
        own(self, *args, **options)

    monkeypatch.setattr(pl.Trainer, "__init__", init)
    plain = train(tmp_path / "plain", data_root, *QUICK)
    run = train(tmp_path / "run", data_root, *QUICK, *(f"trainer.{key}={value}" for key, value in given.items()))
    assert {key: asked[-1][key] for key in given} == given
    assert read_config(run / "config.yaml").trainer.gradient_clip_algorithm == "value"
    assert losses(run)[0] == losses(plain)[0]  # looking at the validation set first changes nothing


def test_what_lightning_refuses_while_it_builds_is_one_line(
    tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bars = "callbacks._target_=pytorch_lightning.callbacks.TQDMProgressBar"
    bars = f"+{bars.replace('callbacks._', 'callbacks.bar._', 1)}"
    more = "+callbacks.more._target_=pytorch_lightning.callbacks.RichProgressBar"
    assert main(words(tmp_path / "run", data_root, *QUICK, bars, more)) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err and err.strip().count("\n") == 0 and "progress bar" in err


@pytest.mark.parametrize(("gpu", "accelerator", "given", "expected"), [
    (True, "auto", None, True), (True, "gpu", None, True), (True, "cpu", None, False), (False, "auto", None, False),
    (True, "auto", False, False),
])  # fmt: skip
def test_batch_norms_of_gpus_see_the_whole_batch(
    gpu: bool, accelerator: str, given: bool | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(compose_config("train", ["data.root=x", f"trainer.accelerator={accelerator}"]))
    config.trainer.sync_batchnorm = given
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert trainer_options(config)["sync_batchnorm"] is expected


def test_overfitting_sees_the_same_pictures_each_epoch(
    tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    own = SaliencyModule.training_step

    def step(self: SaliencyModule, batch: dict[str, Any], batch_idx: int) -> Any:
        seen.append(sorted(batch["name"]))
        return own(self, batch, batch_idx)

    monkeypatch.setattr(SaliencyModule, "training_step", step)
    train(tmp_path / "run", data_root, *QUICK, "debug=overfit", "trainer.max_steps=6", "data.batch_size=2")
    assert len(seen) == 6 and seen[0] != seen[1]
    assert seen[:2] == seen[2:4] == seen[4:]


@pytest.mark.parametrize("option", ["fast", "limit"])
def test_debug(option: str, tmp_path: Path, data_root: Path) -> None:
    given = words(tmp_path / "run", data_root, f"debug={option}", "data.batch_size=1")
    assert main([word for word in given if word.partition("=")[0] not in ("trainer.max_steps", "warmup.steps")]) == 0
    run = tmp_path / "run"
    if option == "fast":
        assert not list((run / "checkpoints").glob("*"))
    else:
        assert len(losses(run)) == 24 and (run / "metrics.json").is_file()
        assert {row["unrolled_layers"] for row in log(run)} == {"0", "5"}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_several_callbacks_at_once(tmp_path: Path, data_root: Path) -> None:
    given = ["callbacks=[ema,lr_monitor,device_stats]", "profiler=simple", "logger=tensorboard"]
    run = train(tmp_path / "run", data_root, *QUICK, *given)
    columns = {key for row in rows(run) for key, value in row.items() if value}
    assert {"lr-AdamW/pg1", "loss", "val_mae"} <= columns
    assert any(column.startswith("DeviceStatsMonitor") for column in columns)
    assert "averaging_state" in torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert "run_training_batch" in (run / "fit-profile.txt").read_text()
    assert [*read_config(run / "config.yaml").callbacks] == ["ema", "lr_monitor", "device_stats"]
    assert losses(run) == losses(train(tmp_path / "plain", data_root, *QUICK))
    assert main(["evaluate", f"checkpoint={run}/checkpoints/best.ckpt", f"output={tmp_path}/scores"]) == 0
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert dict(settings(written))["callbacks"].startswith("ema (decay 0.999), lr_monitor (logging_interval step")


@pytest.mark.slow
@pytest.mark.parametrize(("option", "said"), [("advanced", "function calls"), ("pytorch", "Self CPU")])
def test_profilers_write_into_the_run_directory(option: str, said: str, tmp_path: Path, data_root: Path) -> None:
    run = train(tmp_path / "run", data_root, *QUICK, f"profiler={option}")
    assert any(said in path.read_text() for path in run.glob("fit-profile*.txt"))


def test_what_was_written_with_one_callback_by_name_is_read() -> None:
    content = {"callbacks": {"name": "ema", "decay": 0.9}, "data": {"root": "x"}}
    (ema,) = build_callbacks(config_of(content, Path("config.yaml")).callbacks)
    assert type(ema).__name__ == "AveragedWeights"
    assert config_of({"callbacks": {"name": "none"}, "data": {"root": "x"}}, Path("config.yaml")).callbacks == {}


STOP = [*QUICK, "callbacks=early_stopping", "callbacks.early_stopping.patience=2", "trainer.max_epochs=9"]
STOP += ["trainer.max_steps=-1", "callbacks.early_stopping.min_delta=10"]  # nothing is a gain


def test_early_stopping_counts_validations_and_stays_stopped(tmp_path: Path, data_root: Path) -> None:
    run = train(tmp_path / "run", data_root, *STOP)
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 3  # the first validation is the best, two more are no better
    again = train(tmp_path / "again", data_root, *STOP, f"resume={run}/checkpoints/last.ckpt")
    assert torch.load(again / "checkpoints/last.ckpt", weights_only=True)["global_step"] == last["global_step"]
    longer = [word.replace("patience=2", "patience=4") for word in STOP]
    more = train(tmp_path / "more", data_root, *longer, f"resume={run}/checkpoints/last.ckpt")
    assert torch.load(more / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 5


def test_early_stopping_knows_which_way_is_better() -> None:
    assert [EarlyStopping(f"val_{name}").mode for name in ("mae", "max_f")] == ["min", "max"]
    assert EarlyStopping("val_mae", mode="max").mode == "max"
    assert EarlyStopping("loss", check_on_train_epoch_end=True).mode == "min"


@pytest.mark.parametrize("nothing", ["data.val_fraction=0", "trainer.limit_val_batches=0"])
def test_early_stopping_without_validation_is_refused(
    nothing: str, tmp_path: Path, data_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path / "run", data_root, *QUICK, "callbacks=early_stopping", nothing)) == 2
    err = capfd.readouterr().err
    assert "Traceback" not in err and "data.val_fraction" in err.strip().splitlines()[-1]


# 10 pictures to train on: five batches of two an epoch
WITHIN = [*QUICK, "data.batch_size=2", "data.val_fraction=0.2"]
INTERVALS = {
    "twice an epoch": ["trainer.val_check_interval=2", "trainer.max_epochs=3", "trainer.max_steps=-1"],
    "a share": ["trainer.val_check_interval=0.5", "trainer.max_steps=13", "callbacks=early_stopping"],
    "across epochs": [
        *("trainer.val_check_interval=3", "trainer.check_val_every_n_epoch=null", "trainer.max_steps=13"),
        "trainer.reload_dataloaders_every_n_epochs=1",
    ],
    "every batch": ["trainer.val_check_interval=1", "trainer.max_epochs=2", "trainer.max_steps=-1"],
    "with accumulation": [
        *("trainer.val_check_interval=2", "trainer.accumulate_grad_batches=2", "trainer.max_epochs=3"),
        "trainer.max_steps=-1",
    ],
    "overfitting": ["trainer.overfit_batches=2", "trainer.max_steps=9"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", INTERVALS)
def test_validation_within_an_epoch_goes_on_exactly(name: str, tmp_path: Path, data_root: Path) -> None:
    """kill -9 between steps, within one, while validating and while a checkpoint is written."""
    given = [*WITHIN, *INTERVALS[name]]
    assert run_once(words(tmp_path / "whole", data_root, *given), save_every=60.0) == 0
    strikes = at_random(len(name), 8, [KILL], most=30)
    assert broken_run(tmp_path / "broken", data_root, given, strikes) >= 3
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_validations_come_where_they_are_asked_for(tmp_path: Path, data_root: Path) -> None:
    found = {}
    for interval, every in (("2", "1"), ("3", "null")):
        given = [f"trainer.val_check_interval={interval}", f"trainer.check_val_every_n_epoch={every}"]
        run = train(tmp_path / interval, data_root, *WITHIN, *given, "trainer.max_steps=10")
        found[interval] = [int(row["step"]) for row in rows(run) if row["val_mae"]]
    assert found == {"2": [1, 3, 6, 8, 9], "3": [2, 5, 8, 9]}  # and of the last weights


def test_the_last_validation_stands_in_the_epoch_of_its_step(tmp_path: Path, data_root: Path) -> None:
    given = [*WITHIN, "trainer.max_steps=7", "trainer.check_val_every_n_epoch=5"]
    run = train(tmp_path / "run", data_root, *given)
    (tmp_path / "killed" / "checkpoints").mkdir(parents=True)  # after its last checkpoint was written
    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    last.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    again = train(tmp_path / "killed", data_root, *given, f"resume={last}")
    for directory in (run, again):
        assert [(row["step"], row["epoch"]) for row in rows(directory) if row["val_mae"]] == [("6", "1")]
