"""Jacobian regularisation and fixed-point correction as loss terms."""

from __future__ import annotations

import pytest
import torch
from tests.implicit.problems import F64, Contraction, relative_error

from qefpn.implicit import (
    Anderson,
    Broyden,
    FixedPointIteration,
    QuasiEquilibrium,
    Unroll,
    fixed_point,
    fixed_point_correction,
    jacobian_regularization,
)


def exact(problem, z, weight):
    """‖J‖²_F / N, averaged over the batch."""
    slope = 1 - torch.tanh(z @ weight.T + problem.x) ** 2
    return ((slope[:, :, None] * weight) ** 2).sum() / z.numel()


def test_it_estimates_the_norm_of_the_jacobian_and_its_gradient():
    problem = Contraction(batch=3, size=6)
    z = fixed_point(problem, problem.z0, (problem.x,)).value.detach()
    weight, x = problem.weight, problem.x
    generator = torch.Generator().manual_seed(0)
    value = jacobian_regularization(problem, z, (x,), samples=3000, generator=generator)
    expected = exact(problem, z, weight)
    assert relative_error(value, expected) < 0.05
    ours = torch.autograd.grad(value, (weight, x))
    for gradient, reference in zip(ours, torch.autograd.grad(expected, (weight, x)), strict=True):
        assert relative_error(gradient, reference) < 0.1


def test_gradcheck_and_no_gradient_to_the_state():
    problem = Contraction(batch=2, size=3)
    z = torch.randn(2, 3, dtype=F64, requires_grad=True)

    def term(weight, x):
        def f(z, x):
            return torch.tanh(z @ weight.T + x)

        return jacobian_regularization(f, z, (x,), samples=2, generator=torch.Generator().manual_seed(1))

    assert torch.autograd.gradcheck(term, (problem.weight, problem.x))
    value = term(problem.weight, problem.x)
    assert torch.autograd.grad(value, z, allow_unused=True)[0] is None


def test_a_step_down_the_term_makes_the_map_more_of_a_contraction():
    problem = Contraction(batch=4, size=8)
    weight = (2.0 * problem.weight).detach().requires_grad_()

    def f(z, x):
        return torch.tanh(z @ weight.T + x)

    z = fixed_point(f, problem.z0, (problem.x,)).value.detach()
    before = torch.linalg.matrix_norm(weight, 2).detach()
    for _ in range(20):
        (gradient,) = torch.autograd.grad(jacobian_regularization(f, z, (problem.x,), samples=4), weight)
        with torch.no_grad():
            weight -= 0.5 * gradient
    assert torch.linalg.matrix_norm(weight, 2) < 0.9 * before


def test_without_grad_it_is_a_number_and_without_a_jacobian_zero():
    problem = Contraction()
    draws = [torch.Generator().manual_seed(2) for _ in range(2)]
    value = jacobian_regularization(problem, problem.z0, (problem.x,), samples=2, generator=draws[0])
    with torch.no_grad():
        again = jacobian_regularization(problem, problem.z0, (problem.x,), samples=2, generator=draws[1])
    assert torch.equal(value.detach(), again) and not again.requires_grad
    for constant in (lambda z, x: x, lambda z, x: torch.zeros_like(z)):  # with and without a graph
        assert float(jacobian_regularization(constant, problem.z0, (problem.x,))) == 0.0


def test_autocast_computes_in_float32():
    problem = Contraction(dtype=torch.float32)
    seen = []

    def f(z, x):
        value = problem(z, x)
        seen.extend((z.dtype, value.dtype))  # autocast would multiply in bfloat16
        return value

    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = jacobian_regularization(f, problem.z0.bfloat16(), (problem.x.bfloat16(),))
    assert set(seen) == {torch.float32} and value.dtype == torch.float32


@pytest.mark.parametrize("residual", [None, QuasiEquilibrium(p=0.2)], ids=["equilibrium", "quasi"])
@pytest.mark.parametrize(
    "solver", [Broyden(9, 0.0, 0.0), Anderson(9, 0.0, 0.0), FixedPointIteration(9, 0.0, 0.0), Unroll(9)], ids=repr
)
def test_intermediate_states_are_one_step_beyond_the_iterates(solver, residual):
    problem, keys = Contraction(), torch.arange(5)
    options = {"keys": keys} if residual is None else {"keys": keys, "residual": residual}
    plain = fixed_point(problem, problem.z0, (problem.x,), solver=solver, **options)
    solution = fixed_point(problem, problem.z0, (problem.x,), solver=solver, intermediate=(0, 4), **options)
    assert torch.equal(solution.value, plain.value) and len(solution.intermediate) == 2
    assert torch.equal(solution.intermediate[0], problem(problem.z0, problem.x))
    short = type(solver)(**{**vars(solver), "max_steps": 4})
    reached = fixed_point(problem, problem.z0, (problem.x,), solver=short, **options)
    if isinstance(solver, Unroll):
        torch.testing.assert_close(solution.intermediate[1], problem(reached.value.detach(), problem.x))
    distance = [(state - solution.value).detach().norm() for state in solution.intermediate]
    assert distance[1] < distance[0]
    for ours, reference in zip(
        problem.gradients(solution.intermediate[0]), problem.gradients(problem(problem.z0, problem.x)), strict=True
    ):
        torch.testing.assert_close(ours, reference)


def test_intermediate_states_that_are_not_reached_are_left_out():
    problem = Contraction()
    solution = fixed_point(problem, problem.z0, (problem.x,), solver=Broyden(9, 1e-1), intermediate=(1, 50))
    assert len(solution.intermediate) == 1
    with torch.no_grad():
        states = fixed_point(problem, problem.z0, (problem.x,), intermediate=(1,)).intermediate
    assert not states[0].requires_grad


def test_correction_weighs_the_later_more():
    losses = [torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0, requires_grad=True)]
    total = fixed_point_correction(losses, gamma=0.5)
    assert float(total) == 0.25 + 1.0 + 4.0
    assert torch.autograd.grad(total, losses[2])[0] == 1.0
    assert float(fixed_point_correction(losses, gamma=1.0)) == 7.0


def test_mistakes():
    problem = Contraction()
    with pytest.raises(ValueError, match="samples must be at least 1"):
        jacobian_regularization(problem, problem.z0, (problem.x,), samples=0)
    with pytest.raises(ValueError, match=r"gamma must be in \(0, 1\]"):
        fixed_point_correction([torch.ones(())], gamma=0.0)
    with pytest.raises(ValueError, match="at least one"):
        fixed_point_correction([])
    with pytest.raises(ValueError, match="intermediate must be at least 0"):
        fixed_point(problem, problem.z0, (problem.x,), intermediate=(-1,))
