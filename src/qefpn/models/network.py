"""QEFPN: backbone, neck, fusion, quasi-equilibrium pyramid, decoder and heads in one network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qefpn.implicit import (
    Adjoint,
    Broyden,
    ImplicitAdjoint,
    QuasiEquilibrium,
    Residual,
    Solution,
    Solver,
    Unroll,
    UnrolledAdjoint,
    build_adjoint,
    build_residual,
    build_solver,
    describe,
)
from qefpn.models.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, build_backbone
from qefpn.models.channels import take_channels
from qefpn.models.decoder import DECODERS, Decoder
from qefpn.models.fusion import FullyConnectedFusion, Neck
from qefpn.models.layers import (
    activation_named,
    batch_norm,
    channels_last_has_forward_derivative,
    conv3x3,
    kaiming_,
    resize,
)
from qefpn.models.pyramid import ImplicitPyramid, PlainPyramid
from qefpn.models.transformation import Transformation
from qefpn.parts import build_part, described, names_class, without_removed

SMALLEST = 32
"""Smallest height and width of a picture in pixels: the stride of the coarsest level."""


@dataclass(frozen=True)
class NetworkOutput:
    """What a forward pass gives.

    Attributes:
        logits: (B, 1, H, W), the size of the pictures.
        side_logits: intermediate predictions, (B, 1, H, W) each; empty unless asked for.
        edge_logits: edges predicted from the finest backbone feature, (B, 1, H, W); ``None`` unless asked
            for.
        solution: the solver's, or that of the layers that were unrolled; ``None`` without a pyramid.
        intermediate_logits: of iterates on the way to the solution, first to last; empty unless asked for.
        injection: what enters f_theta, a level each, (B, C, Hi, Wi).
        state: what leaves the pyramid, shaped like ``injection``: the start for the next frame of a video.
    """

    logits: Tensor
    side_logits: tuple[Tensor, ...] = ()
    edge_logits: Tensor | None = None
    solution: Solution | None = None
    intermediate_logits: tuple[Tensor, ...] = ()
    injection: tuple[Tensor, ...] = ()
    state: tuple[Tensor, ...] = ()


class QEFPN(nn.Module):
    """Quasi-equilibrium feature pyramid network (Song et al.; paper, section III).

    Args:
        backbone: a torchvision model ("resnet50"), "timm/NAME" or "efficientnet_lite0" to "efficientnet_lite2".
        weights: of the backbone: ``None``, "DEFAULT" or a local file.
        backbone_options: further arguments of a timm model, such as ``channels`` of its stages.
        in_channels: of the images: 3 for RGB, 4 for RGB and depth, 1 for grey or thermal pictures. Where it is not
            3, the backbone's first convolution is made of that for RGB (:func:`qefpn.models.channels.take_channels`).
        channels: channels of every pyramid level.
        levels: pyramid levels, increasing, from 2 to 5; level l has stride 2^l.
        expansion: width of f_theta's residual blocks over ``channels``.
        activation: "relu", "gelu", "silu", "leaky_relu", ...
        pyramid: "implicit", or "none" for the same decoder on the fused features.
        block_dtype: "float32", or "bfloat16" for the wide convolutions inside f_theta: 1.5 to 2 times as
            fast on processors that have bfloat16, while rounding stops the relative residual near 6e-4.
        decoder: "cross_feature", "fpn" or "sum", or a mapping with ``_target_`` and options (:mod:`qefpn.parts`).
        decoder_passes: passes of the cross-feature decoder, where it is given by its name.
        decoder_channels: channels in the decoder; ``None`` for ``channels``.
        solver, residual, adjoint: objects of ``qefpn.implicit``, names, or mappings with "name" and options, or with
            ``_target_`` and options (:mod:`qefpn.parts`); ``None`` for Broyden, quasi-equilibrium and the implicit
            adjoint (unrolled for the solver "unroll").
        residual_in_eval: keep ``residual`` in evaluation, where the plain equilibrium is solved by default.
        weight_norm: weight norm on every convolution of f_theta.
        low_level_edges: add a head that predicts edges from the finest backbone feature.
        intermediate_supervision: add a head on each of the decoder's intermediate maps.

    Raises:
        ValueError: an impossible value; the message names the argument.
        UserError: an unknown backbone, or weights that fail to download or to fit.

    The default has 27,819,393 parameters. Images are (B, in_channels, H, W), RGB first, with any H, W ≥ 32: uint8
    from 0 to 255, or floating-point from 0 to 1. The network normalises them itself, by its buffers ``mean`` and
    ``std``, which are those of the backbone's weights.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any] | Backbone = "resnet50",
        weights: str | Path | None = None,
        *,
        backbone_options: Mapping[str, Any] | None = None,
        in_channels: int = 3,
        channels: int = 64,
        levels: Sequence[int] = (2, 3, 4, 5),
        expansion: int = 5,
        activation: str = "relu",
        pyramid: str = "implicit",
        block_dtype: str = "float32",
        decoder: str | Mapping[str, Any] = "cross_feature",
        decoder_passes: int = 2,
        decoder_channels: int | None = None,
        solver: Any = None,
        residual: Any = None,
        adjoint: Any = None,
        residual_in_eval: bool = False,
        weight_norm: bool = False,
        low_level_edges: bool = False,
        intermediate_supervision: bool = False,
    ) -> None:
        super().__init__()
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        #: the arguments as plain values: ``QEFPN(**options)`` is a network of this kind
        self.options: dict[str, Any] = {key: _plain(value) for key, value in given.items()}
        levels = _checked_levels(levels)
        width = channels if decoder_channels is None else decoder_channels
        for name, value in (
            ("in_channels", in_channels),
            ("channels", channels),
            ("expansion", expansion),
            ("decoder_passes", decoder_passes),
            ("decoder_channels", width),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: a whole number from 1 on is needed, not {value!r}")
        activation_named(activation)
        if isinstance(decoder, str):
            DECODERS.get(decoder)
        if pyramid not in ("implicit", "none"):
            raise ValueError(f"pyramid: there are 'implicit' and 'none', not {pyramid!r}")
        if block_dtype not in ("float32", "bfloat16"):
            raise ValueError(f"block_dtype: there are 'float32' and 'bfloat16', not {block_dtype!r}")

        self.levels = levels
        self.pyramid: ImplicitPyramid | PlainPyramid
        if pyramid == "none":
            self.pyramid = PlainPyramid()
        else:
            solver, residual, adjoint = _solving(solver, residual, adjoint)
            transformation = Transformation(
                channels, levels, expansion, activation, half=block_dtype == "bfloat16", weight_norm=weight_norm
            )
            self.pyramid = ImplicitPyramid(transformation, solver, residual, adjoint, residual_in_eval=residual_in_eval)
        self.backbone: Backbone
        if isinstance(backbone, Backbone):
            self.backbone = backbone
        elif isinstance(backbone, Mapping):
            self.backbone = build_part(backbone, Backbone, "backbone", levels=levels)
        else:
            self.backbone = build_backbone(backbone, levels, weights, backbone_options)
        if in_channels != 3:
            take_channels(self.backbone, in_channels)
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", self.backbone.mean), ("std", self.backbone.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(in_channels, 1, 1))
        self.neck = Neck(self.backbone.channels, channels)
        self.fusion = FullyConnectedFusion(channels, levels, batch_norm, activation)
        kaiming_(self.fusion)
        self.adapter = Neck([channels] * len(levels), width) if width != channels else None
        self.decoder: Decoder
        if isinstance(decoder, Mapping):
            given = {"channels": width, "levels": len(levels), "activation": activation}
            self.decoder = build_part(decoder, Decoder, "decoder", **given)
        else:
            self.decoder = DECODERS.get(decoder)(width, len(levels), decoder_passes, activation)
        self.head = conv3x3(width, 1, bias=True)
        sides = self.decoder.side_maps if intermediate_supervision else 0
        self.side_heads = nn.ModuleList(conv3x3(width, 1, bias=True) for _ in range(sides))
        self.edge_head: nn.Sequential | None = None
        if low_level_edges:
            self.edge_head = nn.Sequential(
                conv3x3(channels, channels),
                nn.BatchNorm2d(channels),
                activation_named(activation),
                conv3x3(channels, 1, bias=True),
            )
            kaiming_(self.edge_head)
        if channels_last_has_forward_derivative():
            # measured on a CPU: 1.1 to 1.15 times faster in training, f_theta's own backward 1.3 times
            self.to(memory_format=torch.channels_last)

    @classmethod
    def of_options(cls, options: Mapping[str, Any]) -> QEFPN:
        """A network of what :attr:`options` of one of this version, or of an earlier one, holds, with fresh weights.

        Raises:
            UserError: it asks for what this version no longer does.
        """
        return cls(**{**without_removed(options), "weights": None})

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or floating-point in [0, 1] → saliency logits (B, 1, H, W)."""
        return self.run(images).logits

    def normalized(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8 or floating-point in [0, 1], as the backbone takes them: floating-point, without
        ``mean``, over ``std``."""
        scale = 1 / (255 * self.std if images.dtype == torch.uint8 else self.std)
        return images.to(self.mean.dtype) * scale - self.mean / self.std

    def run(
        self,
        images: Tensor,
        *,
        keys: Tensor | None = None,
        unroll: int | None = None,
        start: Sequence[Tensor] | None = None,
        intermediate: int = 0,
    ) -> NetworkOutput:
        """A forward pass with everything that training wants to see.

        Args:
            images: (B, 3, H, W), uint8 or floating-point in [0, 1], H and W at least 32.
            keys: one int64 key a sample that seeds the residual's mask, (B,).
            unroll: take this many weight-tied layers with plain autograd in place of solving (the warm-up).
            start: where the solve starts: ``state`` of the former frame's output, for a video.
            intermediate: iterates of the solve to decode into ``intermediate_logits``.

        Raises:
            ValueError: images of another shape or type, or smaller.
        """
        channels = self.mean.shape[0]
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"images: (B, {channels}, H, W) is needed, not {tuple(images.shape)}")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images: uint8 (0 to 255) or floating-point (0 to 1) is needed, not {images.dtype}")
        size = images.shape[-2:]
        if min(size) < SMALLEST:
            raise ValueError(f"images: height and width of at least {SMALLEST} are needed, not {size[0]}x{size[1]}")
        if unroll is not None and unroll < 1:
            raise ValueError(f"unroll: at least one layer is needed, not {unroll}")
        reduced = self.neck(self.backbone(self.normalized(images)))
        reduced = tuple(
            # a backbone of one resolution throughout; the others are of their level's size already
            x if stride == 2**level else resize(x, [-(-side // 2**level) for side in size])
            for x, stride, level in zip(reduced, self.backbone.strides, self.levels, strict=True)
        )
        injection = self.fusion(reduced)
        state, solution = self.pyramid(injection, keys=keys, unroll=unroll, start=start, intermediate=intermediate)
        logits, sides = self.decoded(state, size)
        # no side head, no side: zip of a shorter list
        side_logits = tuple(resize(head(side), size) for head, side in zip(self.side_heads, sides, strict=False))
        on_the_way = () if solution is None else solution.intermediate
        return NetworkOutput(
            logits,
            side_logits,
            edge_logits=None if self.edge_head is None else resize(self.edge_head(reduced[0]), size),
            solution=solution,
            intermediate_logits=tuple(self.decoded(tuple(former), size)[0] for former in on_the_way),
            injection=injection,
            state=state,
        )

    def decoded(self, state: tuple[Tensor, ...], size: Sequence[int]) -> tuple[Tensor, Sequence[Tensor]]:
        """A state of the pyramid as logits (B, 1, H, W) and the decoder's intermediate maps."""
        if self.adapter is not None:
            state = self.adapter(state)
        features, sides = self.decoder(state)
        return resize(self.head(features), size), sides

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Fill in what weights of versions up to 0.1.0 lack: pictures were normalised elsewhere, as ImageNet's are."""
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            state_dict.setdefault(prefix + name, torch.tensor(values).view(3, 1, 1))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def parameter_counts(self) -> dict[str, int]:
        """Parameters by part, f_theta by its own three parts, and their ``total``; absent parts are left
        out."""
        parts: dict[str, nn.Module | None] = {
            "backbone": self.backbone,
            "neck": self.neck,
            "fusion": self.fusion,
        }
        if isinstance(self.pyramid, ImplicitPyramid):
            transformation = self.pyramid.transformation
            parts |= {
                "transformation.blocks": transformation.blocks,
                "transformation.fusion": transformation.fusion,
                "transformation.post": transformation.post,
            }
        parts |= {
            "adapter": self.adapter,
            "decoder": self.decoder,
            "head": self.head,
            "side_heads": self.side_heads,
            "edge_head": self.edge_head,
        }
        counts = {name: _count(part) for name, part in parts.items() if part is not None and _count(part)}
        return counts | {"total": _count(self)}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _checked_levels(levels: Sequence[int]) -> tuple[int, ...]:
    if isinstance(levels, str) or not isinstance(levels, Sequence):
        raise ValueError(f"levels: a list such as [2, 3, 4, 5] is needed, not {levels!r}")
    checked = tuple(levels)
    if not checked:
        raise ValueError("levels: at least one level is needed, such as [2, 3, 4, 5]")
    whole = all(isinstance(level, int) and 2 <= level <= 5 for level in checked)
    if not whole or checked != tuple(sorted(set(checked))):
        raise ValueError(f"levels: increasing whole numbers from 2 to 5 are needed, not {list(checked)}")
    return checked


def _solving(solver: Any, residual: Any, adjoint: Any) -> tuple[Any, Any, Any]:
    """Objects from names, mappings or ``None``."""
    solver = _built(build_solver, solver, Solver) or Broyden()
    residual = _built(build_residual, residual, Residual) or QuasiEquilibrium()
    default = UnrolledAdjoint if isinstance(solver, Unroll) else ImplicitAdjoint
    return solver, residual, _built(build_adjoint, adjoint, Adjoint) or default()


def _plain(value: Any) -> Any:
    if isinstance(value, (Solver, Residual, Adjoint, Backbone)):
        node = described(value) if isinstance(value, Backbone) else describe(value)
        return node or type(value).__qualname__  # one of which nobody can tell how it was made
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _built(build: Callable[..., Any], spec: Any, kind: type) -> Any:
    argument = kind.__name__.lower()
    if isinstance(spec, str):
        return build(spec)
    if names_class(spec):
        return build_part(spec, kind, argument, nested=(Solver,))
    if isinstance(spec, Mapping):
        options = dict(spec)
        if "name" not in options:
            raise ValueError(f"{argument}: a mapping needs the key 'name'")
        try:
            return build(options.pop("name"), **options)
        except TypeError as error:
            raise ValueError(f"{argument}: {error}") from error
    return spec
