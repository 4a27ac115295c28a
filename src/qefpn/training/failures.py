"""Errors and warnings of libraries: what means something to a user in one line, the rest left out."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from qefpn.errors import UserError
from qefpn.training.last_checkpoint import Stopped


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


def raise_single_value(error: Exception) -> None:
    """Tell in one line that batch norm got one value a channel, which has no variance; return for any other error."""
    if any("more than 1 value per channel" in text for text in _texts(error)):
        raise UserError(
            "batch norm cannot train on one picture a device whose deepest feature is a single pixel: "
            "raise data.batch_size, or the side of the pictures (data.image_size, data.scales)"
        ) from error


@contextlib.contextmanager
def library_errors(trainer: pl.Trainer, timeout: float, last: Path) -> Iterator[None]:
    """Errors of Lightning and of libraries below it as what they mean to a user.

    Args:
        trainer: what runs.
        timeout: seconds after which a process gives up another one.
        last: the checkpoint to go on from.
    """
    try:
        yield
    except Stopped as stopped:
        if stopped.number == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise
    except SIGTERMException:  # Lightning's own, which says nothing to whoever started the program
        raise Stopped(signal.SIGTERM) from None
    except UserError:
        raise
    except SystemExit:  # Lightning's answer to Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    except Exception as error:
        raise_loader_error(error)
        raise_single_value(error)
        raise_lost_process(error, trainer.world_size, timeout, last)
        raise


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without the advice of libraries that does not apply here."""
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*exists and is not empty.*",
            ".*sync_dist=True.*",  # the metrics have added up all devices
            ".*The dirpath has changed.*",  # a resumed run chooses its own best.ckpt
            ".*lr_scheduler.step.*optimizer.step.*",
            ".*number of training batches.*smaller than the logging interval.*",
            ".*could not find the monitored key.*",  # a run too short for a validation has one at its end
            ".*`isinstance\\(treespec.*",
        ):
            warnings.filterwarnings("ignore", message=message)
        warnings.filterwarnings("once", message=".*does not have a deterministic implementation.*")
        yield
