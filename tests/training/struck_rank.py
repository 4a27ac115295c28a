"""One process of a run on several that a signal strikes: `struck_rank RANK MOMENT SIGNAL DIRECTORY WORD...`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.training.breaking import at_moment, signalled

import qefpn.data.datamodule as datamodule
from qefpn.cli import main


def count_looks(directory: Path) -> None:
    """Let each process that looks at a data set write its rank."""
    load = datamodule.load_set

    def load_set(*args: Any, **kwargs: Any) -> Any:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "looked.txt").open("a") as file:
            file.write(os.environ["RANK"] + "\n")
        return load(*args, **kwargs)

    datamodule.load_set = load_set


if __name__ == "__main__":
    rank, moment, number, folder, *given = sys.argv[1:]
    struck = os.environ["RANK"] == rank
    at_moment(int(moment) if struck else 0, signalled(int(number)), save_every=0.0)
    count_looks(Path(folder))
    sys.exit(main(given))
