"""A sample that goes wrong costs no other sample its gradient, whatever the adjoint."""

from __future__ import annotations

import pytest
import torch
from tests.implicit.problems import F64, Contraction, relative_error

from qefpn.implicit import (
    Anderson,
    Broyden,
    FixedPointIteration,
    ImplicitAdjoint,
    JacobianFreeAdjoint,
    PhantomAdjoint,
    ShineAdjoint,
    Unroll,
    UnrolledAdjoint,
    fixed_point,
)

BROYDEN = Broyden(30, 1e-9)
PAIRS = [
    (Broyden(30, 1e-5), ShineAdjoint()),  # near rounding, pairs (s, y) are noise, and so is what they teach
    (Broyden(30, 1e-5, memory=2), ShineAdjoint()),
    (Broyden(4, 0.0), ShineAdjoint()),
    (BROYDEN, ImplicitAdjoint()),
    (Anderson(30, 1e-9), ImplicitAdjoint()),
    (Anderson(30, 1e-9), ImplicitAdjoint(FixedPointIteration(60, 1e-9))),
    (BROYDEN, PhantomAdjoint()),
    (BROYDEN, JacobianFreeAdjoint()),
    (FixedPointIteration(60, 1e-9), UnrolledAdjoint()),
    (FixedPointIteration(60, 1e-9), UnrolledAdjoint(checkpoint=True)),
    (Unroll(60, rtol=1e-9), UnrolledAdjoint()),
]
BAD = [float("nan"), float("inf"), -float("inf")]
OTHERS = [0, 1, 3]


class Once:
    """A contraction of four samples; one evaluation of sample 2, or each one from it on, gives ``bad``."""

    def __init__(self, bad, first, *, for_good=False):
        self.problem = Contraction(batch=4, size=12)
        self.bad, self.first, self.for_good = bad, first, for_good

    def __call__(self, z, x):
        value = self.problem(z, x)
        number = len(self.problem.calls)
        now = number == self.first or (self.for_good and number > self.first)
        return torch.where((torch.arange(4)[:, None] == 2) & now, self.bad, value) if len(z) == 4 else value


def solved(f, problem, solver, adjoint, rows=None):
    rows = list(range(problem.batch)) if rows is None else rows
    return fixed_point(f, problem.z0[rows], (problem.x[rows],), solver=solver, adjoint=adjoint)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("solver", "adjoint"), PAIRS, ids=repr)
