"""The LightningModule that a configuration describes: network, loss, optimizer, schedule."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import torch
from torch import nn

from qefpn.experiments.schema import TrainConfig, build_named
from qefpn.losses import build_loss
from qefpn.losses.filters import Kernel
from qefpn.models import QEFPN
from qefpn.parts import TARGET, build_part, names_class
from qefpn.training.module import SaliencyModule, Warmup
from qefpn.training.optimizers import OPTIMIZERS, build_optimizer
from qefpn.training.schedule import build_schedule


def network_options(config: TrainConfig) -> dict[str, Any]:
    """Arguments of :class:`qefpn.models.QEFPN` as plain values."""
    decoder = dict(config.decoder)
    pyramid = config.pyramid
    return {
        "backbone": backbone_of(config),
        "weights": config.backbone.weights,
        "backbone_options": config.backbone.options,
        "channels": pyramid.channels,
        "levels": list(pyramid.levels),
        "expansion": pyramid.expansion,
        "activation": pyramid.activation,
        "pyramid": pyramid.name,
        "decoder": decoder.pop("name", "cross_feature"),
        **{f"decoder_{key}": value for key, value in decoder.items()},
        "solver": config.solver,
        "residual": {"seed": config.seed, **config.residual} if "p" in config.residual else config.residual,
        "adjoint": config.adjoint,
        "residual_in_eval": pyramid.residual_in_eval,
        "block_dtype": pyramid.block_dtype,
        "start": pyramid.start,
        "weight_norm": pyramid.weight_norm,
        "low_level_edges": config.loss.get("name") == "low_level_edges",
        "intermediate_supervision": pyramid.intermediate_supervision,
    }


def backbone_of(config: TrainConfig) -> str | dict[str, Any]:
    """The backbone's name; of one of somebody's own what makes it."""
    own = config.backbone._target_
    return config.backbone.name if own is None else {TARGET: own} | config.backbone.options


def build_criterion(config: TrainConfig) -> nn.Module:
    """The loss, of ours by its name, or of somebody's own."""
    if names_class(config.loss):
        return build_part(config.loss, nn.Module, "loss")
    return build_loss(**loss_options(config))


def loss_options(config: TrainConfig) -> dict[str, Any]:
    """Arguments of :func:`qefpn.losses.build_loss`."""
    return {**config.loss, "edge_filter": edge_filter_of(config)}


def edge_filter_of(config: TrainConfig) -> str | Kernel:
    """The edge filter's name; of one of somebody's own its rows."""
    if names_class(config.edge_filter):
        return build_part(config.edge_filter, tuple, "edge_filter")
    return str(config.edge_filter.get("name", "sobel"))


def regularization_options(config: TrainConfig) -> dict[str, Any]:
    """The pyramid's loss terms and what is measured on demand, for :class:`SaliencyModule`."""
    pyramid = config.pyramid
    names = ("jacobian_weight", "jacobian_samples", "correction_weight", "correction_states", "correction_gamma")
    return {name: getattr(pyramid, name) for name in (*names, "spectral_radius_every")}


def build_module(config: TrainConfig) -> SaliencyModule:
    """The LightningModule of a run, with fresh weights drawn from ``config.seed``."""
    torch.manual_seed(config.seed)
    return SaliencyModule(
        build_named("backbone, pyramid or decoder", lambda: QEFPN(**network_options(config))),
        loss=build_named("loss", lambda: build_criterion(config)),
        optimizer=build_named("optimizer", lambda: build_optimizer(**optimizer_options(config))),
        scheduler=build_named("schedule", lambda: build_schedule(**config.schedule)),
        warmup=Warmup(config.warmup.steps, config.warmup.layers),
        protocol=config.protocol,
        image_size=config.data.image_size,
        seed=config.seed,
        regularization=regularization_options(config),
        max_skipped_steps=config.max_skipped_steps,
    )


def optimizer_options(config: TrainConfig) -> dict[str, Any]:
    """Arguments of :func:`qefpn.training.optimizers.build_optimizer`: those that the optimizer has."""
    options = dataclasses.asdict(config.optimizer)
    known = inspect.signature(OPTIMIZERS.get(config.optimizer.name)).parameters
    return {key: value for key, value in options.items() if key == "name" or key in known}
