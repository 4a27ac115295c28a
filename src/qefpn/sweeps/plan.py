"""A sweep's own file, ``sweep.json``: what it is, so that it can be gone on with and not be mixed with another."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import Override

from qefpn.atomic import write_atomic
from qefpn.errors import UserError
from qefpn.experiments.ablations import key_of

SWEEP_FILE = "sweep.json"
DEFAULT = "multirun/train/${now:%Y-%m-%d_%H-%M-%S}"
SWEEP_DIR = "hydra.sweep.dir"


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep is.

    Attributes:
        words: its overrides without those that say where and how it runs (``hydra.``, ``hydra/``, ``sweep.``).
        axes: the keys that differ between its jobs.
        jobs: how many there are; None where a search decides.
    """

    words: list[str]
    axes: list[str]
    jobs: int | None


def plan_of(words: Sequence[str], overrides: Sequence[Override]) -> SweepPlan:
    """The plan behind the words of a multirun, and what Hydra reads in them (one override a word)."""
    own = [word for word in words if not key_of(word).startswith(("hydra.", "hydra/", "sweep."))]
    axes = [override for override in overrides if override.is_sweep_override()]
    search = any(not override.is_discrete_sweep() for override in axes)
    jobs = (
        None
        if search or chosen(words, "hydra/sweeper") != "basic"
        else math.prod(len(list(axis.sweep_string_iterator())) for axis in axes)
    )
    return SweepPlan(own, [str(axis.key_or_group) for axis in axes], jobs)


def sweep_directory(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Where a multirun writes, and the words that say so to Hydra.

    Raises:
        UserError: for interpolations other than ``${now:...}``.
    """
    given = [word.partition("=")[2] for word in words if word.startswith(f"{SWEEP_DIR}=")]
    text = re.sub(r"\$\{now:([^}]*)\}", lambda found: time.strftime(found[1]), given[-1] if given else DEFAULT)
    if "${" in text:
        raise UserError(f"{SWEEP_DIR}={text}: of Hydra's interpolations it takes ${{now:...}} alone")
    if given and text == given[-1]:
        return Path(text), list(words)
    return Path(text), [*(word for word in words if not word.startswith(f"{SWEEP_DIR}=")), f"{SWEEP_DIR}={text}"]


def sweep_flag(words: Sequence[str], name: str, *, default: bool) -> bool:
    """What ``sweep.NAME`` says.

    Raises:
        UserError: for a value that is neither true nor false.
    """
    values = [word.partition("=")[2].lower() for word in words if key_of(word) == f"sweep.{name}"]
    if values and values[-1] not in ("true", "false"):
        raise UserError(f"sweep.{name} must be true or false, not {values[-1]!r}")
    return values[-1] == "true" if values else default


def wants_resume(words: Sequence[str]) -> bool:
    """Whether ``sweep.resume`` is on."""
    return sweep_flag(words, "resume", default=False)


def chosen(words: Sequence[str], group: str) -> str:
    """The option of ``hydra/launcher`` or ``hydra/sweeper``."""
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{group}=")), "basic")


def waits(words: Sequence[str]) -> bool:
    """Whether the command stays until all jobs have ended.

    Raises:
        UserError: it is not to, and nothing else would run them.
    """
    wait = sweep_flag(words, "wait", default=True)
    launcher, sweeper = chosen(words, "hydra/launcher"), chosen(words, "hydra/sweeper")
    if not wait and launcher != "slurm":
        raise UserError(f"sweep.wait=false leaves jobs to a cluster: hydra/launcher={launcher} runs them itself")
    if not wait and sweeper != "basic":
        raise UserError(f"sweep.wait=false: hydra/sweeper={sweeper} chooses jobs by the scores of those before")
    return wait


class SweepRefused(SystemExit):
    """A launcher or sweeper cannot do its work, by a user's mistake. Of an ``Exception`` Hydra prints a traceback."""


def claim(directory: Path, plan: SweepPlan, *, resume: bool) -> None:
    """Write ``sweep.json``, or find this very sweep there.

    Raises:
        UserError: the directory belongs to another sweep, or to this one and ``resume`` is off.
    """
    path = directory / SWEEP_FILE
    former = read_plan(directory)
    if former is None and path.exists():
        raise UserError(f"{path} cannot be read: choose another {SWEEP_DIR}")
    if former is not None:
        if former.words != plan.words:
            differ = [word for word in plan.words if word not in former.words]
            differ += [f"not {word}" for word in former.words if word not in plan.words]
            raise UserError(
                f"{SWEEP_DIR}={directory} holds another sweep ({'; '.join(differ) or 'its axes in another order'}): "
                "choose another directory, or give its options"
            )
        if not resume:
            raise UserError(
                f"{SWEEP_DIR}={directory} holds this sweep already: "
                "sweep.resume=true goes on with it; or choose another directory"
            )
        return
    if resume and directory.is_dir() and any(directory.iterdir()):
        raise UserError(f"{SWEEP_DIR}={directory} holds no sweep that could be gone on with ({SWEEP_FILE} is missing)")
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(dataclasses.asdict(plan), indent=1))


def release(directory: Path) -> None:
    """Take back :func:`claim`."""
    (directory / SWEEP_FILE).unlink()


def read_plan(directory: Path) -> SweepPlan | None:
    """What :func:`claim` wrote; None where there is nothing like it."""
    try:
        return SweepPlan(**json.loads((directory / SWEEP_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
