"""A sample's result depends on that sample alone."""

from __future__ import annotations

import pytest
import torch
from tests.implicit.problems import F64, Contraction

from qefpn.implicit import (
    Anderson,
    Broyden,
    Equilibrium,
    FixedPointIteration,
    ImplicitAdjoint,
    QuasiEquilibrium,
    Unroll,
    fixed_point,
)

SOLVERS = [
    Broyden(30, 1e-9),
    Broyden(30, 1e-9, memory=2),
    Broyden(30, 1e-9, alpha=0.9),
    Anderson(30, 1e-9),
    FixedPointIteration(60, 1e-9),
    Unroll(60, rtol=1e-9),
]


@pytest.mark.parametrize("residual", [Equilibrium(), QuasiEquilibrium(p=0.05)], ids=["equilibrium", "quasi"])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-10), (torch.float32, 1e-5)])
def test_a_batch_equals_its_samples(solver, residual, dtype, tolerance):
    if dtype is torch.float32:
        solver = type(solver)(**{**vars(solver), "rtol": 1e-4})
    problem = Contraction(batch=8, size=20, dtype=dtype)
    keys = torch.arange(8)
    options = {"solver": solver, "residual": residual, "adjoint": ImplicitAdjoint()}
    batch = fixed_point(problem, problem.z0, (problem.x,), keys=keys, **options)
    gradient = torch.autograd.grad((batch.value * problem.cotangent).sum(), problem.x)[0]
    assert len(set(batch.stats.steps.tolist())) > 1, "the samples should stop at different steps"
    assert batch.stats.converged.all()
    for row in range(8):
        alone = fixed_point(problem, problem.z0[:1], (problem.x[row : row + 1],), keys=keys[row : row + 1], **options)
        torch.testing.assert_close(alone.value[0], batch.value[row], rtol=tolerance, atol=tolerance)
        assert int(alone.stats.steps) == int(batch.stats.steps[row])
        assert int(alone.stats.evaluations) == int(batch.stats.evaluations[row])
        own = torch.autograd.grad((alone.value * problem.cotangent[row]).sum(), problem.x)[0][row]
        torch.testing.assert_close(own, gradient[row], rtol=tolerance, atol=tolerance)
        assert int(alone.backward_stats.steps) == int(batch.backward_stats.steps[row])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_bad_sample_touches_no_other_and_keeps_its_best_iterate(solver, bad):
    problem = Contraction(batch=4, size=12)
    late = 4  # the evaluation from which sample 2 is bad

    def poisoned(z, x):
        value = problem(z, x)
        if len(problem.calls) >= late:
            value = torch.where(torch.arange(4)[:, None] == 2, bad, value)
        return value

    with torch.no_grad():
        clean = fixed_point(problem, problem.z0, (problem.x,), solver=solver)
        problem.calls.clear()
        dirty = fixed_point(poisoned, problem.z0, (problem.x,), solver=solver)
        others = [0, 1, 3]
        assert torch.equal(dirty.value[others], clean.value[others])
        assert torch.equal(dirty.stats.relative_residual[others], clean.stats.relative_residual[others])
        assert torch.equal(dirty.stats.steps[others], clean.stats.steps[others])
        assert dirty.stats.finite.tolist() == [True, True, False, True]
        assert not dirty.stats.converged[2] and clean.stats.converged[2]
        kept = dirty.value[2:3]
        assert kept.isfinite().all()
        residual = float((problem(kept, problem.x[2:3]) - kept).norm())
    assert residual < float((problem(problem.z0[2:3], problem.x[2:3])).norm()), "better than where it started"
    if not isinstance(solver, Unroll):
        assert residual == pytest.approx(float(dirty.stats.residual[2]), rel=1e-9)
    with pytest.raises(FloatingPointError, match=r"\[2\]"):
        problem.calls.clear()
        fixed_point(poisoned, problem.z0, (problem.x,), solver=solver, raise_nonfinite=True)


