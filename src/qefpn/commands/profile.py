"""`qefpn profile`: parameters, multiplications, time and memory, and the quality that a solver budget costs."""

from __future__ import annotations

import dataclasses
import difflib
import platform
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.progress import Progress

from qefpn.analysis.profile_sweep import ProfileSettings, profile_module, quality_rows
from qefpn.analysis.profiling import MEMORY_NOTE
from qefpn.errors import UserError
from qefpn.experiments.checks import check
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import check_overrides, command_config, compose_config
from qefpn.experiments.module import build_module
from qefpn.experiments.prepare import prepare_data
from qefpn.experiments.run_config import evaluation_data, run_config, run_directory
from qefpn.experiments.runtime import choose_device, console, progress_bar, quiet_libraries, tracker
from qefpn.experiments.schema import TrainConfig, TrainerConfig, ensure, known_keys, parse_config
from qefpn.experiments.scoring import test_loaders
from qefpn.models import ImplicitPyramid
from qefpn.models.loading import load_trained
from qefpn.models.network import SMALLEST
from qefpn.models.packed import is_borrowed, network_file
from qefpn.option_names import option_name
from qefpn.reporting.profile_tables import profile_tables, write_profile
from qefpn.reporting.published import load_published
from qefpn.reporting.renderers import terminal
from qefpn.training.module import SaliencyModule

SUMMARY = """
qefpn profile - parameters, MACs, frames a second and memory (the paper's Table III)

qefpn profile                                               the paper's network, with fresh weights
qefpn profile backbone=resnet18 pyramid.channels=32         groups and keys as in qefpn train
qefpn profile experiment=small sizes=[112] budgets=[1,4]
qefpn profile checkpoint=RUN/checkpoints/best.ckpt data.root=DIR    and max F against solver steps
"""


def main(argv: Sequence[str]) -> int:
    """0 when all is measured, 2 for a mistake in the options."""
    if any(word in ("-h", "--help") for word in argv):
        print(command_help("profile", SUMMARY))
        return 0
    quiet_libraries()
    own, rest = split_words(argv)
    options = command_config("profile", own)
    config, module, checkpoint = chosen(options, rest)
    if options.device == "auto" and config.trainer.accelerator == "cpu":
        options.device = "cpu"  # what the experiment is made for
    device = choose_device(str(options.device))
    settings = checked(options, config)
    directory = output_directory(options, checkpoint)
    with progress_bar() as progress:
        result = profile_module(module, settings, device, ProgressLines(progress))
    result |= {"machine": machine(device, config), "network": described(config, module, checkpoint), "quality": []}
    if checkpoint is not None and (options.data.root is not None or options.data.images is not None):
        result["quality"] = measured_quality(config, options, module, directory, device)
    tables = profile_tables(result, load_published(), MEMORY_NOTE.get(device.type, ""))
    for table in tables:
        console().print(terminal(table))
    for path in write_profile(directory, result, tables):
        print(path)
    return 0


