"""Small maps with known answers, for the tests of the fixed-point engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

F64 = torch.float64


@dataclass
class Contraction:
    """z ↦ tanh(zWᵀ + x) with ‖W‖₂ = 0.6, and a count of calls with their batch sizes."""

    batch: int = 5
    size: int = 10
    dtype: torch.dtype = F64
    calls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        weight = torch.randn(self.size, self.size, generator=generator, dtype=F64)
        weight = 0.6 * weight / torch.linalg.matrix_norm(weight, 2)
        self.weight = weight.to(self.dtype).requires_grad_()
        x = torch.randn(self.batch, self.size, generator=generator, dtype=F64)
        x = x * torch.logspace(-2, 0.5, self.batch, dtype=F64)[:, None]  # easy samples and hard ones
        self.x = x.to(self.dtype).requires_grad_()
        self.z0 = torch.zeros(self.batch, self.size, dtype=self.dtype)
        self.cotangent = torch.randn(self.batch, self.size, generator=generator, dtype=F64).to(self.dtype)

    def __call__(self, z: Tensor, x: Tensor) -> Tensor:
        self.calls.append(z.shape[0])
        return torch.tanh(z @ self.weight.T + x)

    def unrolled(self, steps: int = 300) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The fixed point by plain iteration, and the gradients of ⟨cotangent, z*⟩ for weight and x."""
        z = self.z0
        for _ in range(steps):
            z = torch.tanh(z @ self.weight.T + self.x)
        return z.detach(), torch.autograd.grad((z * self.cotangent).sum(), (self.weight, self.x))

    def gradients(self, value: Tensor) -> tuple[Tensor, ...]:
        """The gradients of ⟨cotangent, value⟩ for weight and x."""
        return torch.autograd.grad((value * self.cotangent).sum(), (self.weight, self.x))


def relative_error(value: Tensor, reference: Tensor) -> float:
    """‖value − reference‖ / ‖reference‖."""
    return float((value - reference).detach().norm() / reference.detach().norm())
