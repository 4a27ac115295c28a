"""`qefpn video`: masks, cut-outs, overlays or new backgrounds of a film."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from qefpn.atomic import atomic_file
from qefpn.data.reading import Layers
from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.runtime import choose_device, progress_bar, quiet_libraries
from qefpn.inference.films import CONTAINERS, WITH_ALPHA, Film, FilmWriter, FolderWriter, is_film_name
from qefpn.inference.follow import Follower
from qefpn.inference.output import OUTPUT_TYPES, Rendering, chosen_rendering
from qefpn.inference.predictor import Predictor
from qefpn.models.budgets import checked_budget
from qefpn.models.packed import network_file
from qefpn.text import did_you_mean, one_line

SUMMARY = """
qefpn video - a film in, its masks, cut-outs or another background out; rate, length and sound are kept

qefpn video input=holiday.mp4 output=overlay.mp4
qefpn video input=holiday.mp4 output=blurred.mp4 output_type=background background=blur
qefpn video input=holiday.mp4 output=cutout.webm output_type=rgba
qefpn video input=frames/ rate=24 output=masks/ output_type=map
"""


def main(argv: Sequence[str]) -> int:
    """0, or 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("video", SUMMARY))
        return 0
    quiet_libraries(lightning=False)
    config = command_config("video", argv)
    rendering, output = _rendering(config), _output(config)
    film = Film(Path(str(config.input)).expanduser(), float(config.rate))
    predictor = Predictor(
        network_file(config.checkpoint),
        device=choose_device(str(config.device)),
        image_size=config.image_size,
        budget=config.budget,
    )
    warm = Follower(predictor, warm=bool(config.warm))
    cold = Follower(predictor, warm=False) if config.compare else None
    begun = time.monotonic()
    try:
        _make(film, output, rendering, warm, cold)
    except KeyboardInterrupt:
        kept = "its frames so far are kept" if not is_film_name(output) else "a film is written whole or not at all"
        raise UserError(f"interrupted after {warm.frames} frames; {kept}") from None
    seconds = time.monotonic() - begun
    print(one_line(f"{warm.frames} frames → {output} ({warm.frames / max(seconds, 1e-9):.1f} a second)"))
    for line in _told(warm, cold):
        print(line)
    return 0


def _rendering(config: DictConfig) -> Rendering:
    kind = str(config.output_type)
    if kind not in OUTPUT_TYPES:
        raise UserError(
            f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {kind!r}{did_you_mean(kind, OUTPUT_TYPES)}"
        )
    background = None if config.background is None else str(config.background)
    return chosen_rendering((kind,), config.threshold, bool(config.matting), background)


def _output(config: DictConfig) -> Path:
    for key in ("input", "output"):
        if OmegaConf.is_missing(config, key) or config[key] in (None, ""):
            raise UserError(f"{key} is not set: give {key}=...")
    checked_budget(config.budget)
    if config.image_size is not None and config.image_size < 32:
        raise UserError(f"image_size must be at least 32, not {config.image_size}")
    if not 0 < float(config.rate) <= 1000:
        raise UserError(f"rate must be in (0, 1000], not {config.rate}")
    if config.compare and not config.warm:
        raise UserError("compare=true sets warm=true beside warm=false: leave warm as it is")
    path = Path(str(config.output)).expanduser()
    if is_film_name(path):
        container = CONTAINERS[path.suffix.lower()]
        if config.output_type == "rgba" and container not in WITH_ALPHA:
            raise UserError(f"output={path}: a {path.suffix} film has no transparency; name a .webm or .mov file")
        if path.is_dir():
            raise UserError(f"output={path} is a folder")
        if path.exists() and not config.overwrite:
            raise UserError(f"output={path} exists: overwrite=true replaces it")
        return path
    if path.suffix and not path.is_dir():
        raise UserError(f"output={path}: films end in {', '.join(CONTAINERS)}; frames go into a folder")
    if path.is_file():
        raise UserError(f"output={path} is a file: name a folder for frames")
    if path.is_dir() and any(path.iterdir()) and not config.overwrite:
        raise UserError(f"output={path} is not empty: overwrite=true writes into it all the same")
    return path


@contextlib.contextmanager
def _writer(film: Film, output: Path, *, alpha: bool) -> Iterator[FilmWriter | FolderWriter]:
    if not is_film_name(output):
        yield FolderWriter(output)
        return
    container = CONTAINERS[output.suffix.lower()]
    with atomic_file(output) as part, FilmWriter(part, container, film, alpha=alpha) as writer:
        yield writer


def _make(film: Film, output: Path, rendering: Rendering, warm: Follower, cold: Follower | None) -> None:
    (kind,) = rendering.kinds
    with progress_bar() as progress, _writer(film, output, alpha=kind == "rgba") as writer:
        task = progress.add_task("frames", total=film.count)
        for item in film:
            if not isinstance(item, tuple):
                writer.sound(item)
                continue
            picture, time_ = item
            saliency = warm(picture)
            if cold is not None:
                cold(picture)
            writer.frame(rendering(Layers(picture), saliency)[kind].picture, time_)
            progress.update(task, advance=1)


def _told(warm: Follower, cold: Follower | None) -> Iterator[str]:
    if warm.evaluations:
        start = "the former frame's state" if warm.warm else "zero"
        yield (
            f"{warm.evaluations / warm.frames:.2f} evaluations of f_theta a frame, each solve begun at {start}; "
            f"relative residual {warm.residual / warm.frames:.2g}; scenes: {warm.scenes}"
        )
    yield f"flicker: the map changes by {warm.flicker.mean:.5f} a frame where the picture stands still"
    if cold is not None and cold.evaluations:
        yield (
            f"from zero: {cold.evaluations / cold.frames:.2f} evaluations, relative residual "
            f"{cold.residual / cold.frames:.2g}, flicker {cold.flicker.mean:.5f}"
        )
