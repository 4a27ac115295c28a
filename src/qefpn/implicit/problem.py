"""The user's function on flat states, and its Jacobian-vector products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from qefpn.implicit.layout import State, StateLayout

HALF = (torch.float16, torch.bfloat16)
FlatMap = Callable[[Tensor], Tensor]
"""(B, N) to (B, N)."""


@dataclass(frozen=True)
class Problem:
    """f and its arguments, as a map of (B, N) to (B, N).

    Attributes:
        layout: how a flat state becomes what f takes.
        f_dtype: the type in which f is called; the solver's own type where they are equal.
        dtype: the solver's type, float32 or float64.
    """

    f: Callable[..., Any]
    args: tuple[Any, ...]
    layout: StateLayout
    f_dtype: torch.dtype
    dtype: torch.dtype

    def __call__(self, z: Tensor, args: tuple[Any, ...] | None = None) -> Tensor:
        state = self.layout.unflatten(z.to(self.f_dtype))
        given = self.args if args is None else args
        watched = (z, *(arg for arg in given if isinstance(arg, Tensor) and not arg.is_inference()))
        before = _contents(watched)
        output = self.f(state, *given)
        if not _unwritten(watched, before):
            raise ValueError(
                "f writes into its argument, which the solver goes on using: let it make a new tensor "
                "(z + x in place of z.add_(x)), or begin with z = z.clone()"
            )
        self.layout.check_output(output, z)
        return self.layout.flatten(output).to(self.dtype)

    def can_subselect(self, batch: int) -> bool:
        """Whether some argument is batch-first, so that f can be called on a part of the batch."""
        return any(_has_batch(arg, batch) for arg in self.args)

    def subselect(self, rows: Tensor, batch: int) -> tuple[Any, ...]:
        """The arguments of the samples ``rows``."""
        return tuple(_select(arg, rows, batch) for arg in self.args)


def _contents(tensors: tuple[Tensor, ...]) -> list[int | Tensor] | None:
    """What tells later whether tensors were written to: their versions, or a copy in inference mode, which counts none.
    None while compiling, where f is made free of such writes."""
    if torch.compiler.is_compiling():
        return None
    return [tensor.clone() if tensor.is_inference() else tensor._version for tensor in tensors]


def _unwritten(tensors: tuple[Tensor, ...], before: list[int | Tensor] | None) -> bool:
    pairs = zip(tensors, before or (), strict=before is not None)
    return all(
        former == tensor._version if isinstance(former, int) else torch.equal(former.nan_to_num(), tensor.nan_to_num())
        for tensor, former in pairs
    )


def flat_problem(f: Callable[..., Any], z: State, args: tuple[Any, ...]) -> tuple[Problem, Tensor]:
    """f on flat states, in the types that :func:`qefpn.implicit.fixed_point` would solve in, and the flat z.

    Raises:
        TypeError: ``z`` or ``args`` of the wrong kind.
        ValueError: ``z`` is no state, or an argument is on another device.
    """
    if not isinstance(args, tuple):
        raise TypeError(f"args must be a tuple, got {type(args).__name__}; write (x,) for one argument")
    layout = StateLayout.of(z)
    first = z[0] if isinstance(z, (tuple, list)) else z
    check_devices(args, first)
    f_dtype = first.dtype
    dtype = torch.float32 if f_dtype in HALF else f_dtype
    if torch.is_autocast_enabled(first.device.type):
        f_dtype, args = dtype, widen(args)
    return Problem(f, args, layout, f_dtype, dtype), layout.flatten(z).to(dtype)


def forward_derivative(f: FlatMap, point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """f and J_f · direction at ``point``, in one evaluation in forward mode.

    On dual tensors without ``torch.func`` where nothing else is tracked, which is faster on small maps.

    Args:
        f: (B, N) to (B, N), of operations that have forward derivatives.
        point, direction: (B, N).
    """
    compiling = torch.compiler.is_compiling()
    if torch.is_inference_mode_enabled() and not compiling:  # it drops the tangents of dual tensors
        with torch.inference_mode(False), torch.no_grad():
            return forward_derivative(f, point.clone(), direction.clone())
    tracked = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
    if tracked or compiling:
        value, slope = torch.func.jvp(f, (point,), (direction,))  # type: ignore[misc]
        return value, slope
    # the forward of a custom function, such as a reentrant checkpoint, switches forward mode off
    with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(point, direction)))
    return value, torch.zeros_like(value) if tangent is None else tangent


def random_like(z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in the shape, type and device of ``z``."""
    device = z.device if generator is None else generator.device
    return torch.randn(z.shape, generator=generator, dtype=z.dtype, device=device).to(z.device)


def check_devices(args: tuple[Any, ...], z: Tensor) -> None:
    """``ValueError`` where a batch-first argument lies on another device than the state."""
    for place, arg in enumerate(args):
        if isinstance(arg, Tensor) and arg.device != z.device and _has_batch(arg, z.shape[0]):
            raise ValueError(f"z0 is on {z.device}, but argument {place} of f is on {arg.device}")


def _has_batch(arg: Any, batch: int) -> bool:
    if isinstance(arg, Tensor):
        return arg.dim() > 0 and arg.shape[0] == batch
    if isinstance(arg, (tuple, list)):
        return any(_has_batch(part, batch) for part in arg)
    if isinstance(arg, dict):
        return any(_has_batch(part, batch) for part in arg.values())
    return False


def _select(arg: Any, rows: Tensor, batch: int) -> Any:
    if isinstance(arg, Tensor):
        return arg.index_select(0, rows) if _has_batch(arg, batch) else arg
    if isinstance(arg, tuple) and hasattr(arg, "_fields"):
        return type(arg)(*(_select(part, rows, batch) for part in arg))
    if isinstance(arg, (tuple, list)):
        return type(arg)(_select(part, rows, batch) for part in arg)
    if isinstance(arg, dict):
        return {name: _select(part, rows, batch) for name, part in arg.items()}
    return arg


def widen(arg: Any) -> Any:
    """Half-precision tensors inside ``arg`` as float32, differentiably; everything else as it is."""
    if isinstance(arg, Tensor):
        return arg.float() if arg.dtype in HALF else arg
    if isinstance(arg, tuple) and hasattr(arg, "_fields"):
        return type(arg)(*(widen(part) for part in arg))
    if isinstance(arg, (tuple, list)):
        return type(arg)(widen(part) for part in arg)
    if isinstance(arg, dict):
        return {name: widen(part) for name, part in arg.items()}
    return arg
