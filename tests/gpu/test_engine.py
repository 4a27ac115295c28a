"""The fixed-point engine on a GPU beside float64 on the CPU."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.gpu.device import DEVICE, cuda_only
from torch import Tensor

from qefpn.implicit import (
    Anderson,
    Broyden,
    Equilibrium,
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
from qefpn.implicit.torch_private import products_are_exact
from qefpn.models import Transformation
from qefpn.training.hardware import fp32_precision

pytestmark = pytest.mark.gpu

SOLVERS = [Broyden(30, 1e-5), Anderson(30, 1e-5), FixedPointIteration(400, 1e-5)]
ADJOINTS = [
    ImplicitAdjoint(Broyden(30, 1e-6)),
    PhantomAdjoint(steps=5),
    JacobianFreeAdjoint(),
    ShineAdjoint(),
    UnrolledAdjoint(),
]
Made = tuple[Transformation, tuple[Tensor, ...], tuple[Tensor, ...]]


def f_theta(device: torch.device | str, dtype: torch.dtype = torch.float32, batch: int = 3) -> Made:
    """A small f_theta, its zero state and injections, the same on every device."""
    torch.manual_seed(0)
    layer = Transformation(16, (2, 3))
    x = tuple(torch.randn(batch, 16, size, size) for size in (12, 6))
    layer = layer.to(device, dtype)
    x = tuple(level.to(device, dtype) for level in x)
    return layer, tuple(torch.zeros_like(level) for level in x), x


def off(found: tuple[Tensor, ...], reference: tuple[Tensor, ...]) -> float:
    """Largest relative difference of corresponding tensors."""
    pairs = [(a.detach().double().cpu(), b.detach().double().cpu()) for a, b in zip(found, reference, strict=True)]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.fixture(autouse=True)
def _ieee() -> object:
    with fp32_precision("ieee"):
        yield


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_a_solve_finds_the_root_of_float64(solver: Broyden) -> None:
    layer, zero, x = f_theta("cpu", torch.float64)
    root = fixed_point(layer, zero, x, solver=Broyden(80, 1e-12)).value
    layer, zero, x = f_theta(DEVICE)
    with torch.no_grad():
        solution = fixed_point(layer, zero, x, solver=solver)
    assert bool(solution.stats.converged.all())
    assert off(solution.value, root) < 1e-4


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda adjoint: type(adjoint).__name__)
def test_gradients_are_those_of_the_cpu_in_float64(adjoint: ImplicitAdjoint) -> None:
    def gradients(device: torch.device | str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        layer, zero, x = f_theta(device, dtype)
        steps = 8 if isinstance(adjoint, ShineAdjoint) else 25  # its pairs are of rounding once the solve is done
        solver = Unroll(6) if isinstance(adjoint, UnrolledAdjoint) else Broyden(steps, 0.0)
        value = fixed_point(layer, zero, x, solver=solver, adjoint=adjoint).value
        torch.stack([level.square().mean() for level in value]).sum().backward()
        return tuple(parameter.grad for parameter in layer.parameters() if parameter.grad is not None)

    found = gradients(DEVICE, torch.float32)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in found)
    assert off(found, gradients("cpu", torch.float64)) < 2e-2


def test_products_of_the_engine_are_ieee_whatever_the_process_says() -> None:
    """On a map without products of its own TF32 changes nothing."""
    a = (torch.rand(4, 20_000, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.6).to(DEVICE)
    b = torch.randn(4, 20_000, generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def solved() -> Tensor:
        with torch.no_grad():
            return fixed_point(lambda z: b + a * torch.sin(z), torch.zeros_like(b), solver=Broyden(12, 0.0)).value

    expected = solved()
    with fp32_precision("tf32"):
        assert torch.equal(solved(), expected)


def test_quasi_takes_a_difference_in_ieee_and_the_derivative_in_tf32() -> None:
    layer, zero, x = f_theta(DEVICE)
    calls: list[int] = []

    def f(state: tuple[Tensor, ...], *injection: Tensor) -> tuple[Tensor, ...]:
        calls.append(len(state[0]))
        return layer(state, *injection)

    def solved(residual: QuasiEquilibrium) -> tuple[tuple[Tensor, ...], list[int]]:
        calls.clear()
        with torch.no_grad():
            value = fixed_point(f, zero, x, solver=Broyden(3, 0.0), residual=residual, keys=torch.arange(3)).value
        return value, list(calls)

    near, by_difference = solved(QuasiEquilibrium(p=4e-4, difference=2**-8))
    exact, by_derivative = solved(QuasiEquilibrium(p=4e-4))
    assert by_difference != by_derivative and off(near, exact) < 1e-3
    assert products_are_exact(DEVICE)
    with fp32_precision("tf32"):
        if not products_are_exact(DEVICE):  # an old torch on a CPU has no such setting
            assert solved(QuasiEquilibrium(p=4e-4, difference=2**-8))[1] == by_derivative


def test_converged_samples_leave_the_batch_and_change_nothing() -> None:
    layer, zero, x = f_theta(DEVICE, batch=4)
    x = tuple(level * torch.tensor([1.0, 3.0, 10.0, 30.0], device=DEVICE)[:, None, None, None] for level in x)
    with torch.no_grad():
        whole = fixed_point(layer, zero, x, solver=Broyden(30, 1e-4))
        compact = fixed_point(layer, zero, x, solver=Broyden(30, 1e-4), compact=True)
    assert off(compact.value, whole.value) < 1e-4
    assert bool(compact.stats.converged.all())


def test_a_sample_that_is_not_finite_costs_no_other() -> None:
    layer, zero, x = f_theta(DEVICE)
    broken = tuple(level.clone() for level in x)
    broken[0][1] = torch.nan
    with torch.no_grad():
        clean = fixed_point(layer, zero, x, solver=Broyden(8, 0.0)).value
        found = fixed_point(layer, zero, broken, solver=Broyden(8, 0.0))
    assert found.stats.finite.tolist() == [True, False, True]
    assert off(tuple(level[[0, 2]] for level in found.value), tuple(level[[0, 2]] for level in clean)) < 1e-5


def test_channels_last_and_first_agree() -> None:
    layer, zero, x = f_theta(DEVICE)
    values = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        layer.channels_last = memory_format is torch.channels_last
        layer.to(memory_format=memory_format)
        given = tuple(level.contiguous(memory_format=memory_format) for level in x)
        start = tuple(level.contiguous(memory_format=memory_format) for level in zero)
        with torch.no_grad():
            values.append(fixed_point(layer, start, given, solver=Broyden(8, 0.0)).value)
    assert off(values[0], values[1]) < 1e-4


@cuda_only
def test_a_fixed_number_of_steps_is_captured_as_a_graph() -> None:
    layer, zero, x = f_theta(DEVICE)
    layer.requires_grad_(False)
    with torch.no_grad():
        for _ in range(3):  # libraries choose their kernels
            expected = fixed_point(layer, zero, x, solver=Broyden(6, 0.0)).value
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = fixed_point(layer, zero, x, solver=Broyden(6, 0.0)).value
        other = tuple(torch.randn_like(level) for level in x)
        anew = fixed_point(layer, zero, other, solver=Broyden(6, 0.0)).value
        for level, given in zip(x, other, strict=True):
            level.copy_(given)
        graph.replay()
    torch.cuda.synchronize()
    assert off(captured, anew) < 1e-5 < off(captured, expected)


@cuda_only
def test_a_solve_waits_once_a_step_at_most() -> None:
    layer, zero, x = f_theta(DEVICE)
    with torch.no_grad():
        fixed_point(layer, zero, x, solver=Broyden(6, 1e-9))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                fixed_point(layer, zero, x, solver=Broyden(6, 1e-9))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("synchroniz" in str(one.message) for one in told) <= 2  # at the end; the answers of the steps lag


@cuda_only
def test_memory_with_bounded_pairs_does_not_grow_with_the_steps() -> None:
    layer, zero, x = f_theta(DEVICE, batch=8)
    peaks = []
    for steps in (10, 40):
        fixed_point(layer, zero, x, solver=Broyden(steps, 0.0, memory=4))
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        value = fixed_point(layer, zero, x, solver=Broyden(steps, 0.0, memory=4)).value
        torch.stack([level.sum() for level in value]).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] < 1.1 * peaks[0]


@cuda_only  # for a CPU: tests/implicit/test_compile.py
def test_it_compiles_whole_forward_and_backward() -> None:
    weight = (0.4 * torch.eye(24) + 0.05).to(DEVICE).requires_grad_()

    def run(x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return fixed_point(lambda z, x: torch.tanh(z @ weight + x), zero, (x,), solver=Broyden(6, 0.0)).value

    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    expected = run(x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), weight)
    found = torch.compile(run, fullgraph=True)(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (compiled,) = torch.autograd.grad(found.square().sum(), weight)
    torch.testing.assert_close(compiled, gradient, rtol=1e-3, atol=1e-4)


def test_plain_and_quasi_agree_where_nothing_is_dropped() -> None:
    layer, zero, x = f_theta(DEVICE)
    with torch.no_grad():
        values = [
            fixed_point(layer, zero, x, solver=Broyden(5, 0.0), residual=residual, keys=torch.arange(3)).value
            for residual in (Equilibrium(), QuasiEquilibrium(p=0.0))
        ]
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))
