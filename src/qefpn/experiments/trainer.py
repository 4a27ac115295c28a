"""The arguments of ``pl.Trainer`` that a configuration gives, and the devices that it means."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from qefpn.data.progress import SharedTimer
from qefpn.errors import UserError
from qefpn.experiments.config_files import config_content
from qefpn.experiments.schema import TrainConfig, TrainerConfig, ensure
from qefpn.option_names import TARGET
from qefpn.parts import class_of
from qefpn.training.best_checkpoint import BestCheckpoint
from qefpn.training.callbacks import Float32Precision, build_callbacks, build_profiler, progress_callback
from qefpn.training.checkpoint import AtomicCheckpointIO, ConfigInCheckpoint
from qefpn.training.last_checkpoint import LastCheckpoint


def build_trainer(config: TrainConfig, directory: Path) -> pl.Trainer:
    """The Lightning trainer of a run with its callbacks; its loggers come when the run begins.

    Args:
        config: its values checked.
        directory: of the run.

    Raises:
        UserError: what Lightning refuses.
    """
    options = trainer_options(config)
    threads = options.pop("num_threads")
    if threads:
        torch.set_num_threads(threads)
    limit = options.pop("max_time")
    callbacks = progress_callback(options["enable_progress_bar"])
    callbacks.append(Float32Precision(config.trainer.fp32_precision))
    options["enable_progress_bar"] = any(isinstance(c, pl.callbacks.ProgressBar) for c in callbacks)
    if limit is not None:
        callbacks.append(SharedTimer(duration=limit, verbose=False))
    callbacks += build_callbacks(config.callbacks)  # before what saves: a step is whole when they have seen it
    callbacks.append(ConfigInCheckpoint(config_content(config)))
    callbacks.append(LastCheckpoint(directory / "checkpoints"))  # after the timer, whose end it looks for
    callbacks.append(BestCheckpoint(directory / "checkpoints", config.monitor))
    return lightning_trainer(
        config,
        default_root_dir=directory,
        logger=False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,  # the data module shares the pictures out, each exactly once
        profiler=build_profiler(config.profiler),
        **options,
    )


def trainer_options(config: TrainConfig) -> dict[str, Any]:
    """Arguments of ``pl.Trainer``, and ``num_threads`` and ``max_time``, which are not."""
    options = dataclasses.asdict(config.trainer)
    options.pop("fp32_precision")
    if options["deterministic"] is True:
        options["deterministic"] = "warn"  # what cannot be is named, rather than refused
    patience = datetime.timedelta(seconds=options.pop("rank_timeout"))
    if options["strategy"] == "ddp":
        options["strategy"] = DDPStrategy(timeout=patience)
    if options["sync_batchnorm"] is None:  # on one device it does nothing; torch's are made for GPUs
        options["sync_batchnorm"] = on_gpu(config.trainer)
    return options | {"num_nodes": node_count()}


def on_gpu(trainer: TrainerConfig) -> bool:
    """Whether it trains on GPUs of NVIDIA's."""
    return trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available()


def lightning_trainer(config: TrainConfig, **options: Any) -> pl.Trainer:
    """The trainer that ``_target_`` names, with the other options.

    Args:
        config: where the options are from, as far as they are a user's.
        options: arguments.

    Raises:
        UserError: what Lightning refuses, with the keys that were given.
    """
    try:
        return class_of(options.pop(TARGET), pl.Trainer, "trainer")(**options)
    except (MisconfigurationException, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        usual = dataclasses.asdict(TrainerConfig(max_epochs=50))
        given = {key: value for key, value in dataclasses.asdict(config.trainer).items() if value != usual[key]}
        named_in_it = [key for key in given if re.search(rf"\b{key}\b", text)]
        keys = " ".join(f"trainer.{key}={given[key]}" for key in named_in_it or given)
        raise UserError(f"{keys or 'trainer'}: {text.partition('. ')[0][:300]}") from None


def node_count() -> int:
    """Machines that share a run, from the variables of torchrun or Slurm."""
    world, local = (int(os.environ.get(key, 1)) for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if "LOCAL_WORLD_SIZE" in os.environ:
        return max(1, world // local)
    return int(os.environ.get("SLURM_NNODES", 1)) if SLURMEnvironment.detect() else 1


def check_accelerator(trainer: TrainerConfig) -> None:
    """Raise ``UserError`` for devices that are not there."""
    there = torch.cuda.device_count()
    if trainer.accelerator in ("gpu", "cuda") and there == 0:
        raise UserError("trainer.accelerator=gpu, but no GPU is there: use trainer=cpu")
    if isinstance(trainer.devices, list) and (trainer.accelerator in ("gpu", "cuda") or there > 0):
        absent = [index for index in trainer.devices if index not in range(there)]
        ensure(not absent, f"trainer.devices={trainer.devices}: there are GPUs 0 to {there - 1} alone")
    gpu = trainer.accelerator in ("gpu", "cuda") or (trainer.accelerator == "auto" and there > 0)
    if gpu and str(trainer.devices).isdigit() and int(trainer.devices) > there:
        raise UserError(f"trainer.devices={trainer.devices}, but only {there} GPU(s) are there")


def device_count(config: TrainConfig) -> int:
    """Processes that share a batch: what the trainer that is built says.

    Raises:
        UserError: for devices that are not there.
    """
    check_accelerator(config.trainer)
    return probe(config).world_size


def probe(config: TrainConfig) -> pl.Trainer:
    """A trainer that is asked, and does nothing."""
    ours = ("fp32_precision", "rank_timeout", "num_threads", "max_time")
    lasting = ("deterministic", "benchmark")  # set for the whole process
    options = {k: v for k, v in dataclasses.asdict(config.trainer).items() if k not in (*ours, *lasting)}
    options |= {"sync_batchnorm": False, "enable_progress_bar": False, "num_nodes": node_count()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run says them again
        return lightning_trainer(config, **options, logger=False, enable_checkpointing=False)
