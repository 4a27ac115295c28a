"""What a network costs: parameters, multiplications by stage, time and memory of a pass."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from qefpn.errors import UserError
from qefpn.models import QEFPN, ImplicitPyramid

STAGES = ("backbone", "neck and fusion", "f_theta", "decoder and heads")
LEAST = 3
"""Passes that a median needs."""


def parameters_by_stage(network: QEFPN) -> dict[str, int]:
    """Parameters of each of ``STAGES``, and their ``total``, which is that of the network."""
    counts = dict.fromkeys(STAGES, 0)
    for part, count in network.parameter_counts().items():
        if part != "total":
            counts[_stage_of(part)] += count
    return counts | {"total": sum(p.numel() for p in network.parameters())}


def _stage_of(part: str) -> str:
    if part == "backbone":
        return part
    if part in ("neck", "fusion"):
        return "neck and fusion"
    return "f_theta" if part.startswith("transformation") else "decoder and heads"


@contextlib.contextmanager
def staged(network: QEFPN, read: Callable[[], float]) -> Iterator[dict[str, float]]:
    """What a counter gains in each stage of the passes inside the block.

    Args:
        network: its parts get hooks for as long as the block lasts.
        read: the counter: multiplications so far, or the clock.

    Yields:
        A dictionary that fills: ``STAGES``, ``pyramid`` (f_theta and the solver around it) and ``evaluations``, how
        often f_theta was called.
    """
    totals: dict[str, float] = dict.fromkeys((*STAGES, "pyramid", "evaluations"), 0)
    begun: list[float] = []

    def before(_module: nn.Module, _inputs: Any) -> None:
        begun.append(read())

    def after(stage: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            totals[stage] += read() - begun.pop()
            totals["evaluations"] += stage == "f_theta"

        return hook

    handles = []
    for stage, part in _parts(network):
        handles += [part.register_forward_pre_hook(before), part.register_forward_hook(after(stage))]
    try:
        yield totals
    finally:
        for handle in handles:
            handle.remove()


def _parts(network: QEFPN) -> Iterator[tuple[str, nn.Module]]:
    yield "backbone", network.backbone
    yield from (("neck and fusion", part) for part in (network.neck, network.fusion))
    yield "pyramid", network.pyramid
    if isinstance(network.pyramid, ImplicitPyramid):
        yield "f_theta", network.pyramid.transformation
    heads = (network.adapter, network.decoder, network.head, *network.side_heads, network.edge_head)
    yield from (("decoder and heads", part) for part in heads if part is not None)


@torch.no_grad()
def macs_by_stage(network: QEFPN, images: Tensor) -> dict[str, int]:
    """Multiply-accumulate operations of one forward pass; 1 MAC is 2 of the FLOPs that torch counts.

    Convolutions and matrix products are counted; norms, activations and resizing are not, as is usual.

    Args:
        network: in the mode that is to be counted.
        images: (B, 3, H, W); the counts are of the whole batch.

    Returns:
        ``STAGES``, where f_theta has all its evaluations; ``solver``, the solver's own products; ``other``, outside of
        all stages; ``total``, the sum of these; ``one evaluation`` of f_theta, and the number of ``evaluations``.
    """
    with FlopCounterMode(display=False) as counter, staged(network, counter.get_total_flops) as totals:
        network(images)
    macs = {stage: int(totals[stage]) // 2 for stage in STAGES}
    macs["solver"] = int(totals["pyramid"]) // 2 - macs["f_theta"]
    total = counter.get_total_flops() // 2
    evaluations = int(totals["evaluations"])
    return macs | {
        "other": total - sum(macs.values()),
        "total": total,
        "one evaluation": macs["f_theta"] // max(1, evaluations),
        "evaluations": evaluations,
    }


@torch.no_grad()
def seconds_by_stage(network: QEFPN, images: Tensor, repeats: int = LEAST) -> dict[str, float]:
    """Median seconds of each stage of a forward pass; keys as those of :func:`macs_by_stage`.

    On a GPU each stage is waited for, so that the total is more than a pass without looking takes.
    """
    device, passes = images.device, []

    def clock() -> float:
        _wait(device)
        return time.perf_counter()

    for _ in range(repeats):
        with staged(network, clock) as totals:
            start = clock()
            network(images)
            totals["total"] = clock() - start
        passes.append(totals)
    found = {key: float(np.median([one[key] for one in passes])) for key in passes[0]}
    found["solver"] = found.pop("pyramid") - found["f_theta"]
    found["other"] = found["total"] - sum(found[stage] for stage in (*STAGES, "solver"))
    found["one evaluation"] = found["f_theta"] / max(1.0, found["evaluations"])
    return found


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of ``count`` figures."""

    median: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of ``figures``, one or more."""
        lower, median, upper = np.percentile(np.asarray(figures, float), [25, 50, 75])
        return cls(float(median), float(lower), float(upper), len(figures))


def time_passes(
    passes: Mapping[str, Callable[[], Any]], device: torch.device, *, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of each pass, taken in turns, so that a busy machine slows all of them alike.

    Args:
        passes: by name. Each runs once before, which is not timed.
        device: CUDA events time its passes, the wall clock those of a CPU.
        repeats: rounds, at least 3.
        seconds: no further round is begun after so long, once there are 3.
    """
    for run in passes.values():
        run()
    _wait(device)
    found: dict[str, list[float]] = {name: [] for name in passes}
    start, rounds = time.perf_counter(), 0
    while rounds < max(LEAST, repeats) and (rounds < LEAST or time.perf_counter() - start < seconds):
        for name, run in passes.items():
            found[name].append(_time_one(run, device))
        rounds += 1
    return found


