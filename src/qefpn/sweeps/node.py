"""One job of a sweep as a Slurm job: what its batch script runs, on the first of its machines.

It starts a task a rank (``srun``) and stays beside them. Slurm puts a job back into the queue by itself only where that
is still running at the end of its grace; ranks that write last.ckpt and end in time are over for it. So this process
puts it back: where a job of a higher partition pushed it out, and where its time is up.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType

from qefpn.sweeps.jobs import JobRecord, read_job, write_error

PATIENCE = 60.0
"""Seconds that a started job waits to find its number in job.json, which is written when sbatch has answered."""
AGAIN = 5.0
"""Seconds after which ranks that run on are told again."""


class Allocation:
    """The Slurm job that this process is in.

    Args:
        delay: seconds before its time limit at which its time counts as up.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self.number = os.environ["SLURM_JOB_ID"]
        self.delay = delay
        self.timed_out = False
        self.stopping = False  # to end, which is not done twice
        self.has_ranks = False
        self._due = math.inf

    def listen(self) -> None:
        """SIGUSR1 (soon the time is up) and SIGTERM end the ranks, or this process where there are none.

        The batch script ignores both from its first line, and what came before this call is lost. So the clock is
        watched, too, and the caller asks :meth:`stopped_before`.
        """
        signal.signal(signal.SIGUSR1, self._note_timeout)
        signal.signal(signal.SIGTERM, self._end)
        self._due = self._ask_due()
        threading.Thread(target=self._watch, name="time-limit", daemon=True).start()

    def _note_timeout(self, number: int, frame: FrameType | None) -> None:
        self.timed_out = True
        if not self.has_ranks:
            self._end(number, frame)

    def _end(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            return
        self.stopping = True
        raise SystemExit(143)  # as Lightning's own, which may not be imported yet

    def _watch(self) -> None:
        """Tell whoever runs when the time is up, again and again: a task that is just being started hears nothing."""
        while not self.timed_out:
            if time.time() >= self._due:
                self._due = self._ask_due()  # somebody may have granted more
                self.timed_out = time.time() >= self._due
            time.sleep(0.5)
        while not self.stopping:
            if self.has_ranks:  # as at any other end: SIGTERM to them alone
                subprocess.run(["scancel", "--signal=TERM", self.number], capture_output=True)
            else:
                os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(AGAIN)

    def _ask_due(self) -> float:
        """When the time is up; a minute from now where the controller does not answer."""
        end = self.shown().get("EndTime", "")
        try:
            return datetime.fromisoformat(end).timestamp() - self.delay
        except ValueError:
            return math.inf if end == "Unknown" else time.time() + PATIENCE

    def shown(self) -> dict[str, str]:
        """What the controller says of the job, by name; a controller that is busy, or starts anew, is asked again."""
        words = ["scontrol", "--oneliner", "show", "job", self.number]
        standard = {**os.environ, "SLURM_TIME_FORMAT": "standard"}
        until = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(words, capture_output=True, text=True, env=standard)
            if done.returncode == 0 or time.monotonic() >= until:
                return dict(re.findall(r"(\w+)=(\S*)", done.stdout))
            time.sleep(1)

    def stopped_before(self) -> bool:
        """Whether it was to end before it listened."""
        self.timed_out |= time.time() >= self._due or self.at_its_limit()
        return self.timed_out or self.pushed_out()

    def pushed_out(self) -> bool:
        """Whether it runs on in the grace before another job takes its machines."""
        shown = self.shown()
        return shown.get("JobState") == "RUNNING" and shown.get("PreemptTime", "None") not in ("None", "")

    def at_its_limit(self) -> bool:
        """Whether its time was over before it could stop by itself: it ends in the grace that Slurm leaves it."""
        return self.shown().get("Reason") == "TimeLimit"

    def ending(self) -> bool:
        """Whether Slurm told the ranks to stop: pushed out, cancelled, or put back by somebody else."""
        return self.timed_out or self.shown().get("JobState") != "RUNNING" or self.pushed_out()

    def cancelled(self) -> bool:
        """Whether it ends for good: Slurm has no more use for it, and nobody put it back."""
        shown = self.shown()
        back = int(shown.get("Restarts", 0)) > int(os.environ.get("SLURM_RESTART_COUNT", 0))
        return shown.get("JobState") != "RUNNING" and not back

    def requeue(self) -> str:
        """Put it back into the queue; what Slurm says where it does not."""
        done = subprocess.run(["scontrol", "requeue", self.number], capture_output=True, text=True)
        return (done.stderr.strip() or "scontrol requeue failed") if done.returncode else ""


def srun(devices: int) -> list[str]:
    """The words that start ``devices`` tasks on each machine of the job; one that fails ends them all."""
    words = ["srun", "--kill-on-bad-exit=1", f"--ntasks-per-node={devices}", f"--nodes={os.environ['SLURM_NNODES']}"]
    cpus = os.environ.get("SLURM_CPUS_PER_TASK")  # srun takes no notice of sbatch's
    return words if cpus is None else [*words, f"--cpus-per-task={cpus}"]


def meeting_place() -> dict[str, str]:
    """Where the ranks meet: on this machine, the first of the job."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    alone = os.environ["SLURM_NNODES"] == "1"
    return {"MASTER_ADDR": "127.0.0.1" if alone else socket.gethostname(), "MASTER_PORT": str(port)}


def own_record(directory: Path, number: str) -> JobRecord | None:
    """The record that names this Slurm job; None where that stays away, or names another."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        record = read_job(directory)
        if record is not None and record.slurm == number:
            return record
        time.sleep(0.2)
    return None


def run(record: JobRecord, directory: Path, sweep: Path, allocation: Allocation) -> None:
    """Everything from the submitted configuration to the end of the ranks."""
    from omegaconf import DictConfig, OmegaConf

    from qefpn.experiments.schema import parse_config
    from qefpn.sweeps.ranks import run_ranks
    from qefpn.sweeps.run import leave_to_ranks, ready
    from qefpn.sweeps.slurm import SUBMITTED

    composed = OmegaConf.load(directory / SUBMITTED)
    assert isinstance(composed, DictConfig)
    config = parse_config(composed)
    devices = ready(config, record, directory, sweep) // int(os.environ["SLURM_NNODES"])
    leave_to_ranks(config, directory)
    os.environ.update(meeting_place())
    os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    allocation.has_ranks = True
    if (
        allocation.timed_out or allocation.stopping
    ):  # libraries may have swallowed what was raised while they were imported
        raise SystemExit(143)
    try:
        run_ranks(directory, devices, srun=srun(devices), stopped=allocation.ending)
    finally:
        allocation.stopping = True


def main(argv: Sequence[str]) -> int:
    """``JOB_DIRECTORY SWEEP_DIRECTORY MAX_NUM_TIMEOUT SIGNAL_DELAY_S``: 0; 1 where the job failed, 143 where it was
    stopped.
    """
    directory, sweep, most = Path(argv[0]), Path(argv[1]), int(argv[2])
    allocation = Allocation(float(argv[3]))
    found = None
    try:
        allocation.listen()
        found = record = own_record(directory, allocation.number)
        if record is None:
            return not_its_own(directory, allocation)
        if allocation.stopped_before():
            raise SystemExit(143)
        from qefpn.experiments.runtime import quiet_libraries
        from qefpn.sweeps.run import attempt

        quiet_libraries()
        print(record.title, flush=True)
        return 0 if attempt(record, directory, lambda: run(record, directory, sweep, allocation)) else 1
    except SystemExit:
        found = found or own_record(directory, allocation.number)
        if found is None:
            return not_its_own(directory, allocation)
        allocation.timed_out |= allocation.at_its_limit()
        return stopped(found, directory, allocation, most)
    finally:
        allocation.stopping = True


def not_its_own(directory: Path, allocation: Allocation) -> int:
    """1: another command has taken the directory over."""
    print(f"{directory} is not that of Slurm job {allocation.number}: nothing is run", file=sys.stderr)
    return 1


def stopped(record: JobRecord, directory: Path, allocation: Allocation, most: int) -> int:
    """Put a job back into the queue that is to go on, and say of another how it ended."""
    if allocation.timed_out:
        record.timeouts += 1
        if record.timeouts > most:
            return failed(record, directory, "its time is up too often: raise hydra.launcher.max_num_timeout")
    elif not allocation.pushed_out():
        return failed(record, directory, "cancelled (scancel)") if allocation.cancelled() else 143
    record.state = "queued"
    record.write(directory)
    refusal = allocation.requeue()
    if refusal:
        return failed(record, directory, f"it could not be put back into the queue: {refusal}")
    return 143


def failed(record: JobRecord, directory: Path, reason: str) -> int:
    """1, with the reason in error.txt."""
    record.state = "failed"
    record.write(directory)
    write_error(directory, reason)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
