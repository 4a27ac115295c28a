"""One job on several devices: a process a rank, started by ``torch.distributed.run`` with that job's own configuration.

Lightning's own launcher repeats the command line, which under ``-m`` is the whole sweep. Here a rank reads
``config.yaml`` of its job's directory, and knows of no other job.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from qefpn.commands.sweep_jobs import ERROR_FILE, write_error
from qefpn.errors import UserError

RANKS_LOG = "ranks.log"
GRACE = 60.0
"""Seconds that ranks have for their checkpoint after SIGTERM."""


class RanksFailed(RuntimeError):
    """A rank of a job ended with an error; ``error.txt`` in the job's directory has its traceback."""


def run_ranks(directory: Path, devices: int) -> None:
    """Run the job whose ``config.yaml`` lies in ``directory`` on ``devices`` processes, and wait.

    Raises:
        RanksFailed: a rank failed or was killed.
        SIGTERMException: SIGTERM came; the ranks have written last.ckpt.
    """
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    command += ["-m", "qefpn.commands.sweep_ranks", os.path.abspath(directory)]
    terminated = False
    with (directory / RANKS_LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # whose closing tells the ranks that nobody waits for them, see `end_with_launcher`
            stderr=log,
            env=rank_environment(os.environ),
            start_new_session=True,
        )

        def forward(number: int, frame: FrameType | None) -> None:
            nonlocal terminated
            terminated = True
            process.send_signal(signal.SIGTERM)

        former = signal.signal(signal.SIGTERM, forward)
        try:
            code = process.wait()
        except BaseException:  # Ctrl-C: the ranks stop as for SIGTERM
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            signal.signal(signal.SIGTERM, former)
            if process.stdin is not None:
                process.stdin.close()
    if terminated:
        raise SIGTERMException
    if code:
        said = (directory / RANKS_LOG).read_text(encoding="utf-8", errors="replace")[-20_000:]
        # Its closing block names the rank that failed first; a killed one could say nothing itself.
        closing = said[max(0, said.find("\n=====")) :] if (directory / ERROR_FILE).exists() else said
        write_error(directory, f"torch.distributed.run:\n{closing.strip()}")
        raise RanksFailed(f"a rank failed: {directory / ERROR_FILE}")


def rank_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the ranks: without Slurm's variables, from which Lightning would count one task."""
    kept = {key: value for key, value in environment.items() if not key.startswith("SLURM_")}
    kept.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    return kept


def end_with_launcher() -> None:
    """End this rank as soon as the process that started the job is gone, killed ones included.

    That process holds the other end of the standard input that all ranks share, and writes nothing to it: the
    system closes it however the process ends. An orphan would go on writing into a directory in which a resumed
    sweep trains anew.
    """
    source = sys.stdin.fileno()

    def watch() -> None:
        while os.read(source, 4096):
            pass
        print("the process that started this rank is gone: the rank ends", file=sys.stderr, flush=True)
        os._exit(1)  # last.ckpt is whole at any time; the main thread may wait for another rank for ever

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()


def main(argv: Sequence[str]) -> int:
    """One rank."""
    directory = Path(argv[0])
    rank = int(os.environ["RANK"])
    end_with_launcher()
    if rank > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # one rank speaks for all
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from qefpn.commands.runtime import quiet_libraries
    from qefpn.commands.train import run
    from qefpn.training.run import read_ablation, read_config

    quiet_libraries()
    try:
        path = directory / "config.yaml"
        label: dict[str, Any] | None = read_ablation(path)
        run(read_config(path), directory, label)
    except UserError as error:
        if rank == 0:
            write_error(directory, str(error))
        return 2
    except SIGTERMException:
        return 143
    except Exception:
        write_error(directory, traceback.format_exc(), rank)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
