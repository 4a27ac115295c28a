"""Threads and loading processes: how many, whether there is room for what they hand over, how they begin and end."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from qefpn.errors import UserError

__all__ = ["cpu_count", "limit_threads", "mapped", "start_worker", "worker_count"]

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2
"""Batches that a process of torch's loader makes ahead."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 16
"""Items a thread that may be done or waiting before the caller takes the first: a future of each of 20,000 is 30 MB."""

log = logging.getLogger(__name__)


def cpu_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


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
        import torch  # takes seconds, which a process that only scores maps need not pay

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


def limit_threads() -> None:
    """Keep OpenCV to the calling thread: the workers are the parallelism."""
    import cv2

    cv2.setNumThreads(0)


def start_worker(_worker: int) -> None:
    """What a loading process does first: Ctrl-C reaches it too, but when to end is its parent's to say."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads()


def mapped(do: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``do`` makes of it, in order. What was not begun when the caller stops is not done."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(do, item)))
            if len(waiting) >= threads * _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
