"""Loading processes: how many, and whether there is room for what they hand over."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import torch

from qefpn.data.cache import cpu_count
from qefpn.errors import UserError

__all__ = ["worker_count"]

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2
"""Batches that a process of torch's loader makes ahead."""

log = logging.getLogger(__name__)


def worker_count(chosen: int | None, *, cached: bool, world_size: int, batch_bytes: int) -> int:
    """Loading processes of one training process.

    Args:
        chosen: ``data.num_workers``; None: what suits the machine.
        cached: whether pictures lie decoded in memory.
        world_size: training processes.
        batch_bytes: of the largest batch.

    Raises:
        UserError: the chosen number needs more shared memory than there is. (Torch's loader would wait for ever.)
    """
    count = chosen
    if count is None:
        processors = cpu_count() // max(1, min(world_size, torch.cuda.device_count() or world_size))
        count = 0 if cached and processors <= 2 else min(8, max(1, processors - 1))
    needed = count * (PREFETCHED + 1) * batch_bytes
    if count == 0 or not SHARED_MEMORY.is_dir():
        return count
    free = shutil.disk_usage(SHARED_MEMORY).free // world_size
    if needed <= free:
        return count
    lacking = (
        f"data.num_workers={count} needs {needed / 2**20:.0f} MiB of shared memory, and {SHARED_MEMORY} has "
        f"{free / 2**20:.0f} MiB free"
    )
    if chosen is None:
        log.warning("%s: pictures are loaded in the training process (docker run --shm-size=1g gives more)", lacking)
        return 0
    raise UserError(f"{lacking}: give data.num_workers=0, a smaller data.batch_size, or docker run --shm-size=1g")
