"""The three residuals, and how elements are dropped."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import torch
from tests.implicit.problems import F64, Contraction

from qefpn.implicit import (
    Anderson,
    Broyden,
    Equilibrium,
    FixedPointIteration,
    LiteralQuasiEquilibrium,
    QuasiEquilibrium,
    Unroll,
    fixed_point,
)
from qefpn.implicit.layout import StateLayout
from qefpn.implicit.masks import Drops, draw_drops, draw_masks
from qefpn.implicit.problem import Problem, flat_problem
from qefpn.implicit.torch_private import forward_derivative, products_are_exact
from qefpn.models import QEFPN, Transformation

SOLVERS = [
    Broyden(12, 1e-9),
    Broyden(8, 0.0, 0.0, alpha=0.9),
    Anderson(12, 1e-9),
    FixedPointIteration(9),
    Unroll(4),
]


def bound(problem, residual, keys, args=None):
    """The residual's map for ``problem``, and the 0/1 masks that it drew."""
    args = (problem.x,) if args is None else args
    f = problem if args else (lambda z: problem(z, problem.x))
    flat = Problem(f, args, StateLayout.of(problem.z0), F64, F64)
    mask = torch.ones_like(problem.z0)
    for row, drops in enumerate(draw_masks(problem.batch, problem.size, residual.p, residual.seed, keys)):
        mask[row, torch.from_numpy(drops)] = 0.0
    return residual.bind(flat, problem.z0, keys), mask


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_quasi_without_drops_is_equilibrium_to_the_bit_and_at_its_cost(solver):
    for residual in (QuasiEquilibrium(p=0.0), QuasiEquilibrium(p=1e-9, seed=3)):
        problem = Contraction()
        plain = fixed_point(problem, problem.z0, (problem.x,), solver=solver, residual=Equilibrium())
        calls = list(problem.calls)
        gradients = problem.gradients(plain.value)
        problem.calls.clear()
        quasi = fixed_point(problem, problem.z0, (problem.x,), solver=solver, residual=residual, keys=torch.arange(5))
        assert problem.calls == calls
        assert torch.equal(quasi.value, plain.value)
        assert torch.equal(quasi.stats.trace, plain.stats.trace)
        for ours, reference in zip(problem.gradients(quasi.value), gradients, strict=True):
            assert torch.equal(ours, reference)


@pytest.mark.parametrize("closes_over", [False, True], ids=["args", "closure"])
def test_quasi_map_is_the_linearisation_at_the_masked_state(closes_over):
    problem = Contraction()
    residual, keys = QuasiEquilibrium(p=0.15, seed=1), torch.tensor([4, 8, 15, 16, 23])
    quasi, mask = bound(problem, residual, keys, args=() if closes_over else None)
    dropped = (mask == 0).any(dim=1)
    assert 0 < dropped.sum() < 5, "the test needs samples with and without a drop"
    torch.manual_seed(0)
    z = torch.randn(5, 10, dtype=F64)
    hat = z * mask
    problem.calls.clear()
    with torch.no_grad():
        value = quasi(z)
        if closes_over:
            assert problem.calls == [5]
        else:  # f on the samples without a drop, f and its product on the others
            assert problem.calls == [int((~dropped).sum()), int(dropped.sum())]

        def f(state):
            return problem(state, problem.x)

        step = 1e-6
        slope = (f(hat + step * (z - hat)) - f(hat - step * (z - hat))) / (2 * step)
        torch.testing.assert_close(value, f(hat) + slope, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(value[~dropped], f(z)[~dropped], rtol=1e-15, atol=1e-15)
        assert ((value - f(z))[dropped].norm(dim=1) > 1e-6).all()


@pytest.mark.parametrize("solver", [Broyden(60, 1e-12), Anderson(60, 1e-12), FixedPointIteration(200, 1e-12)], ids=repr)
def test_quasi_value_satisfies_its_own_residual_and_its_gradient_is_of_eq_3(solver):
    problem = Contraction()
    residual, keys = QuasiEquilibrium(p=0.2, seed=5), torch.arange(10, 15)
    quasi, mask = bound(problem, residual, keys)
    solution = fixed_point(problem, problem.z0, (problem.x,), solver=solver, residual=residual, keys=keys)
    z = solution.value.detach()
    with torch.no_grad():
        assert ((quasi(z) - z).norm(dim=1) <= 1e-12 * quasi(z).norm(dim=1) * 1.01).all()
    assert solution.stats.converged.all()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z, x: torch.tanh(z @ problem.weight.T + x)))(z, problem.x)
    v = torch.linalg.solve(torch.eye(10, dtype=F64) - jacobian.transpose(1, 2), problem.cotangent)
    expected = v * (1 - torch.tanh(z @ problem.weight.T + problem.x) ** 2)
    gradient = torch.autograd.grad((solution.value * problem.cotangent).sum(), problem.x)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-11)


