"""best.ckpt: the weights that validation chose."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

from qefpn.atomic import copy_atomic

log = logging.getLogger(__name__)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, after every validation; a run that goes on elsewhere takes the best so far along.

    Args:
        directory: where ``best.ckpt`` is to lie.
        monitor: what is compared, ``val_...``; the largest is the best, of the mean absolute error the smallest.
    """

    def __init__(self, directory: Path, monitor: str) -> None:
        super().__init__(
            directory,
            filename="best",
            monitor=monitor,
            mode="min" if monitor.endswith("mae") else "max",
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=False,  # by then last.ckpt is written, and must know of it
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best of the run that is resumed; where its file is gone, with none."""
        best = Path(state_dict["best_model_path"]) if state_dict["best_model_path"] else None
        own = Path(str(self.dirpath)) / "best.ckpt"
        if best is not None and not best.is_file():
            if not own.is_file():
                log.warning("%s is gone: best.ckpt is chosen from what follows alone", best)
                return
            best = own  # the run directory was moved
        if best is not None and best.resolve() != own.resolve():
            rank_zero_only(copy_atomic)(best, own)
        score = state_dict["best_model_score"]
        found = {} if best is None or score is None else {str(own): score}
        super().load_state_dict(
            state_dict
            | {
                "dirpath": self.dirpath,
                "best_model_path": str(own) if found else "",
                "best_k_models": found,
                "kth_best_model_path": str(own) if found else "",
                "last_model_path": "",
            }
        )
