"""log.csv: one row a logged step, columns added as they appear; goes on after a resume."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only


class RunLog(Logger):
    """Writes ``log.csv`` with the columns ``step``, ``epoch``, ``seconds`` and one a logged quantity.

    Args:
        path: the file. Where it exists (a resumed run writes its own directory), rows are appended.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = Path(path)
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
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self._start, 3)}
        for key, value in metrics.items():
            row[key] = f"{value:.9g}" if isinstance(value, float) else value
        self._pending.append(row)
        if time.monotonic() - self._written > 2.0:  # a file operation a step would be felt by small networks
            self.save()

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
                with self.path.open(newline="") as file:
                    reader = csv.DictReader(file)
                    old = list(reader)
                    # a resumed run finds columns that this process has not logged yet
                    self._columns += [c for c in reader.fieldnames or [] if c not in self._columns]
            part = self.path.with_suffix(".csv.part")
            with part.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(old)
            os.replace(part, self.path)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerows(self._pending)
        self._pending.clear()
        self._written = time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()
