"""`qefpn train`: from a configuration to a trained network, scored test sets and a report."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qefpn.errors import UserError
from qefpn.experiments.ablations import expand_rows
from qefpn.experiments.command_line import (
    check_overrides,
    compose_run,
    parse_overrides,
    process_rank,
    quote_paths,
    task_words,
    train_help,
)
from qefpn.experiments.idle_keys import refuse_idle_keys
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
from qefpn.sweeps.run import sweep_job
from qefpn.text import one_line

if TYPE_CHECKING:
    pass

SUMMARY = """
qefpn train - train the quasi-equilibrium pyramid, then score the test sets

qefpn train data=duts data.root=DIR data.test=[ECSSD,DUTS-TE]
qefpn train experiment=small data=folder data.root=MY_PICTURES
qefpn train -m solver=broyden,anderson seed=0,1      a run for each combination
qefpn train -m ablation=solver seed=0,1              a run for each row of the paper's Table IV, twice
qefpn train --cfg job ...                            the configuration, without running
"""

MULTIRUN = ("-m", "--multirun")
CONFIG_DIR = ("--config-dir", "-cd")
WITH_VALUE = ("--cfg", "-c", "--info", "-i", "--package", "-p", *CONFIG_DIR)
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_CFG = ("job", "hydra", "all")
LOOK = {"--cfg": _CFG, "-c": _CFG, "--info": _INFO, "-i": _INFO, "--hydra-help": ()}
"""Flags with which Hydra shows something and runs nothing, and what they take."""
OF_CFG = ("--resolve", "--package", "-p")
HYDRA_FLAGS = (*MULTIRUN, *WITH_VALUE, "--hydra-help", "--resolve")


def main(argv: Sequence[str]) -> int:
    """Check everything that can be checked without data, then hand over to Hydra.

    Returns:
        0; 1 where jobs of a multirun failed; 2 for a user's mistake.
    """
    if process_rank() > 0:  # the other processes of a run say nothing
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        argv = [_unquoted(word) for word in argv]
    dashed, words = split_flags(argv)
    dashed, words = search_config_dir(dashed, words)
    flags = [word.split("=")[0] for word in dashed if word.startswith("-")]
    if "-h" in flags or "--help" in flags:
        print(train_help(SUMMARY))
        return 0
    for flag in flags:
        if flag not in HYDRA_FLAGS:
            raise UserError(f"unknown option {flag}: there are -m (multirun), --config-dir DIR, --cfg job, --help")
    from qefpn.experiments.runtime import quiet_libraries  # here, since --help must answer at once

    quiet_libraries()
    multirun = any(flag in MULTIRUN for flag in flags)
    if check_looks(dashed, words):
        return _hydra(dashed, words)
    if multirun:
        return _multirun(dashed, words)
    if wants_resume(words):
        raise UserError("sweep.resume goes on with a multirun: give -m and its hydra.sweep.dir (a run: resume=CKPT)")
    _check(words, multirun=False)
    _STATUS.update(code=0, words=["train", *argv])
    return _hydra(dashed, words) or int(_STATUS["code"])


def _check(words: Sequence[str], *, multirun: bool) -> None:
    from qefpn.experiments.checks import check
    from qefpn.experiments.schema import typed

    started_by = os.environ.pop("TORCHELASTIC_RUN_ID", None)  # a trainer built to check knows of one machine alone
    try:
        for composed in check_overrides("train", words, multirun=multirun):
            config = typed(composed)
            if multirun and chosen(words, "hydra/launcher") == "slurm":
                # GPUs are looked for where the job runs: a login node may have none
                config.trainer.accelerator, config.trainer.sync_batchnorm = "cpu", None
            check(config)
            if not multirun:
                refuse_idle_keys(words, config)
    finally:
        if started_by is not None:
            os.environ["TORCHELASTIC_RUN_ID"] = started_by


def _hydra(dashed: Sequence[str], words: Sequence[str]) -> int:
    """Hand over to Hydra. 128 and its number where a signal ended it, with last.ckpt written."""
    from qefpn.training.last_checkpoint import Stopped

    given, sys.argv = sys.argv, [sys.argv[0], *dashed, *quote_paths(words)]
    try:
        hydra.main(version_base="1.3", config_path="pkg://qefpn.conf", config_name="train")(job)()
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(f"qefpn train: ended by {name}; checkpoints/last.ckpt is where to go on from", file=sys.stderr)
        return 128 + stopped.number
    finally:
        sys.argv = given
    return 0


def _multirun(dashed: Sequence[str], words: Sequence[str]) -> int:
    """A run for each choice, below one directory; a sweep that was begun there goes on where asked to."""
    words = expand_rows(words)
    resume = wants_resume(words)
    if resume and not any(word.startswith(f"{SWEEP_DIR}=") for word in words):
        raise UserError(f"sweep.resume=true needs {SWEEP_DIR}=DIR, the directory of the sweep to go on with")
    plan = plan_of(words, parse_overrides(words))
    directory, words = sweep_directory(words)
    wait = waits(words)
    _check(words, multirun=True)
    claim(directory, plan, resume=resume)
    from qefpn.sweeps.plugins import register

    register()
    try:
        code = _hydra(dashed, words)
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


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and the rest: Hydra takes no flag between two of its words."""
    flags: list[str] = []
    words: list[str] = []
    for number, word in enumerate(argv):
        belongs = number > 0 and argv[number - 1] in WITH_VALUE and "=" not in word
        (flags if word.startswith("-") or belongs else words).append(word)
    return flags, words


