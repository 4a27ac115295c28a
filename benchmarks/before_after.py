"""The picture of README: photographs that scikit-image ships (CC0 or public domain), cut out and on a new background.

python benchmarks/before_after.py [--checkpoint mobile] [--output docs/cutouts.jpg]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from qefpn import Predictor
from qefpn.data.reading import Layers
from qefpn.inference.cutout import background_named
from qefpn.inference.output import Rendering

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
HEIGHT, GAP = 220, 6


def tile(picture: np.ndarray) -> Image.Image:
    """At the height of the sheet; transparent places on a chequered ground."""
    image = Image.fromarray(picture)
    if image.mode == "RGBA":
        rows, columns = np.mgrid[: image.height, : image.width] // max(4, image.height // 24)
        ground = np.where((rows + columns) % 2, 235, 205).astype(np.uint8)
        page = Image.fromarray(np.dstack([ground] * 3))
        page.paste(image, mask=image.getchannel("A"))
        image = page
    return image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)


def main() -> None:
    """Write the sheet: a row a stage, a column a photograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--output", type=Path, default=Path("docs/cutouts.jpg"))
    options = parser.parse_args()
    predictor = Predictor(options.checkpoint)
    render = Rendering(("rgba", "background"), background=background_named("blur"))
    columns = []
    for name in PHOTOGRAPHS:
        photograph = np.ascontiguousarray(getattr(data, name)())
        made = render(Layers(photograph), predictor(photograph))
        columns.append([tile(one) for one in (photograph, made["rgba"].picture, made["background"].picture)])
    width = sum(column[0].width for column in columns) + GAP * (len(columns) - 1)
    sheet = Image.new("RGB", (width, 3 * HEIGHT + 2 * GAP), "white")
    left = 0
    for column in columns:
        for row, image in enumerate(column):
            sheet.paste(image, (left, row * (HEIGHT + GAP)))
        left += column[0].width + GAP
    sheet.save(options.output, quality=85)
    print(f"{options.output}: {sheet.width}x{sheet.height}, {options.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
