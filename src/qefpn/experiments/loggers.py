"""The loggers that a configuration names, Lightning's own or anybody's: open from start to end, on rank 0."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from qefpn.errors import UserError
from qefpn.experiments.config_files import config_content, verbatim
from qefpn.experiments.mlflow_runs import goes_on_in, mlflow_names, start_mlflow, tell_mlflow
from qefpn.experiments.schema import LoggerConfig, TrainConfig, known_keys, unknown_key
from qefpn.parts import TARGET, build_part

DATA_DIR = "WANDB_DATA_DIR"
NEEDED = {"TensorBoardLogger": "tensorboard", "MLFlowLogger": "mlflow"}
"""Class of a logger → its package, and the extra that brings it."""
OFFLINE = "give logger.offline=true (`wandb sync RUN/wandb/offline-run-*` sends it later)"


@contextlib.contextmanager
def open_loggers(config: TrainConfig, directory: Path) -> Iterator[list[Logger]]:
    """What ``logger=`` names beside log.csv, told of the configuration, and closed however the run ends.

    Args:
        config: checked (:func:`check_loggers` among the rest).
        directory: of the run, their ``save_dir``.

    Yields:
        loggers for ``pl.Trainer``; none on ranks above 0 and for ``fast_dev_run``, which keeps nothing.

    Raises:
        UserError: one cannot be started.
    """
    loggers: list[Logger] = []
    try:
        if getattr(rank_zero_only, "rank", 0) == 0 and not config.trainer.fast_dev_run:
            directory.mkdir(parents=True, exist_ok=True)
            content = config_content(config)
            for logger in build_loggers(config, directory):
                _start(logger, content, directory)
                loggers.append(logger)
                if isinstance(logger, MLFlowLogger):
                    tell_mlflow(logger, content)
                else:
                    logger.log_hyperparams(content)
        yield loggers
    except BaseException:
        _end(loggers, exit_code=1)
        raise
    _end(loggers, exit_code=0)


def build_loggers(config: TrainConfig, directory: Path) -> Iterator[Logger]:
    """The loggers of the group ``logger``, not started. Where their ``save_dir`` is null, it is ``directory``.

    Raises:
        UserError: no such logger, options that it refuses, or its package is missing.
    """
    options = logger_options(config)
    for name, node in config.logger.items():
        if not isinstance(node, dict):
            continue
        kind = str(node.get(TARGET)).rpartition(".")[2]
        package = NEEDED.get(kind)
        if package is not None and importlib.util.find_spec(package) is None:
            raise UserError(
                f"logger={name} needs the package {package}: pip install 'qefpn[{package}]', "
                "or give logger=csv or logger=wandb"
            )
        names: dict[str, Any] = {}
        if kind == "WandbLogger":
            names = _wandb_names(config, options, directory)
        elif kind == "MLFlowLogger":
            node = {key: value for key, value in node.items() if key != "tracking_uri" or value is not None}
            names = mlflow_names(config, options, directory)
        given: dict[str, Any] = {key: value for key, value in names.items() if key not in node}
        if "save_dir" in node and node["save_dir"] is None:
            given["save_dir"] = str(directory)
        own = {key: value for key, value in node.items() if key not in given}
        yield build_part(own, Logger, f"logger.{name}", **given)  # type: ignore[type-abstract]


def check_loggers(config: TrainConfig) -> None:
    """Raise ``UserError`` where a chosen logger cannot work: as :func:`build_loggers`, and where wandb has no login."""
    options = logger_options(config)
    if not 0 <= options.pictures <= 64:
        raise UserError(f"logger.pictures must be within 0 to 64, not {options.pictures}")
    with tempfile.TemporaryDirectory() as nowhere:  # where MLflow's makes its store at once
        for logger in build_loggers(config, Path(nowhere)):
            if isinstance(logger, WandbLogger) and not _is_offline(options) and not _has_login():
                raise UserError(f"logger=wandb has no login: run `wandb login`, set WANDB_API_KEY, or {OFFLINE}")


def logger_options(config: TrainConfig) -> LoggerConfig:
    """The keys of the group ``logger`` beside the loggers themselves, with their types checked.

    Raises:
        UserError: one line naming the key.
    """
    given = {key: value for key, value in config.logger.items() if value is not None and not isinstance(value, dict)}
    try:
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LoggerConfig), verbatim(given)))
    except ConfigKeyError as error:
        raise UserError(unknown_key(f"logger.{error.full_key}", known_keys())) from None
    except OmegaConfBaseException as error:
        raise UserError(f"logger.{error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(result, LoggerConfig)
    return result


def _wandb_names(config: TrainConfig, options: LoggerConfig, directory: Path) -> dict[str, Any]:
    """What names a wandb run. One that goes on in its own directory stays one run; offline, wandb cannot add to one."""
    id_file = directory / "wandb" / "run_id"
    goes_on = goes_on_in(config, directory) and not _is_offline(options) and id_file.is_file()
    tags = options.tags or ([f"ablation={config.ablation['name']}"] if config.ablation else [])
    return {
        "project": options.project,
        "entity": options.entity,
        "group": (options.group or "")[:128] or None,  # longer names are refused by the server
        "name": (options.run_name or directory.resolve().name)[:128],
        "tags": [tag[:64] for tag in tags] or None,
        "id": id_file.read_text(encoding="utf-8").strip() if goes_on else uuid.uuid4().hex[:8],
        "resume": "allow" if goes_on else None,
        "mode": "offline" if options.offline else None,  # its own `offline` would set WANDB_MODE for the jobs to come
    }


def _start(logger: Logger, content: dict[str, Any], directory: Path) -> None:
    """Begin the run of a logger.

    Raises:
        UserError: it refuses its options, or cannot be reached.
    """
    if isinstance(logger, WandbLogger):
        _start_wandb(logger, directory)
    elif isinstance(logger, MLFlowLogger):
        start_mlflow(logger, directory)
    elif isinstance(logger, TensorBoardLogger):
        try:
            str(directory.resolve()).encode()
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            logger.experiment.add_text("config", "    " + text.replace("\n", "\n    "))  # Markdown for code
        except UnicodeEncodeError:
            raise UserError(
                f"logger=tensorboard: TensorBoard writes to no directory of such a name: {directory}; "
                "give another hydra.run.dir, or logger=csv"
            ) from None
        except TypeError as error:
            raise UserError(f"logger.tensorboard: {error}") from None


def _start_wandb(logger: WandbLogger, directory: Path) -> None:
    import wandb

    try:
        run = logger.experiment
    except TypeError as error:
        raise UserError(f"logger.wandb: {error}") from None
    except wandb.errors.Error as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"logger=wandb: wandb starts no run ({reason}); {OFFLINE}") from None
    # Where wandb keeps the pictures of tables until they are sent; its own place is the home. Set while the run is open
    # only: it complains of an environment that has changed when the next one begins.
    if run.offline:
        os.environ.setdefault(DATA_DIR, _data_dir(logger))
    (directory / "wandb").mkdir(exist_ok=True)
    (directory / "wandb" / "run_id").write_text(f"{run.id}\n", encoding="utf-8")


def _data_dir(logger: WandbLogger) -> str:
    return str(Path(logger.save_dir or "", "wandb").resolve())


def _end(loggers: Sequence[Logger], exit_code: int) -> None:
    """Write everything out and end each run, also where one fails at it; a run that failed says so."""
    with contextlib.ExitStack() as stack:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                if os.environ.get(DATA_DIR) == _data_dir(logger):
                    stack.callback(os.environ.pop, DATA_DIR)
                stack.callback(logger.experiment.finish, exit_code=exit_code)
                continue
            stack.callback(logger.finalize, "failed" if exit_code else "success")
            if isinstance(logger, TensorBoardLogger) and exit_code:
                stack.callback(logger.experiment.add_text, "failed", f"the run ended with exit code {exit_code}")


def _is_offline(options: LoggerConfig) -> bool:
    """Whether nothing is sent: ``logger.offline=true``, or wandb's own ``WANDB_MODE``."""
    return options.offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")


def _has_login() -> bool:
    import wandb

    with contextlib.redirect_stderr(io.StringIO()):  # our own line says what to do
        return bool(os.environ.get("WANDB_API_KEY") or wandb.login(prompt=False, verify=False))
