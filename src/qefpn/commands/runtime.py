"""What the commands share: the device, progress bars, where results go."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qefpn.errors import UserError

T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU, or the CPU.

    Raises:
        UserError: for a device that is unknown or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device={name} is not there: use cpu or auto") from None
    return device


def console() -> Console:
    """Standard output; wide enough for a table where it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)


def progress_bar() -> Progress:
    """A bar with counts and an estimate, on standard error, gone when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def tracker(progress: Progress, size: Callable[[Any], int]) -> Callable[[str, str, Iterable[T]], Iterator[T]]:
    """A function that wraps a loader and moves a bar by the pictures of each batch."""

    def track(dataset: str, entrant: str, loader: Iterable[T]) -> Iterator[T]:
        total = len(loader.dataset) if hasattr(loader, "dataset") else None
        task = progress.add_task(f"{dataset} · {entrant}", total=total)
        for batch in loader:
            yield batch
            progress.update(task, advance=size(batch))
        progress.remove_task(task)

    return track
