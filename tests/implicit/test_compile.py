"""`fixed_point` inside `torch.compile(fullgraph=True)`: one graph, the same values and the same gradients."""

from __future__ import annotations

import pytest
import torch
from tests.implicit.problems import F64, Contraction
from torch import nn

from qefpn.implicit import (
    Anderson,
    Broyden,
    FixedPointIteration,
    ImplicitAdjoint,
    JacobianFreeAdjoint,
    PhantomAdjoint,
    QuasiEquilibrium,
    ShineAdjoint,
    Unroll,
    UnrolledAdjoint,
    fixed_point,
)

SHORT = [
    (Unroll(2), UnrolledAdjoint()),
    (FixedPointIteration(2, 1e-2), ImplicitAdjoint(FixedPointIteration(2, 0.0))),
    (Broyden(2, 0.0), JacobianFreeAdjoint()),
]
LONG = [
    (Broyden(5, 1e-2), ImplicitAdjoint()),
    (Broyden(5, 0.0, memory=1), ImplicitAdjoint(Anderson(4, 0.0))),
    (Anderson(4, 1e-4, damping=0.9), ImplicitAdjoint(FixedPointIteration(20, 1e-6))),
    (Broyden(4, 1e-2), ShineAdjoint()),
    (Broyden(4, 0.0, alpha=0.8), PhantomAdjoint(2)),
]
PAIRS = SHORT + [pytest.param(*pair, marks=pytest.mark.slow) for pair in LONG]


class Layer(nn.Module):
    """A parameter that f closes over, and an injection that is computed before."""

    def __init__(self, solver, adjoint):
        super().__init__()
        problem = Contraction(batch=3, size=12)
        self.weight = nn.Parameter(problem.weight.detach())
        self.outer = nn.Linear(12, 12).double()
        self.solver, self.adjoint = solver, adjoint

    def f(self, z, x):
        return torch.tanh(z @ self.weight.T + x)

    def forward(self, x):
        x = x + 0.1 * self.outer(x)
        solution = fixed_point(self.f, torch.zeros_like(x), (x,), solver=self.solver, adjoint=self.adjoint)
        return solution.value, solution.stats.relative_residual, solution.stats.steps, solution.stats.code


def results(layer, call):
    x = Contraction(batch=3, size=12).x.detach().requires_grad_()
    value, residual, steps, code = call(x)
    cotangent = torch.linspace(-1, 1, value.numel(), dtype=F64).view_as(value)
    gradients = torch.autograd.grad((value * cotangent).sum(), [x, *layer.parameters()])
    return value, residual, steps, code, *gradients


def compare(layer, backend):
    torch._dynamo.reset()
    expected = results(layer, layer)
    found = results(layer, torch.compile(layer, fullgraph=True, backend=backend))
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)
    assert not found[1].requires_grad and found[0].requires_grad


@pytest.mark.parametrize(("solver", "adjoint"), PAIRS, ids=repr)
def test_forward_and_backward_are_one_graph(solver, adjoint):
    torch.manual_seed(0)
    compare(Layer(solver, adjoint), "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(), ShineAdjoint()], ids=repr)
def test_inductor_gives_the_same(adjoint):
    torch.manual_seed(0)
    compare(Layer(Broyden(2, 0.0), adjoint), "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["state", "argument"])
def test_a_function_that_writes_into_its_argument_gets_copies(which):
    """Eagerly it is told; a compiler counts no writes."""

    def written(z, x):
        return x.mul_(0.5).add_(0.3 * torch.tanh(z)) if which == "argument" else z.mul_(0.3).add_(x).tanh_()

    def clean(z, x):
        return 0.5 * x + 0.3 * torch.tanh(z) if which == "argument" else torch.tanh(0.3 * z + x)

    def solved(f):
        def call(x):
            return fixed_point(f, torch.zeros_like(x), (x,), solver=Broyden(2, 0.0)).value

        return call

    x = torch.linspace(-1, 1, 12, dtype=F64).view(2, 6)
    torch._dynamo.reset()
    for enabled in (False, True):
        given = x.clone().requires_grad_(enabled)
        expected = solved(clean)(given)
        found = torch.compile(solved(written), fullgraph=True, backend="aot_eager")(given)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        assert torch.equal(given, x)
        if enabled:
            ours, reference = (torch.autograd.grad(value.square().sum(), given)[0] for value in (found, expected))
            torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


def test_masks_are_drawn_on_the_host_and_no_part_of_a_graph():
    def call(x):
        return fixed_point(
            lambda z, x: torch.tanh(0.5 * z + x), torch.zeros_like(x), (x,), residual=QuasiEquilibrium(0.1)
        ).value

    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(call, fullgraph=True, backend="eager")(torch.ones(2, 6))
