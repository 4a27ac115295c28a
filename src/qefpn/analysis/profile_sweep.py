"""`qefpn profile`'s measurements: every size and solver budget, and the quality that a budget costs."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qefpn.analysis.profiling import (
    Spread,
    available_memory,
    held_memory,
    macs_by_stage,
    out_of_memory,
    parameters_by_stage,
    peak_memory,
    seconds_by_stage,
    solver_steps,
    time_passes,
)
from qefpn.inference.predictor import to_maps
from qefpn.models import ImplicitPyramid
from qefpn.training.evaluation import Batch, score_set
from qefpn.training.hardware import fp32_precision
from qefpn.training.module import SaliencyModule

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(frozen=True)
class ProfileSettings:
    """What is measured; see conf/profile.yaml."""

    sizes: Sequence[int] = (224, 352)
    budgets: Sequence[int] = (3, 9, 27)
    batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64)
    training: bool = True
    train_batch: int = 1
    repeats: int = 15
    seconds: float = 8.0
    precision: str = "32-true"
    fp32: str | None = "ieee"


def profile_module(
    module: SaliencyModule, settings: ProfileSettings, device: torch.device, say: Say = lambda _: None
) -> dict[str, Any]:
    """Parameters, multiplications, times and memory of a network and its training step, as plain values.

    Args:
        module: on the CPU; goes to ``device``.
        settings: sizes, budgets and batches.
        device: where it runs.
        say: told what is being measured.

    Returns:
        ``parameters`` by stage, and rows ``stages`` and ``speed``, one for each figure of the tables.
    """
    module.to(device)
    implicit = isinstance(module.network.pyramid, ImplicitPyramid)
    budgets: list[int | None] = list(settings.budgets) if implicit else [None]
    stages: list[Row] = []
    speed: list[Row] = []
    for size in settings.sizes:
        module.eval()
        images = pictures(1, size, device)
        for budget in budgets:
            say(f"{size} px, {_steps(budget)}: stages")
            with solver_steps(module.network, budget, exactly=True):
                macs = macs_by_stage(module.network, images)
                seconds = seconds_by_stage(module.network, images)
            stages.append({"size": size, "budget": budget, "macs": macs, "seconds": seconds})
        say(f"{size} px: one picture")
        speed += one_picture(module, size, budgets, settings, device)
        for budget in budgets:
            first = next(row for row in speed if (row["size"], row["budget"], row["mode"]) == (size, budget, "forward"))
            speed += larger_batches(module, first, settings, device, say)
        for budget in budgets if settings.training else []:
            say(f"{size} px, {_steps(budget)}: training step")
            speed.append(training_step(module, size, budget, settings, device))
    return {"parameters": parameters_by_stage(module.network), "stages": stages, "speed": speed}


def _steps(budget: int | None) -> str:
    return "no solver" if budget is None else f"{budget} step{'s' * (budget != 1)}"


def pictures(batch: int, size: int, device: torch.device) -> Tensor:
    """(batch, 3, size, size) of noise, uint8, the same each time: time does not depend on what is seen."""
    noise = torch.Generator().manual_seed(0)
    return torch.randint(256, (batch, 3, size, size), generator=noise, dtype=torch.uint8).to(device)


def one_picture(
    module: SaliencyModule, size: int, budgets: Sequence[int | None], settings: ProfileSettings, device: torch.device
) -> list[Row]:
    """The bare backbone and the network at every budget, timed in turns: a row each."""
    network, images = module.eval().network, pictures(1, size, device)

    def backbone() -> None:
        with torch.no_grad():
            network.backbone(network.normalized(images))

    def forward(budget: int | None) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad(), solver_steps(network, budget, exactly=True):
                network(images)

        return run

    passes = {"backbone": backbone, **{str(budget): forward(budget) for budget in budgets}}
    times = time_passes(passes, device, repeats=settings.repeats, seconds=settings.seconds * len(passes))
    bare = np.asarray(times["backbone"])
    held = held_memory(module.network) + images.numel() * images.element_size()
    rows = []
    for name, run in passes.items():
        # of each round on its own: what slows the machine for a while slows both
        ratio = None if name == "backbone" else Spread.of((np.asarray(times[name]) / bare).tolist())
        mode, budget = ("backbone", None) if name == "backbone" else ("forward", None if name == "None" else int(name))
        working = peak_memory(run, device)
        rows.append(_row(size, budget, mode, 1, times[name], held + working, ratio))
    return rows


def larger_batches(
    module: SaliencyModule, first: Row, settings: ProfileSettings, device: torch.device, say: Say
) -> list[Row]:
    """Batches in order until one is slower a picture, or does not fit; ``first``, of one picture, is the start.

    Marks the best row, which may be ``first``, as such: ``best``, and why the search ended: ``ended``.
    """
    network, size, budget = module.eval().network, first["size"], first["budget"]
    held = held_memory(network)
    working, best, rows, ended = first["memory"] - held, first, [], "the last of `batches`"
    for batch in [b for b in settings.batches if b > 1]:
        expected = best["seconds"]["median"] / best["batch"] * batch
        if expected > settings.seconds:
            ended = f"a pass of {batch} would take {expected:.0f} s"
            break
        there = available_memory(device)
        if there is not None and working * batch > 0.9 * there:
            ended = f"out of memory at {batch}"
            break
        say(f"{size} px, {_steps(budget)}: batch {batch}")
        try:
            images = pictures(batch, size, device)

            def run(images: Tensor = images) -> None:
                with torch.no_grad(), solver_steps(network, budget, exactly=True):
                    network(images)

            times = time_passes({"run": run}, device, repeats=settings.repeats, seconds=settings.seconds)["run"]
            memory = held + images.numel() * images.element_size() + peak_memory(run, device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            ended = f"out of memory at {batch}"
            break
        rows.append(_row(size, budget, "forward", batch, times, memory))
        if rows[-1]["fps"] <= best["fps"]:
            ended = f"slower at {batch}"
            break
        best = rows[-1]
    best["best"], best["ended"] = True, ended
    return rows


def training_step(
    module: SaliencyModule, size: int, budget: int | None, settings: ProfileSettings, device: torch.device
) -> Row:
    """Forward, loss, backward and optimizer of ``train_batch`` pictures after the warm-up; the rate is zero or small.

    The masks of a quasi residual are drawn anew for each step, as in training. Weights and statistics of batch norm
    are put back.
    """
    network, batch = module.train().network, settings.train_batch
    images = pictures(batch, size, device)
    masks = (torch.rand(batch, 1, size, size, generator=torch.Generator().manual_seed(1)) > 0.5).float().to(device)
    former = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer: Any = module.configure_optimizers()["optimizer"]
    steps = 0

    def run() -> None:
        nonlocal steps
        steps += 1
        keys = torch.arange(batch, device=device) + steps * 1_000_003
        optimizer.zero_grad(set_to_none=True)
        with solver_steps(network, budget, exactly=True), fp32_precision(settings.fp32):
            with _autocast(settings.precision, device):
                output = network.run(images, keys=keys)
                loss, _ = module.criterion(
                    output.logits, masks, side_logits=output.side_logits, edge_logits=output.edge_logits
                )
            loss.backward()
        optimizer.step()

    row: Row = {"size": size, "budget": budget, "mode": "training", "batch": batch}
    try:
        times = time_passes({"run": run}, device, repeats=settings.repeats, seconds=settings.seconds)["run"]
        optimizer.zero_grad(set_to_none=True)  # a step's gradients count as its own
        held = held_memory(module, optimizer) + images.numel() * images.element_size()
        row = _row(size, budget, "training", batch, times, held + peak_memory(run, device))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        row["ended"] = "out of memory"
    finally:
        optimizer.zero_grad(set_to_none=True)
        module.load_state_dict(former)
        module.eval()
    return row


@contextlib.contextmanager
def _autocast(precision: str, device: torch.device) -> Iterator[None]:
    half = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(str(precision))
    if half is None:
        yield
        return
    with torch.autocast(device.type, dtype=half):
        yield


def _row(
    size: int,
    budget: int | None,
    mode: str,
    batch: int,
    times: Sequence[float],
    memory: int,
    ratio: Spread | None = None,
) -> Row:
    seconds = Spread.of(times)
    return {
        "size": size,
        "budget": budget,
        "mode": mode,
        "batch": batch,
        "seconds": dataclasses.asdict(seconds),
        "fps": batch / seconds.median,
        "memory": memory,
        "ratio": None if ratio is None else dataclasses.asdict(ratio),
    }


def quality_rows(
    module: SaliencyModule,
    loaders: Mapping[str, Iterable[Batch]],
    steps: Sequence[int],
    *,
    protocol: str,
    device: torch.device,
    track: Callable[[str, str, Iterable[Batch]], Iterable[Batch]] | None = None,
) -> list[Row]:
    """Scores of a trained network against the largest number of solver steps, with its own stopping rule.

    Args:
        module: trained.
        loaders: a test loader a set.
        steps: largest numbers of steps; the network's own is added.
        protocol: ``f3net`` or ``pysod``.
        device: where it runs.
        track: wraps a loader for progress: (set, what is scored, loader).

    Returns:
        A row for each set and number: ``max_f``, ``mae``, ``images``, the means over pictures of ``evaluations`` and
        ``relative_residual``, the share ``converged``, ``seconds`` of the network a picture, and whether it is the
        network's ``own`` number. One row a set, without these, where there is no solver.
    """
    network = module.eval().to(device).network
    pyramid = network.pyramid
    own = pyramid.solver.max_steps if isinstance(pyramid, ImplicitPyramid) else None
    numbers: list[int | None] = [None] if own is None else sorted({*steps, own})
    rows: list[Row] = []
    for dataset, loader in loaders.items():
        for number in numbers:
            solves: list[dict[str, np.ndarray]] = []
            spent: list[float] = []

            @torch.no_grad()
            def predict(
                batch: Batch, solves: list[dict[str, np.ndarray]] = solves, spent: list[float] = spent
            ) -> list[np.ndarray]:
                start = time.perf_counter()
                output = network.run(batch["image"].to(device))
                maps = to_maps(output.logits, batch["size"])
                spent.append(time.perf_counter() - start)
                if output.solution is not None:
                    names = ("evaluations", "relative_residual", "converged")
                    stats = output.solution.stats
                    solves.append({name: getattr(stats, name).double().cpu().numpy() for name in names})
                return maps

            batches = loader if track is None else track(dataset, _steps(number), loader)
            with solver_steps(network, number, exactly=False):
                scores = score_set(predict, batches, protocol=protocol)
            found = (
                {name: float(np.concatenate([one[name] for one in solves]).mean()) for name in solves[0]}
                if solves
                else {}
            )
            rows.append(
                {
                    "dataset": dataset,
                    "steps": number,
                    "own": number == own,
                    **{key: scores[key] for key in ("max_f", "mae", "images")},
                    **found,
                    "seconds": sum(spent) / scores["images"],
                }
            )
    return rows
