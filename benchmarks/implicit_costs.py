"""Cases of implicit.py about the default pyramid: overhead, memory, jvp, quasi."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from implicit_common import Line, Options, interleaved, median, ratio
from implicit_floor import FloorPyramid
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.profiler import ProfilerActivity, profile

from qefpn.implicit import (
    Adjoint,
    Broyden,
    Equilibrium,
    ImplicitAdjoint,
    QuasiEquilibrium,
    Residual,
    Solver,
    Unroll,
    UnrolledAdjoint,
    fixed_point,
)
from qefpn.implicit.masks import draw_masks
from qefpn.implicit.problem import flat_problem
from qefpn.implicit.torch_private import forward_derivative
from qefpn.models import ImplicitPyramid, Transformation

LEVELS = (2, 3, 4, 5)
BATCH = 2


def pyramid_inputs(options: Options, batch: int) -> tuple[Transformation, tuple[Tensor, ...]]:
    """f_theta of the default network, fresh, and injections for pictures of ``pyramid_size``."""
    torch.manual_seed(0)
    channels, side = options.pyramid_channels, options.pyramid_size
    transformation = Transformation(channels, LEVELS)
    injection = tuple(
        torch.randn(batch, channels, side >> level, side >> level)
        .to(memory_format=torch.channels_last)
        .requires_grad_()
        for level in LEVELS
    )
    return transformation, injection


def train_step(pyramid: nn.Module, injection: tuple[Tensor, ...]) -> Any:
    """Forward and backward; the solution of an implicit pyramid."""
    pyramid.zero_grad(set_to_none=True)
    state, solution = pyramid(injection)
    torch.stack([part.square().mean() for part in state]).sum().backward()
    return solution


def implicit_pyramid(transformation: nn.Module, solver: Solver, adjoint: Adjoint | None = None) -> ImplicitPyramid:
    """A pyramid in training mode with the plain residual: fresh states have no drops to speak of."""
    copied: Any = copy.deepcopy(transformation)
    return ImplicitPyramid(copied, solver, Equilibrium(), adjoint or ImplicitAdjoint()).train()


def overhead(options: Options) -> Iterator[Line]:
    """Share of a training step of the pyramid outside f: at the default tolerance, then with every step taken."""
    transformation, injection = pyramid_inputs(options, BATCH)
    settings = {"default (rtol 1e-3)": Broyden(), "27 + 27 steps": Broyden(rtol=0.0)}
    for name, solver in settings.items():
        full = implicit_pyramid(transformation, solver)
        calls = [0]
        handle = full.transformation.register_forward_hook(lambda *_, calls=calls: calls.__setitem__(0, calls[0] + 1))
        solution = train_step(full, injection)
        handle.remove()
        products = int(solution.backward_stats.evaluations.max())
        floor = FloorPyramid(copy.deepcopy(transformation), calls[0], products)
        times = interleaved(
            {
                "full": lambda full=full: train_step(full, injection),
                "floor": lambda floor=floor: train_step(floor, injection),
            },
            2 * options.repeats + 1,  # a small difference of two long times
        )
        share = 1.0 - ratio(times, "floor", "full")
        yield Line(
            "overhead",
            f"{options.pyramid_channels} channels, {options.pyramid_size} px, batch {BATCH}, {name}: {calls[0]} "
            f"evaluations + {products} products, step {1e3 * median(times, 'full'):.0f} ms, f alone "
            f"{1e3 * median(times, 'floor'):.0f} ms, outside f {share:.1%}",
            share,
            0.15,
            at_most=True,
            figures={"evaluations": calls[0], "products": products},
        )


def peak_bytes(work: Callable[[], Any]) -> int:
    """Greatest total of what the allocator handed out during ``work`` and had not got back.

    Counted by torch's profiler, allocation by allocation: it repeats exactly, which the resident size of a
    process does not (the C library keeps what is freed). Scratch of oneDNN outside torch's allocator is not in it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    total = peak = 0
    for _, change in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        total += change
        peak = max(peak, total)
    return peak


def memory(options: Options) -> Iterator[Line]:
    """Peak of a training step at each depth: implicit with bounded memory, implicit with all pairs, unrolled."""
    transformation, injection = pyramid_inputs(options, BATCH)
    pairs = min(8, *options.depths)
    columns: dict[str, Callable[[int], ImplicitPyramid]] = {
        f"implicit, {pairs} pairs": lambda depth: implicit_pyramid(
            transformation, Broyden(max_steps=depth, rtol=0.0, memory=pairs)
        ),
        "implicit, all pairs": lambda depth: implicit_pyramid(transformation, Broyden(max_steps=depth, rtol=0.0)),
        "unrolled": lambda depth: implicit_pyramid(transformation, Unroll(max_steps=depth), UnrolledAdjoint()),
    }
    yield Line("memory", "peak of what torch's allocator holds in a training step, MiB (by torch's profiler)")
    yield Line("memory", f"{'steps':<8}" + "".join(f"{name:>22}" for name in columns))
    peaks: dict[str, list[int]] = {name: [] for name in columns}
    for depth in options.depths:
        for name, build in columns.items():
            pyramid = build(depth)
            train_step(pyramid, injection)  # what is made once
            peaks[name].append(peak_bytes(lambda pyramid=pyramid: train_step(pyramid, injection)))
        yield Line(
            "memory",
            f"{depth:<8}" + "".join(f"{values[-1] / 2**20:>22.1f}" for values in peaks.values()),
            figures={name: float(values[-1]) for name, values in peaks.items()},
        )
    bounded, unrolled = next(iter(peaks.values())), peaks["unrolled"]
    spread = max(bounded) / min(bounded) - 1.0
    growth = unrolled[-1] / unrolled[0]
    yield Line(
        "memory",
        f"implicit with {pairs} pairs: within {spread:.1%}; unrolled grows {growth:.2f}x from {options.depths[0]} to "
        f"{options.depths[-1]} steps",
        spread,
        0.10,
        at_most=True,
        figures={"growth": growth},
    )


