"""Errors of libraries that mean something to a user, told in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from qefpn.errors import UserError


def _texts(error: BaseException | None) -> Iterator[str]:
    """Of an error and of those that it was made of: torch tells of a dead process within a signal handler, so that
    any line of any library may be struck, and some turn what strikes them into errors of their own."""
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def raise_loader_error(error: Exception) -> None:
    """Tell of a loading process that died in one line; return for any other error."""
    died = r"DataLoader worker.*(exited unexpectedly|killed by signal)"
    if any(re.search(died, text, re.DOTALL) for text in _texts(error)):
        raise UserError(
            "a loading process died (out of memory, of shared memory, or killed): data.num_workers=0 loads in the "
            "training process, a smaller data.batch_size needs less"
        ) from error


def raise_lost_process(error: Exception, processes: int, timeout: float, last: Path) -> None:
    """Tell in one line that another process of the run does not answer; return for any other error."""
    lost = (
        r"pair closure|Timed out waiting|onnection (closed|reset) by peer|Broken pipe|Watchdog caught|unhandled system"
    )
    if processes == 1 or not any(re.search(lost, text) for text in _texts(error)):
        return
    keys = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    links = ", ".join(f"{key}={os.environ[key]}" for key in keys if key in os.environ) or "the default one"
    raise UserError(
        "another process of the run has ended, or has not answered for "
        f"trainer.rank_timeout={timeout:g} s: look at what it says, and at the link between the "
        f"machines ({links})" + (f"; resume={last} goes on" if last.exists() else "")
    ) from error
