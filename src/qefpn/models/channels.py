"""Pictures of another number of channels than three: RGB and depth, RGB and thermal, grey."""

from __future__ import annotations

import torch
from torch import nn

from qefpn.errors import UserError
from qefpn.models.backbone import Backbone


def take_channels(backbone: Backbone, count: int) -> None:
    """Let a backbone for RGB take pictures of ``count`` channels, red, green and blue first.

    The weights of its first convolution stay for these three, and a further channel gets their mean. Fewer than three
    share their sum, so that a grey picture gives the features of the same one in RGB. ``mean`` and ``std`` follow.

    Args:
        backbone: it is changed. A norm in its place of the convolution, or a convolution in groups, is not.
        count: of channels, from 1 on.

    Raises:
        UserError: it has no convolution that takes three channels.
    """
    first = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None or first.in_channels != 3 or first.groups != 1:
        raise UserError(f"in_channels={count}: {type(backbone).__name__} does not begin with a convolution of RGB")
    rgb = first.weight.detach()
    mean = rgb.mean(dim=1, keepdim=True)
    extra = mean.expand(-1, count - 3, -1, -1) if count > 3 else mean.expand(-1, count, -1, -1) * (3 / count)
    first.weight = nn.Parameter(torch.cat([rgb, extra], dim=1) if count > 3 else extra.clone())
    first.in_channels = count
    for name in ("mean", "std"):
        values = getattr(backbone, name)
        further = (sum(values) / 3,) * count
        setattr(backbone, name, (*values, *further)[:count] if count > 3 else further)
