"""Gradients against autograd through 300 unrolled steps and against finite differences."""

from __future__ import annotations

import pytest
import torch
from tests.implicit.problems import F64, Contraction, relative_error

from qefpn.implicit import (
    Anderson,
    Broyden,
    Equilibrium,
    FixedPointIteration,
    ImplicitAdjoint,
    JacobianFreeAdjoint,
    PhantomAdjoint,
    QuasiEquilibrium,
    ShineAdjoint,
    Unroll,
    UnrolledAdjoint,
    fixed_point,
)

SOLVERS = [
    Broyden(60, 1e-13),
    Broyden(120, 1e-13, memory=1),
    Broyden(120, 1e-13, memory=4),
    Broyden(80, 1e-13, alpha=0.9),
    Anderson(80, 1e-13),
    Anderson(80, 1e-13, memory=3, damping=0.8),
    FixedPointIteration(200, 1e-13),
    FixedPointIteration(200, 1e-13, damping=0.8),
    Unroll(200),
]


@pytest.mark.parametrize("residual", [Equilibrium(), QuasiEquilibrium(p=0.0)], ids=["equilibrium", "quasi"])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_implicit_gradient_equals_unrolled(solver, residual):
    problem = Contraction()
    value, gradients = problem.unrolled()
    solution = fixed_point(
        problem, problem.z0, (problem.x,), solver=solver, residual=residual, adjoint=ImplicitAdjoint()
    )
    assert relative_error(solution.value, value) < 1e-11
    for ours, reference in zip(problem.gradients(solution.value), gradients, strict=True):
        assert relative_error(ours, reference) < 1e-8
    assert solution.backward_stats.relative_residual.max() < 1e-11


@pytest.mark.parametrize("residual", [Equilibrium(), QuasiEquilibrium(p=0.0)], ids=["equilibrium", "quasi"])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_gradients_of_other_inputs_equal_unrolled(solver, residual):
    """A scalar, a batch-first mapping and a shared tensor, which z does not depend on, and one used twice."""
    problem = Contraction()
    generator = torch.Generator().manual_seed(3)
    scale = torch.tensor(0.8, dtype=F64, requires_grad=True)
    shared = torch.randn(10, generator=generator, dtype=F64).requires_grad_()
    gate = torch.rand(5, 10, generator=generator, dtype=F64).requires_grad_()

    def f(z, x, scale, more):
        return more["gate"] * torch.tanh(scale * (z @ problem.weight.T) + x + shared) + 0.1 * scale * shared

    inputs, args = (problem.weight, problem.x, scale, shared, gate), (problem.x, scale, {"gate": gate})
    z = problem.z0
    for _ in range(300):
        z = f(z, *args)
    expected = torch.autograd.grad((z * problem.cotangent).sum(), inputs)
    solution = fixed_point(f, problem.z0, args, solver=solver, residual=residual, adjoint=ImplicitAdjoint())
    assert relative_error(solution.value, z) < 1e-11
    ours = torch.autograd.grad((solution.value * problem.cotangent).sum(), inputs)
    for gradient, reference in zip(ours, expected, strict=True):
        assert relative_error(gradient, reference) < 1e-8


@pytest.mark.parametrize("backward", SOLVERS, ids=repr)
def test_backward_solver_is_independent_of_the_forward_one(backward):
    problem = Contraction()
    _, gradients = problem.unrolled()
    solution = fixed_point(
        problem, problem.z0, (problem.x,), solver=Broyden(60, 1e-13), adjoint=ImplicitAdjoint(solver=backward)
    )
    for ours, reference in zip(problem.gradients(solution.value), gradients, strict=True):
        assert relative_error(ours, reference) < 1e-8


