"""Spectral radius by power iteration, against matrices of known spectrum and against eigenvalues."""

from __future__ import annotations

import math

import pytest
import torch
from tests.implicit.problems import F64, Contraction

from qefpn.implicit import fixed_point, spectral_radius

HALF_TURN = 0.7 * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=F64)
ANGLE = torch.tensor(0.3, dtype=F64)
TURN = 0.9 * torch.stack([torch.stack([ANGLE.cos(), -ANGLE.sin()]), torch.stack([ANGLE.sin(), ANGLE.cos()])])


def similar(blocks, seed):
    """A full, non-normal matrix with the spectrum of the blocks' diagonal matrix."""
    diagonal = torch.block_diag(*blocks)
    basis = torch.eye(len(diagonal), dtype=F64)
    basis = basis + 0.4 * torch.randn(basis.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return basis @ diagonal @ torch.linalg.inv(basis)


@pytest.mark.parametrize(
    ("blocks", "radius"),
    [
        ([torch.diag(torch.tensor([0.5, -0.95, 0.3, 0.1], dtype=F64))], 0.95),
        ([torch.diag(torch.tensor([1.4, 0.9, 0.2, -0.1], dtype=F64))], 1.4),
        ([torch.diag(torch.tensor([0.8, -0.8, 0.2, -0.1], dtype=F64))], 0.8),
        ([HALF_TURN, torch.diag(torch.tensor([0.2, -0.3], dtype=F64))], 0.7),
        ([TURN, torch.diag(torch.tensor([0.6, -0.3], dtype=F64))], 0.9),
    ],
    ids=["negative", "expanding", "pair", "quarter turn", "turn"],
)
def test_known_spectra_a_sample(blocks, radius):
    """Each sample its own matrix: the same spectrum scaled, in different bases."""
    scales = (1.0, 0.5, 2e-9)
    matrices = torch.stack([scale * similar(blocks, seed) for seed, scale in enumerate(scales)])
    found = spectral_radius(
        lambda z, matrix: torch.einsum("bij,bj->bi", matrix, z),
        torch.randn(3, 4, dtype=F64),
        (matrices,),
        iterations=150,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(found, radius * torch.tensor(scales, dtype=F64), rtol=1e-9, atol=0)


def test_it_is_that_of_the_jacobian_at_the_point_and_needs_no_gradient():
    problem = Contraction(batch=4, size=6)
    z = fixed_point(problem, problem.z0, (problem.x,)).value.detach()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z, x: torch.tanh(z @ problem.weight.T + x)))(z, problem.x)
    expected = torch.linalg.eigvals(jacobian).abs().amax(dim=1).detach()
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            found = spectral_radius(problem, z, (problem.x,), iterations=400)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
        assert not found.requires_grad


def test_nilpotent_zero_tuple_and_single_precision():
    shift = torch.diag(torch.ones(4, dtype=F64), 1)
    assert spectral_radius(lambda z: z @ shift, torch.zeros(2, 5, dtype=F64)).tolist() == [0.0, 0.0]
    assert spectral_radius(lambda z: z * 0.0 + 1.0, torch.zeros(2, 5)).tolist() == [0.0, 0.0]
    pair = spectral_radius(lambda z: (0.5 * z[1], 0.5 * z[0]), (torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)))
    assert pair.tolist() == pytest.approx([0.5, 0.5], rel=1e-6)
    scaled = spectral_radius(lambda z: 0.75 * z, torch.zeros(1, 100_000))
    assert math.isclose(float(scaled), 0.75, rel_tol=1e-5)


def test_a_bad_sample_is_alone():
    factor = torch.tensor([[0.5], [torch.nan], [0.25]])
    found = spectral_radius(lambda z, factor: factor * z, torch.zeros(3, 4), (factor,))
    assert found[[0, 2]].tolist() == pytest.approx([0.5, 0.25]) and found[1].isnan()


def test_mistakes():
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        spectral_radius(torch.tanh, torch.zeros(1, 2), iterations=0)
    with pytest.raises(TypeError, match=r"write \(x,\)"):
        spectral_radius(torch.tanh, torch.zeros(1, 2), torch.zeros(1, 2))
