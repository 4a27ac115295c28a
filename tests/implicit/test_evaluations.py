"""What a solve costs: every evaluation of f is counted, none is made for nothing, and the last may be recorded."""

from __future__ import annotations

import pytest
import torch
from tests.implicit.problems import F64, Contraction

from qefpn.implicit import Anderson, Broyden, FixedPointIteration, Unroll, UnrolledAdjoint, driver, fixed_point
from qefpn.implicit.driver import solve

TOLERANT = [Broyden(40, 1e-6), Anderson(40, 1e-6), FixedPointIteration(40, 1e-6), Unroll(40, 1e-6)]
FULL = [Broyden(4, 0.0), Anderson(4, 0.0), FixedPointIteration(4, 0.0), Unroll(4)]


class Counted:
    """tanh(zWᵀ + x) of one sample, and how often it was asked for."""

    def __init__(self):
        problem = Contraction(batch=1, size=6)
        self.weight, self.x = problem.weight.detach(), problem.x.detach()
        self.calls = 0

    def __call__(self, z):
        self.calls += 1
        return torch.tanh(z @ self.weight.T + self.x)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("solver", [*TOLERANT, *FULL], ids=repr)
def test_every_evaluation_is_counted_and_none_follows_convergence(solver, known):
    f, z = Counted(), torch.zeros(1, 6, dtype=F64)
    given = Counted()(z) if known else None
    result = solve(solver, f, z, known=given)
    (evaluations,) = result.stats.evaluations.tolist()
    assert f.calls == evaluations
    (steps,) = result.stats.steps.tolist()
    assert steps == (4 if solver in FULL else steps) and (steps < 40)
    assert bool(result.stats.converged) is (solver in TOLERANT)
    assert len(result.stats.trace) == (steps if isinstance(solver, Unroll) else steps + 1)


@pytest.mark.parametrize("solver", TOLERANT[:3], ids=repr)
def test_a_start_whose_value_is_known_is_no_candidate(solver):
    """The adjoint that knows f(z0) wants an iterate of its own; a start that is not known may be the answer."""
    f = Counted()
    answer = solve(solver, f, torch.zeros(1, 6, dtype=F64)).value
    assert solve(solver, f, answer).stats.steps.tolist() == [0]
    result = solve(solver, f, answer, known=f(answer))
    assert result.stats.steps.tolist() == [1] and result.value is not answer


@pytest.mark.parametrize("solver", FULL, ids=repr)
def test_the_last_evaluation_alone_is_the_recorded_one(solver):
    plain, recorded = Counted(), Counted()
    z = torch.zeros(1, 6, dtype=F64)
    result = solve(solver, plain, z, last=recorded)
    assert recorded.calls <= 1  # a solver may ignore it
    assert plain.calls + recorded.calls == int(result.stats.evaluations)
    assert torch.equal(result.value, solve(solver, Counted(), z).value)
    if isinstance(solver, (Anderson, FixedPointIteration)):
        assert recorded.calls == 1


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_checkpointed_unrolling_evaluates_again_in_backward(checkpoint):
    problem = Contraction(batch=2)
    solution = fixed_point(
        problem, problem.z0, (problem.x,), solver=Unroll(5), adjoint=UnrolledAdjoint(checkpoint=checkpoint)
    )
    forward = len(problem.calls)
    problem.gradients(solution.value)
    assert forward == 5 and len(problem.calls) == (10 if checkpoint else 5)


def test_mistakes():
    for make in (
        lambda: UnrolledAdjoint(checkpoint=3),
        lambda: FixedPointIteration(max_steps=0),
        lambda: FixedPointIteration(rtol=-1.0),
        lambda: Unroll(max_steps=0),
    ):
        with pytest.raises((ValueError, TypeError)):
            make()
    assert Unroll() == Unroll(max_steps=5, rtol=0.0) and not UnrolledAdjoint().checkpoint


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("solver", [Broyden(40, 1e-7), Anderson(40, 1e-7), FixedPointIteration(60, 1e-7)], ids=type)
def test_samples_that_have_stopped_leave_the_batch(solver, grad):
    problem = Contraction()
    with torch.set_grad_enabled(grad):
        whole = fixed_point(problem, problem.z0, (problem.x,), solver=solver)
        calls = list(problem.calls)
        problem.calls.clear()
        found = fixed_point(problem, problem.z0, (problem.x,), solver=solver, compact=True)
    assert torch.equal(found.stats.steps, whole.stats.steps) and whole.stats.steps.unique().numel() > 1
    torch.testing.assert_close(found.value, whole.value, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.stats.trace, whole.stats.trace, rtol=1e-6, atol=1e-13)
    forward = problem.calls[: len(problem.calls) - int(grad)]  # then f once more, with its graph
    assert forward == sorted(forward, reverse=True) and forward[0] == 5 > forward[-1]
    assert sum(forward) == int(found.stats.evaluations.sum()) < sum(calls[: len(calls) - int(grad)])
    if grad:
        for ours, reference in zip(problem.gradients(found.value), problem.gradients(whole.value), strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-9)


def test_a_function_that_closes_over_its_batch_keeps_it():
    problem = Contraction()
    found = fixed_point(lambda z: problem(z, problem.x), problem.z0, solver=Broyden(40, 1e-7), compact=True)
    assert {*problem.calls} == {5} and found.stats.converged.all()


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("solver", [Broyden(40, 1e-7), Anderson(40, 1e-7), FixedPointIteration(60, 1e-7)], ids=type)
def test_a_device_that_is_asked_a_step_late_gives_the_same(monkeypatch, solver, compact):
    """As on a GPU: the answer to the former step is read while the next one runs."""
    now, late = Contraction(), Contraction()
    options = {"solver": solver, "compact": compact}
    expected = fixed_point(now, now.z0, (now.x,), **options)
    monkeypatch.setattr(driver, "lags", lambda device: True)
    found = fixed_point(late, late.z0, (late.x,), **options)
    torch.testing.assert_close(found.value, expected.value, rtol=1e-12, atol=1e-13)
    for name in ("steps", "evaluations", "code"):
        assert torch.equal(getattr(found.stats, name), getattr(expected.stats, name))
    assert len(late.calls) <= len(now.calls) + 1  # with its graph's
    for ours, reference in zip(late.gradients(found.value), now.gradients(expected.value), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


def test_a_solve_at_its_limit_is_recorded_though_asked_late(monkeypatch):
    """What saves the evaluation with the graph is known at the end: the last iterate is the best of all."""
    monkeypatch.setattr(driver, "lags", lambda device: True)
    problem = Contraction()
    fixed_point(problem, problem.z0, (problem.x,), solver=Broyden(3, 1e-12))
    assert len(problem.calls) == 4
