"""What a fine-tuning on 60 pictures of another domain gives: the network before, fine-tuned, and trained from scratch.

    python benchmarks/finetune.py data.root=DIR [pictures=60] [tests=100] [minutes=10] [output=outputs/finetune]

``DIR`` holds DUTS-TE and ECSSD, on neither of which the network of the package was trained. The new domain is made of
DUTS-TE: colours rotated by a third of the circle and inverted in brightness, blurred, noisy. Both trainings get the
same time; the one from scratch begins with ImageNet weights in the backbone. What each scores on the test pictures of
the new domain, and the fine-tuned one and the one before on ECSSD, is printed with intervals of the paired bootstrap.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from qefpn.cli import main as qefpn
from qefpn.data import find_pairs
from qefpn.data.reading import read_image, read_mask
from qefpn.reporting.before_after import compared, sentences


def shifted(image: np.ndarray, seed: int) -> np.ndarray:
    """Another domain's look: hue turned by 120 degrees, brightness inverted, blurred, noisy."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + 60) % 180
    hsv[..., 2] = 255 - hsv[..., 2]
    blurred = cv2.GaussianBlur(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), (0, 0), max(image.shape) / 200)
    noise = np.random.default_rng(seed).normal(0, 18, image.shape)
    return np.clip(blurred + noise, 0, 255).astype(np.uint8)


def draw(root: Path, folder: Path, pictures: int, tests: int) -> None:
    """``folder``/train and test with images and masks."""
    pairs = sorted(find_pairs(root / "DUTS-TE").items, key=lambda pair: pair.name)
    order = np.random.default_rng(0).permutation(len(pairs))[: pictures + tests]
    for number, index in enumerate(order):
        pair = pairs[int(index)]
        part = folder / ("train" if number < pictures else "test")
        for kind, picture in (
            ("images", shifted(read_image(pair.image), number)[..., ::-1]),
            ("masks", read_mask(pair.mask)),
        ):
            (part / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(part / kind / f"{pair.name}.png"), picture)


def train(folder: Path, run: Path, minutes: int, *more: str) -> None:
    """A run of experiment=mobile on the pictures of ``folder``."""
    clock = f"trainer.max_time=00:00:{minutes:02d}:00"
    given = ["experiment=mobile", "data=folder", f"data.root={folder}", f"hydra.run.dir={run}", clock, *more]
    code = qefpn(["train", *given])
    if code:
        raise SystemExit(code)


def main() -> None:
    """Draw the domain, train twice, compare."""
    options = {"pictures": "60", "tests": "100", "minutes": "10", "output": "outputs/finetune", "data.root": ""}
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    if unknown := given.keys() - options.keys():
        raise SystemExit(f"no option {', '.join(unknown)}; there are: {', '.join(options)}")
    options |= given
    root, output = Path(options["data.root"]).resolve(), Path(options["output"]).resolve()
    domain, minutes = output / "domain", int(options["minutes"])
    draw(root, domain, int(options["pictures"]), int(options["tests"]))
    extra = f"data.extra_test=[{root / 'ECSSD'}]"
    train(domain, output / "tuned", minutes, "init=mobile", extra)
    # as many steps in the same time, at a fresh network's rates
    scratch = ["trainer.max_steps=400", "warmup.steps=20", "data.val_fraction=0.2", "data.scales=[192,208,224]"]
    train(domain, output / "scratch", minutes, *scratch, "data.progressive=null", extra)
    print("\nfine-tuned, beside the network before:")
    for key in ("weighted_f", "mae"):
        print("\n".join(sentences(output / "tuned", key)))
    print("\nfine-tuned (after), beside the one from scratch (before):")
    for key in ("weighted_f", "mae"):
        for one in compared(output / "scratch" / "scores.csv", output / "tuned" / "scores.csv"):
            if one.metric.key == key:
                print(one.sentence())


if __name__ == "__main__":
    main()
