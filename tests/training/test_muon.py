"""Muon against timm's, torch's AdamW and a singular value decomposition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.commands.runs import losses, train
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor, nn

from qefpn.training.muon import COEFFICIENTS, Muon, is_matrix, orthogonalize

SHAPES = [(3, 8, 72), (1, 64, 20), (2, 16, 16), (1, 2, 9)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonalize_is_timm_s_in_double_precision(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """The same polynomials, run on the Gram matrix here and on the matrix there."""
    matrices = drawn(*shape)
    reference = zeropower_via_newtonschulz(matrices.double(), 5, [COEFFICIENTS], dtype=torch.float64)
    found = orthogonalize(matrices.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), reference, rtol=0, atol=1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("condition", [1.0, 30.0, 1e3])
def test_singular_values_come_near_one_and_vectors_stay(condition: float) -> None:
    u = torch.linalg.qr(drawn(12, 12).double())[0]
    v = torch.linalg.qr(drawn(40, 12, seed=1).double())[0]
    values = torch.logspace(0, -float(torch.tensor(condition).log10()), 12, dtype=torch.float64)
    found = u.mT @ orthogonalize((u * values) @ v.mT * 7.0) @ v
    found_values = found.diagonal()
    assert float((found - torch.diag(found_values)).abs().max()) < 1e-9
    large = values > 0.02
    assert float(found_values[large].min()) > 0.65
    assert float(found_values.max()) < 1.25
    assert float(found_values.min()) > 0


def test_a_zero_gradient_moves_nothing() -> None:
    assert not orthogonalize(torch.zeros(2, 4, 9)).any()
    weight = nn.Parameter(drawn(4, 1, 3, 3))
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight, before)


def test_a_step_has_adamw_s_size_and_decays() -> None:
    weight = nn.Parameter(drawn(32, 16, 3, 3).contiguous(memory_format=torch.channels_last))
    before = weight.detach().clone()
    weight.grad = drawn(32, 16, 3, 3, seed=1)
    Muon([weight], lr=0.01, weight_decay=0.5).step()
    change = weight.detach() - before * (1 - 0.01 * 0.5)
    assert float(change.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.25)
    assert float((change * weight.grad).sum()) < 0
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_by_hand(nesterov: bool) -> None:
    weight = nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([weight], lr=0.1, momentum=0.9, nesterov=nesterov)
    expected, mean = torch.zeros(4, 6), torch.zeros(4, 6)
    for seed in range(3):
        weight.grad = drawn(4, 6, seed=seed)
        mean = 0.9 * mean + 0.1 * weight.grad
        direction = 0.1 * weight.grad + 0.9 * mean if nesterov else mean
        expected = expected - 0.2 * 0.1 * 6**0.5 * orthogonalize(direction)
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_norms_biases_and_single_rows_get_torch_s_adamw() -> None:
    shapes = [(7,), (1, 5, 3, 3), (6, 1), ()]
    ours = [nn.Parameter(drawn(*shape)) for shape in shapes]
    theirs = [nn.Parameter(drawn(*shape)) for shape in shapes]
    assert not any(is_matrix(p) for p in ours)
    optimizers = (
        Muon(ours, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1),
        torch.optim.AdamW(theirs, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1),
    )
    for seed in range(4):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for p in parameters:
                p.grad = drawn(*p.shape, seed=seed)
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_matrices_of_one_shape_do_not_mix() -> None:
    together = [nn.Parameter(drawn(8, 2, 3, 3, seed=seed)) for seed in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    for index, (one, other) in enumerate(zip(together, alone, strict=True)):
        one.grad = other.grad = drawn(8, 2, 3, 3, seed=9 + index)
        Muon([other], lr=0.1).step()
    Muon(together, lr=0.1).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path: Path, data_root: Path) -> None:
    options = ["optimizer=muon", "schedule=constant", "evaluate=false", "warmup.steps=1"]
    whole = train(tmp_path / "whole", data_root, *options, "trainer.max_steps=4")
    half = train(tmp_path / "half", data_root, *options, "trainer.max_steps=2")
    last = half / "checkpoints" / "last.ckpt"
    rest = train(tmp_path / "rest", data_root, *options, "trainer.max_steps=4", f"resume={last}")
    assert losses(half) + losses(rest) == pytest.approx(losses(whole), abs=1e-5)
    state = torch.load(rest / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert {frozenset(one) for one in state.values()} == {
        frozenset({"momentum_buffer"}),
        frozenset({"step", "exp_avg", "exp_avg_sq"}),
    }
