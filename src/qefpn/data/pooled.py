"""Work on many files by threads, of which nothing goes on once the caller stops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["mapped"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 16
"""Items a thread that may be done or waiting before the caller takes the first: a future of each of 20,000 is 30 MB."""


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
