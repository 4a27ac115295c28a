"""The engine's algebra is IEEE float32 whatever the process has chosen; there is no float64 where there is none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from tests.implicit.problems import relative_error
from torch.utils._python_dispatch import TorchDispatchMode

from qefpn.implicit import (
    Anderson,
    Broyden,
    Equilibrium,
    FixedPointIteration,
    ImplicitAdjoint,
    QuasiEquilibrium,
    ShineAdjoint,
    Unroll,
    UnrolledAdjoint,
    fixed_point,
    jacobian_regularization,
    spectral_radius,
    torch_private,
)

SIZE = 20_000
SOLVES = [
    (Broyden(8, 0.0), ImplicitAdjoint()),
    (Broyden(8, 0.0, memory=2), ImplicitAdjoint()),
    (Broyden(8, 0.0), ShineAdjoint()),
    (Anderson(8, 0.0, damping=0.9), ImplicitAdjoint()),
]


@contextmanager
def reduced(new: bool) -> Iterator[None]:
    """float32 products in bfloat16, by the settings of torch 2.9 on or by those before."""
    mkldnn = torch.backends.mkldnn
    if new:
        mkldnn.matmul.fp32_precision = "bf16"
    else:
        torch.set_float32_matmul_precision("medium")
    try:
        a, b = torch.full((2, 64, SIZE), 1 + 2**-12), torch.ones(2, SIZE, 64)  # a is 1 in bfloat16
        if relative_error(torch.bmm(a, b), torch.full((2, 64, 64), SIZE * (1 + 2**-12))) < 1e-5:
            pytest.skip("this processor multiplies no float32 in bfloat16 when asked to")
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        if hasattr(mkldnn, "matmul"):
            mkldnn.matmul.fp32_precision = "none"
            torch.backends.cuda.matmul.fp32_precision = "none"


def results(solver, adjoint):
    """f without a product, so that what differs is the engine's."""
    generator = torch.Generator().manual_seed(0)
    slope = 1.6 * torch.rand(1, SIZE, generator=generator) - 0.8
    x = torch.randn(4, SIZE, generator=generator).requires_grad_()

    def f(z, x):
        return torch.tanh(slope * z + x) + 0.15 * torch.roll(z, 1, dims=1)

    solution = fixed_point(f, torch.zeros(4, SIZE), (x,), solver=solver, adjoint=adjoint)
    (gradient,) = torch.autograd.grad(solution.value.square().sum(), x)
    radius = spectral_radius(f, solution.value.detach(), (x.detach(),), iterations=5, generator=generator)
    return solution.value.detach(), solution.stats.trace, gradient, radius


@pytest.mark.parametrize("new", [False, True], ids=["set_float32_matmul_precision", "fp32_precision"])
@pytest.mark.parametrize(("solver", "adjoint"), SOLVES, ids=repr)
def test_the_process_s_choice_changes_nothing(solver, adjoint, new):
    if new and not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("this torch has the old settings alone")
    expected = results(solver, adjoint)
    with reduced(new):
        found = results(solver, adjoint)
        assert torch.equal(found[0], expected[0])
        for ours, reference in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-9)
        if new:
            assert torch.backends.mkldnn.matmul.fp32_precision == "bf16", "put back"
        else:
            assert torch.get_float32_matmul_precision() == "medium"
            torch.backends.cuda.matmul.allow_tf32  # noqa: B018  (raises where old and new settings differ)


def test_without_the_guard_it_would():
    """The test above can fail: the same products outside of the block."""
    a, b = torch.randn(2, 30, SIZE), torch.randn(2, SIZE, 30)
    exact = torch.bmm(a.double(), b.double())
    with reduced(new=False):
        assert relative_error(torch.bmm(a, b).double(), exact) > 1e-4
        with torch_private.exact_products():
            assert relative_error(torch.bmm(a, b).double(), exact) < 1e-5
        compiled = torch.compile(torch_private.bmm, fullgraph=True, backend="aot_eager")
        assert relative_error(compiled(a, b).double(), exact) < 1e-5


def test_threads_that_overlap_leave_the_settings_as_they_were():
    with reduced(new=False):
        inside, leave = threading.Barrier(2), threading.Event()

        def other():
            with torch_private.exact_products():
                inside.wait(10)
                leave.wait(10)

        thread = threading.Thread(target=other)
        with torch_private.exact_products():
            thread.start()
            inside.wait(10)
        a, b = torch.randn(2, 30, SIZE), torch.randn(2, SIZE, 30)
        with torch_private.exact_products():  # the other is inside still
            exact = torch.bmm(a, b)
        leave.set()
        thread.join(10)
        assert not torch.equal(torch.bmm(a, b), exact)
        assert torch.get_float32_matmul_precision() == "medium"


def test_a_setting_that_is_its_parent_s_goes_on_following_it():
    mkldnn = torch.backends.mkldnn
    if not hasattr(mkldnn, "matmul"):
        pytest.skip("this torch has the old settings alone")
    try:
        mkldnn.matmul.fp32_precision = "none"
        mkldnn.fp32_precision = "bf16"
        with torch_private.exact_products():
            assert mkldnn.matmul.fp32_precision == "ieee"
        assert mkldnn.matmul.fp32_precision == "bf16"
        mkldnn.fp32_precision = "ieee"
        assert mkldnn.matmul.fp32_precision == "ieee"
    finally:
        mkldnn.fp32_precision = "none"


class Float64s(TorchDispatchMode):
    """Operations whose result is float64."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        parts = result if isinstance(result, (tuple, list)) else (result,)
        if any(isinstance(part, torch.Tensor) and part.dtype == torch.float64 for part in parts):
            self.found.append(str(function))
        return result


@pytest.mark.parametrize("residual", [Equilibrium(), QuasiEquilibrium(p=0.05)], ids=["equilibrium", "quasi"])
@pytest.mark.parametrize(
    ("solver", "adjoint"),
    [
        *((Broyden(6, 1e-4, memory=memory), adjoint) for memory in (None, 2) for adjoint in (None, ShineAdjoint())),
        (Anderson(6, 1e-4), None),
        (FixedPointIteration(6, 1e-4, 1e-6), None),
        (Unroll(3), UnrolledAdjoint()),
    ],
    ids=repr,
)
def test_no_float64_on_a_device_that_has_none(solver, adjoint, residual, monkeypatch):
    """As on Apple's GPUs, where allocating one raises; on a CPU the small algebra is float64."""
    x, slope = torch.linspace(-1, 1, 40).view(4, 10).requires_grad_(), torch.linspace(0.1, 0.9, 10)

    def everything():
        def f(z, x):  # no number times a tensor: forward mode makes a float64 of it
            return torch.tanh(slope * z + x)

        options = {"solver": solver, "adjoint": adjoint, "residual": residual, "keys": torch.arange(4)}
        with Float64s() as mode:
            solution = fixed_point(f, torch.zeros(4, 10), (x,), **options)
            solution.value.square().sum().backward()
            solution.stats.summary()
            spectral_radius(f, solution.value.detach(), (x.detach(),), iterations=3)
            jacobian_regularization(f, solution.value.detach(), (x,)).backward()
        return mode.found

    assert everything(), "float64 is used where it is there"
    monkeypatch.setattr(torch_private, "has_float64", lambda device: False)
    assert everything() == []
