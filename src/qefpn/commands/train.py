"""`qefpn train`: from a configuration to a trained network, scored test sets and a report."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qefpn.commands.overrides import check_overrides, quote_paths, train_help
from qefpn.errors import UserError

if TYPE_CHECKING:
    from qefpn.training.config import TrainConfig

SUMMARY = """
qefpn train - train the quasi-equilibrium pyramid, then score the test sets

qefpn train data=duts data.root=DIR data.test=[ECSSD,DUTS-TE]
qefpn train experiment=small data=folder data.root=MY_PICTURES
qefpn train -m solver=broyden,anderson seed=0,1      a run for each combination
qefpn train --cfg job ...                            the configuration, without running
"""

MULTIRUN = ("-m", "--multirun")
WITH_VALUE = ("--cfg", "-c", "--info", "-i", "--package", "-p")
LOOK = ("--cfg", "-c", "--info", "-i", "--hydra-help")
HYDRA_FLAGS = (*MULTIRUN, *WITH_VALUE, "--hydra-help", "--resolve")


def main(argv: Sequence[str]) -> int:
    """Check everything that can be checked without data, then hand over to Hydra.

    Returns:
        0; 1 where jobs of a multirun failed; 2 for a user's mistake.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:  # the other processes of a run say nothing
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        argv = [_unquoted(word) for word in argv]
    dashed, words = split_flags(argv)
    flags = [word.split("=")[0] for word in dashed if word.startswith("-")]
    if "-h" in flags or "--help" in flags:
        print(train_help(SUMMARY))
        return 0
    for flag in flags:
        if flag not in HYDRA_FLAGS:
            raise UserError(f"unknown option {flag}: there are -m (multirun), --cfg job, --help")
    from qefpn.commands.runtime import quiet_libraries  # here, since --help must answer at once

    quiet_libraries()
    if not any(flag in LOOK for flag in flags):
        from qefpn.training.build import check
        from qefpn.training.config import typed

        for config in check_overrides("train", words, multirun=any(flag in MULTIRUN for flag in flags)):
            check(typed(config))
    _STATUS.update(code=0, failed=[], words=["train", *argv])
    given, sys.argv = sys.argv, [sys.argv[0], *dashed, *quote_paths(words)]
    try:
        hydra.main(version_base="1.3", config_path="pkg://qefpn.conf", config_name="train")(job)()
    finally:
        sys.argv = given
    if _STATUS["failed"]:
        jobs = ", ".join(map(str, _STATUS["failed"]))
        print(f"qefpn train: failed: job {jobs}; the other jobs are done", file=sys.stderr)
    return int(_STATUS["code"])


def split_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and the rest: Hydra takes no flag between two of its words."""
    flags: list[str] = []
    words: list[str] = []
    for number, word in enumerate(argv):
        belongs = number > 0 and argv[number - 1] in WITH_VALUE and "=" not in word
        (flags if word.startswith("-") or belongs else words).append(word)
    return flags, words


def _unquoted(word: str) -> str:
    """Lightning hands its processes the run directory in quotes that no shell takes off."""
    key, _, value = word.partition("=")
    return f"{key}={value[1:-1]}" if key == "hydra.run.dir" and value[:1] == value[-1:] == '"' else word


_STATUS: dict[str, Any] = {"code": 0, "failed": [], "words": []}


def job(config: DictConfig) -> None:
    """One run in Hydra's run directory. In a multirun a job's failure is its own; the others go on."""
    from qefpn.training.build import check, device_count
    from qefpn.training.config import typed

    settings = HydraConfig.get()
    multirun = settings.mode == RunMode.MULTIRUN
    try:
        checked = typed(config)
        if multirun:  # main saw every choice, but not every combination
            check(checked)
            if device_count(checked) > 1 and "RANK" not in os.environ:
                raise UserError("a multirun takes one device a job: give trainer.devices=1, or run the jobs one by one")
        sys.argv[1:] = _STATUS["words"]  # with which Lightning starts the other processes of this run
        run(checked, Path(settings.runtime.output_dir))
    except UserError as error:
        where = f"job {settings.job.num}: " if multirun else ""
        print(f"qefpn train: {where}{error}", file=sys.stderr)
        if not multirun:
            _STATUS["code"] = 2
            return
    except Exception:
        if not multirun:
            raise
        traceback.print_exc()
    else:
        return
    _STATUS["code"] = 1
    _STATUS["failed"].append(settings.job.num)


def run(config: TrainConfig, directory: Path) -> None:
    """Data, training, evaluation, report."""
    from qefpn.commands.evaluate import evaluate_run
    from qefpn.commands.prepare import prepare_data
    from qefpn.training.run import fit

    data = prepare_data(config, directory)
    checkpoint = fit(config, data, directory)
    if int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) > 0:
        return  # one process evaluates
    if checkpoint is None:
        print("fast_dev_run: one batch of everything ran; nothing was kept")
        return
    print(f"trained: {checkpoint}")
    if config.evaluate:
        evaluate_run(
            config,
            checkpoint,
            data,
            directory,
            report=config.report,
            device="cpu" if config.trainer.accelerator == "cpu" else "auto",
            limit=config.trainer.limit_test_batches,
        )
