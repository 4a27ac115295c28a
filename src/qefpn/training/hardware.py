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

    On a CPU that is AMX or AVX-512 BF16, on a GPU of NVIDIA's Ampere or later; elsewhere bfloat16 is emulated, and
    slower than float32. Of Apple's GPUs torch does not tell, so they count as without.
    """
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "mps" or (accelerator == "auto" and torch.backends.mps.is_available()):
        return False
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None) or getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())


FP32_PRECISIONS = ("ieee", "tf32", "bf16")


@contextlib.contextmanager
def fp32_precision(name: str | None) -> Iterator[None]:
    """What float32 convolutions and products are inside, on CPUs and on NVIDIA's GPUs.

    torch keeps the settings of before 2.9 beside those since, and whoever reads the former raises where they differ:
    both are set, to the same. What was there before comes back.

    Args:
        name: ``ieee``; ``tf32``, faster where there is such a unit; ``bf16``, the same on CPUs, and tf32 on GPUs; None:
            as they are, which for cuDNN's convolutions is TF32 unless somebody said otherwise.
    """
    if name is None:
        yield
        return
    backends: Any = torch.backends  # the newer settings are newer than their type hints
    newer = hasattr(backends.mkldnn, "conv")
    own = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn] if newer else []
    own += [backends.mkldnn.matmul, backends.mkldnn.conv] if newer else []
    former = [(place, place.fp32_precision) for place in own]
    older: list[tuple[str, bool]] = []
    with contextlib.suppress(RuntimeError):  # somebody set the newer ones alone
        older = [(torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32)]
    try:
        torch.set_float32_matmul_precision({"ieee": "highest", "tf32": "high", "bf16": "medium"}[name])
        backends.cudnn.allow_tf32 = name != "ieee"
        if newer:
            backends.mkldnn.conv.fp32_precision = name
            for place in (backends.cudnn.conv, backends.cudnn.rnn):
                place.fp32_precision = "ieee" if name == "ieee" else "tf32"
        yield
    finally:
        for products, convolutions in older:
            torch.set_float32_matmul_precision(products)
            backends.cudnn.allow_tf32 = convolutions
        for place, value in former:
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
