"""A sweep on a Slurm cluster: ``hydra/launcher=slurm`` submits a job for each of its own, and watches the queue.

What runs on the cluster's machines is :mod:`qefpn.sweeps.node`. Nothing here needs Slurm's accounting.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from qefpn.atomic import write_atomic
from qefpn.sweeps.jobs import JobRecord, read_job, write_error
from qefpn.sweeps.plan import SweepRefused
from qefpn.sweeps.run import best_score, done_before, record_of

SUBMITTED = "submitted.yaml"
"""The job's configuration as it was composed when it was submitted; Hydra's search path may not lead there later."""
LOG = "slurm.log"
MISSES = 3
"""Looks into the queue that must miss a job before it counts as gone: a shared file system shows job.json late."""
HINTS = {
    "partition": "choose hydra.launcher.partition",
    "gres|generic resource|gpu": "hydra.launcher.gpus_per_node=null asks for no GPU, TYPE:NUMBER for those of a type",
    "memory": "lower hydra.launcher.mem_gb, which is for each node",
    "time limit": "lower hydra.launcher.timeout_min",
    "account|association": "choose hydra.launcher.account",
    "qos": "choose hydra.launcher.qos",
    "feature|constraint": "choose hydra.launcher.constraint",
    "node configuration|node count|processors|cpu": "lower hydra.launcher.cpus_per_task, gpus_per_node, nodes",
    "option": "hydra.launcher.additional_parameters are options of sbatch",
}
"""What to change, by what sbatch says."""


class SlurmLauncher(Launcher):
    """Hydra's launcher of that name; its arguments are the keys of ``conf/hydra/launcher/slurm.yaml``."""

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in options.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submit what is neither done nor in the queue, and wait for all of it unless told otherwise.

        Raises:
            SweepRefused: Slurm took no job, or is not there.
        """
        waiting: dict[Path, JobRecord] = {}
        directories = []
        for index, overrides in enumerate(job_overrides):
            config, record, directory = self._job(overrides, initial_job_idx + index)
            directories.append(directory)
            former = read_job(directory)
            if done_before(record, directory):
                continue
            if former is not None and former.slurm in queue():
                print(f"{record.title}: in the queue as {former.slurm}", flush=True)
                waiting[directory] = former
                continue
            self._submit(config, record, directory)
            print(f"{record.title}: submitted as {record.slurm}", flush=True)
            waiting[directory] = record
        if self.config.sweep.wait:
            wait_for(waiting, float(self.options["poll_s"]))
        returns = [JobReturn(status=JobStatus.COMPLETED) for _ in directories]
        for ended, directory in zip(returns, directories, strict=True):
            ended.return_value = best_score(directory)
        return returns

    def _job(self, overrides: Sequence[str], number: int) -> tuple[DictConfig, JobRecord, Path]:
        """A job's configuration, its record, and its directory, as Hydra's own launchers choose it."""
        config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config, record_of(config.hydra), Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))

    def _submit(self, config: DictConfig, record: JobRecord, directory: Path) -> None:
        composed = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        record.ablation = None if config.ablation is None else dict(config.ablation)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / SUBMITTED, OmegaConf.to_yaml(composed))
        # What comes before qefpn.sweeps.node listens must not end the job, which would be over; it looks for itself.
        script = ["trap '' TERM USR1", *self.options["setup"], self._command(directory)]
        words = ["sbatch", "--parsable", *sbatch_options(self.options, composed, directory)]
        said = slurm(words, "#!/bin/bash\n" + "\n".join(map(str, script)) + "\n", what=f"job {record.number}")
        record.state, record.slurm = "queued", said.split(";")[0]
        former = read_job(directory)
        record.attempts = 0 if former is None else former.attempts
        record.write(directory)  # for which the job waits before it begins

    def _command(self, directory: Path) -> str:
        words = [sys.executable, "-m", "qefpn.sweeps.node", os.path.abspath(directory)]
        words += [os.path.abspath(str(self.config.hydra.sweep.dir)), str(self.options["max_num_timeout"])]
        words.append(str(self.options["signal_delay_s"]))
        return f"exec {shlex.join(words)}"  # in place of the shell: Slurm's signals reach it


def sbatch_options(options: Mapping[str, Any], config: DictConfig, directory: Path) -> list[str]:
    """The options of sbatch for a job.

    Args:
        options: those of the launcher.
        config: the job's, as composed.
        directory: the job's.
    """
    trainer = config.trainer
    gpus = options["gpus_per_node"]
    devices = trainer.get("devices", "auto")
    if OmegaConf.is_config(devices):
        tasks = len(devices)
    elif str(devices) in ("auto", "-1"):
        counted = str(gpus).rpartition(":")[2]
        tasks = int(counted) if counted.isdigit() and trainer.get("strategy", "auto") != "auto" else 1
    else:
        tasks = int(devices)
    if gpus == "auto":
        gpus = None if trainer.accelerator == "cpu" else tasks
    given: dict[str, Any] = {
        "job-name": options["name"],
        "output": os.path.abspath(directory / LOG).replace("%", "%%"),
        "open-mode": "append",
        "requeue": None,
        "signal": f"B:USR1@{options['signal_delay_s']}",
        "time": options["timeout_min"],
        "nodes": options["nodes"],
        "ntasks-per-node": tasks,
        "cpus-per-task": options["cpus_per_task"],
    }
    given |= {} if gpus in (None, 0) else {"gpus-per-node": gpus}
    given |= {} if options["mem_gb"] is None else {"mem": f"{options['mem_gb']}G"}
    for key in ("partition", "account", "qos", "constraint", "exclude"):
        given |= {} if options[key] is None else {key: options[key]}
    given |= {str(key).replace("_", "-"): value for key, value in options["additional_parameters"].items()}
    return [f"--{key}" if value is None else f"--{key}={value}" for key, value in given.items()]


def slurm(words: Sequence[str], text: str = "", *, what: str) -> str:
    """What one of Slurm's commands answers.

    Args:
        words: the command.
        text: its standard input.
        what: was wanted, for the message.

    Raises:
        SweepRefused: one line, with what to change.
    """
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True)
    except FileNotFoundError:
        raise SweepRefused(f"hydra/launcher=slurm: there is no {words[0]} here; start it where there is") from None
    if done.returncode == 0:
        return done.stdout.strip()
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in done.stderr.splitlines() if line.strip()]
    said = next((line for line in lines if "Batch job submission failed" not in line), lines[0] if lines else "no word")
    everything = " ".join(lines).lower()
    hint = next((hint for words_, hint in HINTS.items() if re.search(words_, everything)), None)
    raise SweepRefused(f"Slurm refused {what}: {said}" + (f" ({hint})" if hint else ""))


def queue() -> dict[str, str]:
    """The state of each of the user's jobs that Slurm has, by number.

    Raises:
        SweepRefused: Slurm does not answer.
    """
    user = str(os.getuid())
    said = slurm(["squeue", "--noheader", f"--user={user}", "--format=%i|%T"], what="a look into its queue")
    return {number: state for number, _, state in (line.partition("|") for line in said.splitlines())}


def wait_for(jobs: Mapping[Path, JobRecord], seconds: float) -> None:
    """Until each of the jobs is done, has failed or is in the queue no more, which is a failure, too.

    Args:
        jobs: by directory.
        seconds: between two looks into the queue.
    """
    missed = dict.fromkeys(jobs, 0)
    while missed:
        try:
            there = queue()
        except SweepRefused:  # a controller that is busy, or starts anew; the jobs run
            time.sleep(seconds)
            continue
        for directory in list(missed):
            record = read_job(directory) or jobs[directory]
            if record.state in ("done", "failed"):
                del missed[directory]
                print(f"{record.title}: {record.state}", flush=True)
            elif record.slurm in there:
                missed[directory] = 0
            elif missed[directory] < MISSES:
                missed[directory] += 1
            else:
                del missed[directory]
                record.state = "failed"
                record.write(directory)
                write_error(directory, f"Slurm job {record.slurm} is gone from the queue (scancel?); see {LOG}")
                print(f"{record.title}: gone from the queue", flush=True)
        if missed:
            time.sleep(seconds)
