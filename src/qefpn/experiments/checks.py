"""What types cannot say of a configuration: impossible values are told, one line each, before any data is read."""

from __future__ import annotations

import functools
import socket
from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.accelerators import CUDAAccelerator

from qefpn.errors import UserError
from qefpn.experiments.loggers import check_loggers
from qefpn.experiments.module import build_criterion, build_optimizer, build_scheduler, network_options
from qefpn.experiments.prepare import data_module
from qefpn.experiments.schema import TrainConfig, build_named, ensure
from qefpn.experiments.trainer import check_accelerator, probe
from qefpn.implicit import Adjoint, Residual, Solver
from qefpn.metrics import PROTOCOLS
from qefpn.models import QEFPN
from qefpn.models.lite import PACKAGED, packaged_weights
from qefpn.models.packed import network_file
from qefpn.models.weights import read_checkpoint
from qefpn.parts import build_part
from qefpn.text import did_you_mean
from qefpn.training.callbacks import build_callbacks, build_profiler
from qefpn.training.hardware import FP32_PRECISIONS
from qefpn.training.module import VALIDATED


def check(config: TrainConfig) -> None:
    """Raise ``UserError`` as :func:`qefpn.experiments.assemble.assemble` would, for a run that is made later.

    Nothing is downloaded.
    """
    check_values(config)
    data_module(config, Path())
    check_devices(config, probe(config))
    fresh = {**network_options(config), "weights": None}
    build_named("backbone, pyramid or decoder", lambda: QEFPN(**fresh))


def check_values(config: TrainConfig) -> None:
    """Raise ``UserError``, in one line naming the key, for every value that cannot work, short of a network's own."""
    ensure(config.seed >= 0, f"seed must be at least 0, not {config.seed}")
    for group, kind in (("solver", Solver), ("residual", Residual), ("adjoint", Adjoint)):
        build_part(getattr(config, group), kind, group, nested=(Solver,))
    build_criterion(config)
    build_optimizer(config)
    build_scheduler(config)
    build_callbacks(config.callbacks)
    build_profiler(config.profiler)
    _check_trainer(config)
    _check_rest(config)
    _check_files(config)


def check_devices(config: TrainConfig, trainer: pl.Trainer) -> None:
    """Raise ``UserError`` for what does not suit the devices that the trainer found."""
    ensure(
        not config.trainer.sync_batchnorm or isinstance(trainer.accelerator, CUDAAccelerator),
        "trainer.sync_batchnorm=true needs GPUs: leave it out (on several GPUs it is on by itself)",
    )
    devices = trainer.world_size
    ensure(
        config.data.batch_size % devices == 0,
        f"data.batch_size={config.data.batch_size} is the total over all devices: {devices} do not divide it",
    )


def _check_rest(config: TrainConfig) -> None:
    pyramid = config.pyramid
    ensure(len(pyramid.levels) > 0, "pyramid.levels is empty: give [2,3,4,5] or [3,4,5]")
    ensure(
        pyramid.levels == sorted(set(pyramid.levels)) and pyramid.levels[-1] <= 5 and pyramid.levels[0] >= 2,
        f"pyramid.levels must be increasing and within 2 to 5, not {pyramid.levels}",
    )
    ensure(pyramid.name in ("implicit", "none"), f"pyramid must be implicit or none, not {pyramid.name!r}")
    ensure(pyramid.channels >= 1, f"pyramid.channels must be at least 1, not {pyramid.channels}")
    ensure(pyramid.expansion >= 1, f"pyramid.expansion must be at least 1, not {pyramid.expansion}")
    for key in ("jacobian_weight", "correction_weight"):
        value = getattr(pyramid, key)
        ensure(0 <= value < float("inf"), f"pyramid.{key} must be a number from 0 on, not {value}")
    for key in ("jacobian_samples", "correction_states"):
        ensure(getattr(pyramid, key) >= 1, f"pyramid.{key} must be at least 1, not {getattr(pyramid, key)}")
    gamma, every = pyramid.correction_gamma, pyramid.spectral_radius_every
    ensure(0 < gamma <= 1, f"pyramid.correction_gamma must be in (0, 1], not {gamma}")
    ensure(every >= 0, f"pyramid.spectral_radius_every must be at least 0, not {every}")
    ensure(config.warmup.steps >= 0, f"warmup.steps must be at least 0, not {config.warmup.steps}")
    ensure(config.warmup.layers >= 1, f"warmup.layers must be at least 1, not {config.warmup.layers}")
    ensure(config.max_skipped_steps >= 1, f"max_skipped_steps must be at least 1, not {config.max_skipped_steps}")
    hint = did_you_mean(config.protocol, PROTOCOLS)
    known = ", ".join(PROTOCOLS)
    ensure(config.protocol in PROTOCOLS, f"protocol must be one of {known}, not {config.protocol!r}{hint}")
    monitors = [f"val_{name}" for name in VALIDATED]
    ensure(config.monitor in monitors, f"monitor is one of {', '.join(monitors)}, not {config.monitor!r}")


