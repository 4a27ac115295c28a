"""What the engine needs of torch that is private, differs between versions or behaves otherwise in a compiler."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

Places = list[tuple[Any, str]]


def has_float64(device: torch.device) -> bool:
    """Whether ``device`` has float64: Apple's GPUs have none."""
    return device.type != "mps"


def accumulation_dtype(device: torch.device) -> torch.dtype:
    """The type of the small algebra on ``device``."""
    return torch.float64 if has_float64(device) else torch.float32


@functools.cache
def total_memory(device: torch.device) -> int | None:
    """Bytes of memory that a device has, or, of the CPU's, that this process may have; None where nobody tells.

    What is free at the moment is not asked: the answer decides figures, and should be the same the next time.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type != "cpu":
        return None
    found = []
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # Windows
        return None
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container, control groups 2 and 1
        try:
            found.append(int((Path("/sys/fs/cgroup") / name).read_text()))
        except (OSError, ValueError):  # "max": no limit
            continue
    return min(found)


class LaggedRead:
    """The values of the tensor that was put in before, so that the device goes on working while they are fetched."""

    def __init__(self) -> None:
        self._former: tuple[Tensor, Any] | None = None

    def __call__(self, values: Tensor) -> list[Any] | None:
        """Put ``values`` in; those of the former call, None at the first."""
        if values.device.type == "cuda":
            here = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
            done: Any = torch.cuda.Event()
            done.record(torch.cuda.current_stream(values.device))
        else:
            here, done = values.clone(), None
        former, self._former = self._former, (here, done)
        if former is None:
            return None
        if former[1] is not None:
            former[1].synchronize()
        return list(former[0].tolist())


def lags(device: torch.device) -> bool:
    """Whether reading from ``device`` is waiting for it."""
    return device.type == "cuda"


def transforms_active() -> bool:
    """Whether this runs inside a transformation of ``torch.func``."""
    return torch._C._are_functorch_transforms_active()


def contents(tensors: tuple[Tensor, ...]) -> list[int | Tensor]:
    """What tells later whether tensors were written to: their versions; in inference mode, without any, a copy."""
    return [tensor.clone() if tensor.is_inference() else tensor._version for tensor in tensors]


def unwritten(tensors: tuple[Tensor, ...], before: list[int | Tensor]) -> bool:
    """Whether nobody wrote to ``tensors`` since :func:`contents` gave ``before``."""
    return all(
        former == tensor._version if isinstance(former, int) else torch.equal(former.nan_to_num(), tensor.nan_to_num())
        for tensor, former in zip(tensors, before, strict=True)
    )


def shares_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors begin at the same place. A compiler's values have none."""
    return not torch.compiler.is_compiling() and a.data_ptr() == b.data_ptr()


@contextlib.contextmanager
def keep_saved_tensors() -> Iterator[None]:
    """Keep this block's saved tensors as they are under non-reentrant checkpointing (or offloading).

    A backward solve walks one graph of f many times; under a checkpoint's hooks each walk would run the whole
    checkpointed region again, and that region holds the forward solve.
    """
    active = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    if active is None or active(False) is None:
        yield
        return
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        yield


def forward_derivative(f: Callable[[Tensor], Tensor], point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
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
    if torch.is_grad_enabled() or transforms_active() or compiling:
        value, slope = torch.func.jvp(f, (point,), (direction,))  # type: ignore[misc]
        return value, slope
    # the forward of a custom function, such as a reentrant checkpoint, switches forward mode off
    with forward_ad._set_fwd_grad_enabled(True), forward_ad.dual_level():
        value, tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(point, direction)))
    return value, torch.zeros_like(value) if tangent is None else tangent


class _ExactProducts:
    """float32 products in IEEE arithmetic inside, whatever the process has chosen. Blocks of several threads may
    overlap: the first that enters changes the settings, the last that leaves restores them."""

    lock = threading.Lock()
    inside = 0
    former: Places = []  # noqa: RUF012  (of the process)

    def __enter__(self) -> None:
        with self.lock:
            if _ExactProducts.inside == 0:
                _ExactProducts.former = _reduced()
                for place, _ in _ExactProducts.former:
                    _set(place, "highest" if place is None else "ieee")
            _ExactProducts.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            _ExactProducts.inside -= 1
            if _ExactProducts.inside == 0:
                for place, value in _ExactProducts.former:
                    _set(place, value)


def _set(place: Any, value: str) -> None:
    if place is None:
        torch.set_float32_matmul_precision(value)
    else:
        place.fp32_precision = value


def _reduced() -> Places:
    """Where products of float32 are less than that, and what to put back there; None stands for the one setting of
    torch before 2.9. The settings that came then must not be mixed with those before."""
    backends: Any = torch.backends
    if not hasattr(backends.mkldnn, "matmul"):
        value = torch.get_float32_matmul_precision()
        return [] if value == "highest" else [(None, value)]
    found = []
    for place, parent in ((backends.cuda.matmul, backends.cudnn), (backends.mkldnn.matmul, backends.mkldnn)):
        value = place.fp32_precision
        if value in ("tf32", "bf16"):
            found.append((place, "none" if parent.fp32_precision == value else value))  # none: as its parent
    return found


def products_are_exact(device: torch.device) -> bool:
    """Whether convolutions and matrix products of float32 on ``device`` are IEEE float32's, as the process is set, and
    no compiler is at work, which need not keep to it."""
    if torch.compiler.is_compiling() or _reduced():
        return False
    backend: Any = torch.backends.cudnn if device.type == "cuda" else torch.backends.mkldnn
    if device.type not in ("cpu", "cuda"):
        return False
    if not hasattr(torch.backends.mkldnn, "conv"):  # torch before 2.9
        return device.type == "cpu" or not torch.backends.cudnn.allow_tf32
    return backend.conv.fp32_precision in ("none", "ieee") and backend.fp32_precision in ("none", "ieee")


def exact_products() -> contextlib.AbstractContextManager[None]:
    """A block, to be entered any number of times, whose products of float32 tensors are IEEE float32's.

    Where they are so already it does nothing. In a compiler it does nothing either: there :func:`bmm` is one operator,
    which sets and restores the process's settings when it runs.
    """
    if torch.compiler.is_compiling() or not (_ExactProducts.inside or _reduced()):
        return contextlib.nullcontext()
    return _ExactProducts()


_LIBRARY = torch.library.Library("qefpn", "FRAGMENT")
_LIBRARY.define("bmm(Tensor a, Tensor b) -> Tensor")


def _exact_bmm(a: Tensor, b: Tensor) -> Tensor:
    with exact_products():
        return torch.bmm(a, b)


_LIBRARY.impl("bmm", _exact_bmm, "CompositeExplicitAutograd")


def bmm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """``torch.bmm``, exact in :func:`exact_products` and in a compiler."""
    if not torch.compiler.is_compiling():
        return torch.bmm(a, b, out=out)
    product: Tensor = torch.ops.qefpn.bmm(a, b)
    return product if out is None else out.copy_(product)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(B, N) and (B, N) to their rows' products (B,), as exact as :func:`bmm`."""
    if torch.compiler.is_compiling():
        return bmm(a[:, None], b[:, :, None])[:, 0, 0]
    return torch.linalg.vecdot(a, b)
