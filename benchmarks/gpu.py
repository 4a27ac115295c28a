"""What no CPU can tell, in one call of at most eight minutes on a machine with a GPU.

    python benchmarks/gpu.py [part ...] [key=value ...]      no part: all of them

    tests        the tests marked gpu, by pytest
    engine       27 Broyden steps of a cheap map at the paper's sizes, batch 32, beside torchdeq where it is installed
    f_theta      one evaluation of the paper's f_theta at 352 px: float32, TF32, bfloat16 inside; channels first and
                 last; eager and compiled; forward, and forward with backward
    inference    the paper's network at 352 px and that of the package, pictures a second at batch 1 and 32
    training     experiment=paper's network at 352 px: pictures a second and memory of a training step, by precision
    quasi        a solve with two of seven samples dropped beside a plain one

Keys: seconds=480 (what is left out then is named), device=cuda (cpu rehearses it, small), output=FOLDER for gpu.md and
gpu.json, tests=tests/gpu. Nothing is downloaded: weights are drawn. Times are medians by device events after a warm-up;
a part that fails is told and the others are done. The exit status is 1 where a part failed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qefpn import QEFPN, load_model
from qefpn.implicit import Broyden, Equilibrium, QuasiEquilibrium, fixed_point
from qefpn.implicit.driver import solve
from qefpn.implicit.masks import draw_masks
from qefpn.models import Transformation
from qefpn.training.hardware import fp32_precision

Row = dict[str, Any]


@dataclass
class Bench:
    """Options, what is left of the time, and the rows of each part.

    Attributes:
        seconds: for everything.
        device: "cuda", or "cpu" for a rehearsal with small sizes.
        output: where gpu.md and gpu.json go; None: to the terminal alone.
        tests: what pytest is given.
    """

    seconds: float = 480.0
    device: str = "cuda"
    output: Path | None = None
    tests: str = "tests/gpu"
    begun: float = field(default_factory=time.monotonic)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def small(self) -> bool:
        return self.device == "cpu"

    @property
    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.begun)

    def size(self, large: int, small: int) -> int:
        return small if self.small else large

    def milliseconds(self, work: Callable[[], object], least: float = 1.0) -> float:
        """Median of at least five calls, and of as many as fit into ``least`` seconds."""
        for _ in range(1 if self.small else 3):
            work()
        found: list[float] = []
        begun = time.monotonic()
        while len(found) < (2 if self.small else 5) or (time.monotonic() - begun < least and len(found) < 200):
            if self.small:
                start = time.perf_counter()
                work()
                found.append(1e3 * (time.perf_counter() - start))
                if len(found) == 2:
                    break
                continue
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            work()
            last.record()
            torch.cuda.synchronize()
            found.append(first.elapsed_time(last))
        return statistics.median(found)

    def peak(self, work: Callable[[], object]) -> float | None:
        """MiB that torch held at most during a call; None on a CPU."""
        if self.small:
            work()
            return None
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**20


def tests(bench: Bench) -> Iterator[Row]:
    """The tests marked gpu."""
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:xdist", "-q", "-x", bench.tests]
    done = subprocess.run(words, capture_output=True, text=True, timeout=max(30.0, bench.left))
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        bench.notes.append("tests:\n" + "\n".join(lines[-60:]))
    yield {"tests": lines[-1] if lines else "no output", "passed": done.returncode == 0}
    if done.returncode:
        raise RuntimeError("a test failed; the notes have its text")


def engine(bench: Bench) -> Iterator[Row]:
    """Our Broyden beside torchdeq's, equal iterates, on z ↦ b + a·sin(z)."""
    theirs: Any = None
    if importlib.util.find_spec("torchdeq") is not None:
        from torchdeq_adapter import broyden_solver as theirs
    else:
        bench.notes.append("engine: torchdeq is not installed, its column is empty")
    for batch, size in ((1, 658_240), (32, 658_240)) if not bench.small else ((2, 4_000),):
        generator = torch.Generator().manual_seed(0)
        a = (torch.rand(batch, size, generator=generator) * 1.5 - 0.6).to(bench.device)
        b = torch.randn(batch, size, generator=generator).to(bench.device)
        zero = torch.zeros_like(b)

        def f(z: Tensor, a: Tensor = a, b: Tensor = b) -> Tensor:
            return torch.addcmul(b, a, torch.sin(z))

        row: Row = {"batch": batch, "state": size, "steps": 27}
        solvers = {"fixed": Broyden(27, 0.0), "rtol 1e-3": Broyden(27, 1e-3)}
        for name, solver in solvers.items():
            with torch.no_grad():
                row[f"{name}, ms"] = bench.milliseconds(lambda s=solver, z=zero, f=f: solve(s, f, z))
        row["f, ms"] = bench.milliseconds(lambda z=zero, f=f: f(z))
        if theirs is not None:
            with torch.no_grad():
                row["torchdeq, ms"] = bench.milliseconds(lambda z=zero, f=f: theirs(f, z, max_iter=27, tol=0.0))
            row["times as fast"] = row["torchdeq, ms"] / row["fixed, ms"]
        yield row


