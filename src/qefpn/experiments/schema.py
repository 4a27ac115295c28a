"""The configuration of `qefpn train` as typed records, checked before any data is read."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException, ValidationError

from qefpn.errors import UserError
from qefpn.option_names import TARGET, TARGETS, option_name, removed_key, with_targets
from qefpn.parts import without_removed


@dataclass
class BackboneConfig:
    _target_: str = "qefpn.models.build_backbone"
    name: str = "resnet50"
    model: str | None = None
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether ``name`` says which it is: torchvision's, timm's or one from a package."""
        return self._target_ == BackboneConfig._target_


@dataclass
class PyramidConfig:
    name: str = "implicit"
    channels: int = 64
    levels: list[int] = field(default_factory=lambda: [2, 3, 4, 5])
    expansion: int = 5
    activation: str = "relu"
    intermediate_supervision: bool = False
    residual_in_eval: bool = False
    block_dtype: str = "float32"
    weight_norm: bool = False
    jacobian_weight: float = 0.0
    jacobian_samples: int = 1
    correction_weight: float = 0.0
    correction_states: int = 1
    correction_gamma: float = 0.8
    spectral_radius_every: int = 0


@dataclass
class SyntheticConfig:
    train: int = 400
    test: int = 100
    size: int = 128
    seed: int = 0


@dataclass
class DataConfig:
    _target_: str = "qefpn.data.SaliencyDataModule"
    name: str = "synthetic"
    root: str = MISSING
    train: list[str] | None = None
    test: list[str] | None = None
    extra_test: list[str] = field(default_factory=list)
    test_fraction: float = 0.1
    batch_size: int = 32
    num_workers: int | None = None
    image_size: int = 352
    scales: list[int] | None = None
    progressive: float | None = None
    crop: float = 0.125
    flip: float = 0.5
    val_fraction: float = 0.05
    val_limit: int | None = 500
    on_error: str = "fail"
    cache: str = "none"
    cache_size: int | None = None
    augment: list[dict[str, Any]] | None = None
    blank_masks: str = "error"
    layout: str | None = None
    images: str | None = None
    masks: str | None = None
    lists: dict[str, str] = field(default_factory=dict)
    eval_batch_size: int | None = None
    synthetic: SyntheticConfig | None = field(default_factory=SyntheticConfig)


@dataclass
class WarmupConfig:
    steps: int = 3000
    layers: int = 5


@dataclass
class TrainerConfig:
    _target_: str = "pytorch_lightning.Trainer"
    accelerator: str = "auto"
    devices: Any = 1
    strategy: str = "auto"
    rank_timeout: float = 1800.0
    precision: Any = "32-true"
    fp32_precision: str | None = "ieee"
    max_epochs: int | None = None
    max_steps: int = -1
    max_time: str | None = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    fast_dev_run: Any = False
    limit_train_batches: Any = 1.0
    limit_val_batches: Any = 1.0
    limit_test_batches: Any = 1.0
    limit_predict_batches: Any = 1.0
    overfit_batches: Any = 0.0
    min_epochs: int | None = None
    min_steps: int | None = None
    val_check_interval: Any = 1.0
    check_val_every_n_epoch: int | None = 1
    num_sanity_val_steps: int = 0
    log_every_n_steps: int = 1
    gradient_clip_algorithm: str | None = None
    sync_batchnorm: bool | None = None
    reload_dataloaders_every_n_epochs: int = 0
    num_threads: int | None = None
    deterministic: Any = False
    benchmark: bool | None = None
    inference_mode: bool = True
    detect_anomaly: bool = False
    barebones: bool = False
    enable_progress_bar: bool = True
    enable_model_summary: bool = False
    enable_autolog_hparams: bool = True
    model_registry: str | None = None


