"""The user's function on flat states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qefpn.implicit.layout import State, StateLayout
from qefpn.implicit.torch_private import contents, unwritten

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
        given = self.args if args is None else args
        if (
            torch.compiler.is_compiling()
        ):  # nothing counts writes there: f gets copies, which cost nothing where unwritten
            output = self.f(self.layout.unflatten(z.to(self.f_dtype, copy=True)), *mapped(given, torch.clone))
        else:
            watched = (z, *(arg for arg in given if isinstance(arg, Tensor) and not arg.is_inference()))
            before = contents(watched)
            output = self.f(self.layout.unflatten(z.to(self.f_dtype)), *given)
            if not unwritten(watched, before):
                raise ValueError(
                    "f writes into its argument, which the solver goes on using: let it make a new tensor "
                    "(z + x in place of z.add_(x)), or begin with z = z.clone()"
                )
        self.layout.check_output(output, z)
        return self.layout.flatten(output).to(self.dtype)

    def can_subselect(self, batch: int) -> bool:
        """Whether some argument is batch-first, so that f can be called on a part of the batch."""
        return any(_is_batch(tensor, batch) for tensor in tensors_in(self.args))

    def subselect(self, rows: Tensor, batch: int) -> tuple[Any, ...]:
        """The arguments of the samples ``rows``."""
        selected: tuple[Any, ...] = mapped(
            self.args, lambda tensor: tensor.index_select(0, rows) if _is_batch(tensor, batch) else tensor
        )
        return selected


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
    for place, arg in enumerate(args):
        if isinstance(arg, Tensor) and arg.device != first.device and _is_batch(arg, first.shape[0]):
            raise ValueError(f"z0 is on {first.device}, but argument {place} of f is on {arg.device}")
    f_dtype = first.dtype
    dtype = torch.float32 if f_dtype in HALF else f_dtype
    if torch.is_autocast_enabled(first.device.type):
        f_dtype, args = dtype, mapped(args, _widened)
    return Problem(f, args, layout, f_dtype, dtype), layout.flatten(z).to(dtype)


def random_like(z: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in the shape, type and device of ``z``."""
    device = z.device if generator is None else generator.device
    return torch.randn(z.shape, generator=generator, dtype=z.dtype, device=device).to(z.device)


def mapped(arg: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``arg`` with each tensor in it, within tuples, lists and dicts, changed; everything else as it is."""
    if isinstance(arg, Tensor):
        return change(arg)
    if isinstance(arg, (tuple, list)):
        parts = [mapped(part, change) for part in arg]
        return type(arg)(*parts) if hasattr(arg, "_fields") else type(arg)(parts)
    if isinstance(arg, dict):
        return {name: mapped(part, change) for name, part in arg.items()}
    return arg


def tensors_in(arg: Any) -> list[Tensor]:
    """The tensors that :func:`mapped` finds."""
    found: list[Tensor] = []
    mapped(arg, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def _is_batch(tensor: Tensor, batch: int) -> bool:
    return tensor.dim() > 0 and tensor.shape[0] == batch


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in HALF else tensor
