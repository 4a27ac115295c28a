"""One training run, from a checked configuration to scored test sets in a run directory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from qefpn.atomic import copy_atomic, write_json
from qefpn.data import SaliencyDataModule
from qefpn.errors import UserError
from qefpn.experiments.assemble import Experiment
from qefpn.experiments.checks import check_port
from qefpn.experiments.config_files import write_config
from qefpn.experiments.loggers import logger_options
from qefpn.experiments.module import build_module, edge_filter_of
from qefpn.experiments.schema import TrainConfig
from qefpn.models import load_model
from qefpn.models.loading import FILLED_IN, PREFIX
from qefpn.models.weights import read_checkpoint
from qefpn.training.best_checkpoint import BestCheckpoint
from qefpn.training.checkpoint import OWN, checkpoints_of, is_validated
from qefpn.training.evaluation import Predictor
from qefpn.training.failures import library_errors, quiet_lightning
from qefpn.training.module import SaliencyModule
from qefpn.training.pictures import ShowPictures
from qefpn.training.run_log import RunLog
from qefpn.training.test_files import Progress, TestFiles


@dataclass(frozen=True)
class Fitted:
    """A run after its training.

    Attributes:
        trainer, module: as training left them.
        checkpoint: the one to score: ``best.ckpt``, or ``last.ckpt`` where there is no validation; None after a
            ``fast_dev_run``, which writes none.
    """

    trainer: pl.Trainer
    module: SaliencyModule
    checkpoint: Path | None


def fit(experiment: Experiment, loggers: Sequence[Logger] = ()) -> Fitted:
    """Train as configured. ``config.yaml``, ``data.json``, ``log.csv`` and ``checkpoints/`` go to the run's directory.

    Args:
        experiment: the pictures of its data are checked, in the first process.
        loggers: open, beside log.csv's.

    Raises:
        UserError: the checkpoint to resume is of another run; a loading process died; the disk is full; ...
        Stopped: a signal came, and last.ckpt is written. KeyboardInterrupt for Ctrl-C.
    """
    config, directory, data = experiment.config, experiment.directory, experiment.data
    module, trainer = experiment.module, experiment.trainer
    directory.mkdir(parents=True, exist_ok=True)
    write_config(config, directory / "config.yaml")
    if config.init is not None:
        start_from(module, config.init)
    checkpoints = directory / "checkpoints"
    resumed = None if config.resume is None else Path(config.resume).expanduser()
    averaged = any(isinstance(callback, WeightAveraging) for callback in experiment.callbacks)
    state = None if resumed is None else check_checkpoint(resumed, module, averaged=averaged)
    start_logging(experiment, loggers, state)
    check_port(trainer.world_size, os.environ)
    checkpoints.mkdir(exist_ok=True)
    first_process(config, data, directory, trainer, state)
    with quiet_lightning(), library_errors(trainer, config.trainer.rank_timeout, checkpoints / "last.ckpt"):
        # weights_only: nothing but tensors and plain values is ever unpickled
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
        if config.trainer.fast_dev_run:
            return Fitted(trainer, module, None)
        last = checkpoints / "last.ckpt"
        if resumed is not None and trainer.is_global_zero and not last.exists():  # nothing was left to train
            copy_atomic(resumed, last)
        if data.val_pairs and module.validated_at != trainer.global_step:
            _validate_last(trainer, module, data, config.monitor, checkpoints)
        trainer.strategy.barrier()
    best = checkpoints / "best.ckpt"
    return Fitted(trainer, module, best if best.exists() else last)


def start_logging(experiment: Experiment, loggers: Sequence[Logger], state: Mapping[str, Any] | None) -> None:
    """Give the trainer its loggers: log.csv's, which goes on after the last row of ``state``, and further ones."""
    config, callbacks = experiment.config, experiment.callbacks
    if config.trainer.fast_dev_run:  # which keeps nothing
        return
    first, validated = (0, False) if state is None else (int(state["global_step"]), is_validated(state))
    run_log = RunLog(experiment.directory / "log.csv", first, validated)
    run_log.cut()
    experiment.trainer.loggers = [run_log, *loggers]
    if loggers:
        shown = ShowPictures(logger_options(config).pictures, edge_filter_of(config))
        best = next(place for place, callback in enumerate(callbacks) if isinstance(callback, BestCheckpoint))
        callbacks.insert(best, shown)