OWNED = {
    "callbacks": "callbacks=NAME, or callbacks=[ema,lr_monitor]",
    "logger": "logger=NAME, or logger=[wandb,tensorboard,mlflow] (log.csv is always written)",
    "profiler": "profiler=NAME",
    "plugins": "trainer.precision and trainer.strategy, which bring theirs",
    "default_root_dir": "hydra.run.dir=DIR",
    "enable_checkpointing": "trainer.fast_dev_run=true to keep nothing (last.ckpt and best.ckpt are always written)",
    "use_distributed_sampler": "trainer.devices (the data module shares the pictures out, each exactly once)",
    "num_nodes": "torchrun --nnodes=N or srun, which say how many machines there are",
}
"""Arguments of ``pl.Trainer`` that ``trainer.X`` cannot give, and what to use instead."""


@dataclass
class LoggerConfig:
    """Keys of the group ``logger`` beside the loggers, which are mappings with a ``_target_`` there."""

    project: str = "qefpn"
    entity: str | None = None
    offline: bool = False
    group: str | None = None
    run_name: str | None = None
    tags: list[str] = field(default_factory=list)
    pictures: int = 4


@dataclass
class TrainConfig:
    """What `qefpn train` takes. Solver, loss, optimizer and the like are checked by building them; ``ablation``
    says which row of which table a run is (``name``, ``table``, ``row``, ``place``)."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    decoder: dict[str, Any] = field(default_factory=dict)
    solver: dict[str, Any] = field(default_factory=dict)
    residual: dict[str, Any] = field(default_factory=dict)
    adjoint: dict[str, Any] = field(default_factory=dict)
    edge_filter: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    profiler: dict[str, Any] = field(default_factory=dict)
    allow: list[str] = field(default_factory=list)
    seed: int = 0
    init: str | None = None
    resume: str | None = None
    evaluate: bool = True
    floors: bool | None = None
    report: bool = True
    max_skipped_steps: int = 10
    protocol: str = "f3net"
    monitor: str = "val_weighted_f"
    ablation: dict[str, Any] | None = None


@dataclass
class ComposedConfig(TrainConfig):
    """What Hydra composes, checked by type as it does: a run's configuration, and what is said of a sweep."""

    sweep: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store("train_schema", ComposedConfig, provider="qefpn")

NO_PART = ("hydra", "sweep")
"""What is composed beside a run's own configuration."""


def parse_config(config: DictConfig) -> TrainConfig:
    """The configuration with every type checked; keys that the chosen options lack take their defaults.

    Raises:
        UserError: one line naming the key that is unknown, missing or of a wrong type.
    """
    content: Any = without_removed(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    # of plain values: a typed part would let pass what was added to it by a plus
    config = OmegaConf.create({key: value for key, value in content.items() if key not in NO_PART})
    try:
        name_targets(config)
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), config)
        settle_root(merged.data)
        # a default does not stand in for what was given as ???
        missing = sorted(OmegaConf.missing_keys(merged) | (OmegaConf.missing_keys(config) - {"data.root"}))
        if missing:
            raise UserError(f"{missing[0]} is not set: give {missing[0]}=VALUE on the command line")
        result = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise UserError(unknown_key(str(error.full_key), known_keys())) from None
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} is not set: give {error.full_key}=VALUE on the command line") from None
    except (ValidationError, OmegaConfBaseException) as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(result, TrainConfig)
    if result.data.name != "synthetic":
        result.data.synthetic = None
    if not result.backbone.is_ours:
        result.backbone.name = result.backbone._target_.rpartition(".")[2]  # for whoever tells of it
    result.adjoint = suited_adjoint(result.adjoint, option_name(result.solver))
    trainer = result.trainer
    if trainer.max_epochs is None:
        trainer.max_epochs = 50 if trainer.max_steps < 0 and trainer.max_time is None else -1
    settle_precision(result)
    return result


