"""Optimizers of a network, with rates of their own for the pyramid and the backbone.

Each is a function of the network's parameter groups, so that :class:`qefpn.training.SaliencyModule` takes
``functools.partial(adamw, lr=1e-3)`` as it takes ``functools.partial(torch.optim.AdamW, lr=1e-3)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from qefpn.models import QEFPN
from qefpn.registry import Registry
from qefpn.training.muon import Muon

Groups = list[dict[str, Any]]
OptimizerFactory = Callable[[Groups], torch.optim.Optimizer]

OPTIMIZERS: Registry[Callable[..., torch.optim.Optimizer]] = Registry("optimizer")


def parameter_groups(network: QEFPN) -> Groups:
    """The network's parameters as ``params`` and ``part``: "head" (first, so that group 0 shows its rate), "pyramid",
    "backbone" and "stem", which is the backbone's first convolution and norm; parts without any are left out."""
    part_of = {id(p): part for part in ("pyramid", "backbone") for p in getattr(network, part).parameters()}
    part_of |= {id(p): "stem" for p in network.backbone.stem_parameters()}
    groups: dict[str, list[nn.Parameter]] = {part: [] for part in ("head", "pyramid", "backbone", "stem")}
    for parameter in network.parameters():
        groups[part_of.get(id(parameter), "head")].append(parameter)
    return [{"params": own, "part": part} for part, own in groups.items() if own]


def _rated(
    groups: Groups,
    lr: float,
    backbone_lr_scale: float,
    pyramid_lr_scale: float,
    weight_decay: float,
    train_stem: bool,
    decay_norms: bool,
) -> Groups:
    """Groups with their rates and decays.

    The stem is left out unless asked for; its ``requires_grad`` stays true, since DDP and the gradient statistics
    expect every parameter. ``decay_norms=False`` spares norms and biases the weight decay, in groups of their own.
    """
    scales = {"head": 1.0, "pyramid": pyramid_lr_scale, "backbone": backbone_lr_scale}
    own: dict[str, list[nn.Parameter]] = {part: [] for part in scales}
    for group in groups:
        if group["part"] in scales:
            own[group["part"]] += group["params"]
        elif train_stem:  # before the rest of the backbone, to which it belongs
            own["backbone"] = [*group["params"], *own["backbone"]]
    return [
        {"params": some, "part": part, "lr": lr * scales[part], "weight_decay": weight_decay if decay else 0.0}
        for part, parameters in own.items()
        for decay in (True, False)
        if (some := [p for p in parameters if (decay_norms or p.ndim > 1) is decay])
    ]


def _check(
    lr: Any, backbone_lr_scale: Any, pyramid_lr_scale: Any, weight_decay: Any, *decays: tuple[str, Any], **flags: Any
) -> None:
    """Refuse what cannot be, in the words of the option; ``decays`` are shares that a mean keeps of itself."""
    scales = [("backbone_lr_scale", backbone_lr_scale), ("pyramid_lr_scale", pyramid_lr_scale)]
    for name, value in [("lr", lr), *scales, ("weight_decay", weight_decay), *decays]:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, not {value!r}")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be true or false, not {flag!r}")
    if not lr > 0:
        raise ValueError(f"lr must be positive, not {lr}")
    for name, value in [*scales, ("weight_decay", weight_decay)]:
        if not value >= 0:
            raise ValueError(f"{name} must be at least 0, not {value}")
    for name, value in decays:
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), not {value}")


def _pair(betas: Sequence[float]) -> list[tuple[str, float]]:
    if isinstance(betas, str) or not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas are two numbers, not {betas!r}")
    return [("betas", beta) for beta in betas]


def _fused(groups: Groups) -> bool | None:
    """One kernel for all parameters, where torch's default on a CPU takes a dozen small ones each: 30 ms a step for
    3 M. On a GPU the default is as fast, and fused ones forbid to clip gradients under float16."""
    return True if all(p.device.type == "cpu" for group in groups for p in group["params"]) else None


def _clippable(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Lightning refuses to clip for optimizers that take scaled gradients, as fused ones can; none of ours are scaled
    on a CPU, and a scaler that finds the mark false unscales them itself."""
    if optimizer.defaults.get("fused"):
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


@OPTIMIZERS.register("sgd")
def sgd(
    groups: Groups,
    lr: float = 0.05,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 5e-4,
    backbone_lr_scale: float = 0.1,
    pyramid_lr_scale: float = 1.0,
    train_stem: bool = False,
) -> torch.optim.Optimizer:
    """SGD as in the paper: the backbone at a tenth of the rate, its stem as it is, weight decay for all.

    Args:
        groups: of :func:`parameter_groups`.
        lr: peak rate of the head, positive; the others' are shares of it.
        momentum, nesterov, weight_decay: as torch has them.
        backbone_lr_scale, pyramid_lr_scale: shares of ``lr``, at least 0.
        train_stem: whether the backbone's first convolution and norm are trained.

    Raises:
        ValueError, TypeError: a value that cannot be; the message begins with the argument's name.
    """
    scales = (backbone_lr_scale, pyramid_lr_scale)
    _check(lr, *scales, weight_decay, ("momentum", momentum), nesterov=nesterov, train_stem=train_stem)
    if nesterov and momentum == 0:
        raise ValueError("nesterov needs momentum above 0: give nesterov=false")
    rated = _rated(groups, lr, backbone_lr_scale, pyramid_lr_scale, weight_decay, train_stem, decay_norms=True)
    return _clippable(torch.optim.SGD(rated, lr=lr, momentum=momentum, nesterov=nesterov, fused=_fused(rated)))


@OPTIMIZERS.register("adamw")
def adamw(
    groups: Groups,
    lr: float = 1e-3,
    betas: Sequence[float] = (0.9, 0.999),
    weight_decay: float = 1e-4,
    backbone_lr_scale: float = 1.0,
    pyramid_lr_scale: float = 1.0,
    train_stem: bool = True,
) -> torch.optim.Optimizer:
    """AdamW; norms and biases do not decay. Arguments and errors as for :func:`sgd`."""
    _check(lr, backbone_lr_scale, pyramid_lr_scale, weight_decay, *_pair(betas), train_stem=train_stem)
    rated = _rated(groups, lr, backbone_lr_scale, pyramid_lr_scale, weight_decay, train_stem, decay_norms=False)
    return _clippable(torch.optim.AdamW(rated, lr=lr, betas=(betas[0], betas[1]), fused=_fused(rated)))


@OPTIMIZERS.register("muon")
def muon(
    groups: Groups,
    lr: float = 2e-3,
    momentum: float = 0.95,
    nesterov: bool = True,
    betas: Sequence[float] = (0.9, 0.99),
    weight_decay: float = 1e-2,
    backbone_lr_scale: float = 1.0,
    pyramid_lr_scale: float = 1.0,
    train_stem: bool = True,
) -> torch.optim.Optimizer:
    """:class:`qefpn.training.muon.Muon`; norms and biases do not decay. Arguments and errors as for :func:`sgd`."""
    decays = [("momentum", momentum), *_pair(betas)]
    _check(lr, backbone_lr_scale, pyramid_lr_scale, weight_decay, *decays, nesterov=nesterov, train_stem=train_stem)
    rated = _rated(groups, lr, backbone_lr_scale, pyramid_lr_scale, weight_decay, train_stem, decay_norms=False)
    return Muon(rated, lr=lr, momentum=momentum, nesterov=nesterov, betas=(betas[0], betas[1]))
