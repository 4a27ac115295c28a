"""`qefpn predict`: saliency maps, masks, cut-outs, overlays or edges of pictures of one's own."""

from __future__ import annotations

import contextlib
import errno
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TextIO

import numpy as np
from omegaconf import DictConfig, OmegaConf

from qefpn.atomic import DiskFull, atomic_file
from qefpn.data.files import passed_over
from qefpn.data.reading import on_white, read_layers
from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.runtime import choose_device, progress_bar, quiet_libraries
from qefpn.inference.files import Job, find_inputs, output_folder, plan
from qefpn.inference.output import OUTPUT_TYPES, encode, render
from qefpn.inference.predictor import Predictor, in_batches
from qefpn.inference.record import Record, made_by
from qefpn.models.packed import network_file
from qefpn.text import one_line

SUMMARY = """
qefpn predict - a mask for every picture, at the picture's own size and orientation

qefpn predict input=holiday.jpg output=mask.png
qefpn predict input=pictures output=cutouts output_type=rgba checkpoint=RUN/checkpoints/best.ckpt
curl URL | qefpn predict input=- output=- output_type=rgba > cutout.png

A folder of results is gone on with: a second run makes what is missing, and what changed.
"""

_ENDS_ALL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""After one of these errors no other result can be written either."""


@dataclass
class Outcome:
    """What became of the pictures."""

    done: int = 0
    kept: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    ended_by: str = ""


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
    if config.output_type not in OUTPUT_TYPES:
        raise UserError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {config.output_type!r}")
    if not 0.0 <= float(config.threshold) <= 1.0:
        raise UserError(f"threshold must be in [0, 1], not {config.threshold}")
    for key, least in (("batch_size", 1), ("image_size", 32)):
        if config[key] is not None and config[key] < least:
            raise UserError(f"{key} must be at least {least}, not {config[key]}")
    if not float(config.max_megapixels) > 0:
        raise UserError(f"max_megapixels must be positive, not {config.max_megapixels}")
    return config


def _predict(config: DictConfig, stdout: TextIO) -> int:
    output, output_type = str(config.output), str(config.output_type)
    if output == "-" and stdout.isatty():
        raise UserError("output=-: standard output is a terminal: redirect it to a file or into a pipe")
    folder = output_folder(output)
    record = None if folder is None else Record(folder)
    if config.input == "-":
        if sys.stdin.isatty():
            raise UserError("input=-: standard input is a terminal: pipe a picture into it")
        jobs = plan([], None, output, folder, output_type)
    else:
        made = set() if record is None else record.results()
        found = find_inputs(str(config.input), recursive=bool(config.recursive), output=folder, made=made)
        if found.others:
            print(f"qefpn predict: {passed_over(found.others)}", file=sys.stderr)
        jobs = plan(found.pictures, found.base, output, folder, output_type)
    device = choose_device(str(config.device))
    checkpoint = network_file(config.checkpoint)
    predictor = Predictor(checkpoint, device=device, image_size=config.image_size)
    if record is not None:
        options = {"output_type": output_type, "image_size": predictor.image_size}
        options |= {"threshold": float(config.threshold)} if output_type == "binary" else {}
        record.made = made_by(checkpoint, options)
    outcome = Outcome()
    try:
        _run(jobs, predictor, config, record, outcome, stdout)
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
    record: Record | None,
    outcome: Outcome,
    stdout: TextIO,
) -> None:
    """Read, predict and write in batches; what happened goes into ``outcome`` as it happens."""
    with progress_bar() as progress:
        task = progress.add_task("predict", total=len(jobs))

        def pictures() -> Iterator[tuple[tuple[Job, np.ndarray, np.ndarray | None], np.ndarray]]:
            for job in jobs:
                if record is not None and not config.overwrite and job.source is not None and record.has(job):
                    outcome.done += 1
                    outcome.kept += 1
                    progress.update(task, advance=1)
                    continue
                try:
                    colours, alpha = _read(job, float(config.max_megapixels))
                    yield (job, colours, alpha), on_white(colours, alpha)
                except UserError as error:
                    outcome.failures.append((job.label, str(error)))
                    progress.update(task, advance=1)

        for batch in in_batches(pictures(), int(config.batch_size)):
            maps = predictor.batch([image for _, image in batch])
            for ((job, colours, alpha), _), one in zip(batch, maps, strict=True):
                picture = render(colours, alpha, one, str(config.output_type), float(config.threshold))
                try:
                    _write(job, picture, stdout)
                except DiskFull as error:
                    outcome.ended_by = f"{error}, and run it again to go on"
                    return
                except UserError as error:
                    outcome.failures.append((job.label, str(error)))
                except BrokenPipeError:
                    raise  # who reads has enough: the command line ends without a word
                except OSError as error:
                    reason = f"{job.target or 'standard output'} could not be written ({error.strerror})"
                    if error.errno in _ENDS_ALL:
                        outcome.ended_by = f"{reason}: make room, or give another output, and run it again to go on"
                        return
                    outcome.failures.append((job.label, reason))
                else:
                    outcome.done += 1
                    if record is not None and job.source is not None:
                        record.add(job)
            progress.update(task, advance=len(batch))


def _read(job: Job, max_megapixels: float) -> tuple[np.ndarray, np.ndarray | None]:
    if job.source is None:
        return read_layers(sys.stdin.buffer.read(), max_megapixels=max_megapixels)
    return read_layers(job.source, max_megapixels=max_megapixels)


def _write(job: Job, picture: np.ndarray, stdout: TextIO) -> None:
    if job.target is None:
        stdout.buffer.write(encode(picture))
        stdout.buffer.flush()
        return
    data = encode(picture, job.target.suffix)
    with atomic_file(job.target) as part:
        part.write_bytes(data)


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
