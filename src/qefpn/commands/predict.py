"""`qefpn predict`: saliency maps, masks, cut-outs, overlays or edges of pictures of one's own."""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from qefpn.commands.overrides import command_config, command_help
from qefpn.commands.runtime import choose_device, progress_bar, quiet_libraries
from qefpn.data import read_image
from qefpn.errors import UserError
from qefpn.losses import edges
from qefpn.training.evaluation import save_png
from qefpn.training.predictor import Predictor

SUMMARY = """
qefpn predict - a mask for every picture, at the picture's own size and orientation

qefpn predict checkpoint=RUN/checkpoints/best.ckpt input=holiday.jpg output=masks
qefpn predict checkpoint=RUN/checkpoints/best.ckpt input=pictures output=cutouts output_type=rgba
"""

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
OUTPUT_TYPES = ("map", "binary", "rgba", "overlay", "edges")


def main(argv: Sequence[str]) -> int:
    """0 when every picture was done, 1 when some failed (they are listed), 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("predict", SUMMARY))
        return 0
    quiet_libraries()
    config = command_config("predict", argv)
    for key in ("checkpoint", "input", "output"):
        if OmegaConf.is_missing(config, key):
            raise UserError(f"{key} is not set: give {key}=...")
    if config.output_type not in OUTPUT_TYPES:
        raise UserError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {config.output_type!r}")
    if not 0.0 <= float(config.threshold) <= 1.0:
        raise UserError(f"threshold must be in [0, 1], not {config.threshold}")
    for key, least in (("batch_size", 1), ("image_size", 32)):
        if config[key] is not None and config[key] < least:
            raise UserError(f"{key} must be at least {least}, not {config[key]}")
    pictures = find_pictures(str(config.input), bool(config.recursive))
    targets = output_paths(pictures, str(config.input), Path(str(config.output)))
    device = choose_device(str(config.device))
    predictor = Predictor(str(config.checkpoint), device=device, image_size=config.image_size)
    failures: list[tuple[Path, str]] = []
    with progress_bar() as progress:
        task = progress.add_task("predict", total=len(pictures))
        for start in range(0, len(pictures), int(config.batch_size)):
            chunk = pictures[start : start + int(config.batch_size)]
            images: list[tuple[Path, np.ndarray]] = []
            for path in chunk:
                try:
                    images.append((path, read_image(path)))
                except (OSError, ValueError) as error:
                    failures.append((path, str(error).splitlines()[0]))
            maps = predictor.batch([image for _, image in images])
            for (path, image), one in zip(images, maps, strict=True):
                target = targets[path]
                try:
                    save_png(target, render(image, one, str(config.output_type), float(config.threshold)))
                except OSError as error:
                    failures.append((path, f"{target} could not be written ({error.strerror})"))
            progress.update(task, advance=len(chunk))
    done = len(pictures) - len(failures)
    print(f"{done} of {len(pictures)} pictures → {config.output}")
    for path, reason in failures:
        print(f"qefpn predict: {path}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def find_pictures(text: str, recursive: bool) -> list[Path]:
    """The pictures that a file, folder or pattern names, sorted.

    Raises:
        UserError: where there is none.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = path.rglob("*") if recursive else path.iterdir()
        pictures = sorted(p for p in found if p.suffix.lower() in SUFFIXES and p.is_file())
        if not pictures:
            raise UserError(f"input={text}: the folder holds no picture ({', '.join(sorted(SUFFIXES))})")
        return pictures
    pictures = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
    if not pictures:
        raise UserError(f"input={text}: there is no such file, folder or match")
    return pictures


def output_paths(pictures: Sequence[Path], source: str, output: Path) -> dict[Path, Path]:
    """Where each result goes: below the output folder as the picture lies below the input folder.

    Pictures that would share a name (a.jpg, a.png) keep their suffix: a.jpg.png.
    """
    output = output.expanduser()
    if output.suffix.lower() == ".png" and not output.is_dir():
        if len(pictures) > 1:
            raise UserError(f"output={output} is one file, but there are {len(pictures)} pictures: name a folder")
        targets = {pictures[0]: output}
        _keep_inputs(targets)
        return targets
    if output.is_file():
        raise UserError(f"output={output} is a file: name a folder, or a .png file for one picture")
    base = Path(source).expanduser()
    parents = {p: (p.parent.relative_to(base) if base.is_dir() else Path()) for p in pictures}
    stems: dict[Path, list[Path]] = {}
    for picture in pictures:
        stems.setdefault(output / parents[picture] / picture.stem, []).append(picture)
    targets = {}
    for stem, sharing in stems.items():
        for number, picture in enumerate(sharing):
            name = picture.stem if len(sharing) == 1 else picture.name
            taken = stem.parent / f"{name}.png"
            targets[picture] = stem.parent / f"{name}_{number}.png" if taken in targets.values() else taken
    _keep_inputs(targets)
    return targets


def _keep_inputs(targets: dict[Path, Path]) -> None:
    inputs = {picture.resolve(): picture for picture in targets}
    for target in targets.values():
        if target.resolve() in inputs:
            raise UserError(f"{target} would overwrite the picture {inputs[target.resolve()]}: choose another output")


def render(image: np.ndarray, saliency: np.ndarray, output_type: str, threshold: float) -> np.ndarray:
    """What is saved, in OpenCV's channel order.

    Args:
        image: (H, W, 3) uint8 RGB.
        saliency: (H, W) uint8.
        output_type: one of ``OUTPUT_TYPES``.
        threshold: for ``binary``, in [0, 1].
    """
    if output_type == "map":
        return saliency
    if output_type == "binary":
        return np.where(saliency >= threshold * 255, 255, 0).astype(np.uint8)
    if output_type == "rgba":
        return np.dstack([image[..., ::-1], saliency])
    if output_type == "edges":
        values = torch.from_numpy(saliency)[None, None].float() / 255
        return (edges(values)[0, 0] * 255).round().byte().numpy()
    weight = saliency[..., None].astype(np.float32) / 255
    tint = np.array([255, 64, 32], np.float32)
    shaded = image * (0.45 + 0.55 * weight)
    mixed = shaded * (1 - 0.35 * weight) + tint * 0.35 * weight
    return np.clip(mixed, 0, 255).round().astype(np.uint8)[..., ::-1]