def check_looks(flags: Sequence[str], words: Sequence[str]) -> bool:
    """Whether Hydra is to show something and to run nothing. What it would show composes, as that of a run.

    Raises:
        UserError: flags that do not go together, or words that do not compose.
    """
    taken = dict.fromkeys(flag.partition("=")[0] for flag in flags if flag.startswith("-"))
    looks = [flag for flag in taken if flag in LOOK]
    if not looks:
        alone = next((flag for flag in taken if flag in OF_CFG), None)
        if alone is not None:
            raise UserError(f"{alone} belongs to --cfg job, which shows the configuration")
        return False
    look = looks[0]
    other = next((flag for flag in taken if flag != look and (flag in LOOK or flag in MULTIRUN)), None)
    if other is not None:
        raise UserError(f"{look} and {other} do not go together: {look} shows one thing and runs nothing")
    for place, flag in enumerate(flags):
        name, equals, value = flag.partition("=")
        if name in WITH_VALUE and not equals:
            value = next(iter(flags[place + 1 : place + 2]), "")
        if LOOK.get(name) and value not in LOOK[name]:
            raise UserError(f"{name} {value}: it takes {', '.join(LOOK[name])}")
        if name in ("--package", "-p") and (not value or value.startswith("-")):
            raise UserError(f"{name} takes the name of a part of the configuration, such as solver")
    if look == "--hydra-help":
        if words:
            raise UserError(f"--hydra-help tells of Hydra alone and takes no {words[0]}")
    else:
        for _ in check_overrides("train", words, multirun=False):
            pass
    return True


def search_config_dir(flags: Sequence[str], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """``--config-dir DIR`` as what it means to Hydra, ``hydra.searchpath``, which every composition then sees.

    Raises:
        UserError: there is no such directory.
    """
    kept: list[str] = []
    places: list[str] = []
    rest = iter(flags)
    for flag in rest:
        name, equals, value = flag.partition("=")
        if name not in CONFIG_DIR:
            kept.append(flag)
            continue
        folder = Path(value if equals else next(rest, "")).expanduser()
        if not folder.is_dir() or str(folder) == ".":
            raise UserError(f"{name} {folder}: there is no such directory of configuration files")
        places.append(f"file://{folder.resolve()}")
    if not places:
        return kept, list(words)
    given = [word for word in words if word.startswith("hydra.searchpath=")]
    for word in given:
        places += [place for place in word.partition("=")[2].strip("[]").split(",") if place]
    return kept, [*(word for word in words if word not in given), f"hydra.searchpath=[{','.join(map(quoted, places))}]"]


def quoted(place: str) -> str:
    """As Hydra's grammar takes any path."""
    return place if place[:1] in ("'", '"') else "'" + place.replace("'", "\\'") + "'"


def _unquoted(word: str) -> str:
    """Lightning hands its processes the run directory in quotes that no shell takes off."""
    key, _, value = word.partition("=")
    return f"{key}={value[1:-1]}" if key == "hydra.run.dir" and value[:1] == value[-1:] == '"' else word


_STATUS: dict[str, Any] = {"code": 0, "words": []}


def job(config: DictConfig) -> float | None:
    """One run in Hydra's run directory."""
    settings = HydraConfig.get()
    from qefpn.experiments.run import run
    from qefpn.experiments.schema import typed

    if settings.mode == RunMode.MULTIRUN:
        return sweep_job(settings, functools.partial(run, composed=config))

    try:
        composed, ablation = compose_run("train", task_words(settings))
        sys.argv[1:] = _STATUS["words"]  # with which Lightning starts the other processes of this run
        run(typed(composed), Path(settings.runtime.output_dir), ablation, config)
    except UserError as error:
        print(f"qefpn train: {one_line(error)}", file=sys.stderr)
        _STATUS["code"] = 2
    return None
