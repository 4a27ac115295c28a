"""docs/demo.png: a few synthetic test pictures with mask, prediction, edges and error, from a run of `make demo`.

python docs/demo_picture.py demo/run docs/demo.png
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from qefpn.data import read_image, read_mask
from qefpn.reporting.pictures import edge_picture, error_picture


def main(run: Path, output: Path, rows: int = 3) -> None:
    """Write ``rows`` cases: the upper quartile, the median and the lower quartile of weighted F."""
    with (run / "scores.csv").open(newline="", encoding="utf-8") as file:
        ranked = [record["name"] for record in sorted(csv.DictReader(file), key=lambda r: -float(r["weighted_f"]))]
    samples = {sample["name"]: sample for sample in json.loads((run / "samples.json").read_text(encoding="utf-8"))}
    chosen = [ranked[int(len(ranked) * share)] for share in np.linspace(0.25, 0.75, rows)]
    lines = []
    for name in chosen:
        sample = samples[name]
        image, mask = read_image(sample["image"]), read_mask(sample["mask"])
        saliency = cv2.imread(str(run / sample["map"]), cv2.IMREAD_GRAYSCALE)
        panels = [image[..., ::-1], mask, saliency, edge_picture(saliency), error_picture(saliency, mask)]
        panels = [p if p.ndim == 3 else cv2.cvtColor(p, cv2.COLOR_GRAY2BGR) for p in panels]
        gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
        lines.append(np.hstack([part for panel in panels for part in (panel, gap)][:-1]))
        lines.append(np.full((4, lines[-1].shape[1], 3), 255, np.uint8))
    cv2.imwrite(str(output), np.vstack(lines[:-1]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
