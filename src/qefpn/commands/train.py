"""`qefpn train`: from a configuration to a trained network, scored test sets and a report."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qefpn.errors import UserError
from qefpn.experiments.command_line import process_rank, read_overrides, train_help
from qefpn.sweeps.plan import wants_resume
from qefpn.text import one_line

if TYPE_CHECKING:
    from qefpn.experiments.assemble import Experiment

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
    """Read the overrides, then hand over to Hydra, which composes the configuration and calls :func:`train`.

    Returns:
        0; 1 where jobs of a multirun failed; 2 for a user's mistake; 128 and its number where a signal ended it.
    """
    if process_rank() > 0:  # the other processes of a run say nothing
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        argv = [_unquoted(word) for word in argv]
    dashed, overrides = split_flags(argv)
    dashed, overrides = search_config_dir(dashed, overrides)
    flags = [word.split("=")[0] for word in dashed if word.startswith("-")]
    if "-h" in flags or "--help" in flags:
        print(train_help(SUMMARY))
        return 0
    for flag in flags:
        if flag not in HYDRA_FLAGS:
            raise UserError(f"unknown option {flag}: there are -m (multirun), --config-dir DIR, --cfg job, --help")
    from qefpn.experiments.runtime import quiet_libraries  # here, since --help must answer at once

    quiet_libraries()
    if check_looks(dashed, overrides):
        return compose_and_call(dashed, overrides)
    if any(flag in MULTIRUN for flag in flags):
        from qefpn.sweeps.start import start_sweep

        return start_sweep(overrides, lambda given: compose_and_call(dashed, given))
    if wants_resume(overrides):
        raise UserError("sweep.resume goes on with a multirun: give -m and its hydra.sweep.dir (a run: resume=CKPT)")
    _given[:] = ["train", *argv]
    return compose_and_call(dashed, overrides, accept)


_given: list[str] = []
"""The command line, with which Lightning starts the other processes of a run."""


def compose_and_call(
    flags: Sequence[str], overrides: Sequence[str], accept: Callable[[DictConfig], None] | None = None
) -> int:
    """Let Hydra compose the configuration, and call :func:`train` with it or what the flags ask for.

    Args:
        flags: for Hydra, such as ``-m``.
        overrides: as given on the command line.
        accept: of :class:`qefpn.experiments.composition.Loader`.
    """
    from qefpn.experiments.composition import own_loader, refuse_axes
    from qefpn.training.last_checkpoint import Stopped

    quoted, parsed = read_overrides(overrides)
    if not any(flag in MULTIRUN for flag in flags):
        refuse_axes(quoted, parsed)
    former, sys.argv = sys.argv, [sys.argv[0], *flags, *quoted]
    full, os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR"), "1"  # errors come to us, untold
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # which --info sets for good
    try:
        with own_loader(accept):
            hydra.main(version_base="1.3", config_path="pkg://qefpn.conf", config_name="train")(train)()
    except Refused:
        return 2
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        print(f"qefpn train: ended by {name}; checkpoints/last.ckpt is where to go on from", file=sys.stderr)
        return 128 + stopped.number
    finally:
        sys.argv, root.handlers[:] = former, handlers
        root.setLevel(level)
        os.environ.pop("HYDRA_FULL_ERROR")
        if full is not None:
            os.environ["HYDRA_FULL_ERROR"] = full
    return 0


_accepted: list[Experiment] = []


def accept(config: DictConfig) -> None:
    """Assemble the run, or raise ``UserError`` for what cannot be trained, before anything is made."""
    from qefpn.experiments.assemble import assemble
    from qefpn.experiments.idle_keys import refuse_idle_keys
    from qefpn.experiments.schema import parse_config

    checked = parse_config(config)
    refuse_idle_keys(config.hydra.overrides.task, checked)
    _accepted[:] = [assemble(checked, Path(os.path.abspath(config.hydra.run.dir)))]


class Refused(SystemExit):
    """A run was told that it cannot be. Of an ``Exception`` Hydra prints more than a line."""


def train(config: DictConfig) -> float | None:
    """One run in Hydra's run directory, or one job of a sweep."""
    from qefpn.experiments.run import run

    settings = HydraConfig.get()
    if settings.mode == RunMode.MULTIRUN:
        from qefpn.sweeps.run import sweep_job

        return sweep_job(config, settings, run)
    sys.argv[1:] = _given
    try:
        run(_accepted.pop(), config)
    except UserError as error:
        print(f"qefpn train: {one_line(error)}", file=sys.stderr)
        raise Refused(2) from None
    return None


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and the rest: Hydra takes no flag between two overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    for number, word in enumerate(argv):
        belongs = number > 0 and argv[number - 1] in WITH_VALUE and "=" not in word
        (flags if word.startswith("-") or belongs else overrides).append(word)
    return flags, overrides


def check_looks(flags: Sequence[str], overrides: Sequence[str]) -> bool:
    """Whether Hydra is to show something and to run nothing. What it would show composes, as that of a run.

    Raises:
        UserError: flags that do not go together, or overrides that do not compose.
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
    if look == "--hydra-help" and overrides:
        raise UserError(f"--hydra-help tells of Hydra alone and takes no {overrides[0]}")
    return True


def search_config_dir(flags: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
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
        return kept, list(overrides)
    given = [word for word in overrides if word.startswith("hydra.searchpath=")]
    for word in given:
        places += [place for place in word.partition("=")[2].strip("[]").split(",") if place]
    return kept, [
        *(word for word in overrides if word not in given),
        f"hydra.searchpath=[{','.join(map(quoted, places))}]",
    ]


def quoted(place: str) -> str:
    """As Hydra's grammar takes any path."""
    return place if place[:1] in ("'", '"') else "'" + place.replace("'", "\\'") + "'"


def _unquoted(word: str) -> str:
    """Lightning hands its processes the run directory in quotes that no shell takes off."""
    key, _, value = word.partition("=")
    return f"{key}={value[1:-1]}" if key == "hydra.run.dir" and value[:1] == value[-1:] == '"' else word
