"""`qefpn predict`: saliency maps, masks, cut-outs, overlays or edges of pictures of one's own."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from omegaconf import DictConfig, ListConfig, OmegaConf

from qefpn.atomic import atomic_file
from qefpn.data.files import file_key, passed_over
from qefpn.data.reading import Layers, read_layers
from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.runtime import choose_device, progress_bar, quiet_libraries
from qefpn.inference.files import Job, find_inputs, output_folder, plan
from qefpn.inference.output import CUT, OUTPUT_TYPES, Rendered, Rendering, chosen_rendering
from qefpn.inference.pipeline import Outcome, Pipeline
from qefpn.inference.predictor import Predictor
from qefpn.inference.record import Record, made_by
from qefpn.models.budgets import EXACT, checked_budget
from qefpn.models.packed import network_file
from qefpn.text import did_you_mean, one_line

SUMMARY = """
qefpn predict - a mask for every picture, at the picture's own size and orientation

qefpn predict input=holiday.jpg output=mask.png
qefpn predict input=pictures output=out output_type=[map,rgba]
qefpn predict input=holiday.jpg output=new.jpg output_type=background background=beach.jpg
curl URL | qefpn predict input=- output=- output_type=rgba > cutout.png

A folder of results is gone on with: a second run makes what is missing, and what changed.
"""


def main(argv: Sequence[str]) -> int:
    """0 when every picture was done, 1 when some failed (they are listed), 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("predict", SUMMARY))
        return 0
    quiet_libraries(lightning=False)
    config, stdout = _options(argv), sys.stdout
    # Nothing but the picture may reach standard output, whatever a library prints, where it goes there.
    aside = contextlib.redirect_stdout(sys.stderr) if config.output == "-" else contextlib.nullcontext()
    with aside, _ended_as_by_hand():
        return _predict(config, stdout)


def _options(argv: Sequence[str]) -> DictConfig:
    config = command_config("predict", argv)
    for key in ("input", "output"):
        if OmegaConf.is_missing(config, key) or config[key] in (None, ""):
            raise UserError(f"{key} is not set: give {key}=...")
    for key, least in (("batch_size", 1), ("image_size", 32)):
        if config[key] is not None and config[key] < least:
            raise UserError(f"{key} must be at least {least}, not {config[key]}")
    checked_budget(config.budget)
    if not float(config.max_megapixels) > 0:
        raise UserError(f"max_megapixels must be positive, not {config.max_megapixels}")
    return config


def _rendering(config: DictConfig) -> Rendering:
    """What is made of a map."""
    given = config.output_type
    kinds = tuple(str(kind) for kind in given) if isinstance(given, ListConfig) else (str(given),)
    for kind in kinds or ("",):
        if kind not in OUTPUT_TYPES:
            close = did_you_mean(kind, OUTPUT_TYPES)
            raise UserError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, or a list, not {kind!r}{close}")
    if len(set(kinds)) < len(kinds):
        raise UserError(f"output_type=[{','.join(kinds)}] names one twice")
    background = None if config.background is None else str(config.background)
    return chosen_rendering(kinds, config.threshold, bool(config.matting), background, float(config.max_megapixels))


def _fingerprint(config: DictConfig, rendering: Rendering, image_size: int) -> dict[str, Any]:
    """What decides how a result comes out, beside the network."""
    options: dict[str, Any] = {"output_type": list(rendering.kinds), "image_size": image_size}
    options |= {"flip": True} if config.flip else {}
    options |= {"budget": str(config.budget)} if checked_budget(config.budget) != EXACT else {}
    options |= {"threshold": rendering.threshold} if "binary" in rendering.kinds else {}
    options |= {"matting": rendering.matting} if set(CUT) & set(rendering.kinds) else {}
    if rendering.background is not None:
        path = Path(str(config.background)).expanduser()
        options["background"] = [str(config.background), file_key(path) if path.is_file() else None]
    return options


