"""rtol = atol = 0: every step is taken, and no Python control depends on data."""

from __future__ import annotations

import pytest
import torch
from tests.implicit.problems import F64, Contraction

from qefpn.implicit import Anderson, Broyden, FixedPointIteration, Unroll, fixed_point
from qefpn.implicit.driver import solve

SOLVERS = [
    Broyden(6, 0.0, 0.0),
    Broyden(9, 0.0, 0.0, memory=2),
    Anderson(8, 0.0, 0.0, memory=3),
    FixedPointIteration(5, 0.0, 0.0, damping=0.8),
    Unroll(5),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_nothing_is_read_back_from_the_device(solver):
    """A meta tensor has no values: any .item(), .any() or copy to the host in the solve would raise."""

    def f(z):
        return torch.tanh(0.5 * z + 1.0)

    with torch.no_grad():
        result = solve(solver, f, torch.zeros(3, 7, device="meta"))
    assert result.value.shape == (3, 7) and result.value.device.type == "meta"
    assert result.stats.steps.shape == (3,)


def test_with_a_tolerance_it_is_read():
    with pytest.raises((RuntimeError, NotImplementedError)):
        solve(Broyden(3, 1e-3), torch.tanh, torch.zeros(3, 7, device="meta"))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("bad_from", [None, 0, 3])
def test_the_answer_is_that_of_the_mode_that_reads(solver, bad_from, monkeypatch):
    """Best iterates, statistics and the isolation of a bad sample do not need to be read."""
    problem = Contraction(batch=4)

    def f(z, x):
        value = problem(z, x)
        if bad_from is not None and len(problem.calls) > bad_from:
            value = torch.where(torch.arange(4)[:, None] == 2, torch.nan, value)
        return value

    with torch.no_grad():
        expected = fixed_point(f, problem.z0, (problem.x,), solver=solver)
        problem.calls.clear()
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        found = fixed_point(f, problem.z0, (problem.x,), solver=solver)
    assert torch.equal(found.value, expected.value)
    for name in ("steps", "evaluations", "residual", "relative_residual", "converged", "finite", "norm"):
        assert torch.equal(getattr(found.stats, name), getattr(expected.stats, name)), name
    torch.testing.assert_close(found.stats.trace, expected.stats.trace, rtol=0, atol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [Broyden(1, 0.0, 0.0), *SOLVERS], ids=repr)
def test_a_solve_compiles_as_one_graph(solver):
    problem = Contraction(batch=3, size=12)
    weight, x = problem.weight.detach(), problem.x.detach()

    def solved(z, x):
        result = solve(solver, lambda z: torch.tanh(z @ weight.T + x), z)
        return result.value, result.stats.residual, result.stats.steps

    torch._dynamo.reset()
    with torch.no_grad():
        expected = solved(problem.z0, x)
        compiled = torch.compile(solved, fullgraph=True, backend="aot_eager")(problem.z0, x)
    for ours, reference in zip(compiled, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_one_step_compiles_with_inductor():
    slope, x = torch.linspace(-0.6, 0.8, 64, dtype=F64), torch.linspace(-1, 1, 128, dtype=F64).view(2, 64)
    solver = Broyden(1, 0.0, 0.0)

    def step(z, x):
        result = solve(solver, lambda z: torch.tanh(slope * z + x), z)
        return result.value, result.stats.relative_residual

    torch._dynamo.reset()
    with torch.no_grad():
        expected = step(0.1 * x, x)
        compiled = torch.compile(step, fullgraph=True)(0.1 * x, x)
    for ours, reference in zip(compiled, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)
