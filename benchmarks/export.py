"""What `qefpn export` writes beside the network itself: speed, size, agreement and scores.

    python benchmarks/export.py data.root=DIR [data.test=ECSSD] [checkpoint=mobile] [pictures=300] [threads=2]

Each data type of format=onnx on the same pictures in one run, by onnxruntime, beside `Predictor`; timed in turns with
decoding left out, and scored alike (protocol f3net).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from qefpn import Predictor
from qefpn.data import find_pairs
from qefpn.data.reading import read_image, read_mask
from qefpn.inference.export import DTYPES, export_network
from qefpn.metrics import SaliencyMetrics

TIMED = 40
ROUNDS = 3


def main() -> None:
    """Export, run, score and time, and print a Markdown table."""
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    threads = int(options.get("threads", 2))
    torch.set_num_threads(threads)
    folder = Path(options.get("output", "outputs/export"))
    predictor = Predictor(options.get("checkpoint"))
    ways = {"Predictor": (predictor, 0)}
    for dtype in DTYPES:
        path = folder / f"{dtype}.onnx"
        made = export_network(predictor, path, dtype=dtype)
        ways[f"onnx, {dtype}"] = (runner(path, threads), made.size)
    pairs = find_pairs(Path(options["data.root"]) / options.get("data.test", "ECSSD"))[
        : int(options.get("pictures", 300))
    ]
    images, masks = [read_image(pair.image) for pair in pairs], [read_mask(pair.mask) for pair in pairs]
    wanted = [predictor(image) for image in images]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (way, _) in ways.items():
            start = time.perf_counter()
            for image in images[:TIMED]:
                way(image)
            seconds[name].append((time.perf_counter() - start) / len(images[:TIMED]))
    print("| | MB | ms a picture | largest difference, grey levels | max F | MAE | weighted F |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, (way, size) in ways.items():
        metrics = SaliencyMetrics(protocol="f3net")
        unlike = 0
        for image, mask, own in zip(images, masks, wanted, strict=True):
            found = way(image)
            unlike = max(unlike, int(np.abs(found.astype(int) - own).max()))
            metrics.update([torch.from_numpy(found)], [torch.from_numpy(mask)])
        scores = metrics.compute()
        figures = " | ".join(f"{float(scores[key]):.4f}" for key in ("max_f", "mae", "weighted_f"))
        print(f"| {name} | {size / 1e6:.1f} | {statistics.median(seconds[name]) * 1e3:.0f} | {unlike} | {figures} |")


def runner(path: Path, threads: int):  # noqa: ANN201
    """The map of a picture, as the file makes it, in 8 bits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: np.rint(session.run(None, {"images": image[None]})[0][0] * 255).astype(np.uint8)


if __name__ == "__main__":
    main()