class Counted:
    """f_theta that notes how many samples it met, with a derivative and without."""

    def __init__(self, transformation: Transformation) -> None:
        self.transformation = transformation
        self.plain = self.dual = 0

    def __call__(self, state: tuple[Tensor, ...], *injection: Tensor) -> tuple[Tensor, ...]:
        if forward_ad.unpack_dual(state[0]).tangent is not None:  # type: ignore[no-untyped-call]
            self.dual += state[0].shape[0]
        else:
            self.plain += state[0].shape[0]
        return self.transformation(state, *injection)


def jvp(options: Options) -> Iterator[Line]:
    """Cost of f with its derivative over f, by torch.func and as a solve takes it, and on which samples it does."""
    batch, steps = 8, 3
    transformation, given = pyramid_inputs(options, batch)
    injection = tuple(x.detach() for x in given)
    state = tuple(torch.randn_like(x) for x in injection)
    problem, z = flat_problem(transformation, state, injection)
    one, z1 = flat_problem(transformation, tuple(x[:1] for x in state), tuple(x[:1] for x in injection))
    cost, text = {}, []
    for samples, f, point in ((batch, problem, z), (1, one, z1)):
        works = {
            "f": lambda f=f, point=point: f(point),
            "torch": lambda f=f, point=point: torch.func.jvp(f, (point,), (point,)),
            "ours": lambda f=f, point=point: forward_derivative(f, point, point),
        }
        with torch.no_grad():
            times = interleaved(works, options.repeats)
        cost[samples] = ratio(times, "ours", "f")
        text.append(
            f"batch {samples}: f {1e3 * median(times, 'f'):.1f} ms, with its derivative {cost[samples]:.2f}x, by "
            f"torch.func.jvp {ratio(times, 'torch', 'f'):.2f}x"
        )
    size = sum(x[0].numel() for x in injection)
    keys = torch.arange(batch)
    residual = QuasiEquilibrium(p=0.7 / size)
    dropped = sum(bool(mask.size) for mask in draw_masks(batch, size, residual.p, residual.seed, keys))
    counts = {}
    for name, chosen in {"quasi": residual, "p = 0": QuasiEquilibrium(p=0.0)}.items():
        counted = Counted(transformation)
        with torch.no_grad():
            zero = tuple(torch.zeros_like(x) for x in injection)
            solver = Broyden(max_steps=steps, rtol=0.0)
            fixed_point(counted, zero, injection, solver=solver, residual=chosen, keys=keys)
        counts[name] = counted.plain, counted.dual
    evaluations = steps + 1
    expected = {"quasi": ((batch - dropped) * evaluations, dropped * evaluations), "p = 0": (batch * evaluations, 0)}
    wrong = "" if counts == expected else f"samples (plain, with derivative) {counts}, expected {expected}"
    yield Line(
        "jvp",
        f"{'; '.join(text)}; {evaluations} evaluations, {dropped} samples with a drop: derivative on "
        f"{counts['quasi'][1]}, plain on {counts['quasi'][0]}; p = 0: on {counts['p = 0'][1]}",
        cost[batch],
        wrong=wrong,
        figures={"dropped": dropped, "plain": counts["quasi"][0], "dual": counts["quasi"][1]},
    )


def quasi(options: Options) -> Iterator[Line]:
    """A solve of the quasi residual beside a plain one, two of seven samples with a drop, and how far its map with a
    difference is from that with the exact derivative."""
    batch, wanted = 7, 2
    transformation, given = pyramid_inputs(options, batch)
    injection = tuple(x.detach() for x in given)
    zero = tuple(torch.zeros_like(x) for x in injection)
    size = sum(x[0].numel() for x in injection)
    p = 0.33 / size  # p = 5e-7 at the paper's size
    drops = {key: bool(draw_masks(1, size, p, 0, torch.tensor([key]))[0].size) for key in range(100)}
    with_drop = [key for key, dropped in drops.items() if dropped][:wanted]
    keys = torch.tensor(with_drop + [key for key, dropped in drops.items() if not dropped][: batch - wanted])
    residuals = {
        "plain": Equilibrium(),
        "quasi": QuasiEquilibrium(p=p),
        "exact": QuasiEquilibrium(p=p, difference=None),
    }
    solver = Broyden(max_steps=6, rtol=0.0)

    def solved(residual: Residual) -> Any:
        return fixed_point(transformation, zero, injection, solver=solver, residual=residual, keys=keys)

    with torch.no_grad():
        times = interleaved({name: lambda r=r: solved(r) for name, r in residuals.items()}, options.repeats)
        point = solved(residuals["plain"]).value
        problem, z = flat_problem(transformation, point, injection)
        near, exact, plain = (residuals[name].bind(problem, z, keys)(z) for name in ("quasi", "exact", "plain"))
    off, effect = (
        float((torch.linalg.vector_norm(one - exact, dim=1) / torch.linalg.vector_norm(exact, dim=1)).max())
        for one in (near, plain)
    )
    yield Line(
        "quasi",
        f"two of seven samples with a drop: {ratio(times, 'quasi', 'plain'):.2f}x a plain solve, by exact derivatives "
        f"{ratio(times, 'exact', 'plain'):.2f}x; maps within {off:.1e} of each other, f itself {effect:.1e} away",
        ratio(times, "quasi", "plain"),
        1.3,
        at_most=True,
        wrong="" if off < 1e-4 else f"the difference is {off:.1e} from the derivative",
        figures={"off": off, "exact": ratio(times, "exact", "plain")},
    )
