"""Starting points: zero, given, the last solution."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import torch
from tests.implicit.problems import F64, Contraction

from qefpn.implicit import Broyden, LastSolution, fixed_point


def test_a_start_near_the_solution_saves_steps_and_changes_no_answer():
    problem = Contraction()
    solver = Broyden(60, 1e-10)
    cold = fixed_point(problem, problem.z0, (problem.x,), solver=solver)
    last = LastSolution()
    last.keep(cold)
    moved = problem.x.detach() + 1e-6  # the next frame
    warm = fixed_point(problem, last.start(problem.z0), (moved,), solver=solver)
    again = fixed_point(problem, problem.z0, (moved,), solver=solver)
    torch.testing.assert_close(warm.value, again.value, rtol=1e-8, atol=1e-9)
    assert (warm.stats.steps < again.stats.steps).all()
    assert fixed_point(problem, cold.value, (problem.x,), solver=solver).stats.steps.tolist() == [0] * 5


def test_it_fits_only_the_very_shapes():
    problem = Contraction()
    last = LastSolution()
    assert last.start(problem.z0) is problem.z0, "nothing kept yet"
    last.keep(fixed_point(problem, problem.z0, (problem.x,)))
    assert last.start(problem.z0).abs().sum() > 0
    others = [
        torch.zeros(4, 10, dtype=F64),
        torch.zeros(5, 11, dtype=F64),
        torch.zeros(5, 2, 5, dtype=F64),
        torch.zeros(5, 10),
        torch.zeros(5, 10, dtype=F64, device="meta"),
        (torch.zeros(5, 10, dtype=F64),),
        [torch.zeros(5, 10, dtype=F64)],
    ]
    for zero in others:
        assert last.start(zero) is zero
    last.forget()
    assert last.start(problem.z0) is problem.z0


def test_one_sample_that_is_not_finite_costs_no_other_its_start():
    problem = Contraction(batch=3)
    solution = fixed_point(problem, problem.z0, (problem.x,))
    value = solution.value.detach().clone()
    value[1, 0] = torch.inf
    last = LastSolution()
    last.keep(dataclasses.replace(solution, value=value))
    start = last.start(problem.z0)
    assert start[1].abs().sum() == 0
    torch.testing.assert_close(start[[0, 2]], value[[0, 2]])


def test_samples_without_a_finite_solution_start_from_zero_and_no_graph_is_kept():
    problem = Contraction(batch=3)
    bad = torch.arange(3)[:, None] == 1
    solution = fixed_point(lambda z, x: torch.where(bad, torch.nan, problem(z, x)), problem.z0 + 1.0, (problem.x,))
    last = LastSolution()
    last.keep(solution)
    start = last.start(problem.z0)
    assert start[1].abs().sum() == 0 and (start[[0, 2]].abs().sum(dim=1) > 0).all()
    assert not start.requires_grad
    start.add_(1.0)  # whoever gets it may write to it between solves
    last.keep(fixed_point(problem, problem.z0, (problem.x,)))
    assert last.start(problem.z0)[1].abs().sum() > 0


def test_tuples_and_memory_formats_come_back_as_they_were():
    def f(state):
        return tuple(0.5 * part + 1.0 for part in state)

    zero = (torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.zeros(2, 3, 2, 2))
    last = LastSolution()
    solution = fixed_point(f, zero)
    last.keep(solution)
    for part, kept, like in zip(last.start(zero), solution.value, zero, strict=True):
        assert torch.equal(part, kept) and part.stride() == like.stride()


def test_copies_start_from_zero():
    problem = Contraction()
    last = LastSolution()
    last.keep(fixed_point(problem, problem.z0, (problem.x,)))
    for copied in (copy.deepcopy(last), pickle.loads(pickle.dumps(last))):
        assert copied.start(problem.z0) is problem.z0