def test_masks_are_keyed_by_sample_and_not_by_place():
    problem = Contraction()
    residual, keys = QuasiEquilibrium(p=0.2), torch.tensor([3, -1, 7, 2**62, 0])
    options = {"solver": Broyden(40, 1e-12), "residual": residual}
    order = torch.tensor([4, 2, 0, 1, 3])
    one = fixed_point(problem, problem.z0, (problem.x,), keys=keys, **options)
    two = fixed_point(problem, problem.z0, (problem.x[order],), keys=keys[order], **options)
    torch.testing.assert_close(two.value, one.value[order], rtol=1e-11, atol=1e-12)
    for row in range(5):
        alone = fixed_point(problem, problem.z0[:1], (problem.x[row : row + 1],), keys=keys[row : row + 1], **options)
        torch.testing.assert_close(alone.value[0], one.value[row], rtol=1e-10, atol=1e-12)
    other_seed = fixed_point(
        problem,
        problem.z0,
        (problem.x,),
        keys=keys,
        solver=options["solver"],
        residual=QuasiEquilibrium(p=0.2, seed=1),
    )
    assert not torch.allclose(other_seed.value, one.value)


def test_without_keys_each_solve_has_its_own_masks_and_torchs_seed_repeats_them():
    problem = Contraction()
    options = {"solver": Broyden(40, 1e-12), "residual": QuasiEquilibrium(p=0.2)}
    torch.manual_seed(5)
    first, second = (fixed_point(problem, problem.z0, (problem.x,), **options).value for _ in range(2))
    torch.manual_seed(5)
    again = fixed_point(problem, problem.z0, (problem.x,), **options).value
    assert not torch.equal(first, second)
    assert torch.equal(first, again)
    state = torch.get_rng_state()
    fixed_point(problem, problem.z0, (problem.x,), residual=QuasiEquilibrium(p=0.0))
    assert torch.equal(state, torch.get_rng_state())


def test_number_of_drops_is_binomial_at_the_papers_rate():
    """p = 5e-7 and 658,240 elements: 72 % of pictures have no drop (the uniform grid of float32 is 6e-8)."""
    size, p, draws = 658_240, 5e-7, 4000
    counts = np.array([len(draw_drops(size, p, (0, key))) for key in range(draws)])
    expected = scipy.stats.binom(size, p)
    assert math.isclose(expected.pmf(0), 0.7195, abs_tol=1e-3)
    observed = [np.sum(counts == 0), np.sum(counts == 1), np.sum(counts >= 2)]
    theory = np.array([expected.pmf(0), expected.pmf(1), expected.sf(1)]) * draws
    assert scipy.stats.chisquare(observed, theory).pvalue > 1e-3


def test_positions_are_distinct_and_uniform():
    positions = np.concatenate([draw_drops(20, 0.3, (9, key)) for key in range(2000)])
    assert all(len(set(drops)) == len(drops) for drops in (draw_drops(50, 0.5, (1, key)) for key in range(50)))
    assert scipy.stats.chisquare(np.bincount(positions, minlength=20)).pvalue > 1e-3
    assert sorted(draw_drops(30, 1.0, (0, 0))) == list(range(30))


