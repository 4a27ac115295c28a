"""Decoders."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qefpn.models import DECODERS
from qefpn.models.decoder import CrossFeatureDecoder, CrossFeatureModule


def levels(channels: int, sizes: tuple[int, ...] = (12, 6, 3, 2)) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(2, channels, s, s + 1) for s in sizes]


def unit(stage: nn.Module, x: Tensor) -> Tensor:
    conv, norm = stage[0], stage[1]  # type: ignore[index]
    x = F.conv2d(x, conv.weight, conv.bias, padding=1)
    return F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, training=True))


def module_by_hand(module: CrossFeatureModule, left: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The published module, step by step, from functions alone."""
    h, v = list(module.fine), list(module.coarse)
    if down.shape[2:] != left.shape[2:]:
        down = F.interpolate(down, left.shape[2:], mode="bilinear")
    out1h, out1v = unit(h[0], left), unit(v[0], down)
    fuse = unit(h[1], out1h) * unit(v[1], out1v)
    return unit(h[3], unit(h[2], fuse) + out1h), unit(v[3], unit(v[2], fuse) + out1v)


def test_two_passes_by_hand() -> None:
    decoder = CrossFeatureDecoder(8, 4)
    f2, f3, f4, f5 = features = levels(8)
    got, sides = decoder(features)

    def to(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode="bilinear")

    m45, m34, m23 = decoder.passes[0].children()
    o4, c4 = module_by_hand(m45, f4, f5)
    o3, c3 = module_by_hand(m34, f3, c4)
    o2, first = module_by_hand(m23, f2, c3)
    m45, m34, m23 = decoder.passes[1].children()
    o4, c4 = module_by_hand(m45, o4 + to(first, f4), f5 + to(first, f5))
    o3, c3 = module_by_hand(m34, o3 + to(first, f3), c4)
    o2, last = module_by_hand(m23, o2 + first, c3)
    torch.testing.assert_close(got, last + o2 + to(o3, f2) + to(o4, f2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sides, [first, o4, o3, o2], rtol=1e-4, atol=1e-5)


def test_counts() -> None:
    assert sum(p.numel() for p in CrossFeatureModule(64).parameters()) == 8 * 37_056
    assert sum(p.numel() for p in CrossFeatureDecoder(64, 4, 2).parameters()) == 1_778_688


@pytest.mark.parametrize("name", DECODERS.names())
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_decoder_keeps_the_contract(name: str, count: int) -> None:
    decoder = DECODERS.get(name)(8, count, 2, "relu")
    features = levels(8)[:count]
    kept = [level.clone() for level in features]
    result, sides = decoder(features)
    assert result.shape == features[0].shape
    assert len(sides) == decoder.side_maps and all(side.shape[1] == 8 for side in sides)
    assert all(torch.equal(a, b) for a, b in zip(kept, features, strict=True))
    if next(decoder.parameters(), None) is not None:
        result.square().sum().backward()
        assert all(p.grad is not None for p in decoder.parameters())
