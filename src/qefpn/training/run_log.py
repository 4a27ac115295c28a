"""log.csv: one row a logged step, columns added as they appear; goes on after a resume."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from qefpn.atomic import FULL, atomic_file, disk_is_full
from qefpn.errors import UserError


class RunLog(Logger):
    """A file that a resumed run goes on with, where Lightning's ``CSVLogger`` begins anew.

    It has the columns ``step``, ``epoch``, ``seconds`` and one a logged quantity, and no half row stays in it.

    Args:
        path: the file. What it holds from ``step`` on, a process left that was killed after its last checkpoint: it
            is taken out, since those steps are done again.
        step: the first step that is logged.
        validated: whether the weights before ``step`` were validated; where not, that is done again, too.
    """

    def __init__(self, path: Path, step: int = 0, validated: bool = False) -> None:
        super().__init__()
        self.path = Path(path)
        self._first, self._validated = step, validated
        self._columns: list[str] = ["step", "epoch", "seconds"]
        self._start = time.monotonic()
        self._pending: list[dict[str, Any]] = []
        self._written = 0.0

    @property
    def name(self) -> str:
        return "run"

    @property
    def version(self) -> str:
        return "0"

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self._start, 3)}
        for key, value in metrics.items():
            row[key] = f"{value:.9g}" if isinstance(value, float) else value
        self._pending.append(row)
        if time.monotonic() - self._written > 2.0:  # a file operation a step would be felt by small networks
            self.save()

    @rank_zero_only
    def cut(self) -> None:
        """Leave what was logged before the first step of this process."""
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8")
        text = text[: text.rfind("\n") + 1]  # a kill may leave half a row
        reader = csv.DictReader(io.StringIO(text))
        columns = list(reader.fieldnames or [])
        self._write_all(columns, [row for row in reader if self._stays(row)])

    def _stays(self, row: dict[str, str]) -> bool:
        step = int(row["step"])
        of_validation = any(value and key.startswith("val_") for key, value in row.items())
        return step < self._first - (of_validation and not self._validated)

    def _write_all(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        with atomic_file(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    @rank_zero_only
    def save(self) -> None:
        """Write what is pending."""
        if not self._pending:
            return
        new = [key for row in self._pending for key in row if key not in self._columns]
        exists = self.path.exists()
        if new or not exists:
            self._columns += list(dict.fromkeys(new))
            old = []
            if exists:
                with self.path.open(newline="", encoding="utf-8") as file:
                    reader = csv.DictReader(file)
                    old = list(reader)
                    # a resumed run finds columns that this process has not logged yet
                    self._columns += [c for c in reader.fieldnames or [] if c not in self._columns]
            self._write_all(self._columns, old)
        size = self.path.stat().st_size
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(self._pending)
        except OSError as error:
            os.truncate(self.path, size)  # no half row stays
            if error.errno in FULL:
                raise UserError(f"{self.path} cannot be written: {disk_is_full(self.path)}") from error
            raise
        self._pending.clear()
        self._written = time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
