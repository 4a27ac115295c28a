"""MLflow's run of a job: where it is kept, what it is called, and how one that goes on stays one run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import MLFlowLogger

from qefpn.errors import UserError
from qefpn.experiments.schema import LoggerConfig, TrainConfig
from qefpn.text import one_line

STORE, RUN_ID = "mlruns", "run_id"
ADDRESS = "MLFLOW_TRACKING_URI"


def goes_on_in(config: TrainConfig, directory: Path) -> bool:
    """Whether a job goes on from a checkpoint of its own directory."""
    return config.resume is not None and directory.resolve() in Path(config.resume).expanduser().resolve().parents


def mlflow_names(config: TrainConfig, options: LoggerConfig, directory: Path) -> dict[str, Any]:
    """What Lightning's MLFlowLogger is given where the configuration does not say otherwise.

    Without a server the store is a folder in the run directory: MLflow keeps such stores working, and wants to be told
    so.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a run tells nobody but whom the user named
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    id_file = directory / STORE / RUN_ID
    goes_on = goes_on_in(config, directory) and id_file.is_file()
    tags = [*options.tags] or ([f"ablation={config.ablation['name']}"] if config.ablation else [])
    tags += [f"group={options.group}"] if options.group else []
    return {
        "experiment_name": options.project,
        "run_name": (options.run_name or directory.resolve().name)[:250],
        "tracking_uri": os.environ.get(ADDRESS) or (directory.resolve() / STORE).as_uri(),
        "tags": {tag.partition("=")[0]: tag.partition("=")[2] or "true" for tag in tags},
        "run_id": id_file.read_text(encoding="utf-8").strip() if goes_on else None,
    }


def start_mlflow(logger: MLFlowLogger, directory: Path) -> None:
    """Begin the run, or go on with it.

    Raises:
        UserError: the store cannot be reached, or has no such run.
    """
    from mlflow.exceptions import MlflowException

    log = logging.getLogger("pytorch_lightning.loggers.mlflow")  # which warns of an experiment that is new
    level, named = log.level, os.environ.get(ADDRESS)
    log.setLevel(logging.ERROR)
    try:
        run = logger.run_id
        logger.experiment.update_run(run, status="RUNNING")
    except (MlflowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            one_line(f"logger=mlflow: MLflow starts no run ({reason}); logger.mlflow.tracking_uri names another store")
        ) from None
    finally:
        log.setLevel(level)
        # Lightning's logger has MLflow set it to this run's store, where the jobs to come would end, too
        os.environ.pop(ADDRESS, None)
        if named is not None:
            os.environ[ADDRESS] = named
    file = directory / STORE / RUN_ID
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{run}\n", encoding="utf-8")


def tell_mlflow(logger: MLFlowLogger, content: Mapping[str, Any]) -> None:
    """The configuration: a parameter a key (``optimizer/lr``), and whole as the artifact config.yaml. What a run that
    goes on was begun with stays among its parameters, which MLflow lets nobody change."""
    there = logger.experiment.get_run(logger.run_id).data.params
    logger.log_hyperparams({key: value for key, value in _flat(content).items() if key not in there})
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)
    logger.experiment.log_text(logger.run_id, text, "config.yaml")


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}/")
        else:
            out[f"{prefix}{key}"] = str(value)  # an empty list would be left out
    return out
