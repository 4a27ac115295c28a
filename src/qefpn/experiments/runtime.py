"""What the commands share: the device, progress bars, where results go."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qefpn.errors import UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def quiet_libraries(*, lightning: bool = True) -> None:
    """Leave out what libraries say of themselves: Lightning's tips and inventory, deprecations inside them.

    Args:
        lightning: whether Lightning is used, which takes twice as long to import as torch.
    """
    if lightning:
        import pytorch_lightning  # noqa: F401  # it sets the level of its logger when imported

    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for module in ("timm", "torch", "torchvision", "pytorch_lightning", "lightning_fabric", "albumentations"):
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{module}(\.|$)")
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # on a login node, none is wanted


def choose_device(name: str) -> torch.device:
    """``auto`` is the first GPU, or the CPU.

    Raises:
        UserError: for a device that is unknown or not there.
    """
    import torch  # which not every command needs

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
    """A bar with counts and an estimate on standard error, gone when done; nothing where that is no terminal."""
    terminal = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
        disable=not terminal.is_terminal,
    )


def tracker(progress: Progress, size: Callable[[Any], int]) -> Callable[[str, str, Iterable[T]], Iterator[T]]:
    """A function that wraps a loader (its length: its pictures) and moves a bar by those of each batch."""

    def track(dataset: str, entrant: str, loader: Iterable[T]) -> Iterator[T]:
        total = len(loader) if isinstance(loader, Sized) else None
        task = progress.add_task(f"{dataset} · {entrant}", total=total)
        for batch in loader:
            yield batch
            progress.update(task, advance=size(batch))
        progress.remove_task(task)

    return track