def test_all_dropped_is_one_newton_like_linear_map():
    """p = 1: ẑ = 0, so F(z) = f(0) + J(0) z, whose root is that of a linear system."""
    problem = Contraction()
    solution = fixed_point(
        problem, problem.z0, (problem.x,), solver=Broyden(60, 1e-13), residual=QuasiEquilibrium(p=1.0)
    )
    slope = (1 - torch.tanh(problem.x) ** 2)[:, :, None] * problem.weight
    expected = torch.linalg.solve(torch.eye(10, dtype=F64) - slope, torch.tanh(problem.x))
    torch.testing.assert_close(solution.value, expected, rtol=1e-10, atol=1e-12)


def test_literal_stops_where_it_starts_and_warns():
    problem = Contraction()
    with pytest.warns(UserWarning, match="stops where it starts") as told:
        residual = LiteralQuasiEquilibrium(p=0.3)
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="stops where it starts"):
        solution = fixed_point(problem, problem.z0, (problem.x,), residual=residual, keys=torch.arange(5))
    assert torch.equal(solution.value, problem.z0)
    assert solution.stats.converged.all() and solution.stats.steps.tolist() == [0] * 5
    assert solution.stats.residual.tolist() == [0.0] * 5


@pytest.mark.parametrize("closes_over", [False, True], ids=["args", "closure"])
def test_literal_is_equation_10_elsewhere(closes_over):
    problem = Contraction()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        residual = LiteralQuasiEquilibrium(p=0.15, seed=1)
        literal, mask = bound(problem, residual, torch.tensor([4, 8, 15, 16, 23]), args=() if closes_over else None)
    torch.manual_seed(0)
    z = torch.randn(5, 10, dtype=F64)
    hat = z * mask
    x = problem.x.detach()
    with torch.no_grad():
        slope = torch.func.jvp(lambda state: problem(state, x), (hat,), (z - hat,))[1]
        expected = problem(z, x) - problem(hat, x) - slope
        torch.testing.assert_close(literal(z) - z, expected, rtol=1e-12, atol=1e-14)
        dropped = (mask == 0).any(dim=1)
        assert expected[dropped].abs().max() > 1e-3 and expected[~dropped].abs().max() == 0