def test_gradient_for_what_f_closes_over_and_for_tuple_states():
    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 5, dtype=F64, requires_grad=True)
    conv = torch.nn.Conv2d(4, 4, 3, padding=1, bias=False).double()
    mix = torch.nn.Linear(6, 6).double()

    def f(state):
        image, vector = state
        pooled = image.mean(dim=(2, 3))
        return (
            0.4 * torch.tanh(conv(image)) + x + vector[:, :4, None, None] * 0.1,
            0.3 * torch.tanh(mix(vector)) + torch.nn.functional.pad(pooled, (0, 2)) * 0.2,
        )

    z0 = (torch.zeros_like(x), torch.zeros(3, 6, dtype=F64))
    state = z0
    for _ in range(300):
        state = f(state)
    inputs = (x, conv.weight, mix.weight, mix.bias)
    reference = torch.autograd.grad(sum(part.square().sum() for part in state), inputs)
    for start in (z0, (z0[0].to(memory_format=torch.channels_last), z0[1])):
        solution = fixed_point(f, start, solver=Broyden(80, 1e-13))
        assert isinstance(solution.value, tuple)
        assert [part.shape for part in solution.value] == [part.shape for part in z0]
        assert solution.value[0].stride() == start[0].stride()
        ours = torch.autograd.grad(sum(part.square().sum() for part in solution.value), inputs)
        for value, expected in zip(ours, reference, strict=True):
            assert relative_error(value, expected) < 1e-8


@pytest.mark.parametrize("solver", [Broyden(60, 1e-14), Anderson(80, 1e-14), FixedPointIteration(200, 1e-14)], ids=repr)
def test_gradcheck(solver):
    problem = Contraction(batch=2, size=4)

    def solve(weight, x):
        return fixed_point(lambda z, x: torch.tanh(z @ weight.T + x), problem.z0, (x,), solver=solver).value

    assert torch.autograd.gradcheck(solve, (problem.weight, problem.x))


def test_unrolled_adjoint_is_autograd_to_second_order_and_reaches_z0():
    problem = Contraction(batch=2, size=3)
    z0 = torch.randn(2, 3, dtype=F64, requires_grad=True)

    def solve(z0, x):
        return fixed_point(problem, z0, (x,), solver=Unroll(3)).value

    assert torch.autograd.gradcheck(solve, (z0, problem.x))
    assert torch.autograd.gradgradcheck(solve, (z0, problem.x))


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("solver", [Unroll(7), FixedPointIteration(7, 0.0, 0.0, damping=0.7)], ids=repr)
def test_unrolled_adjoint_equals_a_loop(solver, checkpoint):
    problem = Contraction()
    damping = getattr(solver, "damping", 1.0)
    z = problem.z0
    for _ in range(7):
        z = torch.lerp(z, problem(z, problem.x), damping)
    expected = problem.gradients(z)
    problem.calls.clear()
    solution = fixed_point(
        problem, problem.z0, (problem.x,), solver=solver, adjoint=UnrolledAdjoint(checkpoint=checkpoint)
    )
    torch.testing.assert_close(solution.value, z, rtol=1e-14, atol=0)
    for ours, reference in zip(problem.gradients(solution.value), expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-15)


def test_unrolled_through_the_quasi_residual_differentiates_what_was_computed():
    problem = Contraction(batch=3, size=5)
    residual, keys = QuasiEquilibrium(p=0.3, seed=2), torch.arange(3)

    def solve(x):
        return fixed_point(problem, problem.z0, (x,), solver=Unroll(3), residual=residual, keys=keys).value

    assert not torch.equal(solve(problem.x), fixed_point(problem, problem.z0, (problem.x,), solver=Unroll(3)).value)
    assert torch.autograd.gradcheck(solve, (problem.x,))


