"""Jacobian-vector products of the user's function."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from qefpn.implicit.problem import FlatMap


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
