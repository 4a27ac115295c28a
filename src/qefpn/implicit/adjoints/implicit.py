"""The implicit function theorem (Eq. 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint, attach, keep_saved_tensors
from qefpn.implicit.problem import FlatMap, Problem
from qefpn.implicit.solvers.base import Solver, SolveResult
from qefpn.implicit.stats import BackwardRecord


@ADJOINTS.register("implicit")
@dataclass(frozen=True)
class ImplicitAdjoint(Adjoint):
    """Gradients by the implicit function theorem at the returned z* (Eq. 6), for Eq. 3's Jacobian.

    One evaluation of f at z* builds the only graph. Backward solves v = Jᵀv + ∂L/∂z* with it, one
    vector-Jacobian product with respect to z a step, and then lets v flow through the same graph to
    parameters, args and whatever else f closes over, in the ordinary course of the backward pass, so that
    DistributedDataParallel averages those gradients as any others. A second derivative raises
    ``RuntimeError``.

    Args:
        solver: solves the linear system, starting from v = 0, whose value ∂L/∂z* is known: k steps take k
            products. None: the forward solver's own settings.
    """

    solver: Solver | None = None

    def __post_init__(self) -> None:
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise TypeError(f"ImplicitAdjoint: solver must be a solver or None, got {self.solver!r}")

    def run(
        self, problem: Problem, residual_map: FlatMap, z: Tensor, solver: Solver, record: BackwardRecord
    ) -> SolveResult:
        graph = Recording(problem)
        with torch.no_grad():
            final = graph.record if residual_map is problem else None
            result = solver.solve(residual_map, z.detach(), final=final)
        backward = self.solver or solver
        value = attach_implicit(graph, result.value, record, lambda f, v, fv: backward.solve(f, v, fz=fv))
        return SolveResult(value, result.stats)


class Recording:
    """One evaluation of f whose graph is kept.

    A solve that runs into its limit evaluates its last iterate anyway; recording that evaluation saves
    another one where the last iterate is the best of every sample.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._kept: tuple[Tensor, Tensor] | None = None

    def record(self, z: Tensor) -> Tensor:
        """f(z), with its graph kept."""
        leaf = z.detach().requires_grad_()
        with torch.enable_grad(), keep_saved_tensors():
            value = self.problem(leaf)
        self._kept = leaf, value
        return value.detach()

    def take(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """A leaf with the values of z and f at it; recorded now unless it was recorded at this very z."""
        if self._kept is None or self._kept[0].data_ptr() != z.data_ptr():
            self._kept = None  # free the first graph before the second is built
            self.record(z)
        kept, self._kept = self._kept, None
        assert kept is not None
        return kept


LinearSolve = Callable[[FlatMap, Tensor, Tensor], SolveResult]


def attach_implicit(graph: Recording, value: Tensor, record: BackwardRecord, linear_solve: LinearSolve) -> Tensor:
    """``value`` (B, N) with Eq. 6's gradient.

    Args:
        linear_solve: (v ↦ Jᵀv + grad, starting point, its value) to the result of the solve.
    """
    leaf, surrogate = graph.take(value)
    if not _reaches_another_leaf(surrogate, leaf):
        return value
    # the flow of v through the graph also reaches the leaf, where nobody wants it
    leaf.register_post_accumulate_grad_hook(_drop_grad)
    # edges, not tensors: nothing here keeps the graph's tensors alive after backward has freed them
    source, target = get_gradient_edge(surrogate), get_gradient_edge(leaf)

    def transform(grad: Tensor) -> Tensor:
        with torch.autocast(grad.device.type, enabled=False):
            return _solve_transposed(grad, source, target, record, linear_solve)

    return attach(value, surrogate, transform)


def _solve_transposed(
    grad: Tensor, source: Any, target: Any, record: BackwardRecord, linear_solve: LinearSolve
) -> Tensor:
    # A power of two a sample brings gradients of any size into the range where squares do not underflow.
    largest = torch.linalg.vector_norm(grad, ord=torch.inf, dim=1, keepdim=True)
    usable = torch.isfinite(largest) & (largest > 0)
    exponent = torch.frexp(torch.where(usable, largest, 1.0)).exponent
    one = torch.ones_like(largest)  # ldexp of the whole state would cost as much as a product with J
    scaled = grad * torch.ldexp(one, -exponent)

    def transposed(v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad([source], [target], [v], retain_graph=True, allow_unused=True)
        return scaled if product is None else product.add_(scaled)

    result = linear_solve(transposed, torch.zeros_like(scaled), scaled)
    stats = result.stats
    record.stats = stats
    # A gradient that is not finite stays so: loss scalers look for it. A solve without one finite evaluation
    # leaves the incoming gradient, as JacobianFreeAdjoint would.
    found, finite = torch.isfinite(stats.relative_residual), torch.isfinite(largest)
    record.fallbacks = ~found & finite[:, 0]
    solved = finite & found[:, None]
    return torch.where(solved, result.value * torch.ldexp(one, exponent), grad)


def _reaches_another_leaf(output: Tensor, leaf: Tensor) -> bool:
    """Whether a gradient of ``output`` reaches anything but ``leaf``; True where the graph does not tell."""
    own = get_gradient_edge(leaf).node
    seen, todo = {own}, [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        # a Python function (a reentrant checkpoint, say) may reach parameters that its edges do not show
        if hasattr(node, "variable") or isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        todo.extend(edge for edge, _ in node.next_functions)
    return False


def _drop_grad(leaf: Tensor) -> None:
    leaf.grad = None
