"""The runs of a sweep: where they are, how far each came, and what it cost."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qefpn.errors import UserError
from qefpn.reporting.results import RunResults, finite_points, lookup, read_run
from qefpn.reporting.tables import finite

#: folders of a run that hold no run, some with thousands of files
_NOT_ENTERED = ("maps", "checkpoints", "evaluation", "wandb", "source")
#: files that show a folder to be a job's even where its config.yaml is missing
_TRACES = ("job.json", "error.txt", "metrics.json", "log.csv")


@dataclass(frozen=True)
class Costs:
    """What a run took; None where its files do not tell.

    Attributes:
        steps: optimizer steps done.
        pictures_seen: steps × batch × accumulated batches.
        train_pictures: trained on, from data.json; without it counted from log.csv, so up to a batch too many.
        pictures_known: whether ``train_pictures`` is exact.
        solver_steps: forward, mean over the logged steps in which the solver ran.
        evaluations: of f_theta a picture and forward pass, mean likewise.
        backward_evaluations: of the adjoint's solve, mean likewise.
        residual: relative, forward, median of the last tenth of the logged steps.
        seconds: of training with its validations.
        memory_mb: peak in MiB, from the column ``memory_mb`` of log.csv: allocated on a GPU, resident on a CPU.
        parameters: of the network, from its checkpoint.
    """

    steps: int | None = None
    pictures_seen: int | None = None
    train_pictures: int | None = None
    pictures_known: bool = False
    solver_steps: float | None = None
    evaluations: float | None = None
    backward_evaluations: float | None = None
    residual: float | None = None
    seconds: float | None = None
    memory_mb: float | None = None
    parameters: int | None = None

    @property
    def pace(self) -> float | None:
        """Milliseconds a step."""
        return 1000 * self.seconds / self.steps if self.seconds and self.steps else None


@dataclass
class SweepRun:
    """One run of a sweep.

    Attributes:
        name: its directory below the sweep's.
        state: "done" where there are figures, else "incomplete", "failed" or "unreadable".
        reason: why it is not done, in words for the reader; of a done run, what is wrong beside.
        number: of its job, for the order; None where not known.
    """

    directory: Path
    name: str
    state: str
    reason: str = ""
    results: RunResults | None = None
    number: int | None = None
    ablation: dict[str, Any] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)

    @property
    def config(self) -> Mapping[str, Any]:
        return self.results.config if self.results else {}

    @property
    def readable(self) -> bool:
        """Whether its settings are known."""
        return bool(self.config)

    @property
    def seed(self) -> Any:
        return self.config.get("seed")


def read_sweep(directory: Path) -> list[SweepRun]:
    """Read every run below a directory, in the order of their jobs.

    Raises:
        UserError: there is no such directory, or it holds no run.
    """
    if not directory.is_dir():
        raise UserError(f"runs={directory}: there is no such directory")
    runs = [_read(directory, path) for path in find_runs(directory)]
    if not runs:
        raise UserError(f"runs={directory} holds no run: there is no config.yaml in it or below it")
    return sorted(runs, key=lambda run: (math.inf if run.number is None else run.number, _natural(run.name)))


def find_runs(directory: Path) -> Iterator[Path]:
    """The directories of runs in and below ``directory``; below a run none is looked for."""
    for place, folders, files in os.walk(directory):
        path = Path(place)
        empty_job = path.name.isdigit() and not folders and not files and path != directory
        is_run = "config.yaml" in files
        if is_run or empty_job or any(name in files for name in _TRACES):
            yield path
        folders[:] = [] if is_run and path != directory else sorted(set(folders).difference(_NOT_ENTERED))
        folders[:] = [name for name in folders if not name.startswith(".")]


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in name.split("/")]


def _read(sweep: Path, directory: Path) -> SweepRun:
    relative = directory.relative_to(sweep).as_posix()
    name = directory.resolve().name if relative == "." else relative
    job = _json(directory / "job.json")
    number = job.get("number") if isinstance(job.get("number"), int) else None
    if number is None and directory.name.isdigit():
        number = int(directory.name)
    run = SweepRun(directory, name, "unreadable", number=number)
    failure = _failure(directory, job)
    try:
        results = read_run(directory)
    except (UserError, OSError):
        run.state, run.reason = ("failed", failure) if failure else ("incomplete", "there is no config.yaml")
        return run
    problem = results.problems.get("config.yaml") or ("" if results.config else "config.yaml is empty")
    if problem:
        has_none = not (directory / "config.yaml").is_file()
        run.state = "failed" if failure else "incomplete" if has_none else "unreadable"
        run.reason = failure or problem.rstrip(".")
        return run
    run.results = results
    ablation = results.config.get("ablation")
    run.ablation = {str(key): value for key, value in ablation.items()} if isinstance(ablation, Mapping) else {}
    run.costs = costs(results)
    run.state, run.reason = _state(results, failure)
    if run.state == "incomplete" and job.get("state") == "interrupted":
        run.reason += ", interrupted"
    return run


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _failure(directory: Path, job: Mapping[str, Any]) -> str:
    """The last line of error.txt, or that the job failed; empty where nothing says so."""
    try:
        lines = (directory / "error.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if last:
        return last if len(last) <= 200 else last[:199] + "…"
    return "its job failed" if job.get("state") == "failed" else ""


def _state(results: RunResults, failure: str) -> tuple[str, str]:
    figures = [v for dataset in results.metrics.values() for v in dataset.values() if finite(v) is not None]
    other = [text.rstrip(".") for name, text in results.problems.items() if name == "log.csv"]
    if figures:
        return "done", "; ".join([*([f"it ended with an error: {failure}"] if failure else []), *other])
    problem = results.problems.get("metrics.json", "")
    if "cannot be read" in problem:
        return "unreadable", problem.rstrip(".")
    if failure:
        return "failed", failure
    steps = steps_done(results)
    limit = finite(lookup(results.config, "trainer.max_steps"))
    of = f" of {int(limit):,}" if limit is not None and limit > 0 else ""
    reached = f"stopped or still running after step {steps:,}{of}" if steps else "no step is logged"
    return "incomplete", f"no figures in metrics.json: {reached}"


def steps_done(results: RunResults) -> int | None:
    """Optimizer steps that log.csv tells of."""
    points = results.log.get("loss")
    return int(points[-1][0]) + 1 if points else None


SOLVER = ("solver_steps", "solver_evaluations", "solver_residual")
"""Columns of the log that are also of the layers that are unrolled in the warm-up."""


def costs(results: RunResults) -> Costs:
    """What the files of a run tell of its costs."""
    log, config = results.log, results.config
    steps = steps_done(results)
    batch = finite(lookup(config, "data.batch_size"))
    a_step = int(batch * (finite(lookup(config, "trainer.accumulate_grad_batches")) or 1)) if batch else None
    unrolled = {step for step, layers in log.get("unrolled_layers", []) if layers > 0}
    solved = {name: [p for p in log.get(name, []) if p[0] not in unrolled] for name in SOLVER}
    residuals = [value for _, value in finite_points(solved["solver_residual"])]
    memory = [value for _, value in finite_points(log.get("memory_mb", []))]
    an_epoch = _steps_an_epoch(log.get("epoch", []), {step for step, _ in log.get("loss", [])})
    counted = an_epoch * a_step if an_epoch and a_step else None
    written = finite(_json(results.directory / "data.json").get("train_pictures"))
    return Costs(
        steps=steps,
        pictures_seen=steps * a_step if steps and a_step else None,
        train_pictures=int(written) if written else counted,
        pictures_known=bool(written),
        solver_steps=_mean(solved["solver_steps"]),
        evaluations=_mean(solved["solver_evaluations"]),
        backward_evaluations=_mean(log.get("backward_evaluations", [])),
        residual=statistics.median(residuals[-max(1, len(residuals) // 10) :]) if residuals else None,
        seconds=_elapsed(finite_points(log.get("seconds", []))),
        memory_mb=max(memory) if memory else None,
        parameters=parameter_count(results.directory / "checkpoints"),
    )


def _mean(points: list[tuple[float, float]]) -> float | None:
    values = [value for _, value in finite_points(points)]
    return statistics.fmean(values) if values else None


def _elapsed(points: list[tuple[float, float]]) -> float | None:
    """Seconds over all attempts: the clock of log.csv starts again with each."""
    total, former = 0.0, 0.0
    for _, value in points:
        if value < former:
            total += former
        former = value
    return total + former if points else None


def _steps_an_epoch(epochs: list[tuple[float, float]], trained: set[float]) -> int | None:
    """Steps of an epoch that is over; None where none is, or not every step is logged."""
    counts: dict[float, list[float]] = {}
    for step, epoch in epochs:
        if step in trained:
            counts.setdefault(epoch, []).append(step)
    over = [steps for epoch, steps in counts.items() if epoch + 1 in counts]
    whole = [len(steps) for steps in over if len(steps) == int(steps[-1] - steps[0]) + 1]
    return statistics.mode(whole) if whole else None


def parameter_count(checkpoints: Path) -> int | None:
    """Parameters of the network in a run's checkpoint: its floating-point tensors but for batch statistics.

    Only shapes are read. None where there is no checkpoint that can be read.
    """
    path = next((p for name in ("best", "last") if (p := checkpoints / f"{name}.ckpt").is_file()), None)
    if path is None:
        return None
    import torch

    try:
        content = torch.load(path, map_location="meta", weights_only=True, mmap=True)
        network = {k: v for k, v in content["state_dict"].items() if k.startswith("network.")}
        return sum(
            tensor.numel()
            for key, tensor in network.items()
            if tensor.is_floating_point() and not key.endswith((".running_mean", ".running_var"))
        )
    except Exception:  # a broken checkpoint costs one figure of one table
        return None
