"""A multirun from its overrides to its summary: every choice is checked before the first job."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from qefpn.errors import UserError
from qefpn.experiments.checks import check
from qefpn.experiments.command_line import parse_overrides
from qefpn.experiments.composition import check_overrides, expand_rows
from qefpn.experiments.schema import parse_config
from qefpn.sweeps.jobs import read_jobs, summary
from qefpn.sweeps.plan import (
    SWEEP_DIR,
    SweepRefused,
    chosen,
    claim,
    plan_of,
    release,
    sweep_directory,
    waits,
    wants_resume,
)
from qefpn.sweeps.plugins import register


def start_sweep(overrides: Sequence[str], launch: Callable[[Sequence[str]], int]) -> int:
    """A run for each choice, below one directory; a sweep that was begun there goes on where asked to.

    Args:
        overrides: as given on the command line.
        launch: lets Hydra sweep over the overrides that it is called with; its exit code.

    Returns:
        0; 1 where jobs failed; 128 and its number where a signal ended the sweep.

    Raises:
        UserError: overrides that cannot be, a directory of another sweep, a launcher that cannot work.
    """
    overrides = expand_rows(overrides)
    resume = wants_resume(overrides)
    if resume and not any(word.startswith(f"{SWEEP_DIR}=") for word in overrides):
        raise UserError(f"sweep.resume=true needs {SWEEP_DIR}=DIR, the directory of the sweep to go on with")
    plan = plan_of(overrides, parse_overrides(overrides))
    directory, overrides = sweep_directory(overrides)
    wait = waits(overrides)
    check_choices(overrides)
    claim(directory, plan, resume=resume)
    register()
    try:
        code = launch(overrides)
    except SweepRefused as refusal:
        if not read_jobs(directory):
            release(directory)  # the corrected command starts it
            raise UserError(str(refusal)) from None
        raise UserError(f"{refusal}; {SWEEP_DIR}={directory} sweep.resume=true goes on") from None
    records = read_jobs(directory)
    print(f"sweep: {directory}")
    for line in summary(records, plan.jobs):
        print(f"qefpn train: {line}", file=sys.stderr)
    fine = ("done",) if wait else ("done", "queued", "running")
    return code or int(any(record.state not in fine for record in records))


def check_choices(overrides: Sequence[str]) -> None:
    """Compose and check every choice of every axis once.

    Raises:
        UserError: one that cannot be.
    """
    started_by = os.environ.pop("TORCHELASTIC_RUN_ID", None)  # a trainer built to check knows of one machine alone
    try:
        for composed in check_overrides("train", overrides, multirun=True):
            config = parse_config(composed)
            if chosen(overrides, "hydra/launcher") == "slurm":
                # GPUs are looked for where the job runs: a login node may have none
                config.trainer.accelerator, config.trainer.sync_batchnorm = "cpu", None
            check(config)
    finally:
        if started_by is not None:
            os.environ["TORCHELASTIC_RUN_ID"] = started_by
