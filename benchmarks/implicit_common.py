"""What the cases of implicit.py share: options, lines, interleaved timing, the machine."""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass
class Options:
    """Keys of the command line.

    Attributes:
        repeats: timed rounds of each ratio.
        threads: of torch.
        size: elements a sample; 0 for the sizes of each case.
        steps: solver steps of ``broyden``, and evaluations of ``anderson``.
        pictures: synthetic pictures of ``training``.
        picture_size: their side in pixels.
        batch: pictures a training step.
        curve: training steps over which the losses are compared.
        variants: compare the losses of the cheaper gradients, too (minutes).
        pyramid_size: side of the picture in ``overhead`` and ``memory``; the finest level has a quarter of it.
        pyramid_channels: channels a level there.
        depths: solver steps of the rows of ``memory``.
    """

    repeats: int = 7
    threads: int = 2
    size: int = 0
    steps: int = 27
    pictures: int = 64
    picture_size: int = 80
    batch: int = 16
    curve: int = 40
    variants: bool = True
    pyramid_size: int = 128
    pyramid_channels: int = 64
    depths: tuple[int, ...] = (10, 20, 40)

    @classmethod
    def parse(cls, words: list[str]) -> Options:
        """From ``key=value`` words; ``ValueError`` names the one that means nothing."""
        fields = {field.name: field for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for word in words:
            key, _, value = word.partition("=")
            if key not in fields:
                raise ValueError(f"no key {key!r}; there are: {', '.join(fields)}")
            try:
                if key == "depths":
                    values[key] = tuple(int(part) for part in value.split(","))
                elif key == "variants":
                    values[key] = {"true": True, "false": False}[value]
                else:
                    values[key] = int(value)
            except (ValueError, KeyError):
                raise ValueError(f"{word}: the value is of the wrong kind") from None
        return cls(**values)


@dataclass
class Line:
    """One line of the output.

    Attributes:
        case: name of the case.
        text: what was measured.
        ratio: theirs over ours, or what the target bounds; None where there is none.
        target: least ``ratio`` (greatest with ``at_most``); None: informative.
        wrong: why the result is wrong, not merely slow; empty where it is right.
        figures: further numbers by name, for whoever reads them in a program.
    """

    case: str
    text: str
    ratio: float | None = None
    target: float | None = None
    at_most: bool = False
    wrong: str = ""
    figures: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def holds(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None or self.ratio is None:
            return None
        good = self.ratio <= self.target if self.at_most else self.ratio >= self.target
        return good and not self.wrong

    def __str__(self) -> str:
        text = f"{self.case:<10}{self.text}"
        if self.holds is not None:
            sign = "≤" if self.at_most else "≥"
            text += f"  [target {sign} {self.target:g}: {'holds' if self.holds else 'MISSED'}]"
        return text + (f"  WRONG: {self.wrong}" if self.wrong else "")


def machine() -> str:
    """Processor, threads, versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        name = f"{names[0]} ({len(names)} cores)" if names else name
    text = f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"
    if torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text


def seconds(work: Callable[[], Any]) -> float:
    """Time of one call, the device's work included."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(works: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each work, ``repeats`` of each in rounds; the order turns by one every round."""
    names = list(works)
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(warmup):
        for name in names:
            seconds(works[name])
    for number in range(repeats):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            times[name].append(seconds(works[name]))
    return times


def ratio(times: Mapping[str, list[float]], above: str, below: str) -> float:
    """Median over the rounds of one time over another."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def median(times: Mapping[str, list[float]], name: str) -> float:
    """Median seconds."""
    return statistics.median(times[name])


def copy_bandwidth(size: int, device: str = "cpu", repeats: int = 9) -> float:
    """Bytes a second, read plus written, of copying ``size`` bytes: the median."""
    source = torch.ones(max(1, size // 4), device=device)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, repeats, warmup=2)
    return 2 * 4 * source.numel() / median(times, "copy")
