"""Work on many files by threads, of which nothing goes on once the caller stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["mapped"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped(do: Callable[[Item], Result], items: Sequence[Item], threads: int) -> Iterator[tuple[Item, Result]]:
    """Each item with what ``do`` makes of it, in order. What was not begun when the caller stops is not done."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield from zip(items, pool.map(do, items), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
