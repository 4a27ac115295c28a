"""A multirun from its words to its summary: every choice is checked before the first job."""

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


def start_sweep(words: Sequence[str], launch: Callable[[Sequence[str]], int]) -> int:
    """A run for each choice, below one directory; a sweep that was begun there goes on where asked to.

    Args:
        words: overrides.
        launch: lets Hydra sweep over the words that it is called with; its exit code.

    Returns:
        0; 1 where jobs failed; 128 and its number where a signal ended the sweep.

    Raises:
        UserError: words that cannot be, a directory of another sweep, a launcher that cannot work.
    """
    words = expand_rows(words)
    resume = wants_resume(words)
    if resume and not any(word.startswith(f"{SWEEP_DIR}=") for word in words):
        raise UserError(f"sweep.resume=true needs {SWEEP_DIR}=DIR, the directory of the sweep to go on with")
    plan = plan_of(words, parse_overrides(words))
    directory, words = sweep_directory(words)
    wait = waits(words)
    check_choices(words)
    claim(directory, plan, resume=resume)
    register()
    try:
        code = launch(words)
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


def check_choices(words: Sequence[str]) -> None:
    """Compose and check every choice of every axis once.

    Raises:
        UserError: one that cannot be.
    """
    started_by = os.environ.pop("TORCHELASTIC_RUN_ID", None)  # a trainer built to check knows of one machine alone
    try:
        for composed in check_overrides("train", words, multirun=True):
            config = parse_config(composed)
            if chosen(words, "hydra/launcher") == "slurm":
                # GPUs are looked for where the job runs: a login node may have none
                config.trainer.accelerator, config.trainer.sync_batchnorm = "cpu", None
            check(config)
    finally:
        if started_by is not None:
            os.environ["TORCHELASTIC_RUN_ID"] = started_by
