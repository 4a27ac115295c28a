"""Whether half precision pays on this machine, for options that are `auto`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


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