def test_the_others_gradients_are_those_of_a_batch_without_it(solver, adjoint, bad, first, for_good):
    poisoned = Once(bad, first, for_good=for_good)
    problem = poisoned.problem
    dirty = solved(poisoned, problem, solver, adjoint)
    assert dirty.stats.finite.tolist() == [True, True, False, True]
    cotangent = problem.cotangent.clone()
    inputs = (problem.weight, problem.x)
    whole = torch.autograd.grad((dirty.value * cotangent).sum(), inputs, retain_graph=True)
    assert all(gradient.isfinite().all() for gradient in whole)
    cotangent[2] = 0.0
    weight, x = torch.autograd.grad((dirty.value * cotangent).sum(), inputs)
    assert x[2].abs().sum() == 0, "no cotangent, no gradient: 0 times the bad value is 0"
    clean = Contraction(batch=4, size=12)
    without = solved(clean, clean, solver, adjoint, OTHERS)
    expected = torch.autograd.grad((without.value * cotangent[OTHERS]).sum(), (clean.weight, clean.x))
    torch.testing.assert_close(dirty.value[OTHERS], without.value, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(weight, expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(x[OTHERS], expected[1][OTHERS], rtol=1e-10, atol=1e-12)


class BadProduct(torch.autograd.Function):
    """Identity; the product number ``first`` with its Jacobian gives NaN for sample 2."""

    @staticmethod
    def forward(ctx, z, calls, first):
        ctx.calls, ctx.first = calls, first
        return z.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.calls.append(1)
        if len(ctx.calls) == ctx.first:
            gradient = torch.where(torch.arange(len(gradient))[:, None] == 2, torch.nan, gradient)
        return gradient, None, None


@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("backward", [Broyden(30, 1e-9), Anderson(30, 1e-9), FixedPointIteration(60, 1e-9)], ids=repr)
def test_a_bad_product_of_the_backward_solve_is_its_sample_s_alone(backward, first):
    problem, calls = Contraction(batch=4, size=12), []

    def f(z, x):
        return problem(BadProduct.apply(z, calls, first), x)

    solution = solved(f, problem, BROYDEN, ImplicitAdjoint(backward))
    (gradient,) = torch.autograd.grad((solution.value * problem.cotangent).sum(), problem.x)
    clean = Contraction(batch=4, size=12)
    expected = solved(clean, clean, BROYDEN, ImplicitAdjoint(backward))
    (reference,) = torch.autograd.grad((expected.value * clean.cotangent).sum(), clean.x)
    torch.testing.assert_close(gradient[OTHERS], reference[OTHERS], rtol=1e-10, atol=1e-12)
    assert gradient.isfinite().all()
    assert solution.backward_stats.finite.tolist() == [True, True, False, True]
    assert solution.fallbacks.tolist() == [False, False, first == 1, False], "no product, no solution: Jacobian-free"


def test_shine_falls_back_where_its_estimate_is_out_of_proportion():
    """Sample 1 is a hair from f(z) = z + x, whose (I − J)⁻¹ is 10⁵ times the identity."""
    slope = torch.tensor([0.5, 1 - 1e-5, -0.3, 0.8], dtype=F64)[:, None]
    x = torch.arange(1.0, 5.0, dtype=F64)[:, None].repeat(1, 3).requires_grad_()  # steps go along the cotangent
    z0 = torch.zeros(4, 3, dtype=F64)

    def gradient(adjoint):
        solution = fixed_point(lambda z, x: slope * z + x, z0, (x,), solver=Broyden(5, 1e-9), adjoint=adjoint)
        assert solution.fallbacks is None, "nobody knows before the backward pass"
        (gradient,) = torch.autograd.grad(solution.value.sum(), x)
        return solution, gradient

    solution, shine = gradient(ShineAdjoint())
    assert solution.fallbacks.tolist() == [False, True, False, False]
    _, free = gradient(JacobianFreeAdjoint())
    assert torch.equal(shine[1], free[1])
    exact = 1 / (1 - slope[[0, 2, 3]]).expand(3, 3)
    torch.testing.assert_close(shine[[0, 2, 3]], exact, rtol=1e-10, atol=0)
    solution, trusted = gradient(ShineAdjoint(max_growth=1e6))
    assert not solution.fallbacks.any()
    torch.testing.assert_close(trusted[1], torch.full((3,), 1e5, dtype=F64), rtol=1e-4, atol=0)


@pytest.mark.parametrize("adjoint", [ShineAdjoint(), ImplicitAdjoint()], ids=repr)
def test_a_cotangent_that_is_not_finite_stays_visible_and_touches_no_other(adjoint):
    problem = Contraction(batch=3)
    solution = solved(problem, problem, BROYDEN, adjoint)
    cotangent = problem.cotangent.clone()
    (clean,) = torch.autograd.grad(solution.value, problem.x, cotangent, retain_graph=True)
    cotangent[1, 2] = torch.nan
    (dirty,) = torch.autograd.grad(solution.value, problem.x, cotangent)
    assert not dirty[1].isfinite().all()
    torch.testing.assert_close(dirty[[0, 2]], clean[[0, 2]], rtol=1e-12, atol=0)


def dense_inverse(iterates, values):
    """(I − J)⁻¹ by Broyden's good update on dense matrices: H ← H + (s − Hy)sᵀH/(sᵀHy) from −I, g = f(z) − z."""
    size = iterates[0].shape[0]
    inverse = -torch.eye(size, dtype=F64)
    for number in range(1, len(iterates)):
        s = iterates[number] - iterates[number - 1]
        y = (values[number] - iterates[number]) - (values[number - 1] - iterates[number - 1])
        inverse = inverse + torch.outer(s - inverse @ y, s @ inverse) / (s @ inverse @ y)
    return -inverse


@pytest.mark.parametrize("stops", [False, True], ids=["fixed", "each at its own step"])
def test_shine_s_gradient_is_that_of_a_dense_textbook_inverse(stops):
    problem = Contraction(batch=3, size=15)
    solver = Broyden(20, 1e-3) if stops else Broyden(7, 0.0)
    visited = []

    def f(z, x):
        value = problem(z, x)
        visited.append((z.detach().clone(), value.detach()))
        return value

    solution = solved(f, problem, solver, ShineAdjoint())
    steps = solution.stats.steps.tolist()
    assert (len(set(steps)) > 1) == stops
    jacobian_free = solved(f, problem, solver, JacobianFreeAdjoint())
    (gradient,) = torch.autograd.grad((solution.value * problem.cotangent).sum(), problem.x)
    assert not solution.fallbacks.any()
    for row in range(3):
        pairs = [(z[row], value[row]) for z, value in visited[: steps[row] + 1]]
        inverse = dense_inverse([z for z, _ in pairs], [value for _, value in pairs])
        v = torch.zeros_like(problem.cotangent)
        v[row] = inverse.T @ problem.cotangent[row]
        expected = torch.autograd.grad((jacobian_free.value * v).sum(), problem.x, retain_graph=True)[0][row]
        assert relative_error(gradient[row], expected) < 1e-8
