"""The LightningModule that a configuration describes: network, loss, optimizer, schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from qefpn.experiments.schema import TrainConfig, build_named
from qefpn.losses.filters import Kernel
from qefpn.models import QEFPN
from qefpn.option_names import TARGET, TARGETS
from qefpn.parts import build_factory, build_part, located, refusal
from qefpn.training.module import SaliencyModule, Warmup
from qefpn.training.optimizers import OptimizerFactory


def network_options(config: TrainConfig) -> dict[str, Any]:
    """Arguments of :class:`qefpn.models.QEFPN` as plain values, but for what the loss wants of it."""
    decoder, pyramid, backbone = dict(config.decoder), config.pyramid, config.backbone
    return {
        "backbone": backbone.name if backbone.is_ours else {TARGET: backbone._target_} | backbone.options,
        "weights": backbone.weights if config.init is None else None,  # which would be written over
        "backbone_options": backbone.options if backbone.is_ours else {},
        "channels": pyramid.channels,
        "levels": list(pyramid.levels),
        "expansion": pyramid.expansion,
        "activation": pyramid.activation,
        "pyramid": pyramid.name,
        "decoder_channels": decoder.pop("channels", None),
        "decoder": decoder,
        "solver": config.solver,
        "residual": {"seed": config.seed, **config.residual} if "p" in config.residual else config.residual,
        "adjoint": config.adjoint,
        "residual_in_eval": pyramid.residual_in_eval,
        "block_dtype": pyramid.block_dtype,
        "weight_norm": pyramid.weight_norm,
        "intermediate_supervision": pyramid.intermediate_supervision,
    }


def build_criterion(config: TrainConfig) -> nn.Module:
    """The loss, with the edge filter where it takes one."""
    takes = inspect.signature(located(config.loss, "loss")).parameters
    given: dict[str, Any] = {"edge_filter": edge_filter_of(config)} if "edge_filter" in takes else {}
    return build_part(config.loss, nn.Module, "loss", **given)


def edge_filter_of(config: TrainConfig) -> Kernel:
    """The rows of the edge filter."""
    return build_part(config.edge_filter or {TARGET: TARGETS["edge_filter"]["sobel"]}, tuple, "edge_filter")


def regularization_options(config: TrainConfig) -> dict[str, Any]:
    """The pyramid's loss terms and what is measured on demand, for :class:`SaliencyModule`."""
    pyramid = config.pyramid
    names = ("jacobian_weight", "jacobian_samples", "correction_weight", "correction_states", "correction_gamma")
    return {name: getattr(pyramid, name) for name in (*names, "spectral_radius_every")}


def build_optimizer(config: TrainConfig) -> OptimizerFactory:
    """Makes an optimizer of groups of parameters. It is tried once, so that no option is refused later."""
    factory = build_factory(config.optimizer, (torch.optim.Optimizer,), "optimizer")
    _tried(factory, config.optimizer, "optimizer", [{"params": [nn.Parameter(torch.zeros(2, 2))], "part": "head"}])
    return factory


def build_scheduler(config: TrainConfig) -> Callable[..., Any]:
    """The factor of the rates by the share of training done, or one of torch's scheduler classes; tried as well."""
    factory = build_factory(config.schedule, (float, LRScheduler), "schedule")
    of_torch = isinstance(getattr(factory, "func", factory), type)
    first = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0) if of_torch else 0.0
    _tried(factory, config.schedule, "schedule", first)
    return factory


def _tried(factory: Callable[..., Any], node: Mapping[str, Any], where: str, argument: Any) -> None:
    try:
        factory(argument)
    except (TypeError, ValueError) as error:
        raise refusal(node, where, error) from error


def build_module(config: TrainConfig) -> SaliencyModule:
    """The LightningModule of a run, with fresh weights drawn from ``config.seed``.

    Raises:
        UserError: a part that cannot be built, with its group.
    """
    torch.manual_seed(config.seed)
    loss = build_criterion(config)
    options = network_options(config) | {"low_level_edges": getattr(loss, "needs_edge_logits", False)}
    return SaliencyModule(
        build_named("backbone, pyramid or decoder", lambda: QEFPN(**options)),
        loss=loss,
        optimizer=build_optimizer(config),
        scheduler=build_scheduler(config),
        warmup=Warmup(config.warmup.steps, config.warmup.layers),
        protocol=config.protocol,
        image_size=config.data.image_size,
        seed=config.seed,
        regularization=regularization_options(config),
        max_skipped_steps=config.max_skipped_steps,
    )
