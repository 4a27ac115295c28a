"""Networks for pictures of other than three channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from qefpn import QEFPN, Predictor, SaliencyModule, load_model
from qefpn.errors import UserError
from qefpn.models.backbone import Backbone, build_backbone
from qefpn.models.channels import take_channels

SMALL = {"channels": 8, "expansion": 1, "solver": {"name": "broyden", "max_steps": 2}}
BACKBONES = ["resnet18", "efficientnet_lite0", "mobilenet_v3_small", "timm/resnet10t", "timm/tf_efficientnet_lite0"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", BACKBONES)
def test_rgb_weights_stay_and_a_grey_picture_gives_the_features_of_the_same_in_rgb(name: str) -> None:
    rgb, four, one = (build_backbone(name).eval() for _ in range(3))
    four.load_state_dict(rgb.state_dict())
    one.load_state_dict(rgb.state_dict())
    take_channels(four, 4)
    take_channels(one, 1)
    picture = torch.randn(1, 3, 64, 96)
    empty = torch.cat([picture, torch.zeros(1, 1, 64, 96)], dim=1)
    grey = picture[:, :1]
    for expected, found in ((rgb(picture), four(empty)), (rgb(grey.expand(-1, 3, -1, -1)), one(grey))):
        for reference, feature in zip(expected, found, strict=True):
            torch.testing.assert_close(feature, reference, rtol=1e-4, atol=1e-4)
    assert four.mean == (*rgb.mean, pytest.approx(sum(rgb.mean) / 3)) and len(one.std) == 1
    depth = torch.cat([picture, torch.ones(1, 1, 64, 96)], dim=1)
    assert not torch.allclose(four(depth)[0], four(empty)[0])


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_a_network_trains_on_them_and_comes_back_from_a_checkpoint(channels: int, tmp_path: Path) -> None:
    network = QEFPN("resnet18", in_channels=channels, **SMALL)
    images = torch.rand(2, channels, 64, 64)
    assert network(images).shape == (2, 1, 64, 64)
    network(images).square().mean().backward()
    stem = network.backbone.conv1.weight.grad
    assert stem.shape[1] == channels and bool((stem.abs().sum(dim=(0, 2, 3)) > 0).all())
    with pytest.raises(ValueError, match=rf"images: \(B, {channels}, H, W\) is needed"):
        network(torch.rand(2, channels + 1, 64, 64))
    path = tmp_path / "last.ckpt"
    module = SaliencyModule(network)
    state = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    torch.save(state, path)
    again = load_model(path)
    assert torch.equal(again(images), network.eval()(images))
    with pytest.raises(UserError, match=f"pictures of {channels} channels"):
        Predictor(path)


class Grouped(Backbone):
    """Begins with a convolution that is none of RGB."""

    channels, strides = (8,), (4,)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4, groups=3)

    def extract(self, images: Tensor) -> list[Tensor]:
        return [self.stem(images)]


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(UserError, match="in_channels=4: Grouped does not begin with a convolution of RGB"):
        take_channels(Grouped(), 4)
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="in_channels"):
            QEFPN("resnet18", in_channels=wrong, **SMALL)  # type: ignore[arg-type]
