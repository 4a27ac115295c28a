"""Backbones by one contract: a picture in, a feature a level out, channels and strides read from the
model."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from qefpn.errors import UserError
from qefpn.models.layers import resize
from qefpn.models.lite import PACKAGED, SCALES, load_lite_file, load_packaged
from qefpn.models.lite_trunk import LiteTrunk
from qefpn.models.weights import load_backbone_file

if TYPE_CHECKING:
    import torchvision  # it takes as long to import as torch, and is not always needed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Contract of every backbone.

    Attributes:
        mean, std: of each channel (red, green, blue) of pictures in [0, 1], which the weights were trained with; the
            network takes them off before pictures come here.
        channels: channels of each feature, finest first.
        strides: stride of each feature to the picture, finest first.
        multiple: pictures are resized up to a multiple of this before the trunk (1: any size is taken as it
            is).
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int = 1
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the first convolution and its norm, which the paper's recipe does not train."""
        raise NotImplementedError

    def extract(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised → features (B, channels[i], Hi, Wi), finest first."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W), normalised → features (B, channels[i], Hi, Wi), finest first."""
        if self.multiple > 1:
            images = resize(images, [-(-side // self.multiple) * self.multiple for side in images.shape[-2:]])
        return self.extract(images)


class ResNetBackbone(Backbone):
    """torchvision's residual networks: the stem, and ``layer1`` … as far as the levels go."""

    def __init__(self, model: torchvision.models.ResNet, levels: Sequence[int]) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = model.conv1, model.bn1, model.relu, model.maxpool
        self.stages = [f"layer{level - 1}" for level in range(2, levels[-1] + 1)]
        for stage in self.stages:
            self.add_module(stage, getattr(model, stage))
        self.levels = tuple(levels)
        with torch.no_grad():
            probe = _probe(self, self.extract)
        self.channels = tuple(feature.shape[1] for feature in probe)
        self.strides = tuple(_PROBE_SIZE[0] // feature.shape[2] for feature in probe)

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        """See ``Backbone``."""
        yield from self.conv1.parameters()
        yield from self.bn1.parameters()

    def extract(self, images: Tensor) -> list[Tensor]:
        """See ``Backbone``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        found = []
        for level, stage in enumerate(self.stages, start=2):
            x = getattr(self, stage)(x)
            if level in self.levels:
                found.append(x)
        return found


class SequentialBackbone(Backbone):
    """torchvision's models that keep their trunk in a sequence named ``features`` (ConvNeXt, Swin,
    MobileNet, …).

    The last block at a level's stride provides the level.
    """

    def __init__(self, model: nn.Module, name: str, levels: Sequence[int]) -> None:
        super().__init__()
        blocks = list(model.features)  # type: ignore[arg-type]
        height, width = _PROBE_SIZE
        last: dict[int, tuple[int, int, bool]] = {}
        with torch.no_grad():
            x = torch.zeros(1, 3, height, width)
            for number, block in enumerate(blocks):
                x = block.eval()(x)
                for level in levels:
                    size = (height >> level, width >> level)
                    if x.ndim == 4 and tuple(x.shape[2:]) == size:
                        last[level] = (number, x.shape[1], False)
                    elif x.ndim == 4 and tuple(x.shape[1:3]) == size:
                        last[level] = (number, x.shape[3], True)
        for block in blocks:
            block.train()
        absent = [level for level in levels if level not in last]
        if absent:
            raise UserError(f"backbone {name!r} has no feature of stride {2 ** absent[0]} (level {absent[0]})")
        self.taps = [last[level][0] for level in levels]
        self.channels_last = last[levels[0]][2]
        self.channels = tuple(last[level][1] for level in levels)
        self.strides = tuple(2**level for level in levels)
        self.features = nn.Sequential(*blocks[: self.taps[-1] + 1])

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        """See ``Backbone``."""
        yield from self.features[0].parameters()

    def extract(self, images: Tensor) -> list[Tensor]:
        """See ``Backbone``."""
        x, found = images, []
        for number, block in enumerate(self.features):
            x = block(x)
            if number in self.taps:
                found.append(x.permute(0, 3, 1, 2) if self.channels_last else x)
        return found


class TimmBackbone(Backbone):
    """Any timm model that can give features; channels, strides and layout are read from it.

    Models of one resolution throughout (plain transformers) give blocks at even depths; the network resizes
    them. Models that refuse some picture sizes get the picture resized up to a multiple that they take.
    """

    def __init__(
        self, name: str, levels: Sequence[int], *, pretrained: bool, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.trunk = _timm_trunk(name, levels, pretrained, dict(options or {}))
        info = self.trunk.feature_info
        self.channels = tuple(int(c) for c in info.channels())
        self.strides = tuple(int(s) for s in info.reduction())
        self.nhwc = str(getattr(self.trunk, "output_fmt", "NCHW")).endswith("NHWC")
        self.multiple = self._find_multiple(name)
        trained = _timm_settings(name)
        if len(trained.mean) == len(trained.std) == 3:
            self.mean, self.std = tuple(trained.mean), tuple(trained.std)

    def _find_multiple(self, name: str) -> int:
        own = int(_timm_settings(name).input_size[-1])
        problem: Exception | None = None
        with torch.no_grad():
            for multiple in (1, 32, 64, own):
                sizes = [(75, 101), (2 * 64, 64)] if multiple == 1 else [(multiple, 2 * multiple), (multiple,) * 2]
                try:
                    for size in sizes:
                        _probe(self, self.extract, size)
                except (RuntimeError, AssertionError, ValueError) as error:
                    problem = error
                    continue
                return multiple
        raise UserError(f"backbone 'timm/{name}' cannot be run on pictures of free size ({problem})")

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        """See ``Backbone``."""
        modules = [m for m in self.trunk.modules() if next(m.parameters(recurse=False), None) is not None]
        first = next(i for i, m in enumerate(modules) if isinstance(m, nn.Conv2d))
        yield from modules[first].parameters()
        # plain transformers have no norm in their stem: what follows there belongs to a block
        if len(set(self.strides)) > 1 and "norm" in type(modules[first + 1]).__name__.lower():
            yield from modules[first + 1].parameters()

    def extract(self, images: Tensor) -> list[Tensor]:
        """See ``Backbone``."""
        found = self.trunk(images)
        return [x.permute(0, 3, 1, 2) for x in found] if self.nhwc else list(found)


class LiteBackbone(Backbone):
    """EfficientNet-Lite ("efficientnet_lite0" to "efficientnet_lite2")."""

    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, name: str, levels: Sequence[int]) -> None:
        super().__init__()
        self.trunk = LiteTrunk(SCALES[name], levels)
        self.channels = self.trunk.channels
        self.strides = tuple(2**level for level in levels)

    def stem_parameters(self) -> Iterator[nn.Parameter]:
        """See ``Backbone``."""
        return self.trunk.stem_parameters()

    def extract(self, images: Tensor) -> list[Tensor]:
        """See ``Backbone``."""
        features: list[Tensor] = self.trunk(images)
        return features


_PROBE_SIZE = (64, 96)


def _timm_settings(name: str) -> Any:
    """What timm knows of the pictures that a model's weights were trained with."""
    import timm

    return timm.models.get_pretrained_cfg(name)


def _probe(
    module: nn.Module, features: Callable[[Tensor], list[Tensor]], size: Sequence[int] = _PROBE_SIZE
) -> list[Tensor]:
    """Features of an empty picture in evaluation mode: no statistic is updated, no random number drawn."""
    training = module.training
    module.eval()
    try:
        return features(torch.zeros(1, 3, *size))
    finally:
        module.train(training)


def _timm_trunk(name: str, levels: Sequence[int], pretrained: bool, own: dict[str, Any]) -> Any:
    import timm

    def create(**options: Any) -> Any:
        options = {**own, **options}
        # transformers of fixed size take one of these options to run at any; other models refuse both
        for free in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
            try:
                return timm.create_model(name, features_only=True, **free, **options)
            except TypeError as error:
                refusal = error
        raise refusal

    try:
        info = create().feature_info
        reductions = [int(stage["reduction"]) for stage in info.info]
    except TypeError as error:
        if not own:
            raise
        raise UserError(f"backbone 'timm/{name}' refuses backbone.options ({_first_line(error)})") from error
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise UserError(f"backbone 'timm/{name}' gives no features ({_first_line(error)})") from error
    if len(set(reductions)) == 1:
        indices = [len(reductions) * (i + 1) // len(levels) - 1 for i in range(len(levels))]
    else:
        absent = [2**level for level in levels if 2**level not in reductions]
        if absent:
            have = ", ".join(map(str, reductions))
            raise UserError(f"backbone 'timm/{name}' has no feature of stride {absent[0]}, it has strides {have}")
        indices = [len(reductions) - 1 - reductions[::-1].index(2**level) for level in levels]
    if pretrained and not timm.models.get_pretrained_cfg(name).has_weights:
        raise UserError(f"timm has no weights for 'timm/{name}'; use backbone.weights=null or backbone.weights=FILE")
    try:
        return create(pretrained=pretrained, out_indices=indices)
    except Exception as error:
        if not pretrained:
            raise
        raise _download_failed(f"timm/{name}", error) from error


def build_backbone(
    name: str,
    levels: Sequence[int] = (2, 3, 4, 5),
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Backbone:
    """A backbone by name.

    Args:
        name: a torchvision model ("resnet50", "convnext_tiny", ...), "timm/NAME" for a timm model, or
            "efficientnet_lite0" to "efficientnet_lite2".
        levels: levels asked for, increasing; level l is the feature of stride 2^l.
        weights: ``None`` for random ones, "DEFAULT" for those of torchvision or timm (of EfficientNet-Lite: from
            installed packages), or a local file.
        options: further arguments of a timm model, such as ``channels`` of its stages.

    Raises:
        UserError: unknown name, options that the model does not take, a level that the model does not have,
            weights that fail to download or to fit, or whose package is not installed.
    """
    if name in PACKAGED:
        return _build_lite(name, levels, weights, options)
    download = weights is not None and str(weights) == "DEFAULT"
    backbone: Backbone
    if name.startswith("timm/"):
        own = {key: tuple(v) if isinstance(v, list) else v for key, v in (options or {}).items()}
        backbone = _build_timm(name.removeprefix("timm/"), levels, download, own)
    else:
        if options:
            raise UserError(f"backbone {name!r} takes no options ({', '.join(options)}); models of timm do")
        backbone = _build_torchvision(name, levels, download)
    if weights is not None and not download:
        trunk = backbone.trunk if isinstance(backbone, TimmBackbone) else backbone
        load_backbone_file(trunk, weights, f"backbone {name!r}")
    return backbone


def _build_timm(name: str, levels: Sequence[int], download: bool, own: Mapping[str, Any]) -> Backbone:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"backbone 'timm/{name}' needs timm: pip install timm") from error
    _refuse_sources(name, own)
    # hf-hub:NAME and local-dir:PATH would be fetched and read; no model of timm's own has such a name
    if not re.fullmatch(r"\w+(\.\w+)?", name) or not timm.is_model(name):
        hint = _close(f"timm/{name}", [f"timm/{known}" for known in timm.list_models()])
        raise UserError(f"unknown backbone 'timm/{name}'{hint or '; timm.list_models() lists them'}")
    return TimmBackbone(name, levels, pretrained=download, options=own)


def _build_lite(
    name: str, levels: Sequence[int], weights: str | Path | None, options: Mapping[str, Any] | None
) -> Backbone:
    if options:
        raise UserError(f"backbone {name!r} takes no options ({', '.join(options)}); models of timm do")
    backbone = LiteBackbone(name, levels)
    if weights is not None and str(weights) == "DEFAULT":
        load_packaged(backbone.trunk, name)
    elif weights is not None:
        load_lite_file(backbone.trunk, weights, name)
    return backbone


TAKEN_OUT = ("features_only", "feature_cls", "out_indices", "pruned")
"""Options that timm's factory takes out of those of a model; ``pruned`` reads a file."""


def _refuse_sources(name: str, own: Mapping[str, Any]) -> None:
    """Let options reach the model alone. Those of the functions that make it say which files to read and what to fetch.

    Raises:
        UserError: one of them is the factory's. Nothing has been read.
    """
    import timm

    factory = {*inspect.signature(timm.create_model).parameters, *TAKEN_OUT}
    factory |= {*inspect.signature(timm.models.build_model_with_cfg).parameters}
    for key in own:
        if key in factory:
            raise UserError(
                f"backbone.options.{key}: is no option of the model 'timm/{name}' but of how timm makes and fills it; "
                "weights are named by backbone.weights=FILE"
            )


def _build_torchvision(name: str, levels: Sequence[int], download: bool) -> Backbone:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        hint = _close(name, [*known, *PACKAGED]) or "; for example resnet18, resnet50, convnext_tiny, timm/NAME"
        raise UserError(f"unknown backbone {name!r}{hint}")
    try:
        model = torchvision.models.get_model(name, weights="DEFAULT" if download else None)
    except Exception as error:
        if not download:
            raise
        raise _download_failed(name, error) from error
    if isinstance(model, torchvision.models.ResNet):
        return ResNetBackbone(model, levels)
    if isinstance(getattr(model, "features", None), nn.Sequential):
        return SequentialBackbone(model, name, levels)
    raise UserError(f"backbone {name!r} has no stages to read features from; a resnet has, or timm/NAME")


def _close(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; close to it: {', '.join(close)}" if close else ""


def _download_failed(name: str, error: Exception) -> UserError:
    return UserError(
        f"the weights of backbone {name!r} could not be downloaded "
        f"({type(error).__name__}: {_first_line(error)}); "
        "go on with backbone.weights=null, or backbone.weights=FILE for a file that you have"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:120]
