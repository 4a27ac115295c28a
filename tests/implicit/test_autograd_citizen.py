"""The solve inside the rest of torch: graphs, checkpointing, autocast, inference mode, copies."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import ClassVar

import pytest
import torch
from tests.implicit.problems import F64, Contraction, relative_error
from torch import nn
from torch.utils.checkpoint import checkpoint

from qefpn.implicit import (
    Anderson,
    Broyden,
    FixedPointIteration,
    ImplicitAdjoint,
    JacobianFreeAdjoint,
    LiteralQuasiEquilibrium,
    PhantomAdjoint,
    QuasiEquilibrium,
    ShineAdjoint,
    Unroll,
    fixed_point,
)

EXACT = Broyden(60, 1e-13)


class Layer(nn.Module):
    """A module around the solve, as a network has it."""

    def __init__(self, solver=EXACT, residual=None, adjoint=None, dtype=F64):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(6, 6).to(dtype)
        self.outer = nn.Linear(6, 6).to(dtype)
        nn.init.orthogonal_(self.inner.weight, gain=0.5)
        self.solver, self.residual, self.adjoint = solver, residual or QuasiEquilibrium(p=0.2), adjoint
        self.calls = 0

    def f(self, z, x):
        self.calls += 1
        return torch.tanh(self.inner(z) + x)

    def forward(self, x, keys=None):
        x = self.outer(x)
        self.solution = fixed_point(
            self.f,
            torch.zeros_like(x),
            (x,),
            solver=self.solver,
            residual=self.residual,
            adjoint=self.adjoint,
            keys=keys,
        )
        return self.solution.value


def gradients(layer, loss):
    return torch.autograd.grad(loss, list(layer.parameters()))


def test_two_forwards_before_one_backward():
    layer, keys = Layer(), torch.arange(3)
    one, two = torch.randn(3, 6, dtype=F64), torch.randn(3, 6, dtype=F64)
    separate = [gradients(layer, layer(x, keys).square().sum()) for x in (one, two)]
    together = gradients(layer, layer(one, keys).square().sum() + layer(two, keys).square().sum())
    for first, second, total in zip(*separate, together, strict=True):
        torch.testing.assert_close(first + second, total, rtol=1e-12, atol=1e-14)


def test_retain_graph_gives_the_same_again_and_without_it_torch_says_so():
    layer = Layer()
    loss = layer(torch.randn(3, 6, dtype=F64)).square().sum()
    first = torch.autograd.grad(loss, layer.inner.weight, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, layer.inner.weight)[0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, layer.inner.weight)


class Token:
    """Something whose life can be watched."""


class Watched(torch.autograd.Function):
    """Identity whose node in the graph holds a ``Token``."""

    tokens: ClassVar[list] = []

    @staticmethod
    def forward(ctx, x):
        ctx.token = Token()
        Watched.tokens.append(weakref.ref(ctx.token))
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(), JacobianFreeAdjoint(), ShineAdjoint()], ids=repr)
@pytest.mark.parametrize("backward", [True, False])
def test_the_graph_goes_with_the_value(adjoint, backward):
    """No reference cycle keeps a graph of f alive until the garbage collector comes by."""
    layer = Layer(residual=QuasiEquilibrium(p=0.0), adjoint=adjoint)
    plain = layer.f
    layer.f = lambda z, x: Watched.apply(plain(z, x))
    Watched.tokens.clear()
    gc.collect()
    gc.disable()
    try:
        value = layer(torch.randn(3, 6, dtype=F64))
        assert sum(token() is not None for token in Watched.tokens) == 1, "one graph of f is kept"
        if backward:
            value.sum().backward()
        del value, layer.solution
        assert all(token() is None for token in Watched.tokens)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "adjoint", [ImplicitAdjoint(), PhantomAdjoint(), JacobianFreeAdjoint(), ShineAdjoint()], ids=repr
)
def test_a_second_derivative_raises(adjoint):
    problem = Contraction()
    solution = fixed_point(problem, problem.z0, (problem.x,), adjoint=adjoint)
    with pytest.raises(RuntimeError, match="second derivatives through fixed_point are not available"):
        torch.autograd.grad(solution.value.square().sum(), problem.x, create_graph=True)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_around_the_solve_recomputes_the_same_masks(use_reentrant):
    layer = Layer()
    x = torch.randn(4, 6, dtype=F64, requires_grad=True)
    torch.manual_seed(3)
    layer(x).square().sum().backward()
    expected = [parameter.grad for parameter in layer.parameters()]
    plain_calls = layer.calls
    layer.zero_grad()
    layer.calls = 0
    torch.manual_seed(3)
    value = checkpoint(layer, x, use_reentrant=use_reentrant)
    torch.randn(7)  # moves the generator on, as another layer would
    value.square().sum().backward()
    for parameter, reference in zip(layer.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, reference, rtol=1e-12, atol=1e-14)
    assert layer.calls <= 2 * plain_calls + 1, "one recomputation, not one a backward step"


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_inside_f(use_reentrant):
    layer, keys = Layer(), torch.arange(4)
    x = torch.randn(4, 6, dtype=F64)
    layer.residual = QuasiEquilibrium(p=0.0)
    expected = gradients(layer, layer(x, keys).square().sum())
    plain = layer.f
    if use_reentrant:  # torch refuses autograd.grad through these
        layer.f = lambda z, x: checkpoint(plain, z, x, use_reentrant=True)
        with pytest.raises(RuntimeError, match="use_reentrant"):
            layer(x, keys).square().sum().backward()
        return
    layer.f = lambda z, x: checkpoint(plain, z, x, use_reentrant=False)
    for ours, reference in zip(gradients(layer, layer(x, keys).square().sum()), expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-12, atol=1e-14)


def test_eval_mode_still_has_gradients_and_no_grad_has_none():
    layer = Layer().eval()
    x = torch.randn(2, 6, dtype=F64, requires_grad=True)
    assert torch.autograd.grad(layer(x).sum(), x)[0].abs().sum() > 0
    with torch.no_grad():
        assert layer(x).grad_fn is None
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert torch.autograd.grad(layer(x).sum(), x)[0].abs().sum() > 0
    assert not layer(x.detach()).requires_grad, "nothing to differentiate, so no graph"


def test_inference_mode():
    layer, keys = Layer(), torch.arange(3)
    x = torch.randn(3, 6, dtype=F64)
    expected = layer(x, keys)
    with torch.inference_mode():
        value = layer(x.clone(), keys)
    assert value.is_inference() and torch.equal(value, expected)


def test_deepcopy_and_pickle():
    with pytest.warns(UserWarning):
        literal = LiteralQuasiEquilibrium(p=0.5, seed=3)
    records = [
        Broyden(7, 1e-2, memory=3),
        Anderson(damping=0.5),
        FixedPointIteration(),
        Unroll(),
        literal,
        QuasiEquilibrium(p=0.1, seed=4),
        ImplicitAdjoint(Broyden(3)),
        PhantomAdjoint(3, 0.5),
        ShineAdjoint(),
    ]
    for record in records:
        assert copy.deepcopy(record) == record and pickle.loads(pickle.dumps(record)) == record
        assert hash(record) == hash(copy.deepcopy(record))
    layer, keys, x = Layer(), torch.arange(2), torch.randn(2, 6, dtype=F64)
    value = layer(x, keys)
    value.sum().backward()
    for copied in (copy.deepcopy(Layer()), pickle.loads(pickle.dumps(Layer()))):
        assert torch.equal(copied(x, keys), value)
    stats = pickle.loads(pickle.dumps(layer.solution.stats))
    assert torch.equal(stats.trace, layer.solution.stats.trace)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_it_solves_in_float32(dtype):
    layer, keys = Layer(Broyden(40, 1e-6), dtype=torch.float32), torch.arange(4)
    x = torch.randn(4, 6)
    seen = set()
    plain = layer.f

    def watched(z, x):
        value = plain(z, x)
        seen.update((z.dtype, x.dtype, value.dtype))
        return value

    layer.f = watched
    with torch.autocast("cpu", dtype=dtype):
        value = layer(x, keys)  # z0 is like the half-precision injection
        assert layer.outer(x).dtype == dtype
        assert seen == {torch.float32}
        assert value.dtype == dtype
        assert layer.solution.stats.converged.all()
        value.float().square().sum().backward()
    assert layer.solution.backward_stats.converged.all()
    half = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    layer(x, keys).square().sum().backward()
    for ours, parameter in zip(half, layer.parameters(), strict=True):
        assert relative_error(ours, parameter.grad) < 0.05


def test_a_half_precision_module_without_autocast_is_called_in_its_own_type():
    layer = Layer(Broyden(10, 1e-2), QuasiEquilibrium(p=0.0), dtype=torch.float32).to(torch.bfloat16)
    value = layer(torch.randn(2, 6, dtype=torch.bfloat16))
    assert value.dtype == torch.bfloat16 and value.isfinite().all()
    value.float().sum().backward()
    assert layer.inner.weight.grad.isfinite().all()


def test_the_callers_tensors_are_left_alone():
    problem = Contraction()
    z0, x = torch.randn(5, 10, dtype=F64), problem.x.detach().clone()
    before = z0.clone(), x.clone()
    for solver in (Broyden(5), Broyden(5, memory=1), Anderson(5), FixedPointIteration(5)):
        for residual in (QuasiEquilibrium(p=0.0), QuasiEquilibrium(p=0.3)):
            with torch.no_grad():
                fixed_point(problem, z0, (x,), solver=solver, residual=residual).value.add_(1.0)
    fixed_point(lambda z: z, z0).value.add_(1.0)  # z0 itself is the answer
    assert torch.equal(z0, before[0]) and torch.equal(x, before[1])


def test_backward_stats_appear_with_the_backward_pass():
    problem = Contraction()
    solution = fixed_point(problem, problem.z0, (problem.x,))
    assert solution.backward_stats is None
    solution.value.sum().backward()
    stats = solution.backward_stats
    assert stats.converged.all() and stats.trace.shape[1] == 5
    summary = stats.summary()
    assert summary["converged"] == 1.0 and summary["steps"] == pytest.approx(float(stats.steps.double().mean()))
