"""`qefpn train`: from a configuration to a trained network, scored test sets and a report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qefpn.commands.overrides import check_overrides, quote_paths
from qefpn.errors import UserError

HYDRA_FLAGS = ("-m", "--multirun", "--cfg", "-c", "--info", "-i", "--package", "-p", "--resolve")


def main(argv: Sequence[str]) -> int:
    """Check everything that can be checked without data, then hand over to Hydra."""
    words = [word for word in argv if word.startswith("-")]
    for word in words:
        if word.split("=")[0] not in (*HYDRA_FLAGS, "-h", "--help", "--hydra-help"):
            raise UserError(f"unknown option {word}: there are -m (multirun), --cfg job, --help")
    if not any(word in ("-h", "--help", "--hydra-help", "--cfg", "-c", "--info", "-i") for word in words):
        # Imported here: `qefpn train --help` must answer at once.
        from qefpn.training.build import check
        from qefpn.training.config import typed

        for config in check_overrides("train", [word for word in argv if not word.startswith("-")]):
            check(typed(config))
    sys.argv = ["qefpn train", *quote_paths(argv)]
    _STATUS["failed"] = False
    hydra.main(version_base="1.3", config_path="pkg://qefpn.conf", config_name="train")(job)()
    return 1 if _STATUS["failed"] else 0


_STATUS = {"failed": False}


def job(config: DictConfig) -> None:
    """One run in Hydra's run directory."""
    from qefpn.training.build import check
    from qefpn.training.config import typed

    settings = HydraConfig.get()
    try:
        checked = typed(config)
        check(checked)
        run(checked, Path(settings.runtime.output_dir))
    except UserError as error:
        if settings.mode == RunMode.MULTIRUN:  # a job's failure is its own; the sweep goes on
            print(f"qefpn train: job {settings.job.num}: {error}", file=sys.stderr)
            _STATUS["failed"] = True
            return
        print(f"qefpn train: {error}", file=sys.stderr)
        sys.exit(2)


def run(config, directory: Path) -> None:  # type: ignore[no-untyped-def]
    """Data, training, evaluation, report."""
    from qefpn.commands.evaluate import evaluate_run
    from qefpn.commands.prepare import prepare_data
    from qefpn.training.run import fit

    data = prepare_data(config, directory)
    checkpoint = fit(config, data, directory)
    if checkpoint is None:
        print("fast_dev_run: one batch of everything ran; nothing was kept")
        return
    print(f"trained: {checkpoint}")
    if config.evaluate:
        evaluate_run(config, checkpoint, data, directory, report=config.report)
