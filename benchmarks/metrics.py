"""All our saliency metrics against PySODMetrics' five classes, side by side on one thread, on 8-bit pictures.

python benchmarks/metrics.py [pictures=64] [rounds=3] [batch=32] [clock=wall|cpu]

The clock "cpu" counts the thread's own time, for a machine that others use too.
PySODMetrics has no binary ratio; ours is in our time. Reading files is in neither. The last two rows of a size are with
IoU, Dice and BER at all thresholds, against PySODMetrics' handlers for the same and for precision, recall and F.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from qefpn.data.synthetic import render
from qefpn.metrics import SaliencyMetrics
from qefpn.metrics.histogram import joint_histogram
from qefpn.metrics.histogram_scores import histogram_scores
from qefpn.metrics.inputs import to_pairs
from qefpn.metrics.protocol import F3NET
from qefpn.metrics.weighted_f import weighted_scores

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import py_sod_metrics

Picture = npt.NDArray[np.uint8]
Pair = tuple[Picture, Picture]

SIZES = ((352, 352), (400, 300))
CLASSES = ("MAE", "Fmeasure", "WeightedFmeasure", "Smeasure", "Emeasure")


def mask_of(index: int, size: tuple[int, int]) -> Picture:
    """A synthetic picture's mask, scaled to (rows, columns)."""
    mask = cv2.resize(render(0, index, 400)[1], size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(mask > 127, np.uint8(255), np.uint8(0))


def crisp(rng: np.random.Generator, mask: Picture) -> Picture:
    """What a trained network gives: a displaced object with soft edges, a few false blobs, mostly 0 or 255."""
    spread = cv2.GaussianBlur(rng.standard_normal(mask.shape), (0, 0), 12.0)
    logits = cv2.GaussianBlur(mask / 255.0, (0, 0), float(rng.uniform(2, 5))) - 0.5 + 4 * spread
    return np.rint(255 / (1 + np.exp(-24 * logits))).astype(np.uint8)


def soft(rng: np.random.Generator, mask: Picture) -> Picture:
    """What an early epoch or an older method gives: a wide blur on a noisy ground, hardly a 0 or a 255."""
    noise = cv2.GaussianBlur(rng.standard_normal(mask.shape), (0, 0), 3.0)
    noise += 0.05 * rng.standard_normal(mask.shape)
    values = 0.1 + 0.75 * cv2.GaussianBlur(mask / 255.0, (0, 0), float(rng.uniform(4, 12))) + 0.4 * noise
    return np.rint(255 * values.clip(0, 1)).astype(np.uint8)


SORTS: dict[str, Callable[[np.random.Generator, Picture], Picture]] = {"crisp": crisp, "soft": soft}


CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
clock = time.perf_counter


def seconds(work: Callable[[], Any]) -> float:
    """Time of one call."""
    start = clock()
    work()
    return clock() - start


EXTRA = ("iou", "dice", "ber")


def theirs(pairs: Sequence[Pair], extra: bool) -> list[float]:
    """Seconds a picture of PySODMetrics; with the handlers for :data:`EXTRA`, precision, recall and F where asked for,
    in place of its older class for F."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = [getattr(py_sod_metrics, name)() for name in CLASSES if not (extra and name == "Fmeasure")]
        if extra:
            kinds = ("IOU", "DICE", "BER", "Fmeasure", "Precision", "Recall")
            wanted = {"with_dynamic": True, "with_adaptive": True, "with_binary": True}
            handlers = {kind: getattr(py_sod_metrics, f"{kind}Handler")(**wanted) for kind in kinds}
            metrics.append(py_sod_metrics.FmeasureV2(handlers))

        def step(pair: Pair) -> None:
            for metric in metrics:
                metric.step(*pair)

        times = [seconds(lambda pair=pair: step(pair)) for pair in pairs]
    end = seconds(lambda: [metric.get_results() for metric in metrics])
    return [one + end / len(pairs) for one in times]


def ours(inputs: Sequence[tuple[Any, Any]], extra: bool) -> list[float]:
    """Seconds an update of :class:`SaliencyMetrics`."""
    metric = SaliencyMetrics("f3net", metrics=EXTRA if extra else "sod")
    times = [seconds(lambda pair=pair: metric.update(*pair)) for pair in inputs]
    end = seconds(metric.compute)
    return [one + end / len(inputs) for one in times]


def compare(pairs: Sequence[Pair], batch: int, rounds: int) -> list[tuple[str, float, float]]:
    """(way, their milliseconds, our milliseconds) a picture, medians over pictures (batches) and rounds."""
    batches = [
        (np.stack([s for s, _ in part]), np.stack([m for _, m in part]))
        for part in (pairs[first : first + batch] for first in range(0, len(pairs), batch))
        if len(part) == batch
    ]
    rows = []
    for extra, name in ((False, ""), (True, ", IoU Dice BER")):
        single: list[float] = []
        joint: list[float] = []
        their: list[float] = []
        ours([pairs[0], *batches[:1]], extra)  # what is made once
        for _ in range(rounds):  # alternating, so that a busy moment meets both
            their += theirs(pairs, extra)
            single += ours(pairs, extra)
            joint += [one / batch for one in ours(batches, extra)]
        reference = 1e3 * statistics.median(their)
        rows.append((f"one at a time{name}", reference, 1e3 * statistics.median(single)))
        rows.append((f"batches of {batch}{name}", reference, 1e3 * statistics.median(joint)))
    return rows


def shares(pairs: Sequence[Pair], batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds a picture of each step in batches, then of the floors, medians over batches and rounds."""
    times: dict[str, list[float]] = {}

    def note(name: str, work: Callable[[], Any]) -> Any:
        start = clock()
        result = work()
        times.setdefault(name, []).append((clock() - start) / batch)
        return result

    for _ in range(rounds):
        for first in range(0, len(pairs) - batch + 1, batch):
            part = pairs[first : first + batch]
            maps, masks = np.stack([s for s, _ in part]), np.stack([m for _, m in part])
            pictures = note("reading the input", lambda maps=maps, masks=masks: to_pairs(maps, masks, F3NET))
            histogram = note("joint histogram", lambda pictures=pictures: joint_histogram(pictures, F3NET))
            note("weighted F", lambda h=histogram, p=pictures: weighted_scores(h, p, F3NET))
            note("all other scores", lambda h=histogram: histogram_scores(h, F3NET))
            note("floor: each byte once", lambda maps=maps, masks=masks: (maps.max(), masks.max()))
            note(
                "floor: OpenCV's distances",
                lambda p=pictures: [
                    cv2.distanceTransform(255 - one.mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for one in p
                ],
            )
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def first_call() -> tuple[float, float]:
    """(seconds of a first measurement with nothing compiled yet, and of one that finds the code kept)."""
    script = (
        "import time, numpy as np, qefpn.metrics as m; "
        "one = np.full((8, 8), 255, np.uint8); start = time.perf_counter(); m.saliency_scores(one, one); "
        "print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        command = [sys.executable, "-c", script]
        found = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in "12"]
    first, second = (float(run.stdout) for run in found)
    return first, second


def main(arguments: list[str]) -> None:
    """Print a table of ratios, then where our time goes."""
    global clock
    options = {"pictures": "64", "rounds": "3", "batch": "32", "clock": "wall"}
    options |= dict(argument.split("=", 1) for argument in arguments)
    count, rounds, batch = (int(options[name]) for name in ("pictures", "rounds", "batch"))
    clock = CLOCKS[options["clock"]]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cold, kept = first_call()
    print(f"first measurement of a process {cold:.1f} s with nothing compiled, {kept:.2f} s after that")
    print(f"{count} pictures a row, {rounds} rounds, one thread, {options['clock']} clock")
    print("milliseconds a picture, medians")
    print(f"{'size':<9}{'maps':<7}{'way':<30}{'PySODMetrics':>13}{'ours':>8}{'ratio':>8}")
    steps: dict[str, dict[str, float]] = {}
    for size in SIZES:
        masks = [mask_of(index, size) for index in range(count)]
        for sort, draw in SORTS.items():
            pairs = [(draw(np.random.default_rng(index), mask), mask) for index, mask in enumerate(masks)]
            for way, their, our in compare(pairs, batch, rounds):
                label = f"{size[0]}x{size[1]}"
                print(f"{label:<9}{sort:<7}{way:<30}{their:>13.2f}{our:>8.3f}{their / our:>7.1f}x", flush=True)
            steps[f"{size[0]}x{size[1]} {sort}"] = shares(pairs, batch, rounds)
    print(f"\nwhere a picture's time goes in batches of {batch} (milliseconds; share of the steps' sum)")
    print(f"{'':<26}" + "".join(f"{label:>18}" for label in steps))
    for name in next(iter(steps.values())):
        row = ""
        for times in steps.values():
            whole = sum(value for key, value in times.items() if not key.startswith("floor"))
            row += f"{times[name]:>11.3f} {times[name] / whole:>5.0%}"
        print(f"{name:<26}{row}")


if __name__ == "__main__":
    main(sys.argv[1:])
