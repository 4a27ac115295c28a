"""Pictures a second of `qefpn predict` over a folder, beside what the network alone and its backbone alone take.

    python benchmarks/predict.py [pictures=200] [side=640] [batch_size=8] [threads=2]

Photographs that scikit-image ships, as JPEG with a longer side of ``side``, each some times over. The backbone and the
network get the pictures resized already; `qefpn predict` decodes, resizes, enlarges and writes besides, in the same
process, the start of the program left out.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from skimage import data

from qefpn import Predictor
from qefpn.cli import main as qefpn
from qefpn.data.reading import TestTransform, read_image

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """The quickest of some rounds."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Draw the folder, time the three."""
    options = {"pictures": 200, "side": 640, "batch_size": 8, "threads": 2}
    given = {key: int(value) for key, value in (word.split("=", 1) for word in sys.argv[1:])}
    if unknown := given.keys() - options.keys():
        raise SystemExit(f"no option {', '.join(unknown)}; there are: {', '.join(options)}")
    options |= given
    count, size = options["pictures"], options["batch_size"]
    torch.set_num_threads(options["threads"])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QEFPN_CACHE"] = f"{folder}/cache"
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for number in range(count):
            image = Image.fromarray(getattr(data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])())
            image.thumbnail((options["side"], options["side"]))
            factor = options["side"] / max(image.size)
            image.resize([round(side * factor) for side in image.size]).save(pictures / f"{number:04d}.jpg", quality=92)
        predictor = Predictor()
        resize = TestTransform(predictor.image_size)
        loaded = [torch.from_numpy(resize(read_image(path))) for path in sorted(pictures.iterdir())]
        batches = [torch.stack(loaded[i : i + size]).permute(0, 3, 1, 2) for i in range(0, count, size)]
        network = predictor.network

        def backbone_alone() -> None:
            with torch.inference_mode():
                for batch in batches:
                    network.backbone(batch.float() / 255)

        def network_alone() -> None:
            with torch.inference_mode():
                for batch in batches:
                    network(batch)

        def command(*more: str, given: str = "*.jpg") -> None:
            words = [f"input={pictures}/{given}", f"output={folder}/out", f"batch_size={size}", "overwrite=true", *more]
            with contextlib.redirect_stdout(io.StringIO()):
                qefpn(["predict", "device=cpu", *words])

        backbone_alone()
        command("output_type=rgba", given="0000.jpg")  # pymatting is compiled
        start = seconds(lambda: command(given="0000.jpg"))
        few = min(10, count)
        rows = (
            ("backbone alone", count / seconds(backbone_alone)),
            ("network alone", count / seconds(network_alone)),
            ("qefpn predict, maps", count / (seconds(command) - start)),
            ("cut-outs", few / (seconds(lambda: command("output_type=rgba", given="000?.jpg")) - start)),
        )
    print(f"{count} pictures, longer side {options['side']}, batches of {size}, {options['threads']} threads")
    for name, rate in rows:
        print(f"{name:22} {rate:7.1f} pictures a second")


if __name__ == "__main__":
    main()
