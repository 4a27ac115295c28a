"""Case ``training`` of implicit.py: the network of experiment=small, our solver and torchdeq's in turn."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from implicit_common import Line, Options, interleaved, median, ratio
from implicit_floor import FloorPyramid
from torch import Tensor
from torchdeq_adapter import TorchdeqPyramid

from qefpn.data.synthetic import render
from qefpn.experiments.composition import compose_config
from qefpn.experiments.module import build_module
from qefpn.experiments.schema import TrainConfig, parse_config
from qefpn.implicit import Adjoint, Broyden, ImplicitAdjoint, ShineAdjoint
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
    return parse_config(compose_config("train", words))


def batches(options: Options) -> list[Batch]:
    """Synthetic pictures (B, 3, S, S), uint8, and masks (B, 1, S, S), in memory."""
    drawn = [render(0, index, options.picture_size) for index in range(options.pictures)]
    images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2)
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
        self.losses.append(loss.item())
        return self.losses[-1]


@dataclass(frozen=True)
class Variant:
    """A cheaper way to train the same network."""

    name: str
    solver: Broyden
    adjoint: Adjoint


class Best(NamedTuple):
    """The variant that is ahead, and its pictures a second over torchdeq's."""

    name: str
    speed: float


def variants() -> list[Variant]:
    """Fewer evaluations for, one hopes, the same loss."""
    two, three, four = (Broyden(max_steps=steps, rtol=1e-2) for steps in (2, 3, 4))
    return [
        Variant("3 + 2 steps", three, ImplicitAdjoint(two)),
        Variant("2 + 2 steps", two, ImplicitAdjoint(two)),
        Variant("4 steps, shine", four, ShineAdjoint()),
        Variant("2 steps, shine", two, ShineAdjoint()),
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
    rounds = 2 * options.repeats + 1  # a step is short beside the machine's moods
    times = interleaved({name: lambda run=run: run.step(data) for name, run in runs.items()}, rounds, warmup=2)

    gain, bound = ratio(times, "torchdeq", "ours"), ratio(times, "torchdeq", "floor")
    rate = {name: options.batch / median(times, name) for name in ("ours", "torchdeq", "floor")}
    hook = ratio(times, "torchdeq, hook", "ours")
    reference, ours = trained(lambda f: TorchdeqPyramid(f, STEPS)), trained()
    for _ in range(options.curve):
        reference.step(data)
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

    if not choices:
        return
    target = level(reference.losses)
    yield Line(
        "training",
        f"loss, mean of {window} steps: at the start {level(reference.losses[:window]):.4f}, after {options.curve} "
        f"steps torchdeq {target:.4f}, ours {level(ours.losses):.4f}",
    )
    best = Best("none", 0.0)
    for choice in choices:
        run = variant(choice)
        for _ in range(options.curve):
            run.step(data)
        loss, speed = level(run.losses), ratio(times, "torchdeq", choice.name)
        same = loss <= (1.0 + SAME_LOSS) * target
        if same:
            best = max(best, Best(choice.name, speed), key=lambda found: found.speed)
        yield Line(
            "training",
            f"{choice.name}, rtol 1e-2: {speed:.2f}x torchdeq's pictures/s; loss {loss:.4f} ({loss / target - 1.0:+.1%}"
            f"{'' if same else ', NOT the same loss'})",
            figures={"speed": speed, "loss": loss, "torchdeq": target},
        )
    yield Line(
        "training",
        f"the fastest with the same loss (within {SAME_LOSS:.0%}) by fewer evaluations: {best.name}, {best.speed:.2f}x",
        best.speed,
        2.0,
    )
