"""The implicit function theorem (Eq. 6): by a backward solve, or by the forward solve's inverse estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from qefpn.implicit.adjoints.base import ADJOINTS, Adjoint, Call, attach
from qefpn.implicit.checks import check_number
from qefpn.implicit.driver import SolveResult, norms, solve
from qefpn.implicit.problem import FlatMap
from qefpn.implicit.solvers import Broyden, Solver
from qefpn.implicit.stats import BackwardRecord, SolveStats
from qefpn.implicit.torch_private import exact_products, keep_saved_tensors


@ADJOINTS.register("implicit")
@dataclass(frozen=True)
class ImplicitAdjoint(Adjoint):
    """Gradients by the implicit function theorem at the returned z* (Eq. 6), for Eq. 3's Jacobian.

    One evaluation of f at z* builds the only graph. Backward solves v = Jᵀv + ∂L/∂z* with it, one
    vector-Jacobian product with respect to z a step, and then lets v flow through the same graph to
    parameters, args and whatever else f closes over, in the ordinary course of the backward pass, so that
    DistributedDataParallel averages those gradients as any others. A second derivative raises
    ``RuntimeError``. A sample whose solve has not one finite product gets the gradient of ``JacobianFreeAdjoint``.

    Args:
        solver: solves the linear system, starting from v = 0, whose value ∂L/∂z* is known: k steps take k
            products. None: the forward solver's own settings.
    """

    solver: Solver | None = None

    def __post_init__(self) -> None:
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise TypeError(f"ImplicitAdjoint: solver must be a solver or None, got {self.solver!r}")

    def run(self, call: Call) -> tuple[Tensor, SolveStats]:
        solver = self.solver or call.solver
        if torch.compiler.is_compiling():
            result = call.solve()
            value, surrogate = result.value, call.problem(result.value)

            def pull_back() -> FlatMap:  # a compiler knows no edges of a graph; it evaluates f once more
                pull: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(call.problem, value)[1]
                return lambda v: pull(v)[0]

        else:
            result, leaf, surrogate = _recorded(call)
            value = result.value
            if not _reaches_another_leaf(surrogate, leaf):
                return value, result.stats
            pull_back = _walker(surrogate, leaf)

        def transform(grad: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
                return _solve_transposed(grad, pull_back(), solver, call.record)

        return attach(value, surrogate, transform) if surrogate.requires_grad else value, result.stats


@ADJOINTS.register("shine")
@dataclass(frozen=True)
class ShineAdjoint(Adjoint):
    """Eq. 6 with (I − J)⁻ᵀ replaced by the transpose of what the forward Broyden solve has learnt of it
    (Ramzi et al., SHINE: SHaring the INverse Estimate, ICLR 2022): no backward solve, one vector-Jacobian
    product. The solver's store stays in memory until backward. Needs ``Broyden`` as the forward solver.

    Args:
        max_growth: a sample whose gradient would grow by more than this factor (> 0), or would not be finite, gets that
            of ``JacobianFreeAdjoint``: its estimate is none. ``Solution.fallbacks`` tells which.
    """

    max_growth: float = 10.0

    def __post_init__(self) -> None:
        check_number("ShineAdjoint", "max_growth", self.max_growth, low=0.0, open_low=True)

    def check(self, solver: Solver) -> None:
        if not isinstance(solver, Broyden):
            raise ValueError(
                f"ShineAdjoint reuses Broyden's inverse estimate, got {type(solver).__name__}; "
                f"take Broyden as the solver or JacobianFreeAdjoint as the adjoint"
            )

    def run(self, call: Call) -> tuple[Tensor, SolveStats]:
        result = call.solve()
        surrogate = call.problem(result.value)
        if not surrogate.requires_grad:
            return result.value, result.stats
        with torch.no_grad(), exact_products():
            apply = result.state.transposed(result.settled)

        def transform(grad: Tensor) -> Tensor:
            with torch.no_grad(), exact_products():
                estimated = apply(grad)
            before, after = norms(grad), norms(estimated)
            trusted = after <= self.max_growth * before  # false for NaN
            # a gradient that is not finite stays so, whatever is done with it
            _note(call.record, None, ~trusted & torch.isfinite(before))
            return torch.where(trusted[:, None], estimated, grad)

        return attach(result.value, surrogate, transform), result.stats


def _recorded(call: Call) -> tuple[SolveResult, Tensor, Tensor]:
    """The solution, a leaf with its values, and f there, with the graph of that evaluation kept.

    A solve that runs into its limit evaluates its last iterate anyway; recording that evaluation saves
    another one where the last iterate is the best of every sample.
    """
    kept: list[tuple[Tensor, Tensor]] = []

    def record(z: Tensor) -> Tensor:
        leaf = z.detach().requires_grad_()
        with torch.enable_grad(), keep_saved_tensors():
            value = call.problem(leaf)
        kept.append((leaf, value))
        return value.detach()

    result = call.solve(record if call.f is call.problem else None)
    if not result.at_last:
        kept.clear()  # free the first graph before the second is built
        record(result.value)
    return result, *kept[0]


def _walker(surrogate: Tensor, leaf: Tensor) -> Callable[[], FlatMap]:
    """Gives v ↦ Jᵀv by walks of the graph from ``surrogate`` back to ``leaf``; None where that does not reach it."""
    # the flow of v through the graph also reaches the leaf, where nobody wants it
    leaf.register_post_accumulate_grad_hook(_drop_grad)
    # edges, not tensors: nothing here keeps the graph's tensors alive after backward has freed them
    source, target = get_gradient_edge(surrogate), get_gradient_edge(leaf)

    def walk(v: Tensor) -> Tensor:
        (product,) = torch.autograd.grad([source], [target], [v], retain_graph=True, allow_unused=True)
        return torch.zeros_like(v) if product is None else product

    return lambda: walk


def _solve_transposed(grad: Tensor, product: FlatMap, solver: Solver, record: BackwardRecord) -> Tensor:
    """v = Jᵀv + ``grad`` (B, N), ``product`` being v ↦ Jᵀv in memory that may be written to."""
    # A power of two a sample brings gradients of any size into the range where squares do not underflow.
    largest = torch.linalg.vector_norm(grad, ord=torch.inf, dim=1, keepdim=True)
    usable = torch.isfinite(largest) & (largest > 0)
    exponent = torch.frexp(torch.where(usable, largest, 1.0)).exponent
    one = torch.ones_like(largest)  # ldexp of the whole state would cost as much as a product with J
    scaled = grad * torch.ldexp(one, -exponent)
    result = solve(solver, lambda v: product(v).add_(scaled), torch.zeros_like(scaled), known=scaled)
    # A gradient that is not finite stays so: loss scalers look for it. A solve without one finite evaluation
    # leaves the incoming gradient, as JacobianFreeAdjoint would.
    found, finite = torch.isfinite(result.stats.relative_residual), torch.isfinite(largest)
    _note(record, result.stats, ~found & finite[:, 0])
    return torch.where(finite & found[:, None], result.value * torch.ldexp(one, exponent), grad)


def _note(record: BackwardRecord, stats: SolveStats | None, fallbacks: Tensor) -> None:
    if not torch.compiler.is_compiling():  # a graph leaves nothing behind but tensors
        record.stats, record.fallbacks = stats, fallbacks


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
