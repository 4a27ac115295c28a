"""Peak memory of a run as one figure: what CUDA allocated, or what the process held."""

from __future__ import annotations

import sys

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MIB = 2**20


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
