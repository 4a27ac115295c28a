"""Broyden's method against its theory, scipy and torchdeq."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
import torch
from tests.implicit.problems import F64, Contraction, relative_error

from qefpn.implicit import Broyden, fixed_point
from qefpn.implicit.solvers.base import Tracker
from qefpn.implicit.solvers.broyden import Estimate
from qefpn.implicit.solvers.line_search import Armijo


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


@pytest.mark.parametrize("lengths", [None, (1.0, 0.5, 0.25, 1.0)])
@pytest.mark.parametrize("memory", [None, 1, 2, 3, 5])
def test_secant_equation_holds_for_the_last_pair_always(memory, lengths):
    """H y = s after every update: between restarts, at each restart and at every memory limit."""
    problem = Contraction(batch=3, size=30)
    steps = 11
    estimate = Estimate(problem.z0, steps, memory)
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
            length = 1.0 if lengths is None else lengths[step % len(lengths)]
            estimate.length = None if lengths is None else torch.full((3, 1), length, dtype=F64)
            z = z + length * direction
            pair = (length * direction, g)
    assert (restarts > 0) == (memory is not None)


def test_transposed_estimate_is_the_transpose():
    problem = Contraction(batch=2, size=12)
    result = Broyden(9, 0.0, 0.0).solve(lambda z: problem(z, problem.x).detach(), problem.z0, keep_inverse=True)
    assert result.apply_transposed is not None
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
        torch.testing.assert_close(result.apply_transposed(v), -torch.einsum("bij,bi->bj", dense, v))


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


def _tridiagonal(x):
    left, right = torch.nn.functional.pad(x, (1, 0))[:, :-1], torch.nn.functional.pad(x, (0, 1))[:, 1:]
    return (3 - 2 * x) * x - left - 2 * right + 1


def _boundary_value(x):
    step = 1 / (x.shape[1] + 1)
    t = torch.arange(1, x.shape[1] + 1, dtype=x.dtype) * step
    left, right = torch.nn.functional.pad(x, (1, 0))[:, :-1], torch.nn.functional.pad(x, (0, 1))[:, 1:]
    return 2 * x - left - right + step**2 * (x + t + 1) ** 3 / 2


def _banded(x):
    size, square = x.shape[1], x * (1 + x)
    band = torch.ones(size, size, dtype=x.dtype).tril(5).T.tril(1).fill_diagonal_(0)
    return x * (2 + 5 * x**2) + 1 - square @ band.T.flip(0, 1)


def _trigonometric(x):
    size = x.shape[1]
    number = torch.arange(1, size + 1, dtype=x.dtype)
    return size - x.cos().sum(dim=1, keepdim=True) + number * (1 - x.cos()) - x.sin()


def _start(system, size):
    """The collection's own starting points."""
    t = torch.arange(1, size + 1, dtype=F64) / (size + 1)
    starts = {_boundary_value: t * (t - 1), _trigonometric: torch.full((size,), 1 / size, dtype=F64)}
    return starts.get(system, torch.full((size,), -1.0, dtype=F64))[None]


@pytest.mark.parametrize("memory", [None, 10])
@pytest.mark.parametrize("size", [5, 10, 20])
@pytest.mark.parametrize("system", [_tridiagonal, _boundary_value, _banded, _trigonometric])
def test_armijo_solves_what_the_plain_method_cannot(system, size, memory):
    """Systems of Moré, Garbow and Hillstrom posed as z + F(z), where −I has the wrong sign for a start."""
    start = _start(system, size)
    solution = fixed_point(
        lambda z: z + system(z), start, solver=Broyden(300, 0.0, 1e-8, memory=memory, line_search=True)
    )
    assert solution.stats.converged.all() and system(solution.value).norm() <= 1e-8
    # on the trigonometric system krylov stops where it starts on some processors
    method, options = ("df-sane", {}) if system is _trigonometric else ("krylov", {"fatol": 1e-10})
    reference = scipy.optimize.root(
        lambda v: system(torch.from_numpy(v)[None])[0].numpy(), start[0].numpy(), method=method, options=options
    )
    assert reference.success
    if system is _trigonometric:  # it has several roots
        assert np.linalg.norm(reference.fun) < 1e-8
        return
    np.testing.assert_allclose(solution.value[0].numpy(), reference.x, atol=1e-6)


@pytest.mark.parametrize("memory", [None, 4])
def test_a_search_that_starts_again_does_so_for_its_sample_alone(memory):
    """Systems for which −I has the wrong sign, so that the search fails at first, beside a contraction."""
    start = torch.tensor([-0.4, -1.0, -0.6, -0.8], dtype=F64)[:, None].repeat(1, 8)
    contraction = torch.tensor([True, False, False, False])[:, None]

    def f(z, contraction):
        return torch.where(contraction, 0.5 * z.cos(), z + _tridiagonal(z))

    solver = Broyden(300, 0.0, 1e-9, memory=memory, line_search=True)
    with torch.no_grad():
        batch = fixed_point(f, start, (contraction,), solver=solver)
        assert batch.stats.converged.all()
        assert len(set(batch.stats.evaluations.tolist())) == 4
        for row in range(4):
            one = slice(row, row + 1)
            alone = fixed_point(f, start[one], (contraction[one],), solver=solver)
            torch.testing.assert_close(alone.value[0], batch.value[row], rtol=1e-6, atol=1e-6)
            assert alone.stats.evaluations.tolist() == batch.stats.evaluations[one].tolist()


@pytest.mark.parametrize("number", [0, 1, 2, 5])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_search_accepts_the_growth_that_its_step_allows(number, side):
    """Step k may bring ‖g‖ to (1 + 0.5/(k + 1)² − 10⁻⁴ λ) times what it was: a little less or more, at λ = 1."""
    z = torch.zeros(1, 4, dtype=F64)
    search, tracker = Armijo(1, z.device), Tracker(Broyden(), z)
    ratios = [1.0] * number + [1 + 0.5 / (number + 1) ** 2 - 1e-4 + side * 1e-6]
    for ratio in ratios:
        g_norm = torch.full((1,), 2.0, dtype=F64)
        estimate = SimpleNamespace(rows=torch.full((1, 1, 4), 1.0, dtype=F64), eta=None)  # ‖g‖ = 2
        before = int(search.evaluations)
        search.step(lambda z, ratio=ratio: z + ratio, z, torch.ones_like(z), g_norm, estimate, tracker)
    assert int(search.evaluations) - before == (1 if side < 0 else 2)  # half the step may bring 5e-5 more
    assert (float(estimate.length) == 1.0) == (side < 0)


def test_line_search_counts_what_it_evaluates():
    calls = []

    def f(z):
        calls.append(1)
        return z + _tridiagonal(z)

    with torch.no_grad():
        solution = fixed_point(f, -torch.ones(1, 8, dtype=F64), solver=Broyden(60, 0.0, 1e-8, line_search=True))
    assert solution.stats.evaluations.tolist() == [len(calls)]
    assert len(calls) > int(solution.stats.steps) + 1


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
