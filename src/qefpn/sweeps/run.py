"""A job of a multirun: skipped, resumed or run; its failure is its own."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from qefpn.errors import UserError
from qefpn.experiments.ablations import key_of
from qefpn.sweeps.jobs import JobRecord, claimed_gpu, end_with_parent, read_job, recorded, write_error
from qefpn.sweeps.plan import read_plan
from qefpn.sweeps.ranks import RanksFailed, run_ranks

if TYPE_CHECKING:
    from qefpn.experiments.assemble import Experiment
    from qefpn.experiments.schema import TrainConfig

Run = Callable[["Experiment", DictConfig | None], None]


def sweep_job(config: DictConfig, settings: DictConfig, run: Run) -> float:
    """Run one job where it is not done yet, and go on from its last.ckpt where it was begun.

    Args:
        config: the job's, as Hydra composed it.
        settings: its ``HydraConfig``.
        run: trains and scores in this process.

    Returns:
        The best validation score (``monitor``), which a search may optimise; nan where there is none.
    """
    from qefpn.experiments.assemble import assemble
    from qefpn.experiments.runtime import quiet_libraries
    from qefpn.experiments.schema import parse_config

    quiet_libraries()  # a launcher may have started a process for this job
    directory, sweep = Path(settings.runtime.output_dir), Path(settings.sweep.dir)
    record = record_of(settings)
    if done_before(record, directory):
        return best_score(directory)
    print(record.title, flush=True)
    end_with_parent()

    def start() -> None:
        checked = parse_config(config)
        record.ablation = checked.ablation
        devices = ready(checked, record, directory, sweep)
        if devices == 1:
            with _own_gpu(checked, sweep, side_by_side="basic" not in str(settings.launcher["_target_"])):
                run(assemble(checked, directory), config)
        else:
            leave_to_ranks(checked, directory)
            run_ranks(directory, devices)

    return best_score(directory) if attempt(record, directory, start) else math.nan


def record_of(settings: DictConfig) -> JobRecord:
    """What a job is, from its ``HydraConfig``."""
    task = OmegaConf.to_container(
        settings.overrides.task, resolve=False
    )  # one by one, what is escaped would be resolved
    assert isinstance(task, list)
    words = [word for word in map(str, task) if not key_of(word).startswith("sweep.")]
    plan = read_plan(Path(settings.sweep.dir))
    return JobRecord(int(settings.job.num), [w for w in words if plan and key_of(w) in plan.axes], words)


def done_before(record: JobRecord, directory: Path) -> bool:
    """Whether this very job was done in a former run of its sweep; says so."""
    former = read_job(directory)
    done = former is not None and former.state == "done" and former.words == record.words
    if done:
        print(f"{record.title}: done before", flush=True)
    return done


def attempt(record: JobRecord, directory: Path, start: Callable[[], None]) -> bool:
    """Call ``start`` and keep what comes of it in ``job.json`` and ``error.txt``.

    Returns:
        Whether the job is done. What ends the whole sweep (Ctrl-C, SIGTERM) is raised on.
    """
    try:
        with recorded(record, directory):
            start()
        return True
    except UserError as error:
        write_error(directory, str(error))
        print(f"qefpn train: job {record.number}: {error}", file=sys.stderr)
    except RanksFailed as error:
        print(f"qefpn train: job {record.number}: {error}", file=sys.stderr)
    except Exception:
        write_error(directory, traceback.format_exc())
        traceback.print_exc()
    return False


def ready(config: TrainConfig, record: JobRecord, directory: Path, sweep: Path) -> int:
    """Let a job go on where it was begun, and name what tracks it; its devices.

    Raises:
        UserError: devices that are not there.
    """
    from qefpn.experiments.trainer import device_count
    from qefpn.training.checkpoint import checkpoints_of

    record.write(directory)
    there = checkpoints_of(directory)
    if there:
        config.resume = str(there[0])
        print(f"job {record.number} goes on from {there[0]}", flush=True)
    if config.floors is None:
        config.floors = False  # the same for all of them, and as dear as the test itself
    label_logger(config, sweep, record)
    return device_count(config)


def leave_to_ranks(config: TrainConfig, directory: Path) -> None:
    """Data and ``config.yaml``, which is all that the ranks of a job know.

    Raises:
        UserError: as :func:`qefpn.experiments.checks.check`: main saw every choice, but not every combination.
    """
    from qefpn.experiments.checks import check
    from qefpn.experiments.config_files import write_config
    from qefpn.experiments.prepare import prepare_data

    check(config)
    with contextlib.redirect_stdout(io.StringIO()):  # rank 0 says it again; drawn and checked once, not by all at once
        prepare_data(config, directory)
    write_config(config, directory / "config.yaml")


def label_logger(config: TrainConfig, sweep: Path, record: JobRecord) -> None:
    """Name a tracked run after its sweep and what differs, where the user gave no names."""
    options = config.logger
    options["group"] = options.get("group") or sweep.resolve().name
    options["run_name"] = options.get("run_name") or " ".join(record.overrides) or None
    if config.ablation is not None and not options.get("tags"):
        options["tags"] = [f"ablation={config.ablation['name']}"]


@contextlib.contextmanager
def _own_gpu(config: TrainConfig, sweep: Path, *, side_by_side: bool) -> Iterator[None]:
    import torch

    there = 0 if config.trainer.accelerator == "cpu" else torch.cuda.device_count()
    if not side_by_side or there < 2 or isinstance(config.trainer.devices, list):
        yield
        return
    with claimed_gpu(sweep, there) as index:
        if index is not None:
            config.trainer.devices = [index]
        yield


def best_score(directory: Path) -> float:
    """The best validation score in ``log.csv`` under the run's ``monitor``; nan where there is none."""
    from qefpn.experiments.config_files import read_config

    try:
        monitor = read_config(directory / "config.yaml").monitor
        with (directory / "log.csv").open(newline="") as file:
            scores = [float(row[monitor]) for row in csv.DictReader(file) if row.get(monitor)]
    except (OSError, UserError):
        return math.nan
    choose = min if monitor.endswith("mae") else max
    return choose(scores, default=math.nan)