@pytest.mark.parametrize("p", [0.0, 0.15])
def test_literal_calls_f_on_the_samples_with_a_drop_alone(p):
    sizes = []

    class Counted(Contraction):
        def __call__(self, z, x):
            sizes.append(len(z))
            return super().__call__(z, x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        residual = LiteralQuasiEquilibrium(p=p, seed=1)
        literal, mask = bound(Counted(), residual, torch.tensor([4, 8, 15, 16, 23]))
    z = torch.randn(5, 10, dtype=F64)
    with torch.no_grad():
        value = literal(z)
    dropped = (mask == 0).any(dim=1)
    assert set(sizes) == ({int(dropped.sum())} if dropped.any() else set()) and not dropped.all()
    assert torch.equal(value[~dropped], z[~dropped])


def test_jvp_runs_through_the_layers_of_a_pyramid_also_without_grad_and_in_inference_mode():
    """conv, GroupNorm, ReLU and bilinear resizing; inference_mode drops tangents of plain forward AD."""
    torch.manual_seed(0)
    layer = torch.nn.Sequential(
        torch.nn.Conv2d(8, 16, 3, padding=1, bias=False),
        torch.nn.GroupNorm(4, 16),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 8, 3, padding=1, bias=False),
    ).double()
    x = torch.randn(2, 8, 6, 6, dtype=F64)

    def f(state, x):
        fine, coarse = state
        down = torch.nn.functional.interpolate(fine, size=(3, 3), mode="bilinear", align_corners=False)
        up = torch.nn.functional.interpolate(coarse, size=(6, 6), mode="bilinear", align_corners=False)
        return 0.2 * layer(fine + x) + 0.2 * up, 0.2 * layer(coarse + x[:, :, ::2, ::2]) + 0.2 * down

    z0 = (torch.zeros_like(x), torch.zeros(2, 8, 3, 3, dtype=F64))
    options = {"solver": Broyden(60, 1e-11), "residual": QuasiEquilibrium(p=0.02), "keys": torch.arange(2)}
    with_grad = fixed_point(f, z0, (x,), **options)
    assert with_grad.stats.converged.all()
    with torch.no_grad():
        without = fixed_point(f, z0, (x,), **options)
        plain = fixed_point(f, z0, (x,), solver=options["solver"])
    with torch.inference_mode():
        inference = fixed_point(f, z0, (x,), **options)
    for one, two, three, other in zip(with_grad.value, without.value, inference.value, plain.value, strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)
        assert not torch.allclose(one, other)
    layer = layer.to(memory_format=torch.channels_last)
    start = tuple(part.to(memory_format=torch.channels_last) for part in z0)
    last = fixed_point(f, start, (x.to(memory_format=torch.channels_last),), solver=options["solver"])
    for one, two in zip(last.value, plain.value, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def test_a_mask_does_not_depend_on_the_memory_format():
    """The same key drops the same elements of a state, whether its levels are channels-last or not."""
    levels = (torch.randn(3, 4, 5, 6, dtype=F64), torch.randn(3, 7, dtype=F64), torch.randn(3, 2, 3, 3, dtype=F64))
    formats = [tuple(part.to(memory_format=torch.channels_last) if part.dim() == 4 and number in which else part
               for number, part in enumerate(levels)) for which in ((), (0,), (2,), (0, 2))]  # fmt: skip
    answers = []
    for state in formats:
        layout = StateLayout.of(state)
        drops = Drops.draw(layout.flatten(state), layout, 0.1, 3, torch.arange(3)).whole()
        dropped = torch.zeros(3 * layout.size).index_fill(0, drops.positions, 1.0).view(3, -1)
        answers.append(layout.unflatten(dropped))
        assert 20 < int(dropped.sum()) < 80
    for answer in answers[1:]:
        for one, other in zip(answer, answers[0], strict=True):
            assert torch.equal(one, other)


def test_the_forward_derivative_survives_the_forward_of_a_custom_function():
    """There torch switches forward mode off, and a tangent would be lost without a word."""
    point, direction = torch.randn(2, 3, dtype=F64), torch.randn(2, 3, dtype=F64)

    class Outer(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return forward_derivative(torch.sin, z, direction)[1]

    expected = point.cos() * direction
    for z in (point, point.clone().requires_grad_()):
        torch.testing.assert_close(Outer.apply(z).detach(), expected, rtol=1e-14, atol=0)
    value, slope = forward_derivative(lambda z: torch.ones_like(z), point, direction)
    assert torch.equal(value, torch.ones_like(point)) and torch.equal(slope, torch.zeros_like(point))


@pytest.mark.parametrize("grad", [False, True])
def test_a_forward_derivative_can_be_taken_of_one(grad: bool) -> None:
    """Within a transform of torch.func there is no second level of dual tensors."""
    point, direction, again = torch.randn(3, 2, 4, dtype=F64).unbind()
    with torch.set_grad_enabled(grad):
        slope, change = torch.func.jvp(
            lambda z: forward_derivative(lambda state: state**3, z, direction)[1], (point,), (again,)
        )
    torch.testing.assert_close(slope, 3 * point**2 * direction)
    torch.testing.assert_close(change, 6 * point * again * direction)


def test_masks_without_keys_depend_on_seed_solve_and_sample():
    def drawn(seed, manual_seed):
        torch.manual_seed(manual_seed)
        return [sorted(mask.tolist()) for mask in draw_masks(4, 200, 0.1, seed, None)]

    first = drawn(0, 1)
    assert first == drawn(0, 1) and all(first)
    assert len({tuple(mask) for mask in first}) == 4  # one a sample
    for other in (drawn(1, 1), drawn(0, 2)):
        assert all(mask != former for mask, former in zip(other, first, strict=True))


def mapped_in_float32(residual, *, closes_over=False):
    """The residual's map of a small f_theta in float32 at a point near its fixed point: the values and f's batches."""
    torch.manual_seed(0)
    transformation = Transformation(16, (2, 3))
    sizes, calls = ((12, 12), (6, 6)), []
    x = tuple(torch.randn(5, 16, *size) for size in sizes)

    def f(state, *given):
        calls.append(len(state[0]))
        return transformation(state, *(given or x))

    args = () if closes_over else x
    zero = tuple(torch.zeros_like(level) for level in x)
    problem, _ = flat_problem(f, zero, args)
    with torch.no_grad():
        point = fixed_point(f, zero, args, solver=Broyden(6, 0.0)).value
        z = problem.layout.flatten(point)
        calls.clear()
        keys = torch.arange(5)
        masks = draw_masks(5, z.shape[1], residual.p, residual.seed, keys)
        return residual.bind(problem, z, keys)(z), problem(z), calls[:-1], sum(bool(mask.size) for mask in masks)


@pytest.mark.parametrize("closes_over", [False, True], ids=["args", "closure"])
@pytest.mark.parametrize("p", [1e-4, 5e-4, 0.3])
def test_a_difference_is_the_derivative_within_float32(p, closes_over):
    value, plain, calls, dropped = mapped_in_float32(
        QuasiEquilibrium(p=p, seed=2, difference=2**-8), closes_over=closes_over
    )
    exact, _, exact_calls, _ = mapped_in_float32(QuasiEquilibrium(p=p, seed=2), closes_over=closes_over)
    assert dropped > 0
    if p == 0.3:  # hundreds of drops a sample: no difference
        assert torch.equal(value, exact) and calls == exact_calls
        return
    assert calls == ([5, 5] if closes_over or dropped == 5 else [5 - dropped, 2 * dropped])
    off = (value - exact).norm(dim=1) / exact.norm(dim=1)
    effect = (plain - exact).norm(dim=1) / exact.norm(dim=1)
    assert off.max() < 1e-4 < effect.max() / 5  # f itself is not that near


def test_where_a_difference_would_not_do_the_derivative_is_exact():
    residual = QuasiEquilibrium(p=0.05, difference=2**-8)
    problem = Contraction()
    _, mask = bound(problem, residual, torch.arange(5))
    problem.calls.clear()
    fixed_point(
        problem, problem.z0, (problem.x,), residual=residual, keys=torch.arange(5), solver=Broyden(2, 0.0)
    )  # float64
    dropped = int((mask == 0).any(dim=1).sum())
    assert problem.calls[:2] == ([5 - dropped, dropped] if dropped < 5 else [5, 5])
    small = {"channels": 8, "expansion": 1}
    for options, expected in (
        ({}, 2**-8),
        ({"block_dtype": "bfloat16"}, 0.0),
        ({"residual": {"name": "quasi", "p": 0.1}}, 2**-8),
    ):
        assert QEFPN("resnet18", **small, **options).pyramid._residual().difference == expected
    told = QEFPN("resnet18", **small, residual=QuasiEquilibrium(difference=0.0)).pyramid
    assert told._residual() is told.residual
    for wrong in (-0.1, 2.0, math.nan, "small"):
        with pytest.raises((ValueError, TypeError), match="difference"):
            QuasiEquilibrium(difference=wrong)


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="this torch has one setting for all")
def test_reduced_products_take_the_exact_derivative():
    assert products_are_exact(torch.device("cpu"))
    expected = mapped_in_float32(QuasiEquilibrium(p=5e-4))[2]
    for place in (torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul):
        former, place.fp32_precision = place.fp32_precision, "bf16"
        try:
            assert mapped_in_float32(QuasiEquilibrium(p=5e-4, difference=2**-8))[2] == expected
        finally:
            place.fp32_precision = former
    assert mapped_in_float32(QuasiEquilibrium(p=5e-4, difference=2**-8))[2] != expected
    assert mapped_in_float32(QuasiEquilibrium(p=5e-4, difference=0.0))[2] == expected