def _predict(config: DictConfig, stdout: TextIO) -> int:
    output, rendering = str(config.output), _rendering(config)
    if output == "-" and stdout.isatty():
        raise UserError("output=-: standard output is a terminal: redirect it to a file or into a pipe")
    folder = output_folder(output)
    record = None if folder is None else Record(folder)
    if config.input == "-":
        if sys.stdin.isatty():
            raise UserError("input=-: standard input is a terminal: pipe a picture into it")
        jobs = plan([], None, output, folder, rendering.kinds)
    else:
        made = set() if record is None else record.results()
        found = find_inputs(str(config.input), recursive=bool(config.recursive), output=folder, made=made)
        if found.others:
            print(f"qefpn predict: {passed_over(found.others)}", file=sys.stderr)
        jobs = plan(found.pictures, found.base, output, folder, rendering.kinds)
    device = choose_device(str(config.device))
    checkpoint = network_file(config.checkpoint)
    predictor = Predictor(
        checkpoint, device=device, image_size=config.image_size, flip=bool(config.flip), budget=config.budget
    )
    if record is not None:
        record.made = made_by(checkpoint, _fingerprint(config, rendering, predictor.image_size))
    outcome = Outcome()
    try:
        _run(jobs, predictor, config, rendering, record, outcome, stdout)
    except KeyboardInterrupt:
        outcome.ended_by = "interrupted; run it again to go on"
    finally:
        if record is not None:
            record.save()
    total = len(jobs)
    if output != "-":
        kept = f" ({outcome.kept} of them from an earlier run)" if outcome.kept else ""
        print(one_line(f"{outcome.done} of {total} pictures → {output}{kept}"))
    for label, reason in outcome.failures:
        print(one_line(f"qefpn predict: {label}: {reason}"), file=sys.stderr)
    if outcome.ended_by:
        print(one_line(f"qefpn predict: {outcome.ended_by} ({outcome.done} of {total} are done)"), file=sys.stderr)
        return 130 if "interrupted" in outcome.ended_by else 1
    return 1 if outcome.failures else 0


def _run(
    jobs: Sequence[Job],
    predictor: Predictor,
    config: DictConfig,
    rendering: Rendering,
    record: Record | None,
    outcome: Outcome,
    stdout: TextIO,
) -> None:
    def is_done(job: Job) -> bool:
        return record is not None and not config.overwrite and job.source is not None and record.has(job)

    def on_done(job: Job) -> None:
        if record is not None and job.source is not None:
            record.add(job)

    with progress_bar() as progress:
        task = progress.add_task("predict", total=len(jobs))
        Pipeline(
            predictor,
            read=lambda job: _read(job, float(config.max_megapixels)),
            write=lambda job, layers, saliency: _write(job, rendering(layers, saliency), stdout),
            is_done=is_done,
            on_done=on_done,
            advance=lambda count: progress.update(task, advance=count),
            outcome=outcome,
        ).run(jobs, int(config.batch_size))


def _read(job: Job, max_megapixels: float) -> Layers:
    if job.source is None:
        return read_layers(sys.stdin.buffer.read(), max_megapixels=max_megapixels)
    return read_layers(job.source, max_megapixels=max_megapixels)


def _write(job: Job, made: Mapping[str, Rendered], stdout: TextIO) -> None:
    for kind, target in job.targets.items():
        try:
            if target is None:
                stdout.buffer.write(made[kind].encoded())
                stdout.buffer.flush()
            else:
                data = made[kind].encoded(target.suffix)
                with atomic_file(target) as part:
                    part.write_bytes(data)
        except BrokenPipeError:
            raise  # who reads has enough: the command line ends without a word
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target or "standard output")) from error


@contextlib.contextmanager
def _ended_as_by_hand() -> Iterator[None]:
    """SIGTERM, as schedulers send it, ends the command as Ctrl-C does: what is finished is kept and told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