def _check_trainer(config: TrainConfig) -> None:
    trainer = config.trainer
    check_accelerator(trainer)
    ensure(
        trainer.fp32_precision in (None, *FP32_PRECISIONS),
        f"trainer.fp32_precision must be ieee, tf32, bf16 or null, not {trainer.fp32_precision!r}",
    )
    for key in ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
        value = getattr(trainer, key)
        ensure(value is None or value >= 1, f"trainer.{key} must be at least 1, not {value}")
    ensure(not trainer.barebones, "trainer.barebones=true: a run keeps a log and checkpoints; use qefpn profile")
    clip, threads = trainer.gradient_clip_val, trainer.num_threads
    ensure(clip is None or clip >= 0, f"trainer.gradient_clip_val must be at least 0, not {clip}")
    ensure(threads is None or threads >= 1, f"trainer.num_threads must be at least 1, not {threads}")
    bounded = trainer.max_steps > 0 or trainer.max_time is not None or (trainer.max_epochs or 0) > 0
    ensure(bounded, "training has no end: set trainer.max_epochs, trainer.max_steps or trainer.max_time")
    if trainer.max_time is not None:
        parts = trainer.max_time.split(":")
        ensure(
            len(parts) == 4 and all(part.isdigit() for part in parts) and any(int(part) for part in parts),
            f"trainer.max_time is written DD:HH:MM:SS, not {trainer.max_time!r}",
        )
    _check_intervals(config)
    for key in ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches"):
        limit = getattr(trainer, key)
        share = isinstance(limit, float) and 0.0 <= limit <= 1.0
        count = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
        ensure(share or count, f"trainer.{key} is a share in [0, 1] or a number of batches, not {limit!r}")
    ensure(trainer.limit_train_batches != 0, "trainer.limit_train_batches=0 leaves nothing to train on")
    ensure(trainer.rank_timeout > 0, f"trainer.rank_timeout must be positive, not {trainer.rank_timeout}")
    deterministic = trainer.deterministic
    ensure(isinstance(deterministic, bool), f"trainer.deterministic is true or false, not {deterministic!r}")
    fast = trainer.fast_dev_run
    ensure(isinstance(fast, int) and fast >= 0, f"trainer.fast_dev_run is true, false or a count, not {fast!r}")


def _check_intervals(config: TrainConfig) -> None:
    """Validations within an epoch: at places that a resumed run finds again."""
    trainer = config.trainer
    interval, every = trainer.val_check_interval, trainer.check_val_every_n_epoch
    share = isinstance(interval, float) and 0.0 < interval <= 1.0
    count = isinstance(interval, int) and not isinstance(interval, bool) and interval >= 1
    ensure(
        share or count,
        f"trainer.val_check_interval is a share of an epoch in (0, 1] or a number of batches, not {interval!r}",
    )
    ensure(
        every is not None or count,
        "trainer.check_val_every_n_epoch=null needs a number of batches as trainer.val_check_interval",
    )
    batches = trainer.accumulate_grad_batches
    ensure(
        (share and interval == 1.0) or batches == 1 or (count and interval % batches == 0),
        f"trainer.val_check_interval={interval} may fall within a step of trainer.accumulate_grad_batches={batches}: "
        f"give a multiple of {batches} batches",
    )


def _check_files(config: TrainConfig) -> None:
    """Checkpoints that a run starts from are there and can be read."""
    for key in ("init", "resume"):
        path = getattr(config, key)
        if path is None:
            continue
        file = network_file(path) if key == "init" else Path(path).expanduser()
        content = build_named(f"{key}={path}", functools.partial(read_checkpoint, file))
        whole = isinstance(content, dict) and "state_dict" in content and "hyper_parameters" in content
        ensure(whole, f"{key}={path} is no checkpoint of qefpn train")
    weights = config.backbone.weights
    ensure(
        weights in (None, "DEFAULT") or Path(str(weights)).is_file(),
        f"backbone.weights={weights}: there is no such file; null and DEFAULT are the other choices",
    )
    if weights == "DEFAULT" and config.init is None and config.backbone.is_ours and config.backbone.name in PACKAGED:
        packaged_weights(config.backbone.name)
    check_loggers(config)


def check_port(devices: int, environment: Mapping[str, str]) -> None:
    """Whether the port that MASTER_PORT names is free, where this process is the first of ``devices`` that meet there.

    Raises:
        UserError: it is in use, or no port.
    """
    port = environment.get("MASTER_PORT")
    started = any(key in environment for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))  # torchrun holds it itself
    if devices == 1 or port is None or started:
        return
    ensure(port.isdigit() and 0 < int(port) < 2**16, f"MASTER_PORT={port} is no port: give 1 to 65535, or unset it")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(port)))
    except OSError as error:
        raise UserError(f"MASTER_PORT={port} cannot be used ({error.strerror}): unset it, or choose another") from None
