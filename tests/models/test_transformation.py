"""f_theta and the fusion: against a plain reference, finite differences, and at initialisation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qefpn.models import ACTIVATIONS, FullyConnectedFusion, Transformation
from qefpn.models.layers import batch_norm, group_count, group_norm

State = tuple[Tensor, ...]


def maps(channels: int, sizes: tuple[int, ...], batch: int = 2, seed: int = 0, *, double: bool = True) -> State:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    return tuple(torch.randn(batch, channels, s, s, generator=generator, dtype=dtype) for s in sizes)


def norm_of(state: State) -> Tensor:
    return torch.cat([level.flatten() for level in state]).norm()


def test_groups_are_the_largest_divisor_up_to_eight_with_two_channels_each() -> None:
    assert {c: group_count(c) for c in (64, 48, 32, 24, 20, 16, 12, 8, 7, 4, 2, 1, 320)} == {
        64: 8, 48: 8, 32: 8, 24: 8, 20: 5, 16: 8, 12: 6, 8: 4, 7: 1, 4: 2, 2: 1, 1: 1, 320: 8
    }  # fmt: skip


@pytest.mark.parametrize("levels", [(2, 3, 4, 5), (3, 5), (2, 4, 5)])
@pytest.mark.parametrize("norm", [group_norm, batch_norm])
def test_fusion_is_that_of_separate_convolutions(levels: tuple[int, ...], norm: object) -> None:
    """Every pair of levels by its own chain of narrow convolutions and norms, cut out of the wide ones."""
    torch.manual_seed(0)
    c = 6
    fusion = FullyConnectedFusion(c, levels, norm).double()  # type: ignore[arg-type]
    for parameter in fusion.parameters():
        nn.init.normal_(parameter)
    features = maps(c, tuple(32 >> level for level in levels), seed=1)

    def apply(stage: nn.Module, block: int, x: Tensor, stride: int) -> Tensor:
        conv, wide_norm = stage[0], stage[1]  # type: ignore[index]
        rows = slice(block * c, (block + 1) * c)
        x = F.conv2d(x, conv.weight[rows], stride=stride, padding=conv.weight.shape[-1] // 2)
        weight, bias = wide_norm.weight[rows], wide_norm.bias[rows]
        if isinstance(wide_norm, nn.GroupNorm):
            return F.group_norm(x, group_count(c), weight, bias)
        return F.batch_norm(x, None, None, weight, bias, training=True)

    for j, target in enumerate(levels):
        expected = features[j].clone()
        for i, source in enumerate(levels):
            x = features[i]
            if i < j:
                for link in range(target - source):
                    if link:
                        x = F.relu(x)
                    # blocks of a link: the targets that it still serves, nearest first
                    serves = [t for t in levels if t > source and t - source > link]
                    x = apply(fusion.down[i][link], serves.index(target), x, 2)  # type: ignore[index]
                expected = expected + x
            elif i > j:
                x = apply(fusion.up[i - 1], j, x, 1)
                expected = expected + F.interpolate(x, size=expected.shape[-2:], mode="bilinear")
        torch.testing.assert_close(fusion(features)[j], F.relu(expected))


def test_fusion_counts() -> None:
    fusion = FullyConnectedFusion(64, (2, 3, 4, 5), batch_norm)
    assert sum(p.numel() for p in fusion.parameters()) == 395_264
    norms = [m for m in fusion.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(m.num_features for m in norms) == 16 * 64


def test_sizes_that_do_not_halve_evenly() -> None:
    f = Transformation(8, (2, 3, 4, 5))
    sizes = ((19, 27), (9, 13), (4, 6), (2, 3))  # floors, where strided convolutions round up
    z = tuple(torch.randn(1, 8, *size) for size in sizes)
    assert [tuple(level.shape[-2:]) for level in f(z, *z)] == list(sizes)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("channels_last", [False, True])
def test_forward_derivative_agrees_with_finite_differences(activation: str, channels_last: bool) -> None:
    torch.manual_seed(0)
    f = Transformation(8, (2, 3, 4, 5), 2, activation).double()
    f.channels_last = channels_last
    if not channels_last:
        f.to(memory_format=torch.contiguous_format)
    sizes = (8, 4, 2, 1)
    z, x, v = maps(8, sizes), maps(8, sizes, seed=1), maps(8, sizes, seed=2)
    with torch.no_grad():
        value, tangent = torch.func.jvp(lambda *levels: f(levels, *x), z, v)
    h = 1e-6
    plus = f(tuple(a + h * b for a, b in zip(z, v, strict=True)), *x)
    minus = f(tuple(a - h * b for a, b in zip(z, v, strict=True)), *x)
    numeric = tuple((a - b) / (2 * h) for a, b in zip(plus, minus, strict=True))
    error = norm_of(tuple(a - b for a, b in zip(tangent, numeric, strict=True))) / norm_of(numeric)
    assert error < 1e-6
    torch.testing.assert_close(value, f(z, *x))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu"])
def test_gradients_agree_with_finite_differences(activation: str) -> None:
    """In-place activations must not spoil what backward reads."""
    torch.manual_seed(0)
    f = Transformation(4, (2, 3), 2, activation).double()
    z = tuple(level.requires_grad_() for level in maps(4, (4, 2), 1))
    x = tuple(level.requires_grad_() for level in maps(4, (4, 2), 1, seed=1))
    weights = [f.blocks[0].expand.weight, f.blocks[1].output_norm.weight]  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(lambda *t: f(t[:2], *t[2:4]), (*z, *x, *weights), eps=1e-7, atol=1e-4)


def test_f_leaves_its_arguments_alone_and_treats_samples_apart() -> None:
    torch.manual_seed(0)
    f = Transformation(8, (2, 3, 4, 5))
    z, x = maps(8, (8, 4, 2, 1), 3, double=False), maps(8, (8, 4, 2, 1), 3, 1, double=False)
    kept = tuple(level.clone() for level in (*z, *x))
    whole = f(z, *x)
    assert all(torch.equal(a, b) for a, b in zip(kept, (*z, *x), strict=True))
    alone = f(tuple(level[1:2] for level in z), *(level[1:2] for level in x))
    torch.testing.assert_close(alone, tuple(level[1:2] for level in whole), rtol=1e-4, atol=1e-5)


def test_plain_iteration_converges_at_initialisation() -> None:
    torch.manual_seed(0)
    f = Transformation(32, (2, 3, 4, 5))
    sizes = (28, 14, 7, 4)
    x = tuple(level.relu() for level in maps(32, sizes, 1, double=False))
    z = tuple(torch.zeros_like(level) for level in x)
    with torch.no_grad():
        for _ in range(20):
            z, before = f(z, *x), z
    assert norm_of(tuple(a - b for a, b in zip(z, before, strict=True))) / norm_of(z) < 1e-3


def test_half_blocks_are_close_and_have_a_forward_derivative() -> None:
    torch.manual_seed(0)
    exact = Transformation(16, (2, 3))
    half = Transformation(16, (2, 3), half=True)
    half.load_state_dict(exact.state_dict())
    z, x = maps(16, (8, 4), double=False), maps(16, (8, 4), seed=1, double=False)
    v = maps(16, (8, 4), seed=2, double=False)
    with torch.no_grad():
        value, tangent = torch.func.jvp(lambda *levels: half(levels, *x), z, v)
        want, want_tangent = torch.func.jvp(lambda *levels: exact(levels, *x), z, v)
    assert all(level.dtype == torch.float32 for level in (*value, *tangent))
    error = norm_of(tuple(a - b for a, b in zip(value, want, strict=True))) / norm_of(want)
    assert 0 < error < 0.01  # not zero: the half precision path ran
    slip = norm_of(tuple(a - b for a, b in zip(tangent, want_tangent, strict=True))) / norm_of(want_tangent)
    assert slip < 0.05