def _time_one(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1000
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


MEMORY_NOTE = {
    "cuda": "Peak memory is torch.cuda.max_memory_allocated, weights included.",
    "cpu": (
        "Peak memory on the CPU: weights, buffers, optimizer state and the pictures, plus the largest sum of what "
        "torch's allocator handed out during one pass (torch.profiler); scratch space inside oneDNN is not seen."
    ),
}


def peak_memory(run: Callable[[], Any], device: torch.device) -> int:
    """Bytes of tensors that a pass needs at most beyond those that were there before it (see ``MEMORY_NOTE``)."""
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its log complains of a GPU that is not there
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = run()
    del result
    recorded: Any = profiler.profiler
    changes = [(e.start_ns(), e.nbytes()) for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    sizes = np.cumsum([size for _, size in sorted(changes, key=lambda change: change[0])], dtype=np.int64)
    return max(0, int(sizes.max())) if len(sizes) else 0


def held_memory(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Bytes of weights and buffers, and of the optimizer's state."""
    tensors = [*module.parameters(), *module.buffers()]
    if optimizer is not None:
        states = optimizer.state.values()
        tensors += [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def available_memory(device: torch.device) -> int | None:
    """Bytes that could still be had; None where the system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up."""
    text = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


@contextlib.contextmanager
def solver_steps(network: QEFPN, steps: int | None, *, exactly: bool) -> Iterator[None]:
    """Let the forward solver take at most ``steps``, or all of them whatever the residual (``exactly``).

    An adjoint without a solver of its own follows. A network without a solver, and ``None``, change nothing.
    """
    pyramid = network.pyramid
    if not isinstance(pyramid, ImplicitPyramid) or steps is None:
        yield
        return
    former = pyramid.solver
    changes: dict[str, Any] = {"max_steps": steps} | ({"rtol": 0.0, "atol": 0.0} if exactly else {})
    try:
        pyramid.solver = dataclasses.replace(former, **changes)
    except ValueError as error:
        raise UserError(f"budgets: {steps} steps do not go with the solver ({error})") from None
    try:
        yield
    finally:
        pyramid.solver = former