def injected(bench: Bench, channels: int, side: int, batch: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(batch, channels, side >> level, side >> level, generator=generator).to(bench.device)
        for level in (2, 3, 4, 5)
    )


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    with fp32_precision("tf32" if name == "tf32" else "ieee"):
        yield


def f_theta(bench: Bench) -> Iterator[Row]:
    """One evaluation of f_theta by number format, memory format and compiler: what block_dtype and the memory format
    should be on this device."""
    channels, side = bench.size(64, 8), bench.size(352, 64)
    for batch in (1, bench.size(32, 2)):
        x = injected(bench, channels, side, batch)
        for compiled in (False, True) if not bench.small else (False,):
            for kind in ("float32", "tf32", "bfloat16"):
                for last in (False, True):
                    if bench.left < 60 and not bench.small:
                        return
                    torch.manual_seed(0)
                    layer: Any = Transformation(channels, (2, 3, 4, 5), half=kind == "bfloat16").to(bench.device)
                    layer.channels_last = last
                    memory_format = torch.channels_last if last else torch.contiguous_format
                    layer.to(memory_format=memory_format)
                    given = tuple(level.contiguous(memory_format=memory_format) for level in x)
                    state = tuple(torch.randn_like(level) for level in given)
                    run = torch.compile(layer) if compiled else layer

                    def both(run: Any = run, state: Any = state, given: Any = given, layer: Any = layer) -> None:
                        layer.zero_grad(set_to_none=True)
                        torch.stack([level.square().mean() for level in run(state, *given)]).sum().backward()

                    def forward(run: Any = run, state: Any = state, given: Any = given) -> object:
                        with torch.no_grad():
                            return run(state, *given)

                    with precision(kind):
                        yield {
                            "batch": batch,
                            "type": kind,
                            "channels": "last" if last else "first",
                            "compiled": compiled,
                            "forward, ms": bench.milliseconds(forward, 0.4),
                            "with backward, ms": bench.milliseconds(both, 0.4),
                        }


def inference(bench: Bench) -> Iterator[Row]:
    """Pictures a second, resizing and decoding left out."""
    small = {"channels": 8, "expansion": 1, "solver": {"name": "broyden", "max_steps": 3}}
    paper = {"solver": {"name": "broyden", "max_steps": 27, "rtol": 1e-3}}
    networks: dict[str, tuple[Callable[[], QEFPN], int]] = {
        "paper": (lambda: QEFPN("resnet18" if bench.small else "resnet50", **(small if bench.small else paper)), 352),
        "mobile": (lambda: load_model("mobile"), 224),
    }
    for name, (make, side) in networks.items():
        torch.manual_seed(0)
        network = make().eval().to(bench.device)
        side = bench.size(side, 64)
        for batch in (1, bench.size(32, 2)):
            images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8).to(bench.device)
            for kind in ("float32", "tf32"):

                def run(network: QEFPN = network, images: Tensor = images) -> object:
                    with torch.no_grad():
                        return network(images)

                with precision(kind):
                    ms = bench.milliseconds(run)
                    yield {
                        "network": name,
                        "side": side,
                        "batch": batch,
                        "type": kind,
                        "ms": ms,
                        "pictures/s": 1e3 * batch / ms,
                        "MiB": bench.peak(run),
                    }


def training(bench: Bench) -> Iterator[Row]:
    """A training step of the paper's network: forward, cross entropy, backward; no optimizer, no loader."""
    side = bench.size(352, 64)
    options: dict[str, Any] = {"channels": 8, "expansion": 1} if bench.small else {}
    for name, adjoint, solver in (
        ("implicit", "implicit", {"name": "broyden", "max_steps": bench.size(27, 3), "rtol": 1e-3}),
        ("shine", "shine", {"name": "broyden", "max_steps": bench.size(8, 3), "rtol": 1e-3}),
        ("none", None, None),
    ):
        for kind, block in (("float32", "float32"), ("tf32", "float32"), ("tf32", "bfloat16")):
            if bench.left < 40 and not bench.small:
                return
            torch.manual_seed(0)
            solving = {} if adjoint is None else {"adjoint": adjoint, "solver": solver, "block_dtype": block}
            if adjoint is None and block == "bfloat16":
                continue
            pyramid = "none" if adjoint is None else "implicit"
            backbone = "resnet18" if bench.small else "resnet50"
            network = QEFPN(backbone, pyramid=pyramid, **options, **solving).to(bench.device).train()
            batch = bench.size(32, 2)
            images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8).to(bench.device)
            masks = (torch.rand(batch, 1, side, side) > 0.5).float().to(bench.device)
            keys = torch.arange(batch)

            def step(
                network: QEFPN = network, images: Tensor = images, masks: Tensor = masks, keys: Tensor = keys
            ) -> None:
                network.zero_grad(set_to_none=True)
                logits = network.run(images, keys=keys).logits
                torch.nn.functional.binary_cross_entropy_with_logits(logits, masks).backward()

            with precision(kind):
                ms = bench.milliseconds(step)
                yield {
                    "pyramid": name,
                    "type": kind,
                    "block": block,
                    "batch": batch,
                    "ms": ms,
                    "pictures/s": 1e3 * batch / ms,
                    "MiB": bench.peak(step),
                }


