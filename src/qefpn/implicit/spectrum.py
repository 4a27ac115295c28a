"""The spectral radius of f's Jacobian, a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count
from qefpn.implicit.layout import State
from qefpn.implicit.problem import FlatMap, flat_problem, random_like
from qefpn.implicit.torch_private import accumulation_dtype, dot, exact_products, forward_derivative


def spectral_radius(
    f: Callable[..., Any],
    z: State,
    args: tuple[Any, ...] = (),
    *,
    iterations: int = 50,
    generator: torch.Generator | None = None,
) -> Tensor:
    """ρ(J_f(z)), the largest modulus of an eigenvalue of ∂f/∂z, for each sample, by power iteration.

    Below 1 the plain iteration converges near z. The last vector u and J u span the plane on which the answer is read
    (Rayleigh–Ritz), so that a complex pair or a pair ±λ is found as a real eigenvalue is; where u is an eigenvector
    already, it is |uᵀJu|. No gradient; works in ``inference_mode``.

    Args:
        f: maps a state (B, ...) or a tuple of such, and ``args``, to a state of the same shapes.
        z: where the Jacobian is taken, usually a fixed point.
        args: passed on to f.
        iterations: Jacobian-vector products before the last two (≥ 1). The error falls as |λ₃/λ₁| to that power.
        generator: draws the first vector; None: torch's default generator.

    Returns:
        (B,), float64 (float32 where the device has no float64).
    """
    check_count("spectral_radius", "iterations", iterations)
    with torch.no_grad():
        problem, point = flat_problem(f, z, args)
        with torch.autocast(point.device.type, enabled=False):
            return _radius(problem, point, random_like(point, generator), iterations)


def _radius(problem: FlatMap, point: Tensor, v: Tensor, iterations: int) -> Tensor:
    def product(u: Tensor) -> Tensor:
        return forward_derivative(problem, point, u)[1]

    v, _ = _unit(v)
    for _ in range(iterations):
        v, _ = _unit(product(v))
    image = product(v)
    alpha = _dot(v, image)
    rest = image - alpha.to(v.dtype)[:, None] * v
    q, beta = _unit(rest)
    image_q = product(q)
    gamma, delta = _dot(v, image_q), _dot(q, image_q)
    # eigenvalues of [[α, γ], [β, δ]]
    half, difference = (alpha + delta) / 2, (alpha - delta) / 2
    discriminant = difference.square() + beta * gamma
    root = discriminant.abs().sqrt()
    real = half.abs() + root
    complex_ = (half.square() + root.square()).sqrt()
    pair = torch.where(discriminant >= 0, real, complex_)
    rounding = 100 * torch.finfo(v.dtype).eps
    return torch.where(beta <= rounding * alpha.abs(), alpha.abs(), pair)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    with exact_products():
        return dot(a, b).to(accumulation_dtype(a.device))


def _unit(v: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of ``v`` at length 1 (zero rows as they are), and their lengths."""
    length = torch.linalg.vector_norm(v, dim=1)
    column = length[:, None]
    return torch.where(column > 0, v / column, v), length.to(accumulation_dtype(v.device))