def test_phantom_is_a_truncated_series_and_jacobian_free_its_first_term():
    problem = Contraction()
    z, exact = problem.unrolled()
    options = {"solver": Broyden(60, 1e-13)}
    for steps, damping in ((1, 1.0), (3, 1.0), (4, 0.5)):
        state = z
        for _ in range(steps):
            state = damping * problem(state, problem.x) + (1 - damping) * state
        expected = problem.gradients(state)
        adjoints = [PhantomAdjoint(steps, damping)] + ([JacobianFreeAdjoint()] if steps == 1 else [])
        for adjoint in adjoints:
            solution = fixed_point(problem, problem.z0, (problem.x,), adjoint=adjoint, **options)
            for ours, reference in zip(problem.gradients(solution.value), expected, strict=True):
                assert relative_error(ours, reference) < 1e-9
    solution = fixed_point(problem, problem.z0, (problem.x,), adjoint=PhantomAdjoint(150, 0.9), **options)
    for ours, reference in zip(problem.gradients(solution.value), exact, strict=True):
        assert relative_error(ours, reference) < 1e-9


def test_shine_is_nearer_than_jacobian_free():
    problem = Contraction()
    _, gradients = problem.unrolled()
    shine, free = (
        problem.gradients(
            fixed_point(problem, problem.z0, (problem.x,), solver=Broyden(60, 1e-12), adjoint=adjoint).value
        )
        for adjoint in (ShineAdjoint(), JacobianFreeAdjoint())
    )
    for ours, plain, reference in zip(shine, free, gradients, strict=True):
        assert relative_error(ours, reference) < 0.7 * relative_error(plain, reference)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12])
def test_gradients_of_any_size_survive_float32(scale):
    problem = Contraction(dtype=torch.float32)
    solution = fixed_point(problem, problem.z0, (problem.x,), solver=Broyden(40, 1e-6))
    solution_grads = torch.autograd.grad((solution.value * problem.cotangent).sum(), problem.x, retain_graph=True)
    scaled = torch.autograd.grad((solution.value * problem.cotangent * scale).sum(), problem.x)
    assert relative_error(scaled[0].double() / scale, solution_grads[0].double()) < 1e-5


def test_a_gradient_that_is_not_finite_stays_visible():
    problem = Contraction(batch=3)
    solution = fixed_point(problem, problem.z0, (problem.x,))
    cotangent = torch.ones_like(solution.value)
    cotangent[1, 2] = torch.inf
    (gradient,) = torch.autograd.grad(solution.value, problem.x, cotangent)
    assert not gradient[1].isfinite().all()
    assert gradient[[0, 2]].isfinite().all()


def test_one_product_a_backward_step_and_no_second_evaluation_at_the_limit():
    """8 + 8 steps: 9 evaluations, the last one with the graph, and 8 + 1 walks of that one graph."""
    problem = Contraction()
    walks = []

    def f(z, x):
        z = z.clone()
        if z.requires_grad:
            z.register_hook(lambda gradient: walks.append(1))
        return problem(z, x)

    solution = fixed_point(f, problem.z0, (problem.x,), solver=Broyden(8, 0.0, 0.0))
    assert solution.stats.steps.tolist() == [8] * 5
    assert solution.stats.evaluations.tolist() == [9] * 5
    assert len(problem.calls) == 9
    solution.value.sum().backward()
    assert solution.backward_stats.steps.tolist() == [8] * 5
    assert solution.backward_stats.evaluations.tolist() == [8] * 5
    assert len(walks) == 8 + 1
    assert len(problem.calls) == 9


def test_value_is_the_same_with_and_without_grad():
    problem = Contraction()
    for solver in (
        Broyden(6, 0.0, 0.0),
        Broyden(40, 1e-6),
        Anderson(7, 0.0, 0.0),
        Unroll(4),
        FixedPointIteration(9, 1e-3),
    ):
        for residual in (Equilibrium(), QuasiEquilibrium(p=0.2)):
            keys = torch.arange(5)
            with_grad = fixed_point(problem, problem.z0, (problem.x,), solver=solver, residual=residual, keys=keys)
            assert with_grad.value.requires_grad
            with torch.no_grad():
                without = fixed_point(problem, problem.z0, (problem.x,), solver=solver, residual=residual, keys=keys)
            assert torch.equal(with_grad.value, without.value)
            assert not without.value.requires_grad
