"""wandb: one run a job, sent or kept offline."""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qefpn.errors import UserError
from qefpn.experiments.config_files import config_content
from qefpn.experiments.schema import TrainConfig
from qefpn.training.validation_pictures import PARTS, Panel

if TYPE_CHECKING:
    from qefpn.experiments.tracking import SetScores

STEP = "trainer/global_step"
"""The x axis of everything that is logged, as Lightning calls it."""

DATA_DIR = "WANDB_DATA_DIR"

OFFLINE = "give logger.offline=true (`wandb sync RUN/wandb/offline-run-*` sends it later)"


class WandbTracker:
    """A wandb run below the run directory, with the resolved configuration.

    Args:
        config: of the run; ``logger.group``, ``logger.run_name`` and ``logger.tags`` name it (a multirun sets the
            sweep, the overrides that differ and the ablation there).
        directory: of the run.

    Raises:
        UserError: wandb cannot start a run.
    """

    def __init__(self, config: TrainConfig, directory: Path) -> None:
        import wandb
        from pytorch_lightning.loggers import WandbLogger

        options, offline = config.logger, is_offline(config)
        tags = options.tags or ([f"ablation={config.ablation['name']}"] if config.ablation else [])
        id_file = directory / "wandb" / "run_id"
        # A run that goes on in its own directory stays one run; offline, wandb cannot add to one.
        own = config.resume is not None and directory.resolve() in Path(config.resume).expanduser().resolve().parents
        goes_on = own and not offline and id_file.is_file()
        identity = id_file.read_text(encoding="utf-8").strip() if goes_on else uuid.uuid4().hex[:8]
        content = config_content(config)
        try:
            self.run = wandb.init(
                project=options.project,
                entity=options.entity,
                group=(options.group or "")[:128] or None,  # longer names are refused by the server
                name=(options.run_name or directory.resolve().name)[:128],
                tags=[tag[:64] for tag in tags] or None,
                config=content,
                dir=str(directory),
                id=identity,
                resume="allow" if goes_on else None,
                mode="offline" if options.offline else None,
            )
        except wandb.errors.Error as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(f"logger={options.name}: wandb starts no run ({reason}); {OFFLINE}") from None
        # Where wandb keeps the pictures of tables until they are sent; its own place is the home. Set while the run is
        # open only: it complains of an environment that has changed when the next one begins.
        self._data_dir = offline and DATA_DIR not in os.environ
        if self._data_dir:
            os.environ[DATA_DIR] = str((directory / "wandb").resolve())
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP, step_sync=True)
        id_file.parent.mkdir(exist_ok=True)
        id_file.write_text(identity + "\n", encoding="utf-8")
        self.logger = WandbLogger(experiment=self.run, save_dir=directory, project=options.project)

    def pictures(self, panels: Sequence[Panel], step: int) -> None:
        """A table with a row a picture, under ``val_pictures``."""
        import wandb
        from PIL import Image

        table = wandb.Table(columns=["step", "name", *PARTS])
        for panel in panels:
            drawn = [
                wandb.Image(Image.fromarray(getattr(panel, part)), file_type="jpg" if part == "picture" else "png")
                for part in PARTS
            ]
            table.add_data(step, panel.name, *drawn)
        self.run.log({"val_pictures": table, STEP: step})

    def scores(self, scores: Sequence[SetScores], step: int) -> None:
        """``test/SET/METRIC``, and under ``curves/SET`` precision over recall and F-measure over threshold."""
        import wandb

        logged: dict[str, Any] = {STEP: step}
        for one in scores:
            logged |= {f"test/{one.dataset}/{key}": value for key, value in one.metrics.items()}
            if not one.curves:
                continue
            names, curves = list(one.curves), list(one.curves.values())
            logged[f"curves/{one.dataset}/precision_recall"] = wandb.plot.line_series(
                xs=[curve["recall"] for curve in curves],
                ys=[curve["precision"] for curve in curves],
                keys=names,
                title=f"{one.dataset}: precision over recall",
                xname="recall",
            )
            logged[f"curves/{one.dataset}/f_measure"] = wandb.plot.line_series(
                xs=[[*range(len(curve["f_curve"]) - 1, -1, -1)] for curve in curves],
                ys=[curve["f_curve"] for curve in curves],
                keys=names,
                title=f"{one.dataset}: F-measure over threshold",
                xname="threshold",
            )
        self.run.log(logged)

    def finish(self, exit_code: int) -> None:
        """End the run; the next job of a multirun is another one."""
        try:
            self.run.finish(exit_code=exit_code)
        finally:
            if self._data_dir:
                os.environ.pop(DATA_DIR, None)


def require_login(config: TrainConfig) -> None:
    """Raise ``UserError`` where a run is to be sent to wandb and no login is there."""
    if not is_offline(config) and not _has_login():
        raise UserError(f"logger={config.logger.name} has no login: run `wandb login`, set WANDB_API_KEY, or {OFFLINE}")


def is_offline(config: TrainConfig) -> bool:
    """Whether nothing is sent: ``logger.offline=true``, or wandb's own ``WANDB_MODE``."""
    return config.logger.offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")


def _has_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    try:
        with contextlib.redirect_stderr(io.StringIO()):  # our own line says what to do
            return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # an older wandb
        return bool(wandb.api.api_key)
