"""Case ``training`` of implicit.py: the network of experiment=small, our solver and torchdeq's in turn."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from implicit_common import Line, Options, interleaved, median, ratio
from implicit_floor import FloorPyramid
from torch import Tensor
from torchdeq_adapter import TorchdeqPyramid

from qefpn.commands.overrides import compose_config
from qefpn.data.synthetic import render
from qefpn.data.transforms import normalize
from qefpn.implicit import Adjoint, Broyden, ImplicitAdjoint, JacobianFreeAdjoint, PhantomAdjoint, ShineAdjoint
from qefpn.training.build import build_module
from qefpn.training.config import TrainConfig, typed
from qefpn.training.module import SaliencyModule

STEPS = 8
SAME_CURVE = 0.01
"""Largest relative difference of the losses of two curves that count as the same. Asked for 8 steps, torchdeq hands on
f(z) of iterate 7 (to 6e-7), ours is iterate 8 itself: with a residual near 1e-2 the two differ by about as much."""
SAME_LOSS = 0.02
"""A cheaper gradient reaches the same loss when it ends within this share of torchdeq's."""

Batch = tuple[Tensor, Tensor]


def configuration() -> TrainConfig:
    """experiment=small with 8 + 8 Broyden steps, all of them taken, in float32 at a constant rate."""
    words = [
        *("experiment=small", "data=synthetic", "data.root=unused", "schedule=constant", "warmup.steps=0"),
        *("adjoint=implicit", f"solver.max_steps={STEPS}", "solver.rtol=0.0", "residual=equilibrium"),
        *("pyramid.block_dtype=float32", "trainer.precision=32-true"),
    ]
    return typed(compose_config("train", words))


def batches(options: Options) -> list[Batch]:
    """Synthetic pictures (B, 3, S, S), normalised, and masks (B, 1, S, S), in memory."""
    drawn = [render(0, index, options.picture_size) for index in range(options.pictures)]
    images = normalize(torch.from_numpy(np.stack([image for image, _ in drawn])))
    masks = torch.from_numpy(np.stack([mask for _, mask in drawn]))[:, None].float() / 255.0
    size = options.batch
    starts = range(0, options.pictures - size + 1, size)
    return [(images[i : i + size], masks[i : i + size]) for i in starts]


