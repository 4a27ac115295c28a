"""Broyden's method against its theory and torchdeq."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.implicit.problems import F64, Contraction, relative_error

from qefpn.implicit import Broyden, fixed_point
from qefpn.implicit.driver import solve
from qefpn.implicit.solvers import broyden
from qefpn.implicit.solvers.broyden import Estimate
from qefpn.implicit.torch_private import total_memory


@pytest.mark.parametrize(("size", "shift"), [(1, 1.0), (3, 1.0), (5, 1.0), (5, 0.0), (13, 0.0), (40, 0.0)])
def test_linear_problems_end_within_2n_steps(size, shift):
    """Gay, SIAM J. Numer. Anal. 16, 1979. None of these is a contraction in norm; with ``shift`` 1 the
    Jacobian of g has nothing of −I, the start. (For larger n of that kind rounding, not the method, decides:
    dense float64 Broyden stops at the same residuals.)"""
    torch.manual_seed(size)
    eye = torch.eye(size, dtype=F64)
    matrix = shift * eye + 0.8 * torch.randn(6, size, size, dtype=F64) / size**0.5
    x = torch.randn(6, size, dtype=F64)
    solution = fixed_point(
        lambda z, x: torch.einsum("bij,bj->bi", matrix, z) + x,
        torch.zeros_like(x),
        (x,),
        solver=Broyden(2 * size, 0.0, 0.0),
    )
    exact = torch.linalg.solve(eye - matrix, x)
    error = (solution.value - exact).norm(dim=1) / exact.norm(dim=1)
    assert (error < 1e-11 * torch.linalg.cond(eye - matrix).clamp_min(1.0)).all(), error


@pytest.mark.parametrize("alpha", [1.0, 0.4])
@pytest.mark.parametrize("memory", [None, 1, 2, 3, 5])
def test_secant_equation_holds_for_the_last_pair_always(memory, alpha):
    """H y = s after every update: between restarts, at each restart and at every memory limit."""
    problem = Contraction(batch=3, size=30)
    steps = 11
    estimate = Estimate(problem.z0, steps, memory, alpha)
    z, pair, restarts = problem.z0, None, 0
    with torch.no_grad():
        for step in range(steps):
            g = problem(z, problem.x) - z
            estimate.enter(g + z, z)
            known = estimate.pairs
            direction = estimate.direction().clone()
            restarts += step > 0 and estimate.pairs <= known
            torch.testing.assert_close(direction, -estimate.apply(g), rtol=1e-7, atol=1e-9 * float(g.abs().max()))
            if pair is not None:
                s, y = pair[0], g - pair[1]
                error = (estimate.apply(y) - s).norm(dim=1) / s.norm(dim=1)
                assert (error < 1e-7).all(), (step, error)
            z = z + alpha * direction
            pair = (alpha * direction, g)
    assert (restarts > 0) == (memory is not None)


def test_transposed_estimate_is_the_transpose():
    problem = Contraction(batch=2, size=12)
    result = solve(Broyden(9, 0.0, 0.0), lambda z: problem(z, problem.x).detach(), problem.z0)
    apply_transposed = result.state.transposed(result.settled)
    estimate = Estimate(problem.z0, 10, None)
    z = problem.z0
    with torch.no_grad():
        for _ in range(9):
            estimate.enter(problem(z, problem.x), z)
            z = z + estimate.direction()
        estimate.enter(problem(z, problem.x), z)
        estimate.direction()
        basis = torch.eye(12, dtype=F64)
        dense = torch.stack([estimate.apply(row.expand(2, 12)) for row in basis], dim=2)
        v = torch.randn(2, 12, dtype=F64)
        torch.testing.assert_close(apply_transposed(v), -torch.einsum("bij,bi->bj", dense, v))


@pytest.mark.parametrize("size", [300, 20000])
def test_iterates_equal_torchdeq(size):
    broyden_solver = pytest.importorskip("torchdeq.solver.broyden").broyden_solver
    torch.manual_seed(0)
    slope, x = 1.6 * torch.rand(1, size) - 0.8, torch.randn(2, size)

    def f(z):
        return torch.tanh(slope * z + x) + 0.15 * torch.roll(z, 1, dims=1)

    z0 = torch.zeros(2, size)
    for steps in (1, 2, 5, 10, 27):
        reference, _, info = broyden_solver(f, z0, max_iter=steps, tol=0.0)
        solution = fixed_point(f, z0, solver=Broyden(steps, 0.0, 0.0))
        assert relative_error(solution.value, reference) < 5e-6
        torch.testing.assert_close(solution.stats.residual.float(), info["abs_lowest"], rtol=1e-2, atol=1e-5)


def test_memory_bounds_the_store():
    problem = Contraction(size=50)
    assert Estimate(problem.z0, 40, 3).rows.shape == (5, 6, 50)
    assert Estimate(problem.z0, 40, None).rows.shape == (5, 41, 50)


def test_best_iterate_is_returned_with_its_own_residual():
    """Far from the root the residual is not monotone; the answer is the best iterate, not the last."""
    torch.manual_seed(3)
    matrix = 2.0 * torch.randn(4, 12, 12, dtype=F64) / 12**0.5
    x = torch.randn(4, 12, dtype=F64)

    def f(z):
        return torch.einsum("bij,bj->bi", matrix, z) + x

    solution = fixed_point(f, torch.zeros_like(x), solver=Broyden(9, 0.0, 0.0))
    stats = solution.stats
    residual = (f(solution.value) - solution.value).norm(dim=1)
    assert (stats.trace[-1] > stats.relative_residual).any()
    torch.testing.assert_close(stats.residual, residual)
    torch.testing.assert_close(stats.relative_residual, residual / f(solution.value).norm(dim=1))
    torch.testing.assert_close(stats.trace.min(dim=0).values, stats.relative_residual)
    assert stats.trace.shape == (10, 4)


def test_pairs_that_do_not_fit_into_memory_are_given_up_with_a_word(monkeypatch):
    """The store is bounded by half of the machine's memory: the solve restarts in place of ending the process."""
    z, problem = torch.zeros(4, 50, dtype=F64), Contraction(batch=4, size=50)
    state = z.numel() * 8
    whole = fixed_point(problem, z, (problem.x,), solver=Broyden(12, 0.0))
    for states, pairs in ((27, None), (26, None), (25, 9), (8, 1), (1, 1)):
        monkeypatch.setattr(broyden, "total_memory", lambda device, states=states: states * state)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            bounded = fixed_point(problem, z, (problem.x,), solver=Broyden(12, 0.0)).value
        told = [str(one.message) for one in told if "Broyden" in str(one.message)]
        assert bool(told) is (pairs is not None)
        if pairs is None:
            assert torch.equal(bounded, whole.value)
            continue
        assert f"restarts after {pairs} steps; memory={pairs}" in told[0]
        assert torch.equal(bounded, fixed_point(problem, z, (problem.x,), solver=Broyden(12, 0.0, memory=pairs)).value)
    assert (total_memory(torch.device("cpu")) or 1 << 40) > 1 << 28