def quasi(bench: Bench) -> Iterator[Row]:
    """The price of the quasi residual with two of seven samples dropped."""
    batch = 7
    channels, side = bench.size(64, 8), bench.size(352, 64)
    x = injected(bench, channels, side, batch)
    zero = tuple(torch.zeros_like(level) for level in x)
    size = sum(level[0].numel() for level in x)
    p = 0.33 / size
    has = [bool(mask.size) for key in range(200) for mask in draw_masks(1, size, p, 0, torch.tensor([key]))]
    dropped, others = ([key for key in range(200) if has[key] is wanted] for wanted in (True, False))
    keys = torch.tensor(dropped[:2] + others[: batch - 2])
    torch.manual_seed(0)
    layer = Transformation(channels, (2, 3, 4, 5)).to(bench.device)
    kinds = {
        "plain": Equilibrium(),
        "difference": QuasiEquilibrium(p=p, difference=2**-8),
        "derivative": QuasiEquilibrium(p=p),
    }
    with torch.no_grad(), fp32_precision("ieee"):
        times = {
            name: bench.milliseconds(
                lambda r=residual: fixed_point(layer, zero, x, solver=Broyden(6, 0.0), residual=r, keys=keys)
            )
            for name, residual in kinds.items()
        }
    yield {
        **{f"{name}, ms": value for name, value in times.items()},
        "difference/plain": times["difference"] / times["plain"],
        "derivative/plain": times["derivative"] / times["plain"],
    }


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "tests": tests,
    "engine": engine,
    "f_theta": f_theta,
    "quasi": quasi,
    "inference": inference,
    "training": training,
}


def table(rows: list[Row]) -> str:
    """Markdown."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    for row in rows:
        lines.append("| " + " | ".join(_shown(row.get(head)) for head in heads) + " |")
    return "\n".join(lines)


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def parse(words: list[str]) -> tuple[Bench, list[str]]:
    """Options and parts; ``ValueError`` names a word that means nothing."""
    bench, parts = Bench(), []
    for word in words:
        key, sign, value = word.partition("=")
        if not sign and key in PARTS:
            parts.append(key)
        elif key == "seconds":
            bench.seconds = float(value)
        elif key == "device" and value in ("cuda", "cpu"):
            bench.device = value
        elif key == "output":
            bench.output = Path(value)
        elif key == "tests":
            bench.tests = value
        else:
            raise ValueError(
                f"{word}: there are the parts {', '.join(PARTS)} and seconds=, device=cuda|cpu, output=, tests="
            )
    return bench, parts or list(PARTS)


def main(words: list[str]) -> int:
    """0; 1 where a part failed; 2 for a word that means nothing or a device that is not there."""
    try:
        bench, parts = parse(words)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if bench.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device; device=cpu rehearses this, small", file=sys.stderr)
        return 2
    name = torch.cuda.get_device_name() if bench.device == "cuda" else "a CPU, as a rehearsal"
    head = f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}"
    print(head, flush=True)
    failed = False
    for part in parts:
        rows = bench.rows.setdefault(part, [])
        if bench.left < 20:
            bench.notes.append(f"{part}: left out, {bench.seconds:.0f} s are over")
            continue
        begun = time.monotonic()
        try:
            for row in PARTS[part](bench):
                rows.append(row)
        except Exception:  # the other parts are still worth their minutes
            failed = True
            bench.notes.append(f"{part} failed:\n{traceback.format_exc(limit=4)}")
        print(f"\n## {part} ({time.monotonic() - begun:.0f} s)\n\n{table(rows)}", flush=True)
        _save(bench, head)
    print("\n".join(["", *bench.notes]))
    return int(failed)


def _save(bench: Bench, head: str) -> None:
    if bench.output is None:
        return
    bench.output.mkdir(parents=True, exist_ok=True)
    content = {"machine": head, "rows": bench.rows, "notes": bench.notes}
    (bench.output / "gpu.json").write_text(json.dumps(content, indent=1))
    text = "\n\n".join(f"## {part}\n\n{table(rows)}" for part, rows in bench.rows.items())
    (bench.output / "gpu.md").write_text(f"{head}\n\n{text}\n" + "".join(f"\n- {note}\n" for note in bench.notes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
