"""Muon: steps of orthogonalised momentum for matrices, AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd quintic polynomial that takes singular values in (0, 1] to about 1 when it is iterated (Jordan, 2024)."""

ITERATIONS = 5


def orthogonalize(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """U·Vᵀ of matrices U·S·Vᵀ, about: singular values become 0.7 to 1.2 (Jordan's Newton–Schulz iteration).

    The iteration X ← (a + b·XXᵀ + c·(XXᵀ)²)·X multiplies from the shorter side only, so that it is run on the Gram
    matrix and X itself enters twice, not three times an iteration: a 256×2304 matrix takes 0.4 of the operations.

    Args:
        matrices: (..., M, N), float32 or float64; the Gram matrix squares the condition, which half precision does
            not bear.
        iterations: of the polynomial, at least 1.

    Returns:
        shaped like ``matrices``; zero where a matrix is zero.
    """
    wide = matrices.mT if matrices.shape[-2] > matrices.shape[-1] else matrices
    wide = wide / torch.linalg.matrix_norm(wide, keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    gram = wide @ wide.mT
    factor: Tensor | None = None
    for number in range(iterations):
        step = b * gram + c * (gram @ gram)
        step.diagonal(dim1=-2, dim2=-1).add_(a)
        factor = step if factor is None else step @ factor
        if number + 1 < iterations:
            gram = step @ gram @ step  # all of them commute and are symmetric
    assert factor is not None
    result = factor @ wide
    return result.mT if matrices.shape[-2] > matrices.shape[-1] else result


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for weights of two dimensions and more; AdamW for norms, biases and single rows.

    A convolution's weight (O, I, h, w) counts as the matrix O × I·h·w. A step is as large as AdamW's at the same rate,
    root mean square about 0.2·lr (Liu et al., "Muon is scalable for LLM training", 2025), so that both share a rate and
    decoupled weight decay.

    Args:
        params: parameters or groups of them, as for any optimizer of torch.
        lr: learning rate.
        momentum: decay of the running mean of gradients, in [0, 1), for matrices.
        nesterov: look one step ahead.
        betas: AdamW's two decays, in [0, 1).
        weight_decay: decoupled, times ``lr``.

    Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. Matrices of one shape
    are stepped together, in float32 throughout: bfloat16, which other implementations use, is emulated on most CPUs.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "nesterov": nesterov, "betas": betas, "weight_decay": weight_decay},
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; what ``closure`` returns, which computes the gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            given = [p for p in group["params"] if p.grad is not None]
            self._step_matrices([p for p in given if is_matrix(p)], group)
            self._step_others([p for p in given if not is_matrix(p)], group)
        return loss

    def _step_matrices(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        means = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        directions = torch._foreach_lerp(gradients, means, group["momentum"]) if group["nesterov"] else means
        if group["weight_decay"] > 0:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        shapes: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for index, p in enumerate(parameters):
            shapes[len(p), p[0].numel()].append(index)
        for (rows, columns), indices in shapes.items():
            stacked = torch.stack([directions[index].flatten(1) for index in indices])
            scale = -0.2 * group["lr"] * max(rows, columns) ** 0.5
            for index, change in zip(indices, orthogonalize(stacked), strict=True):
                parameters[index].add_(change.view(parameters[index].shape), alpha=scale)

    def _step_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        for p in parameters:
            if "step" not in self.state[p]:
                moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                self.state[p].update(step=torch.zeros((), dtype=torch.float32), **moments)
        states = [self.state[p] for p in parameters]
        on_cpu = all(p.device.type == "cpu" for p in parameters)
        adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True if on_cpu else None,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def is_matrix(parameter: Tensor) -> bool:
    """Whether :class:`Muon` steps a parameter as a matrix: neither a vector nor a single row or column."""
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) > 1
