"""Whether half precision pays on this machine, for options that are `auto`."""

from __future__ import annotations

import torch


def fast_bfloat16(accelerator: str) -> bool:
    """Whether the accelerator that a run uses multiplies bfloat16 in hardware.

    On a CPU that is AMX or AVX-512 BF16; elsewhere bfloat16 is emulated, and slower than float32.
    """
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available()):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None) or getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())