def test(
    config: TrainConfig,
    fitted: Fitted,
    data: SaliencyDataModule,
    directory: Path,
    *,
    floors: Mapping[str, Predictor] | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Score the checkpoint of a run on the test sets, on all of its devices.

    Args:
        config: of the run.
        fitted: what :func:`fit` gave.
        data: its test sets; where there are none nothing is done.
        directory: receives the files of :class:`TestFiles`.
        floors: what is scored beside the network.
        progress: as :class:`TestFiles` calls it.

    Returns:
        the content of metrics.json, in the first process.

    Raises:
        UserError, Stopped, KeyboardInterrupt: as :func:`fit`.
    """
    files = TestFiles(directory, floors=floors, progress=progress)
    trainer = fitted.trainer
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    last = directory / "checkpoints" / "last.ckpt"
    with quiet_lightning(), library_errors(trainer, config.trainer.rank_timeout, last):
        callbacks.insert(0, files)  # what it finds others show
        try:
            trainer.test(fitted.module, datamodule=data, ckpt_path=fitted.checkpoint, verbose=False, weights_only=True)
        finally:
            callbacks.remove(files)
    return files.metrics


def leave(trainer: pl.Trainer, data: SaliencyDataModule) -> None:
    """The end of the work of several processes: what follows is done by the first one."""
    if trainer.world_size > 1:
        trainer.strategy.barrier()
        torch.distributed.destroy_process_group()
        data.trainer = None


@rank_zero_only
def claim(config: TrainConfig, directory: Path) -> None:
    """Keep a run directory to one run.

    Raises:
        UserError: a run lies there, and the checkpoint to resume, if any, is not its own.
    """
    there = checkpoints_of(directory)
    resumed = None if config.resume is None else Path(config.resume).expanduser().resolve()
    if there and (resumed is None or resumed.parent != there[0].parent.resolve()):
        raise UserError(
            f"{directory} holds a run already: resume={there[0]} goes on with it; "
            "or choose another directory (hydra.run.dir=DIR)"
        )


@rank_zero_only
def first_process(
    config: TrainConfig, data: SaliencyDataModule, directory: Path, trainer: pl.Trainer, state: Mapping[str, Any] | None
) -> None:
    """What one process does for all before they train.

    Raises:
        UserError: too few pictures for the devices; the checkpoint to resume is of other data.
    """
    for stale in (directory / "checkpoints").glob(".*.part"):  # of a process that was killed while it wrote
        stale.unlink()
    if 0 < len(data.val_pairs) < trainer.world_size:
        raise UserError(
            f"{len(data.val_pairs)} pictures are held out for validation, fewer than trainer.devices: "
            "raise data.val_fraction, or set it to 0"
        )
    if state is not None:
        data.check_state(state[type(data).__qualname__])
    if config.trainer.max_time is not None:
        print("trainer.max_time bounds this run: what it does depends on the clock, and cannot be repeated exactly")
    if not config.trainer.fast_dev_run:
        write_data(data, directory / "data.json")


def _validate_last(
    trainer: pl.Trainer, module: SaliencyModule, data: SaliencyDataModule, monitor: str, checkpoints: Path
) -> None:
    """Let the last weights compete for best.ckpt: limits of time or steps end a run between validations."""
    callback = next(c for c in trainer.callbacks if isinstance(c, BestCheckpoint))  # type: ignore[attr-defined]
    former = callback.best_model_score
    scores = trainer.validate(module, datamodule=data, verbose=False)[0]
    if monitor not in scores:
        return
    score = scores[monitor]
    if former is None or (score < float(former) if callback.mode == "min" else score > float(former)):
        if trainer.is_global_zero:
            copy_atomic(checkpoints / "last.ckpt", checkpoints / "best.ckpt")
        trainer.strategy.barrier()


@rank_zero_only
def write_data(data: SaliencyDataModule, path: Path) -> None:
    """How many pictures the run trains on, holds out and is tested on, as JSON.

    ``{"train_pictures": N, "val_pictures": N, "test_pictures": {"<data set>": N}}``.
    """
    content = {
        "train_pictures": len(data.train_pairs),
        "val_pictures": len(data.val_pairs),
        "test_pictures": {name: len(pairs) for name, pairs in data.test_pairs.items()},
    }
    write_json(path, content)


def start_from(module: SaliencyModule, path: str) -> None:
    """Copy the weights of a trained network into a fresh one.

    Raises:
        UserError: no checkpoint there, or one of a network of another shape.
    """
    try:
        module.network.load_state_dict(load_model(path).state_dict())
    except RuntimeError:
        raise UserError(
            f"init={path} holds a network of another shape: give its run's options (config.yaml beside it)"
        ) from None


def check_checkpoint(path: Path, module: SaliencyModule, *, averaged: bool = False) -> dict[str, Any]:
    """The content of a checkpoint that a run can go on from.

    Args:
        path: the checkpoint.
        module: that is to go on.
        averaged: whether the run averages its weights.

    Raises:
        UserError: it is none of ours, of a network of another shape, of a version that kept no place, or holds averaged
            weights for a run that averages none.
    """
    content: dict[str, Any] = read_checkpoint(path)
    state = content.get("state_dict", {})
    given, own = ({k: v.shape for k, v in s.items() if k.startswith(PREFIX)} for s in (state, module.state_dict()))
    # the network fills in how pictures are normalised, which earlier versions did not keep
    if given != {key: shape for key, shape in own.items() if key in given or key not in FILLED_IN}:
        raise UserError(
            f"resume={path} holds a network of another shape: give its run's options (config.yaml beside it)"
        )
    if "place" not in content.get(OWN, {}) or SaliencyDataModule.__qualname__ not in content:
        raise UserError(
            f"resume={path} does not say exactly where to go on (it is packed, or of an earlier version): "
            f"init={path} starts a fresh run from its weights"
        )
    if "averaging_state" in content and not averaged:
        raise UserError(f"resume={path} holds averaged weights beside those that were trained: give callbacks=ema")
    return content


def untrained_module(config: TrainConfig) -> SaliencyModule:
    """The same network with fresh weights, the floor that shows what was learned."""
    return build_module(dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, weights=None)))
