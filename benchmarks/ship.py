"""Put a trained network into the package: NAME.safetensors and its card, NAME.json.

    python benchmarks/ship.py RUN/checkpoints/best.ckpt --scores DIR/metrics.json --image-size 320 \
        --data "..." --licence "..." --command "qefpn train ..." [--name mobile] [--folder src/qefpn/pretrained]

What only training needs stays, since ``init=NAME`` starts from it. The card takes over the budgets of `qefpn analyze
budget`. Scores are those of `qefpn evaluate` with the packed file itself: pack once without ``--scores``, evaluate
``checkpoint=NAME``, and pack again with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from qefpn.models import load_model
from qefpn.models.packed import FOLDER, SUFFIX, packable, write_packed
from qefpn.models.weights import read_checkpoint
from qefpn.version import __version__

KEPT = ("max_f", "mae", "weighted_f", "mean_f", "s_measure", "e_measure", "images")


def main() -> None:
    """Pack it and print how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--name", default="mobile")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--scores", type=Path, help="metrics.json of `qefpn evaluate`")
    parser.add_argument("--protocol", default="f3net")
    parser.add_argument("--image-size", type=int, required=True, help="side of the pictures that it is used with")
    parser.add_argument("--data", required=True, help="what it was trained on")
    parser.add_argument("--licence", required=True, help="terms of the data, and so of the weights")
    parser.add_argument("--command", required=True, help="that trained it")
    parser.add_argument("--commit", default="", help="of the code that trained it; the present one unless told")
    options = parser.parse_args()
    content = packable(read_checkpoint(options.checkpoint), options.image_size)
    commit = options.commit or subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    path = options.folder / f"{options.name}{SUFFIX}"
    network = load_model(options.checkpoint)
    about = {
        "version": __version__,
        "parameters": network.parameter_counts()["total"],
        "solver": content["hyper_parameters"]["network"]["solver"],
        "data": options.data,
        "licence": options.licence,
        "recipe": {"command": options.command, "commit": commit, "steps": content["global_step"]},
        "scores": {options.protocol: scores(options.scores)} if options.scores else {},
        "config": content["qefpn"]["config"],
        **{key: content["qefpn"][key] for key in ("budgets",) if key in content["qefpn"]},
    }
    write_packed(content, path, about)
    print(f"{path}: {path.stat().st_size:,} bytes")


def scores(path: Path) -> dict[str, dict[str, float]]:
    """The figures of each set that a card shows."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: {key: values[key] for key in KEPT if key in values} for name, values in found.items()}


if __name__ == "__main__":
    main()
