"""Anderson acceleration against torchdeq and scipy, and where its system is singular."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from tests.implicit.problems import F64, Contraction, relative_error

from qefpn.implicit import Anderson, FixedPointIteration, fixed_point


@pytest.mark.parametrize("memory", [2, 5, 6])
def test_iterates_equal_torchdeq(memory):
    """torchdeq returns F of the iterate that it evaluated last; its first two evaluations are no steps."""
    anderson_solver = pytest.importorskip("torchdeq.solver.anderson").anderson_solver
    problem = Contraction(size=60)
    iterates = []

    def f(z):
        iterates.append(z.detach().clone())
        return problem(z, problem.x)

    with torch.no_grad():
        anderson_solver(f, problem.z0, max_iter=9, tol=0.0, m=memory, lam=0.0)
        reference = list(iterates)
        iterates.clear()
        fixed_point(f, problem.z0, solver=Anderson(8, 0.0, 0.0, memory=memory, regularization=0.0))
    assert len(iterates) == len(reference) == 9
    for ours, theirs in zip(iterates[1:], reference[1:], strict=True):
        assert relative_error(ours, theirs) < 1e-8


def test_reaches_the_root_that_scipy_finds_in_fewer_steps_than_plain_iteration():
    problem = Contraction(batch=1, size=30)
    weight, x = problem.weight.detach().numpy(), problem.x[0].detach().numpy()
    root = scipy.optimize.root(lambda z: np.tanh(z @ weight.T + x) - z, np.zeros(30), tol=1e-13)
    solution = fixed_point(problem, problem.z0, (problem.x,), solver=Anderson(60, 1e-12))
    np.testing.assert_allclose(solution.value[0].detach().numpy(), root.x, atol=1e-10)
    plain = fixed_point(problem, problem.z0, (problem.x,), solver=FixedPointIteration(200, 1e-12))
    assert int(solution.stats.steps) < int(plain.stats.steps)


def test_a_singular_system_falls_back_for_its_sample_alone():
    """A map whose residuals are all parallel and equal: the Gram matrix has rank one."""
    problem = Contraction(batch=2, size=10)

    def f(z, x):
        return torch.stack([z[0] + 1.0, problem(z, problem.x)[1]])

    solver = Anderson(30, 1e-12, regularization=0.0)
    solution = fixed_point(f, problem.z0, (problem.x,), solver=solver)
    alone = fixed_point(problem, problem.z0, (problem.x,), solver=solver)
    assert solution.value.isfinite().all() and solution.stats.finite.all()
    assert not solution.stats.converged[0]
    assert torch.equal(solution.value[1], alone.value[1])
    assert solution.stats.trace[-1, 0] < solution.stats.trace[0, 0]  # it went on by plain steps


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_regularisation_is_relative(scale):
    problem = Contraction(size=40)
    solver = Anderson(12, 0.0, 0.0, regularization=1e-4)
    plain = fixed_point(problem, problem.z0, (problem.x,), solver=solver)
    scaled = fixed_point(lambda z, x: scale * problem(z / scale, x), problem.z0, (problem.x,), solver=solver)
    assert relative_error(scaled.value / scale, plain.value) < 1e-7


def test_damping_mixes_in_the_iterate():
    """The first step has one residual: z + damping·g."""
    problem = Contraction(size=10)
    z0 = torch.ones(5, 10, dtype=F64)
    seen = []

    def f(z, x):
        seen.append(z.detach().clone())
        return problem(z, x)

    with torch.no_grad():
        fixed_point(f, z0, (problem.x,), solver=Anderson(2, 0.0, 0.0, damping=0.25))
        expected = z0 + 0.25 * (problem(z0, problem.x) - z0)
    torch.testing.assert_close(seen[1], expected)
