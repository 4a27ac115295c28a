"""What a job of a multirun leaves beside its results: ``job.json``, and ``error.txt`` where it failed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from qefpn.atomic import write_atomic
from qefpn.text import open_text

JOB_FILE = "job.json"
ERROR_FILE = "error.txt"
STATES = ("queued", "running", "done", "failed", "interrupted")


@dataclass
class JobRecord:
    """One job of a sweep, as ``job.json`` holds it.

    Attributes:
        number: of the job in its sweep, from 0.
        overrides: those that differ between the jobs of the sweep, as ``key=value``.
        words: all of its overrides.
        ablation: ``name``, ``table``, ``row`` and ``place`` where the job is a row of an ablation.
        state: one of ``STATES``; a job that was killed still says running. Queued is one that Slurm will start, for
            the first time or again.
        seconds: of the last attempt.
        attempts: how often it was started.
        slurm: the number of its Slurm job; None elsewhere.
        timeouts: how often that job's time was up.
    """

    number: int
    overrides: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    ablation: dict[str, Any] | None = None
    state: str = "running"
    seconds: float = 0.0
    attempts: int = 1
    slurm: str | None = None
    timeouts: int = 0

    @property
    def title(self) -> str:
        """What is said of it."""
        return f"job {self.number}: {' '.join(self.overrides)}"

    def write(self, directory: Path) -> None:
        """Whole or not at all."""
        write_atomic(directory / JOB_FILE, json.dumps(dataclasses.asdict(self), indent=1))


def read_job(directory: Path) -> JobRecord | None:
    """The record of a job's directory; None where there is none, or none of this version."""
    try:
        return JobRecord(**json.loads((directory / JOB_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def read_jobs(sweep: Path) -> list[JobRecord]:
    """The records of a sweep's jobs by number."""
    found = (read_job(path.parent) for path in sweep.glob(f"**/{JOB_FILE}"))
    return sorted((job for job in found if job is not None), key=lambda job: job.number)


def end_with_parent() -> None:
    """In one of joblib's processes: end it soon after the sweep that started it is gone, killed or not.

    It would train its job to the end, beside the same job of a resumed sweep. Nothing is lost: last.ckpt is whole at
    any time, and the job goes on from it.
    """
    if not multiprocessing.current_process().name.startswith("LokyProcess"):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="sweep-watch", daemon=True).start()


@contextlib.contextmanager
def recorded(record: JobRecord, directory: Path) -> Iterator[JobRecord]:
    """Keep ``job.json`` true while the job runs and when it ends, however it ends."""
    former = read_job(directory)
    record.attempts = 1 if former is None else former.attempts + 1
    record.state = "running"
    start = time.monotonic()
    (directory / ERROR_FILE).unlink(missing_ok=True)  # of a former attempt
    record.write(directory)
    try:
        yield record
    except Exception:
        record.state = "failed"
        raise
    except BaseException:  # Ctrl-C, SIGTERM
        record.state = "interrupted"
        raise
    else:
        record.state = "done"
    finally:
        record.seconds = round(time.monotonic() - start, 3)
        record.write(directory)


def write_error(directory: Path, text: str, rank: int | None = None) -> None:
    """Add a traceback (or a line) to ``error.txt``; those of several ranks stand below each other."""
    directory.mkdir(parents=True, exist_ok=True)
    title = "" if rank is None else f"rank {rank}:\n"
    with open_text(directory / ERROR_FILE, "a") as file:
        file.write(title + text.rstrip() + "\n")


def summary(records: Sequence[JobRecord], planned: int | None) -> list[str]:
    """How a sweep ended, in lines; the failed jobs last."""
    numbers = {state: [job.number for job in records if job.state == state] for state in STATES}
    total = len(records) if planned is None else planned
    counts = [f"{len(found)} {state}" for state, found in numbers.items() if found]
    counts += [f"{total - len(records)} not started"] if total > len(records) else []
    lines = [f"{total} jobs: {', '.join(counts)}"]
    for state in ("interrupted", "failed"):
        if numbers[state]:
            jobs = ", ".join(map(str, numbers[state]))
            lines.append(
                f"{state}: job {jobs}; the other jobs are done" if state == "failed" else f"{state}: job {jobs}"
            )
    return lines


@contextlib.contextmanager
def claimed_gpu(sweep: Path, count: int) -> Iterator[int | None]:
    """A GPU of its own for a job that runs beside others: the first that no other job of the sweep holds.

    Args:
        sweep: its directory, where a lock a GPU lies.
        count: GPUs of this machine.

    Yields:
        Its index; None where there is none, or all are held.
    """
    sweep.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        lock = FileLock(sweep / f".gpu-{index}.lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        try:
            yield index
        finally:
            lock.release()  # a kill gives it back too
        return
    yield None
