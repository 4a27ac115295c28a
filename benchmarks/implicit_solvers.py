"""Cases of implicit.py that run a solver on a cheap elementwise map: broyden, anderson, cuda."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from implicit_common import Line, Options, copy_bandwidth, interleaved, median, ratio
from torch import Tensor
from torchdeq_adapter import anderson_solver, broyden_solver

from qefpn.implicit import Anderson, Broyden
from qefpn.implicit.driver import solve

SHAPES = ((1, 658_240), (4, 266_560))
"""The paper's state at 352 and at 224 px."""
EQUAL = 5e-6
"""Iterates count as equal up to this, relative to their norm."""
F_VECTORS = 4
"""Vectors that one evaluation of the map must move: z and two coefficients in, the value out."""


class Elementwise:
    """z ↦ b + a·sin(z): slopes a in [−0.6, 0.9], so that 27 steps do not reach rounding."""

    def __init__(self, batch: int, size: int, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        self.a = (torch.rand(batch, size, generator=generator) * 1.5 - 0.6).to(device)
        self.b = torch.randn(batch, size, generator=generator).to(device)
        self.z0 = torch.zeros(batch, size, device=device)

    def __call__(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.b, self.a, torch.sin(z))


class Recorded:
    """A map that keeps the points at which it was evaluated."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self.f = f
        self.points: list[Tensor] = []

    def __call__(self, z: Tensor) -> Tensor:
        self.points.append(z.clone())
        return self.f(z)


def largest_difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest relative difference of corresponding iterates, over iterates and samples."""
    if len(ours) != len(theirs):
        return float("inf")
    differences = [
        ((a - b).norm(dim=1) / b.norm(dim=1).clamp_min(1e-30)).max().item() for a, b in zip(ours, theirs, strict=True)
    ]
    return max(differences)


def least_bytes(batch: int, size: int, steps: int) -> int:
    """Bytes that a solve with one stored vector a step must move, beyond any cache.

    Step k needs the k vectors stored before it twice (their products with g must be known before they are
    combined), reads z, writes the new vector and the new z, and evaluates f. The residual is taken where f's
    value passes by.
    """
    vectors = sum(2 * k + 3 + F_VECTORS for k in range(1, steps + 1)) + F_VECTORS
    return 4 * batch * size * vectors


def broyden(options: Options, device: str = "cpu", case: str = "broyden") -> Iterator[Line]:
    """Equal iterates, the ratio, and the share of the bandwidth floor."""
    shapes = SHAPES if device == "cpu" else ((32, 658_240),)
    for batch, size in shapes:
        size = options.size or size
        f, steps = Elementwise(batch, size, device), options.steps
        solver = Broyden(max_steps=steps, rtol=0.0, atol=0.0)
        wrong = ""
        if device == "cpu":  # a GPU's memory is for the timing
            ours, theirs = Recorded(f), Recorded(f)
            value = solve(solver, ours, f.z0).value
            their_value, _, info = broyden_solver(theirs, f.z0, max_iter=steps, tol=0.0)
            difference = largest_difference([*ours.points, value], [*theirs.points, their_value])
            points = len(ours.points)
            del ours, theirs
        else:
            value, (their_value, _, info) = solve(solver, f, f.z0).value, broyden_solver(f, f.z0, steps, 0.0)
            difference, points = largest_difference([value], [their_value]), 1
        if not difference <= EQUAL:
            wrong = f"iterates differ by {difference:.1e}, more than {EQUAL:g}"
        times = interleaved(
            {
                "ours": lambda solver=solver, f=f: solve(solver, f, f.z0),
                "torchdeq": lambda f=f, steps=steps: broyden_solver(f, f.z0, max_iter=steps, tol=0.0),
                "f": lambda f=f, steps=steps: [f(f.z0) for _ in range(steps + 1)],
            },
            options.repeats,
        )
        gain, mine = ratio(times, "torchdeq", "ours"), median(times, "ours")
        bandwidth = copy_bandwidth(4 * batch * size * steps, device)
        floor = least_bytes(batch, size, steps) / bandwidth
        yield Line(
            case,
            f"({batch}, {size}) {steps} steps: torchdeq {1e3 * median(times, 'torchdeq'):.0f} ms, ours {1e3 * mine:.0f}"
            f" ms, {gain:.2f}x; f alone {1e3 * median(times, 'f'):.0f} ms; floor {1e3 * floor:.0f} ms at "
            f"{bandwidth / 1e9:.1f} GB/s, {floor / mine:.0%} reached; {points} iterates within {difference:.1e}, "
            f"residual {float(info['rel_lowest'].max()):.1e}",
            gain,
            4.0,
            wrong=wrong,
            figures={"difference": difference, "floor": floor / mine, "iterates": points},
        )


def anderson(options: Options) -> Iterator[Line]:
    """Equal evaluations and memory; the residuals beside each other."""
    for batch, size in SHAPES:
        size = options.size or size
        f, evaluations = Elementwise(batch, size), options.steps
        # theirs counts evaluations and spends two on its start; regularisation: each library's own default
        solver = Anderson(max_steps=evaluations - 1, rtol=0.0, atol=0.0, memory=6)
        ours, theirs = Recorded(f), Recorded(f)
        stats = solve(solver, ours, f.z0).stats
        _, _, info = anderson_solver(theirs, f.z0, max_iter=evaluations, tol=0.0, m=6)
        counts = len(ours.points), len(theirs.points)
        early = largest_difference(ours.points[:4], theirs.points[:4])
        del ours, theirs
        mine, other = float(stats.relative_residual.max()), float(info["rel_lowest"].max())
        wrong = ""
        if counts[0] != counts[1]:
            wrong = f"{counts[0]} evaluations against {counts[1]}"
        elif not mine <= 1.1 * other:
            wrong = f"the residual {mine:.1e} is above torchdeq's {other:.1e}"
        times = interleaved(
            {
                "ours": lambda solver=solver, f=f: solve(solver, f, f.z0),
                "torchdeq": lambda f=f, n=evaluations: anderson_solver(f, f.z0, max_iter=n, tol=0.0, m=6),
            },
            options.repeats,
        )
        gain = ratio(times, "torchdeq", "ours")
        yield Line(
            "anderson",
            f"({batch}, {size}) m=6, {counts[0]} evaluations: torchdeq {1e3 * median(times, 'torchdeq'):.0f} ms, ours "
            f"{1e3 * median(times, 'ours'):.0f} ms, {gain:.2f}x; residual {mine:.2e} against {other:.2e}; first four "
            f"iterates within {early:.1e}",
            gain,
            1.3,
            wrong=wrong,
            figures={"evaluations": counts[0], "their_evaluations": counts[1], "early": early},
        )


def cuda(options: Options) -> Iterator[Line]:
    """``broyden`` at batch 32 on a GPU; absolute times count there."""
    if not torch.cuda.is_available():
        yield Line("cuda", "skipped: no CUDA device")
        return
    yield from broyden(options, "cuda", "cuda")
