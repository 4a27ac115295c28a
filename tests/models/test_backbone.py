"""Backbones keep one contract, whoever wrote them, and their weights come from wherever the user has them."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from qefpn.errors import UserError
from qefpn.models import build_backbone


def check_contract(name: str, levels: tuple[int, ...] = (2, 3, 4, 5)) -> None:
    backbone = build_backbone(name, levels).eval()
    assert len(backbone.channels) == len(backbone.strides) == len(levels)
    for height, width in ((64, 96), (75, 101), (32, 32)):
        with torch.no_grad():
            features = backbone(torch.randn(2, 3, height, width))
        assert tuple(f.shape[1] for f in features) == backbone.channels
        if (height, width) == (64, 96) and backbone.multiple <= 32:
            assert [tuple(f.shape[2:]) for f in features] == [(64 // s, 96 // s) for s in backbone.strides]
    stem = list(backbone.stem_parameters())
    assert stem and stem[0].ndim == 4 and stem[0].shape[1] == 3  # reads the picture
    own = {id(p) for p in backbone.parameters()}
    assert all(id(p) in own for p in stem)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "timm/mobilenetv3_small_050"])
def test_contract(name: str) -> None:
    check_contract(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnext50_32x4d",
        "wide_resnet50_2",
        "convnext_tiny",
        "swin_t",  # NHWC
        "swin_v2_t",
        "efficientnet_b0",
        "densenet121",
        "timm/swin_tiny_patch4_window7_224",  # NHWC, fixed size
        "timm/swinv2_tiny_window8_256",
        "timm/convnext_atto",
        "timm/pvt_v2_b0",
        "timm/vit_tiny_patch16_224",  # one resolution throughout
        "timm/maxvit_rmlp_pico_rw_256",  # only multiples of its own size
        "timm/hrnet_w18_small",
        "timm/resnet26d",
    ],
)
def test_contract_of_many(name: str) -> None:
    check_contract(name)


def test_nhwc_features_are_permuted() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("swin_t", (2, 3)).eval()
    assert backbone.channels == (96, 192) and backbone.strides == (4, 8)
    reference = torchvision.models.swin_t()
    reference.features[:4].load_state_dict(backbone.features.state_dict())  # type: ignore[operator, union-attr]
    tap = create_feature_extractor(reference.eval(), {"features.1": "fine", "features.3": "coarse"})
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        want = tap(images)
        fine, coarse = backbone(images)
    torch.testing.assert_close(fine, want["fine"].permute(0, 3, 1, 2))
    torch.testing.assert_close(coarse, want["coarse"].permute(0, 3, 1, 2))


def test_resnet_gives_the_features_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torchvision.models.resnet18().eval()
    torch.save(reference.state_dict(), tmp_path / "r18.pth")
    backbone = build_backbone("resnet18", (3, 4), str(tmp_path / "r18.pth")).eval()
    tap = create_feature_extractor(reference, {"layer2": "3", "layer3": "4"})
    images = torch.randn(1, 3, 75, 101)
    with torch.no_grad():
        want = tap(images)
        got = backbone(images)
    torch.testing.assert_close(got, [want["3"], want["4"]])
    # neither a classifier nor stages that nobody asked for
    assert not hasattr(backbone, "fc") and not hasattr(backbone, "layer4")


def test_resnet50_trunk_count() -> None:
    assert sum(p.numel() for p in build_backbone("resnet50").parameters()) == 23_508_032


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: prefixed(s, "module."),
        lambda s: {"state_dict": prefixed(s, "module.model."), "epoch": 3},
        lambda s: {"model": prefixed(s, "backbone.")},
        lambda s: {"state_dict": prefixed(s, "network.backbone."), "hyper_parameters": {"a": 1}},
    ],
)
def test_weights_from_a_file_whatever_its_wrapping(tmp_path: Path, wrap: Any, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    reference = torchvision.models.resnet18()
    path = tmp_path / "weights é (1).pth"
    torch.save(wrap(reference.state_dict()), path)
    with caplog.at_level("INFO"):
        backbone = build_backbone("resnet18", weights=path)
    assert torch.equal(backbone.layer4[1].conv2.weight, reference.layer4[1].conv2.weight)  # type: ignore[index, union-attr]
    assert torch.equal(backbone.bn1.running_var, reference.bn1.running_var)  # type: ignore[union-attr]
    assert "100 of 100 entries" in caplog.text


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_timm_weights_from_a_file_under_timms_own_names(tmp_path: Path, name: str) -> None:
    import timm

    torch.manual_seed(2)
    reference = timm.create_model(name)
    torch.save(reference.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone(f"timm/{name}", (2, 3, 4, 5), tmp_path / "w.pth")
    first = next(m for m in reference.modules() if isinstance(m, nn.Conv2d))
    assert torch.equal(next(backbone.stem_parameters()), first.weight)
    # and all of it: what the file holds is what the trunk holds
    values = {tuple(v.shape) + (float(v.double().sum()),) for v in reference.state_dict().values()}
    assert all(tuple(v.shape) + (float(v.double().sum()),) in values for v in backbone.state_dict().values())


def test_weights_that_do_not_fit_are_one_clear_line(tmp_path: Path) -> None:
    def problem(content: Any, name: str = "resnet18") -> str:
        path = tmp_path / "w.pth"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(UserError) as caught:
            build_backbone(name, weights=path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
        return str(caught.value)

    state = torchvision.models.resnet18().state_dict()
    # two convolutions and two norms of four entries each
    assert "90 of 100" in problem({k: v for k, v in state.items() if not k.startswith("layer4.1.")})
    assert "does not fit" in problem({**state, "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)})
    assert "does not fit" in problem(torchvision.models.mobilenet_v3_small().state_dict())
    assert "no tensors" in problem({"epoch": 3})
    assert "no tensors" in problem([1, 2])
    problem(b"")
    problem(b"this is a text file\n")
    problem(torchvision.models.resnet18())  # a whole pickled module: not loaded


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        build_backbone("resnet18", weights=tmp_path / "none.pth")
    with pytest.raises(UserError, match="not a file"):
        build_backbone("resnet18", weights=tmp_path)


def unreachable(*args: Any, **options: Any) -> Any:
    raise urllib.error.URLError("no route\nto host")


def test_failed_download_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match="backbone.weights=null.*backbone.weights=FILE") as caught:
        build_backbone("resnet18", weights="DEFAULT")
    assert "\n" not in str(caught.value) and "resnet18" in str(caught.value)


def test_failed_timm_download_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match="backbone.weights=null.*backbone.weights=FILE"):
        build_backbone("timm/mobilenetv3_small_050", weights="DEFAULT")
    with pytest.raises(UserError, match="no weights"):
        build_backbone("timm/mobilenetv2_035", weights="DEFAULT")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet51", "resnet50"),
        ("resnt18", "resnet18"),
        ("timm/swin_tiny_patch4_window7", "timm/swin_tiny_patch4_window7_224"),
        ("", "resnet50"),
        ("vit_b_16", "no stages"),
        ("timm/vit_b_16", "unknown"),
        ("squeezenet1_0", "no feature of stride"),
        ("timm/pvt_v2_b0", "no feature of stride 2"),
    ],
)
def test_unknown_names_and_missing_levels(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build_backbone(name, (1, 2) if "pvt" in name else (2, 3, 4, 5))


SOURCES = [
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "cache_dir",
    "pruned",
    "variant",
]
SOURCES += [
    "pretrained_strict",
    "pretrained_filter_fn",
    "pretrained_model_args",
    "model_cls",
    "model_name",
    "feature_cls",
]
SOURCES += ["scriptable", "exportable", "no_jit", "features_only", "out_indices", "feature_cfg", "kwargs_filter"]


@pytest.mark.parametrize("key", SOURCES)
def test_options_reach_the_model_and_not_timms_factory(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._factory.model_entrypoint", unreachable)
    with pytest.raises(UserError, match=rf"^backbone\.options\.{key}: .*backbone\.weights=FILE$"):
        build_backbone("timm/resnet10t", options={"stem_width": 8, key: True})


@pytest.mark.parametrize(
    "place", ["hf-hub:timm/resnet18", "hf_hub:a/b", "local-dir:{}", "resnet18.x:{}", "{}", "../{}"]
)
def test_names_that_timm_would_read_or_fetch_are_unknown(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.models._factory.model_entrypoint", unreachable)
    (tmp_path / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(UserError, match="unknown backbone"):
        build_backbone(f"timm/{place.format(tmp_path)}")