def name_targets(config: DictConfig) -> None:
    """Put ``_target_`` in the place of names, by which options of earlier versions went."""
    for group in (key for key in TARGETS if OmegaConf.is_dict(config.get(key))):
        node: Any = OmegaConf.to_container(config[group], resolve=False)
        named = with_targets({group: node})[group]
        if named != node:
            with open_dict(config):
                config[group] = named


def suited_adjoint(adjoint: dict[str, Any], solver: str | None) -> dict[str, Any]:
    """The adjoint itself, or the one that ``by_solver`` has for a solver, where no ``_target_`` is named."""
    if adjoint.get(TARGET, "") is not None:
        return adjoint
    known = TARGETS["adjoint"]
    suiting = {"unroll": {TARGET: known["unrolled"]}, "otherwise": {TARGET: known["implicit"]}}
    suiting |= adjoint.get("by_solver") or {}
    return suiting[solver if solver in suiting else "otherwise"]


def settle_root(data: DictConfig) -> None:
    """Without a root, the folder that holds those of ``data.images`` and ``data.masks``."""
    folders = [str(folder) for folder in (data.get("images"), data.get("masks")) if folder is not None]
    if folders and (OmegaConf.is_missing(data, "root") or data.get("root") is None):
        places = [os.path.abspath(os.path.expanduser(folder)) for folder in folders]
        data.root = os.path.commonpath([os.path.dirname(place) for place in places])


def settle_precision(config: TrainConfig) -> None:
    """Put what this machine is good at in place of ``auto``."""
    if "auto" not in (config.trainer.precision, config.pyramid.block_dtype):
        return
    import torch  # here, since --help needs the schema, and no torch

    from qefpn.training.hardware import fast_bfloat16

    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    if config.trainer.precision == "auto":
        config.trainer.precision = "bf16-mixed" if fast_bfloat16(config.trainer.accelerator) else "32-true"
    if config.pyramid.block_dtype == "auto":
        fast = on_cpu and fast_bfloat16("cpu")
        config.pyramid.block_dtype = "bfloat16" if fast else "float32"


def known_keys(record: type = TrainConfig, prefix: str = "") -> list[str]:
    """Every dotted key that the schema knows."""
    keys: list[str] = []
    instance = record()
    for item in dataclasses.fields(record):
        keys.append(prefix + item.name)
        value = getattr(instance, item.name)
        if dataclasses.is_dataclass(value):
            keys += known_keys(type(value), f"{prefix}{item.name}.")
        elif record is TrainConfig and item.name == "logger":
            keys += known_keys(LoggerConfig, "logger.")
    return keys


def unknown_key(key: str, known: Sequence[str]) -> str:
    """One line for a key that does not exist, with what is close to it."""
    if (told := owned_key(key) or removed_key(key)) is not None:
        return told
    known = [name for name in known if name != key]
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    if not close:  # the last part alone: `max_step` for trainer.max_steps
        last = {name: name.split(".")[-1] for name in known}
        near = difflib.get_close_matches(key.split(".")[-1], list(last.values()), n=3, cutoff=0.8)
        close = [name for name in known if last[name] in near][:3]
    return f"unknown key {key}" + (f"; did you mean {' or '.join(close)}?" if close else "; --help lists the keys")


def owned_key(key: str) -> str | None:
    """One line for an argument of ``pl.Trainer`` that is set elsewhere; None for any other key."""
    group, _, name = key.partition(".")
    name = name.partition(".")[0]
    return f"trainer.{name} cannot be given: use {OWNED[name]}" if group == "trainer" and name in OWNED else None


def ensure(condition: bool, message: str) -> None:
    """Raise ``UserError(message)`` unless the condition holds."""
    if not condition:
        raise UserError(message)


def build_named(group: str, build: Callable[[], Any]) -> Any:
    """Build a part, and name the config group in the error when its options are impossible."""
    try:
        return build()
    except (ValueError, TypeError) as error:
        raise UserError(f"{group}: {str(error).splitlines()[0]}") from None