class Trained:
    """A copy of one module with its own optimizer, trained step by step."""

    def __init__(self, module: SaliencyModule, clip: float | None) -> None:
        self.module = copy.deepcopy(module).train()
        self.clip = clip
        self.optimizer: Any = None
        self.losses: list[float] = []
        self.place = 0

    @property
    def network(self) -> Any:
        return self.module.network

    def step(self, data: list[Batch]) -> float:
        """One optimizer step on the next batch; the loss."""
        if self.optimizer is None:
            made: Any = self.module.configure_optimizers()
            self.optimizer = made["optimizer"]
        images, masks = data[self.place % len(data)]
        self.place += 1
        output = self.network.run(images)
        loss, _ = self.module.criterion(
            output.logits, masks, side_logits=output.side_logits, edge_logits=output.edge_logits
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        self.optimizer.step()
        self.losses.append(float(loss))
        return self.losses[-1]


@dataclass(frozen=True)
class Variant:
    """A cheaper way to train the same network."""

    name: str
    solver: Broyden
    adjoint: Adjoint


def variants() -> list[Variant]:
    """Fewer evaluations for, one hopes, the same loss."""
    all_steps, short = Broyden(max_steps=STEPS, rtol=0.0), Broyden(max_steps=4, rtol=1e-2)
    tolerant = Broyden(max_steps=STEPS, rtol=1e-2)
    return [
        Variant("8 + 3 steps", all_steps, ImplicitAdjoint(Broyden(max_steps=3, rtol=0.0))),
        Variant("rtol 1e-2 both ways", tolerant, ImplicitAdjoint(tolerant)),
        Variant("4 + 3 steps, rtol 1e-2", short, ImplicitAdjoint(Broyden(max_steps=3, rtol=1e-2))),
        Variant("8 steps, shine", all_steps, ShineAdjoint()),
        Variant("4 steps, rtol 1e-2, shine", short, ShineAdjoint()),
        Variant("4 steps, rtol 1e-2, phantom 2", short, PhantomAdjoint(steps=2, damping=1.0)),
        Variant("8 steps, jacobian_free", all_steps, JacobianFreeAdjoint()),
        Variant("4 steps, rtol 1e-2, jacobian_free", short, JacobianFreeAdjoint()),
    ]


def training(options: Options) -> Iterator[Line]:
    """Equal steps, the floor, then the variants."""
    config = configuration()
    module = build_module(config)
    data = batches(options)
    clip = config.trainer.gradient_clip_val

    def trained(change: Callable[[Any], Any] | None = None) -> Trained:
        run = Trained(module, clip)
        if change is not None:
            run.network.pyramid = change(run.network.pyramid.transformation)
        return run

    def variant(choice: Variant) -> Trained:
        run = trained()
        run.network.pyramid.solver, run.network.pyramid.adjoint = choice.solver, choice.adjoint
        return run

    runs = {
        "ours": trained(),
        "torchdeq": trained(lambda f: TorchdeqPyramid(f, STEPS)),
        "torchdeq, hook": trained(lambda f: TorchdeqPyramid(f, STEPS, hook=True)),
        "floor": trained(lambda f: FloorPyramid(f, STEPS + 1, STEPS)),
    }
    choices = variants() if options.variants else []
    runs |= {choice.name: variant(choice) for choice in choices}
    times = interleaved({name: lambda run=run: run.step(data) for name, run in runs.items()}, options.repeats, warmup=2)

    gain, bound = ratio(times, "torchdeq", "ours"), ratio(times, "torchdeq", "floor")
    rate = {name: options.batch / median(times, name) for name in ("ours", "torchdeq", "floor")}
    hook = ratio(times, "torchdeq, hook", "ours")
    reference, ours = trained(lambda f: TorchdeqPyramid(f, STEPS)), trained()
    start = time.perf_counter()
    for _ in range(options.curve):
        reference.step(data)
    allowed = time.perf_counter() - start
    for _ in range(options.curve):
        ours.step(data)
    pairs = list(zip(ours.losses, reference.losses, strict=True))
    difference = max(abs(a - b) / abs(b) for a, b in pairs)
    first = max(abs(a - b) / abs(b) for a, b in pairs[:5])
    yield Line(
        "training",
        f"{STEPS} + {STEPS} steps, {options.picture_size} px, batch {options.batch}: torchdeq {rate['torchdeq']:.1f} "
        f"pictures/s (its hook {hook:.2f}x slower than ours), ours {rate['ours']:.1f}, {gain:.2f}x; floor (f and its "
        f"products alone) {rate['floor']:.1f}, {bound:.2f}x; losses within {first:.1e} over 5 steps, {difference:.1e} "
        f"over {options.curve}",
        gain,
        1.3,
        wrong="" if first <= SAME_CURVE else f"the losses of the first steps differ by {first:.1e}",
        figures={"difference": difference, "first": first, "floor": bound},
    )
    window = len(data)  # the last pass over the pictures

    def level(losses: list[float]) -> float:
        return statistics.mean(losses[-window:])

    target = level(reference.losses)
    if choices:
        yield Line(
            "training",
            f"loss, mean of {window} steps: at the start {statistics.mean(reference.losses[:window]):.4f}, torchdeq "
            f"after {options.curve} steps {target:.4f} in {allowed:.0f} s, ours {level(ours.losses):.4f}",
        )
    for choice in choices:
        run = variant(choice)
        begin = time.perf_counter()
        while run.place < options.curve or time.perf_counter() - begin < allowed:
            run.step(data)
        equal_steps, equal_time = level(run.losses[: options.curve]), level(run.losses)
        speed = ratio(times, "torchdeq", choice.name)
        same = equal_steps <= (1.0 + SAME_LOSS) * target
        yield Line(
            "training",
            f"{choice.name}: {speed:.2f}x torchdeq's pictures/s; loss after {options.curve} steps {equal_steps:.4f} "
            f"({equal_steps / target - 1.0:+.1%}{'' if same else ', NOT the same loss'}), after equal time "
            f"({run.place} steps) {equal_time:.4f} ({equal_time / target - 1.0:+.1%})",
            speed if same else 0.0,
            2.0,
            figures={"speed": speed, "equal_steps": equal_steps, "equal_time": equal_time, "torchdeq": target},
        )
