"""One job on several devices: a process a rank, started by ``torch.distributed.run`` or, in a Slurm job, by ``srun``,
with that job's own configuration.

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
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import FrameType

from qefpn.errors import UserError
from qefpn.sweeps.jobs import ERROR_FILE, write_error

RANKS_LOG = "ranks.log"
GRACE = 60.0
"""Seconds that ranks have for their checkpoint after SIGTERM."""


class RanksFailed(RuntimeError):
    """A rank of a job ended with an error; ``error.txt`` in the job's directory has its traceback."""


def run_ranks(
    directory: Path,
    devices: int,
    *,
    srun: Sequence[str] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Run the job whose ``config.yaml`` lies in ``directory`` on ``devices`` processes, and wait.

    Args:
        directory: of the job.
        devices: of this machine, or of each machine of a Slurm job.
        srun: the words that start a task a rank; None: ``torch.distributed.run`` does, on this machine.
        stopped: whether the ranks were told to stop by somebody else, asked where they ended otherwise than well.

    Raises:
        RanksFailed: a rank failed or was killed.
        Stopped: SIGTERM came; the ranks have written last.ckpt.
    """
    from qefpn.training.last_checkpoint import Stopped

    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    command = starter if srun is None else [*srun, sys.executable]
    command += ["-m", "qefpn.sweeps.ranks", os.path.abspath(directory)]
    terminated = False
    with (directory / RANKS_LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            # whose closing tells the ranks that nobody waits for them, see `end_with_launcher`; Slurm sees to it itself
            stdin=subprocess.PIPE if srun is None else subprocess.DEVNULL,
            stderr=log,
            env=rank_environment(os.environ) if srun is None else None,
            start_new_session=True,
        )

        def forward(number: int, frame: FrameType | None) -> None:
            nonlocal terminated
            terminated = True
            if srun is None:  # Slurm tells the ranks itself; srun would not let them end in peace
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
    if terminated or (code and stopped()):
        raise Stopped(signal.SIGTERM)
    if code:
        said = (directory / RANKS_LOG).read_text(encoding="utf-8", errors="replace")[-20_000:]
        # Its closing block names the rank that failed first; a killed one could say nothing itself.
        closing = said[max(0, said.find("\n=====")) :] if (directory / ERROR_FILE).exists() else said
        write_error(directory, f"{'torch.distributed.run' if srun is None else 'srun'}:\n{closing.strip()}")
        raise RanksFailed(f"a rank failed: {directory / ERROR_FILE}")


def rank_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the ranks: without Slurm's variables, from which Lightning would count one task."""
    kept = {key: value for key, value in environment.items() if not key.startswith("SLURM_")}
    kept.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    return kept


def adopt_task(environment: MutableMapping[str, str]) -> bool:
    """Put torchrun's variables in place of Slurm's where ``srun`` started this process as a rank; whether it did.

    Lightning would take Slurm's for an order to put the job back into the queue itself; that is done by the job's
    own process (:mod:`qefpn.sweeps.node`), and there must not be two.
    """
    if "SLURM_PROCID" not in environment or "RANK" in environment:
        return False
    found = {key: environment[key] for key in list(environment) if key.startswith("SLURM_")}
    for key in found:
        del environment[key]
    environment["RANK"] = found["SLURM_PROCID"]
    world = int(found["SLURM_NTASKS"])
    if world > 1:
        environment["WORLD_SIZE"] = str(world)
        environment["LOCAL_RANK"] = found["SLURM_LOCALID"]
        environment["LOCAL_WORLD_SIZE"] = str(world // int(found["SLURM_NNODES"]))
        environment["GROUP_RANK"] = found["SLURM_NODEID"]
        environment["TORCHELASTIC_RUN_ID"] = f"slurm-{found['SLURM_JOB_ID']}"  # by which Lightning knows torchrun
    return True


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
    if not adopt_task(os.environ):
        end_with_launcher()
    rank = int(os.environ["RANK"])
    if rank > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # one rank speaks for all
    from pytorch_lightning.utilities.exceptions import SIGTERMException

    from qefpn.experiments.assemble import assemble
    from qefpn.experiments.config_files import read_config
    from qefpn.experiments.run import run
    from qefpn.experiments.runtime import quiet_libraries

    quiet_libraries()
    try:
        run(assemble(read_config(directory / "config.yaml"), directory))
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