def test_bad_from_the_start_is_reported():
    problem = Contraction(batch=3)

    def f(z, x):
        return torch.where(torch.arange(3)[:, None] == 1, torch.nan, problem(z, x))

    solution = fixed_point(f, problem.z0, (problem.x,), solver=Broyden(20, 1e-9))
    assert solution.stats.finite.tolist() == [True, False, True]
    assert solution.stats.steps[1] == 0
    assert torch.equal(solution.value[1], problem.z0[1])
    assert solution.stats.residual[1] == torch.inf and solution.stats.relative_residual[1] == torch.inf


def test_zero_over_zero_has_converged():
    solution = fixed_point(lambda z: 0.5 * z, torch.zeros(2, 4), solver=Broyden(5, 1e-3))
    assert solution.stats.converged.all() and solution.stats.steps.tolist() == [0, 0]
    assert solution.stats.relative_residual.tolist() == [0.0, 0.0]
    every = fixed_point(lambda z: 0.5 * z, torch.zeros(2, 4), solver=Broyden(5, 0.0, 0.0))
    assert every.stats.steps.tolist() == [5, 5] and every.stats.converged.all()
    assert every.value.isfinite().all() and every.stats.finite.all()


def test_zero_f_at_a_nonzero_state_is_finite():
    """‖F‖ = 0 gives an infinite relative residual without any infinity in f."""
    solution = fixed_point(lambda z: 0.0 * z, torch.ones(2, 4), solver=Broyden(5, 1e-3))
    assert solution.stats.finite.all() and solution.stats.converged.all()
    assert torch.equal(solution.value, torch.zeros(2, 4))


def test_tolerances():
    problem = Contraction(size=20)
    for solver in (Broyden, Anderson, FixedPointIteration):
        relative = fixed_point(problem, problem.z0, (problem.x,), solver=solver(100, rtol=1e-4, atol=0.0)).stats
        assert relative.converged.all() and (relative.relative_residual <= 1e-4).all()
        for sample, steps in enumerate(relative.steps.tolist()):  # and not one step more than that takes
            assert relative.trace[steps, sample] <= 1e-4 < relative.trace[steps - 1, sample]
        absolute = fixed_point(problem, problem.z0, (problem.x,), solver=solver(100, rtol=0.0, atol=1e-3)).stats
        assert absolute.converged.all() and (absolute.residual <= 1e-3).all()
        both = fixed_point(problem, problem.z0, (problem.x,), solver=solver(11, rtol=0.0, atol=0.0)).stats
        assert both.steps.tolist() == [11] * 5 and both.evaluations.tolist() == [12] * 5
        assert both.trace.shape == (12, 5)
        short = fixed_point(problem, problem.z0, (problem.x,), solver=solver(2, rtol=1e-9)).stats
        assert not short.converged.any() and short.finite.all()


def test_unroll_applies_f_exactly_so_often():
    problem = Contraction()
    for steps in (1, 5):
        problem.calls.clear()
        solution = fixed_point(problem, problem.z0, (problem.x,), solver=Unroll(steps))
        assert len(problem.calls) == steps
        assert solution.stats.steps.tolist() == solution.stats.evaluations.tolist() == [steps] * 5
        assert solution.stats.trace.shape == (steps, 5)
    z = problem.z0
    for _ in range(5):
        before, z = z, problem(z, problem.x)
    assert torch.equal(solution.value, z)
    torch.testing.assert_close(solution.stats.residual, (z - before).norm(dim=1))


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_f_sees_a_stopped_sample_at_its_answer_only(solver):
    """A stopped sample neither wanders off nor feeds its NaN back into f."""
    problem = Contraction(batch=4, size=12)
    states = []

    def f(z, x):
        states.append(z.clone())
        value = problem(z, x)
        return torch.where(torch.arange(4)[:, None] == 2, torch.nan, value) if len(states) >= 4 else value

    with torch.no_grad():
        solution = fixed_point(f, problem.z0, (problem.x,), solver=solver)
    assert all(state.isfinite().all() for state in states)
    first_stop = int(solution.stats.evaluations.min())
    sample = int(solution.stats.evaluations.argmin())
    assert first_stop < len(states)
    for state in states[first_stop:]:
        assert torch.equal(state[sample], solution.value[sample])
