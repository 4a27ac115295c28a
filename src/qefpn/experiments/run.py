"""One run of `qefpn train`: data, training, test, report."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from qefpn.atomic import write_atomic
from qefpn.experiments.assemble import Experiment
from qefpn.experiments.command_line import process_rank
from qefpn.experiments.fitting import claim, fit, leave
from qefpn.experiments.loggers import open_loggers
from qefpn.experiments.prepare import prepare_data
from qefpn.experiments.scoring import score


def run(experiment: Experiment, composed: DictConfig | None = None) -> None:
    """Data, training, test, report.

    Args:
        experiment: assembled.
        composed: what Hydra composed, which is kept in ``.hydra``; None where no job of Hydra's is run.
    """
    config, directory, data = experiment.config, experiment.directory, experiment.data
    claim(config, directory)
    if composed is not None and process_rank() == 0 and not config.trainer.fast_dev_run:
        keep_composed(composed, directory)
    if process_rank() == 0:
        prepare_data(config, directory, data=data)
    with open_loggers(config, directory) as loggers:
        fitted = fit(experiment, loggers)
        if fitted.checkpoint is None:
            print("fast_dev_run: one batch of everything ran; nothing was kept")
        else:
            print(f"trained: {fitted.checkpoint}")
        if fitted.checkpoint is not None and config.evaluate:
            score(config, fitted, data, directory, floors=config.floors is not False)
        leave(fitted.trainer, data)


def keep_composed(composed: DictConfig, directory: Path) -> None:
    """What Hydra composed and was given, in ``.hydra``, as it keeps them itself, once ``directory`` is known to be this
    run's."""
    settings = HydraConfig.get()
    for name, content in (
        ("config", composed),
        ("hydra", OmegaConf.create({"hydra": OmegaConf.to_container(settings, resolve=False)})),
        ("overrides", settings.overrides.task),
    ):
        write_atomic(directory / ".hydra" / f"{name}.yaml", OmegaConf.to_yaml(content))
