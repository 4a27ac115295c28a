"""How long `qefpn benchmark` takes over many methods, the first time and again.

    python benchmarks/benchmark.py [methods=10] [pictures=1000] [size=352] [words="resamples=0 page=false"]

Draws pictures, masks and maps as networks give them, and runs the command twice in processes of its own, with a cache
of its own: wall time, and the processor time of all of its processes, which other programs on it change less.
"""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np

from qefpn.data.synthetic import render


def draw(root: Path, number: int, methods: int, size: int) -> None:
    """One picture with its mask, and a map of each method: the mask blurred, moved and with false blobs."""
    name = f"p{number:05d}"
    drawn = render(0, number, 400)[:2]
    picture, mask = (cv2.resize(one, (size, size), interpolation=cv2.INTER_LINEAR) for one in drawn)
    mask = np.where(mask > 127, np.uint8(255), np.uint8(0))
    cv2.imwrite(str(root / "data" / "SET" / "images" / f"{name}.jpg"), picture[..., ::-1])
    cv2.imwrite(str(root / "data" / "SET" / "masks" / f"{name}.png"), mask)
    for method in range(methods):
        rng = np.random.default_rng((number, method))
        spread = cv2.resize(rng.standard_normal((size // 12, size // 12)), (size, size), interpolation=cv2.INTER_CUBIC)
        logits = cv2.GaussianBlur(mask / 255.0, (0, 0), 2 + method / 3) - 0.5 + (0.1 + 0.02 * method) * spread
        saliency = np.rint(255 / (1 + np.exp(-24 * logits))).astype(np.uint8)
        cv2.imwrite(str(root / "maps" / f"method{method}" / "SET" / f"{name}.png"), saliency)


def draw_all(root: Path, methods: int, pictures: int, size: int) -> None:
    """The whole set, on all cores."""
    for folder in ("data/SET/images", "data/SET/masks", *(f"maps/method{one}/SET" for one in range(methods))):
        (root / folder).mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw, repeat(root), range(pictures), repeat(methods), repeat(size), chunksize=16))


def run(root: Path, words: list[str]) -> tuple[float, float]:
    """Seconds of wall and of processor time."""
    command = ["benchmark", f"maps={root / 'maps'}", f"data.root={root / 'data'}", f"output={root / 'out'}", *words]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "QEFPN_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "qefpn.cli", *command], check=True, env=environment, stdout=subprocess.DEVNULL
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: list[str]) -> None:
    """Print both runs' times."""
    options = {"methods": "10", "pictures": "1000", "size": "352", "words": "", "root": ""}
    options |= dict(argument.split("=", 1) for argument in arguments)
    methods, pictures, size = (int(options[name]) for name in ("methods", "pictures", "size"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(options["root"] or folder)
        if not (root / "data").exists():
            draw_all(root, methods, pictures, size)
        for name in ("first", "second"):
            wall, processor = run(root, shlex.split(options["words"]))
            print(f"{name} run: {wall:.1f} s, {processor:.1f} s of processor time", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
