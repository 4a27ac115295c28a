"""Starting points near the solution."""

from __future__ import annotations

import torch
from tests.implicit.problems import Contraction

from qefpn.implicit import Broyden, fixed_point


def test_a_start_near_the_solution_saves_steps_and_changes_no_answer():
    problem = Contraction()
    solver = Broyden(60, 1e-10)
    cold = fixed_point(problem, problem.z0, (problem.x,), solver=solver)
    moved = problem.x.detach() + 1e-6  # the next frame
    warm = fixed_point(problem, cold.value.detach(), (moved,), solver=solver)
    again = fixed_point(problem, problem.z0, (moved,), solver=solver)
    torch.testing.assert_close(warm.value, again.value, rtol=1e-8, atol=1e-9)
    assert (warm.stats.steps < again.stats.steps).all()
    assert fixed_point(problem, cold.value, (problem.x,), solver=solver).stats.steps.tolist() == [0] * 5
