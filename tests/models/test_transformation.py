"""f_theta and the fusion: against a plain reference, finite differences, and at initialisation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from qefpn.implicit import Broyden, Equilibrium, ImplicitAdjoint, QuasiEquilibrium
from qefpn.implicit.driver import solve
from qefpn.implicit.layout import StateLayout
from qefpn.models import ACTIVATIONS, FullyConnectedFusion, Transformation, layers
from qefpn.models.layers import WeightNorm, batch_norm, group_count, group_norm
from qefpn.models.pyramid import ImplicitPyramid

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


def compiled(function: Callable[..., object], backend: str) -> Callable[..., object]:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "channels_last", "backend"),
    [
        ({"weight_norm": True}, True, "aot_eager"),
        ({"half": True}, False, "aot_eager"),
        ({}, True, "inductor"),
    ],
    ids=["channels_last, weight norm", "half", "inductor"],
)
def test_f_and_its_forward_derivative_compile_as_one_graph(
    options: dict[str, bool], channels_last: bool, backend: str
) -> None:
    torch.manual_seed(0)
    double = not options.get("half", False)
    f = Transformation(8, (2, 3), 2, **options)
    f = f.double() if double else f
    f.channels_last = channels_last
    f.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    z, x, v = (maps(8, (8, 4), seed=seed, double=double) for seed in range(3))

    def product(z: State, v: State) -> object:
        return torch.func.jvp(lambda *levels: f(levels, *x), z, v)

    with torch.no_grad():
        want = product(z, v)
        tolerance = {"rtol": 1e-9, "atol": 1e-9} if double else {"rtol": 0.05, "atol": 0.05}
        torch.testing.assert_close(compiled(f, backend)(z, *x), f(z, *x), **tolerance)
        torch.testing.assert_close(compiled(product, backend)(z, v), want, **tolerance)


@pytest.mark.slow
def test_a_solver_step_of_f_compiles_as_one_graph() -> None:
    torch.manual_seed(0)
    f = Transformation(8, (2, 3), 2).double()
    x = maps(8, (8, 4))
    layout = StateLayout.of(x)
    solver = Broyden(1, 0.0, 0.0)

    def step(z: Tensor) -> Tensor:
        return solve(solver, lambda flat: layout.flatten(f(layout.unflatten(flat), *x)), z).value

    with torch.no_grad():
        z = 0.1 * layout.flatten(maps(8, (8, 4), seed=1))
        torch.testing.assert_close(compiled(step, "aot_eager")(z), step(z), rtol=1e-9, atol=1e-9)


def test_weight_norm_starts_as_the_same_function_and_is_torchs() -> None:
    torch.manual_seed(0)
    plain = Transformation(8, (2, 3), 2).double()
    torch.manual_seed(0)
    normed = Transformation(8, (2, 3), 2, weight_norm=True).double()
    z, x = maps(8, (8, 4)), maps(8, (8, 4), seed=1)
    torch.testing.assert_close(normed(z, *x), plain(z, *x), rtol=1e-3, atol=1e-6)  # g was taken in float32
    convolutions = [part for part in normed.modules() if isinstance(part, nn.Conv2d)]
    assert convolutions and all(parametrize.is_parametrized(part, "weight") for part in convolutions)
    reference = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 16, 3).double())
    ours = normed.get_submodule("blocks.0.expand")
    own = {name: value for name, value in ours.state_dict().items() if "original" in name}
    own["parametrizations.weight.original0"] = 3 * own["parametrizations.weight.original0"]
    reference.load_state_dict(own, strict=False)
    ours.load_state_dict(own)
    torch.testing.assert_close(ours.weight, reference.weight)
    assert torch.equal(copy.deepcopy(normed)(z, *x)[0], normed(z, *x)[0])


def test_weight_norm_gradients_and_forward_derivative() -> None:
    torch.manual_seed(0)
    f = Transformation(4, (2, 3), 1, "silu", weight_norm=True).double()
    z, x, v = maps(4, (4, 2), 1), maps(4, (4, 2), 1, seed=1), maps(4, (4, 2), 1, seed=2)
    weights = list(f.get_submodule("blocks.0.expand").parameters())
    assert [tuple(part.shape) for part in weights] == [(4, 1, 1, 1), (4, 4, 3, 3)]
    assert torch.autograd.gradcheck(lambda *t: f(z, *x), weights, eps=1e-7, atol=1e-5)
    with torch.no_grad(), f.weights_kept():
        tangent = torch.func.jvp(lambda *levels: f(levels, *x), z, v)[1]
        h = 1e-6
        sides = [f(tuple(a + s * h * b for a, b in zip(z, v, strict=True)), *x) for s in (1, -1)]
    numeric = tuple((a - b) / (2 * h) for a, b in zip(*sides, strict=True))
    error = norm_of(tuple(a - b for a, b in zip(tangent, numeric, strict=True))) / norm_of(numeric)
    assert error < 1e-6


@pytest.mark.parametrize("unroll", [None, 3])
def test_weights_are_normalised_once_a_solve(unroll: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    f = Transformation(8, (2, 3), 1, weight_norm=True)
    count = sum(isinstance(part, WeightNorm) for part in f.modules())
    calls: list[int] = []
    norms = layers._channel_norms
    monkeypatch.setattr(layers, "_channel_norms", lambda v: (calls.append(1), norms(v))[1])
    pyramid = ImplicitPyramid(f, Broyden(6, 0.0, 0.0), QuasiEquilibrium(p=0.01), ImplicitAdjoint())
    x = maps(8, (8, 4), double=False)
    state, _ = pyramid(x, keys=torch.arange(2), unroll=unroll)
    sum(level.square().sum() for level in state).backward()
    assert len(calls) == count
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in f.parameters())


def test_weight_norm_gradient_through_a_solve_equals_unrolled() -> None:
    torch.manual_seed(0)
    f = Transformation(4, (2, 3), 1, weight_norm=True).double()
    for level in f.post:
        nn.init.constant_(level.get_parameter("1.weight"), 0.05)  # so few channels contract with a small gain alone
    x = maps(4, (8, 4))
    cotangent = maps(4, (8, 4), seed=1)
    parameters = list(f.parameters())

    def gradients(unroll: int | None) -> State:
        pyramid = ImplicitPyramid(f, Broyden(60, 1e-12), Equilibrium(), ImplicitAdjoint())
        state, _ = pyramid(x, unroll=unroll)
        return torch.autograd.grad(sum((a * b).sum() for a, b in zip(state, cotangent, strict=True)), parameters)

    for ours, reference in zip(gradients(None), gradients(120), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-9)


def implicit_pyramid(solver: Broyden) -> ImplicitPyramid:
    torch.manual_seed(0)
    return ImplicitPyramid(Transformation(8, (2, 3), 1), solver, Equilibrium(), ImplicitAdjoint())


def test_a_given_start_is_that_of_the_former_frame() -> None:
    pyramid = implicit_pyramid(Broyden(30, 1e-4)).eval()
    frame = maps(8, (8, 4), double=False)
    moved = tuple(level + 1e-4 for level in frame)
    with torch.no_grad():
        state, cold = pyramid(frame)
        _, warm = pyramid(moved, start=state)
        other, fresh = pyramid(tuple(level[..., :2, :2] for level in frame), start=state)
    assert cold is not None and warm is not None and fresh is not None
    assert (warm.stats.steps < cold.stats.steps).all() and warm.stats.converged.all()
    assert other[0].shape == (2, 8, 2, 2), "another size starts from zero"


def test_intermediate_states_and_measures_of_the_jacobian() -> None:
    pyramid = implicit_pyramid(Broyden(8, 0.0, 0.0))
    x = maps(8, (8, 4), double=False)
    state, solution = pyramid(x, intermediate=3)
    assert solution is not None and len(solution.intermediate) == 3
    distances = [norm_of(tuple(a - b for a, b in zip(s, state, strict=True))) for s in solution.intermediate]
    assert distances[0] > distances[2]
    before = torch.get_rng_state()
    radius = pyramid.spectral_radius(state, x, iterations=30)
    assert torch.equal(before, torch.get_rng_state())
    assert radius.shape == (2,) and float(radius.min()) > 0
    term = pyramid.jacobian_regularization(state, x)
    assert float(term) > 0
    term.backward()
    assert pyramid.transformation.get_parameter("blocks.0.expand.weight").grad is not None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_fast_forward_derivative_of_a_group_norm_is_torchs_own(
    memory_format: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fast = layers._ForwardGroupNorm.jvp

    def counted(*args: Any) -> Any:
        calls.append(args)
        return fast(*args)

    monkeypatch.setattr(layers._ForwardGroupNorm, "jvp", staticmethod(counted))
    torch.manual_seed(0)
    x = torch.randn(3, 32, 5, 7, dtype=torch.float64).contiguous(memory_format=memory_format)
    weight, bias = torch.randn(2, 32, dtype=torch.float64)
    point, direction = (x, weight, bias), (torch.randn_like(x), torch.randn_like(weight), torch.randn_like(bias))

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return layers.group_normed(x, 8, weight, bias, 1e-5)

    value, slope = torch.func.jvp(lambda x, w, b: F.group_norm(x, 8, w, b, 1e-5), point, direction)
    with torch.no_grad(), forward_ad.dual_level():
        ours = forward_ad.unpack_dual(norm(*map(forward_ad.make_dual, point, direction)))
        alone = forward_ad.unpack_dual(norm(forward_ad.make_dual(x, direction[0]), weight, bias))
    assert len(calls) == 2
    torch.testing.assert_close(ours.primal, value, rtol=0, atol=0)
    torch.testing.assert_close(ours.tangent, slope, rtol=1e-12, atol=1e-12)
    expected = torch.func.jvp(lambda x: norm(x, weight, bias), (x,), (direction[0],))[1]
    torch.testing.assert_close(alone.tangent, expected, rtol=1e-12, atol=1e-12)
