"""What the machine can do and how much of it a run takes: precision that pays there, and peak memory.

Memory is one figure: what CUDA allocated, or what the process held.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MIB = 2**20


def fast_bfloat16(accelerator: str) -> bool:
    """Whether the accelerator that a run uses multiplies bfloat16 in hardware.

    On a CPU that is AMX or AVX-512 BF16; elsewhere bfloat16 is emulated, and slower than float32.
    """
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None) or getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


@contextlib.contextmanager
def fp32_precision(name: str) -> Iterator[None]:
    """Let float32 convolutions and products of training use ``bf16`` or ``tf32``; evaluation never does."""
    if name == "ieee":
        yield
        return
    backends: Any = torch.backends  # these settings are newer than their type hints
    places = [backends.mkldnn.conv, backends.mkldnn.matmul]
    if name == "tf32":
        places += [backends.cudnn.conv, backends.cuda.matmul]
    former = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = name
        yield
    finally:
        for place, value in zip(places, former, strict=True):
            place.fp32_precision = value


def reset_peak_memory(device: torch.device) -> None:
    """Let the peak count from here, so that a job of a multirun does not show that of the job before it.

    On a CPU this takes Linux; elsewhere the peak is that of the process since it began.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # Linux: sets the highest resident set back to the present one
    except OSError:
        pass


def peak_memory_mb(device: torch.device) -> float | None:
    """The peak since :func:`reset_peak_memory`, in MiB; None where the system does not tell.

    On a GPU ``torch.cuda.max_memory_allocated``: tensors, without the allocator's reserve and CUDA's own context. On
    a CPU the largest resident set of this process: tensors, and Python with its libraries; loader processes are not
    in it. Either is of this rank alone.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes there, KiB elsewhere