def split_words(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """This command's own overrides, and those that choose a network as for `qefpn train`."""
    keys = [str(key) for key in compose_config("profile", [])]
    own: list[str] = []
    rest: list[str] = []
    schema = known_keys()
    for word in argv:
        key = word.partition("=")[0].lstrip("+~")
        root = key.partition(".")[0]
        # `data=duts` belongs to an experiment; `data.root=DIR` is where the quality is measured
        if root in keys and (root not in ("data", "quality") or "." in key) or word.startswith("-"):
            own.append(word)
            continue
        if root not in schema and root not in ("experiment", "ablation", "hydra"):
            close = difflib.get_close_matches(root, [*keys, *(k for k in schema if "." not in k)], n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else "--help lists the keys"
            raise UserError(f"unknown key {key}; {hint}")
        rest.append(word)
    return own, rest


def chosen(options: DictConfig, overrides: Sequence[str]) -> tuple[TrainConfig, SaliencyModule, Path | None]:
    """The configuration and its network: a checkpoint's, or a fresh one composed as `qefpn train` composes it."""
    if options.checkpoint is None:
        ensure(
            options.data.root is None and options.data.images is None and options.data.masks is None,
            "data.root is for the quality of a trained network: give checkpoint=RUN/checkpoints/best.ckpt too",
        )
        own = [f"allow=[{','.join(map(str, options.allow))}]"]
        (composed,) = check_overrides("train", [*overrides, "data.root=.", *own], multirun=False)
        config = parse_config(composed)
        unloaded(config)
        check(config)
        return config, build_module(config), None
    ensure(
        not overrides,
        f"{' '.join(overrides)}: the network is the checkpoint's; leave out {'it' if len(overrides) < 2 else 'them'}",
    )
    checkpoint = network_file(str(options.checkpoint))
    config = run_config(checkpoint)
    unloaded(config)
    config.trainer = TrainerConfig(precision=config.trainer.precision, fp32_precision=config.trainer.fp32_precision)
    config.trainer.max_epochs = 1
    if options.data.root is not None or options.data.images is not None:
        config.data = evaluation_data(config.data, options.data)
    check(config)
    module = build_module(config)
    module.network = load_trained(checkpoint).network
    return config, module, checkpoint


def unloaded(config: TrainConfig) -> None:
    """Nothing is read or logged for a measurement: cost does not depend on the weights."""
    config.init = config.resume = config.backbone.weights = None
    config.logger = {}
    config.trainer.devices, config.trainer.strategy = 1, "auto"


def checked(options: DictConfig, config: TrainConfig) -> ProfileSettings:
    """The options as settings.

    Raises:
        UserError: a value that cannot be.
    """
    sizes = whole_numbers(options, "sizes", SMALLEST)
    for key, least in (("train_batch", 1), ("repeats", 1)):
        ensure(options[key] >= least, f"{key} must be at least {least}, not {options[key]}")
    ensure(options.seconds > 0, f"seconds must be positive, not {options.seconds}")
    smallest = min(sizes)
    ensure(
        not options.training or options.train_batch > 1 or smallest > SMALLEST,
        f"sizes={smallest}: batch norm cannot train on one pixel of one picture; give train_batch=2 or training=false",
    )
    return ProfileSettings(
        sizes=sizes,
        budgets=whole_numbers(options, "budgets", 1),
        batches=whole_numbers(options, "batches", 1),
        training=options.training,
        train_batch=options.train_batch,
        repeats=options.repeats,
        seconds=float(options.seconds),
        precision=str(config.trainer.precision),
        fp32=config.trainer.fp32_precision,
    )


def whole_numbers(options: DictConfig, key: str, least: int) -> list[int]:
    """A list of whole numbers, sorted, each once; one may stand without brackets."""
    value = OmegaConf.select(options, key)
    given = list(value) if OmegaConf.is_list(value) else [value]
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= least for one in given)
    ensure(
        bool(given) and whole,
        f"{key} is a list of whole numbers from {least} on, such as [{least},{3 * least}], not {value}",
    )
    return sorted(set(given))


def output_directory(options: DictConfig, checkpoint: Path | None) -> Path:
    """Made before anything is measured."""
    if options.output is not None:
        directory = Path(str(options.output)).expanduser()
    elif checkpoint is not None and not is_borrowed(str(options.checkpoint)):
        directory = run_directory(checkpoint) / "profile"
    else:
        directory = Path("outputs/profile") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={directory} cannot be made ({error.strerror})") from None
    return directory


def machine(device: torch.device, config: TrainConfig) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    precision = f"{config.trainer.precision}, float32 products {config.trainer.fp32_precision}"
    return {
        "device": name,
        "kind": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "training precision": precision,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def described(config: TrainConfig, module: SaliencyModule, checkpoint: Path | None) -> dict[str, Any]:
    """The network in a few words."""
    pyramid = module.network.pyramid
    implicit = isinstance(pyramid, ImplicitPyramid)
    return {
        "backbone": config.backbone.model or config.backbone.name,
        "pyramid": config.pyramid.name,
        "channels": config.pyramid.channels,
        "solver": repr(pyramid.solver) if isinstance(pyramid, ImplicitPyramid) else None,
        "adjoint": option_name(config.adjoint) if implicit else None,
        "residual": option_name(config.residual) if implicit else None,
        "block_dtype": config.pyramid.block_dtype,
        "checkpoint": None if checkpoint is None else str(checkpoint),
    }


def measured_quality(
    config: TrainConfig, options: DictConfig, module: SaliencyModule, directory: Path, device: torch.device
) -> list[dict[str, Any]]:
    """Scores against solver steps on the test pictures at data.root."""
    steps = whole_numbers(options, "quality.steps", 1)
    limit = options.quality.limit
    ensure(limit > 0 and (isinstance(limit, int) or limit <= 1), f"quality.limit must be above 0, not {limit}")
    loaders = test_loaders(prepare_data(config, directory, train=False), limit)
    ensure(bool(loaders), f"data.root={options.data.root}: no test picture is there")
    with progress_bar() as progress:
        track = tracker(progress, lambda batch: len(batch["name"]))
        return quality_rows(module, loaders, steps, protocol=config.protocol, device=device, track=track)


@dataclasses.dataclass
class ProgressLines:
    """Shows what is being measured: beside the bar, or where there is no terminal as a line on standard error."""

    progress: Progress
    _task: Any = None
    _start: float = dataclasses.field(default_factory=time.monotonic)

    def __call__(self, what: str) -> None:
        if not self.progress.console.is_terminal:
            print(f"[{time.monotonic() - self._start:6.0f} s] {what}", file=sys.stderr, flush=True)
            return
        if self._task is None:
            self._task = self.progress.add_task(what, total=None)
        self.progress.update(self._task, description=what, advance=1)
