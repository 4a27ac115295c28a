"""Peak memory, as the machine counts it."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from qefpn.training.hardware import peak_memory_mb, reset_peak_memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux forgets a peak, others do not")
def test_a_peak_of_memory_is_forgotten_at_the_start_of_a_run() -> None:
    cpu = torch.device("cpu")
    held = mmap.mmap(-1, 200 * 2**20)  # of the system's own, which an allocator cannot keep
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    high = peak_memory_mb(cpu)
    held.close()
    reset_peak_memory(cpu)
    low = peak_memory_mb(cpu)
    assert high is not None and low is not None
    assert high - low > 190
