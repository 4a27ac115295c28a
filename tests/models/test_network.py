"""The whole network: parameter counts, shapes, gradients, determinism, options and their validation."""

from __future__ import annotations

from typing import Any

import albumentations as A  # noqa: N812
import numpy as np
import pytest
import torch

from qefpn.implicit import UnrolledAdjoint
from qefpn.models import QEFPN

EIGHT = {"name": "broyden", "max_steps": 8}


def small(**options: Any) -> QEFPN:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"backbone": "resnet18", "channels": 8, "expansion": 2, "solver": EIGHT}
    return QEFPN(**{**defaults, **options})


def images(batch: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def default() -> QEFPN:
    torch.manual_seed(0)
    return QEFPN(solver=EIGHT, adjoint={"name": "implicit", "solver": EIGHT})


def test_default_has_the_papers_parameters(default: QEFPN) -> None:
    assert default.parameter_counts() == {
        "backbone": 23_508_032,
        "neck": 246_528,
        "fusion": 395_264,
        "transformation.blocks": 1_478_144,
        "transformation.fusion": 395_264,
        "transformation.post": 16_896,
        "decoder": 1_778_688,
        "head": 577,
        "total": 27_819_393,
    }
    assert sum(p.numel() for p in default.parameters()) == 27_819_393


@pytest.mark.parametrize("unroll", [2, None])
def test_every_parameter_of_the_default_gets_a_gradient(default: QEFPN, unroll: int | None) -> None:
    default.train().zero_grad()
    output = default.run(images(2, 64, 96), unroll=unroll)
    output.logits.square().mean().backward()
    lacking = [k for k, p in default.named_parameters() if p.grad is None or not bool(p.grad.abs().max() > 0)]
    assert lacking == []
    assert all(bool(p.grad.isfinite().all()) for p in default.parameters() if p.grad is not None)
    assert output.solution is not None
    steps = output.solution.stats.steps
    assert steps.shape == (2,) and (unroll is None or steps.tolist() == [unroll, unroll])
    assert (output.solution.backward_stats is None) == (unroll is not None)


def test_extra_heads_are_there_only_if_asked_for_and_trained() -> None:
    plain = small().parameter_counts()
    assert "side_heads" not in plain and "edge_head" not in plain
    network = small(low_level_edges=True, intermediate_supervision=True)
    counts = network.parameter_counts()
    assert counts["total"] == plain["total"] + counts["side_heads"] + counts["edge_head"]
    output = network.run(images(2, 70, 45), unroll=2)  # the first of two layers sees z = 0
    assert output.edge_logits is not None and output.edge_logits.shape == (2, 1, 70, 45)
    # the first pass's map and the three fine outputs of the second
    assert [tuple(s.shape) for s in output.side_logits] == [(2, 1, 70, 45)] * 4
    sum(t.square().mean() for t in (output.logits, output.edge_logits, *output.side_logits)).backward()
    assert all(p.grad is not None and bool(p.grad.abs().max() > 0) for p in network.parameters())
    silent = small().run(images(), unroll=1)
    assert silent.side_logits == () and silent.edge_logits is None


@pytest.mark.parametrize(
    "options",
    [
        {"levels": [3, 4, 5]},
        {"levels": [2, 4, 5]},
        {"levels": [2, 3], "decoder": "fpn", "intermediate_supervision": True},
        {"levels": [4]},
        {"channels": 20, "activation": "gelu"},
        {"channels": 7, "decoder": "sum", "decoder_channels": 5, "intermediate_supervision": True},
        {"decoder_passes": 1, "pyramid": "none"},
        {"block_dtype": "bfloat16", "activation": "silu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(32, 32), (45, 71)])
def test_any_size_and_any_option(options: dict[str, Any], size: tuple[int, int]) -> None:
    network = small(**options).eval()
    with torch.no_grad():
        logits = network(images(1, *size))
    assert logits.shape == (1, 1, *size) and logits.isfinite().all()
    network.train()
    network.run(images(2, 64, 64), unroll=1).logits.square().mean().backward()
    lacking = [k for k, p in network.named_parameters() if p.grad is None]
    # this loss reads no side map
    assert lacking == [k for k in lacking if k.startswith("side_heads")]


def test_modules_a_pass_follow_the_levels() -> None:
    assert [len(list(p.children())) for p in small(levels=[3, 4, 5]).decoder.passes] == [2, 2]
    assert small(levels=[3, 4, 5]).parameter_counts()["neck"] < small().parameter_counts()["neck"]


def test_no_pyramid_is_the_same_network_without_f_theta() -> None:
    full, plain = small().parameter_counts(), small(pyramid="none").parameter_counts()
    assert {k: v for k, v in full.items() if not k.startswith("transformation") and k != "total"} == {
        k: v for k, v in plain.items() if k != "total"
    }
    assert small(pyramid="none").run(images()).solution is None


def test_prediction_does_not_depend_on_its_batch_nor_on_the_residual() -> None:
    network = small(residual={"name": "quasi", "p": 0.5}).eval()
    batch = images(3)
    with torch.no_grad():
        together = network(batch)
        torch.testing.assert_close(network(batch), together, rtol=0, atol=0)
        for i in range(3):
            torch.testing.assert_close(network(batch[i : i + 1]), together[i : i + 1], rtol=1e-3, atol=1e-4)
        network.pyramid.residual_in_eval = True
        masked = network.run(batch, keys=torch.arange(3)).logits
    assert (masked - together).abs().max() > 1e-2


def test_keys_fix_the_mask_of_a_sample() -> None:
    network = small(residual={"name": "quasi", "p": 0.3}, residual_in_eval=True).eval()
    batch, keys = images(3), torch.tensor([5, 6, 7])
    with torch.no_grad():
        first = network.run(batch, keys=keys).logits
        torch.testing.assert_close(network.run(batch.flip(0), keys=keys.flip(0)).logits.flip(0), first,
                                   rtol=1e-3, atol=1e-4)  # fmt: skip
        assert (network.run(batch, keys=keys + 10).logits - first).abs().max() > 1e-3


def test_implicit_gradient_agrees_with_a_long_unroll() -> None:
    tight = {"name": "broyden", "max_steps": 60, "rtol": 1e-10, "memory": 60}
    network = small(channels=16, residual="equilibrium", solver=tight, adjoint={"name": "implicit", "solver": tight})
    network = network.double().eval()
    batch = images(1).double()

    def gradient(unroll: int | None) -> list[torch.Tensor]:
        network.zero_grad()
        network.run(batch, unroll=unroll).logits.square().mean().backward()
        return [p.grad.clone() for p in network.pyramid.parameters() if p.grad is not None]

    implicit, unrolled = gradient(None), gradient(100)
    difference = torch.cat([(a - b).flatten() for a, b in zip(implicit, unrolled, strict=True)]).norm()
    assert difference / torch.cat([b.flatten() for b in unrolled]).norm() < 1e-6


def test_solve_stays_in_float32_under_autocast() -> None:
    network = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        output = network.run(images())
        assert output.solution is not None
        assert all(level.dtype == torch.float32 for level in output.solution.value)
        output.logits.float().mean().backward()


def test_solver_unroll_takes_the_unrolled_adjoint_unless_told_otherwise() -> None:
    assert isinstance(small(solver="unroll").pyramid.adjoint, UnrolledAdjoint)
    assert not isinstance(small(solver="unroll", adjoint="jacobian_free").pyramid.adjoint, UnrolledAdjoint)
    assert isinstance(small(adjoint=UnrolledAdjoint()).pyramid.adjoint, UnrolledAdjoint)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"levels": []}, "levels"),
        ({"levels": [3, 2]}, "levels"),
        ({"levels": [1, 2]}, "levels"),
        ({"levels": [4, 6]}, "levels"),
        ({"levels": [2, 2]}, "levels"),
        ({"levels": [2.5]}, "levels"),
        ({"levels": "2345"}, "levels"),
        ({"levels": 4}, "levels"),
        ({"channels": 0}, "channels"),
        ({"channels": 2.0}, "channels"),
        ({"expansion": 0}, "expansion"),
        ({"decoder_passes": 0}, "decoder_passes"),
        ({"decoder_channels": -1}, "decoder_channels"),
        ({"activation": "rleu"}, "activation.*'relu'"),
        ({"decoder": "cross_featur"}, "decoder.*'cross_feature'"),
        ({"pyramid": "explicit"}, "pyramid"),
        ({"block_dtype": "float16"}, "block_dtype"),
        ({"solver": "broydn"}, "solver.*'broyden'"),
        ({"solver": {"max_steps": 3}}, "solver.*'name'"),
        ({"solver": {"name": "broyden", "steps": 3}}, "steps"),
        ({"residual": {"name": "quasi", "p": 2}}, "p must"),
        ({"adjoint": "implict"}, "adjoint.*'implicit'"),
    ],
)
def test_impossible_values_are_one_clear_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def test_impossible_images() -> None:
    network = small(pyramid="none")
    with pytest.raises(ValueError, match="at least 32.*31x64"):
        network(images(1, 31, 64))
    with pytest.raises(ValueError, match="images"):
        network(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match="unroll"):
        small().run(images(), unroll=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pictures_are_normalised_as_albumentations_does(layout: torch.memory_format) -> None:
    network = small()
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    want = np.stack([A.Normalize()(image=picture)["image"] for picture in pictures]).transpose(0, 3, 1, 2)
    for given in (images, images.float() / 255, images.double() / 255):
        found = network.normalized(given)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), want, atol=2e-6)
    assert torch.equal(images.permute(0, 2, 3, 1), torch.from_numpy(pictures))  # which are as they were
    network.mean.fill_(0.5)
    network.std.fill_(0.25)
    torch.testing.assert_close(network.normalized(images), images / 255 * 4 - 2)


def test_bytes_and_floats_give_the_same_logits() -> None:
    network = small().eval()
    pictures = torch.randint(256, (2, 3, 64, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(pictures), network(pictures.float() / 255), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"images: uint8 .* not torch\.int64"):
        network(pictures.long())
