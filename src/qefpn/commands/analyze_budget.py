"""`qefpn analyze budget`: how few steps a trained network needs, kept with its weights for ``budget=``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from qefpn.analysis.budget import ALLOWED, Batch, Chosen, Trial, choose_budgets
from qefpn.data import read_image
from qefpn.data.layouts import Pair
from qefpn.data.reading import TestTransform, read_mask
from qefpn.errors import UserError
from qefpn.experiments.prepare import prepare_data
from qefpn.experiments.run_config import evaluation_data, run_config
from qefpn.experiments.runtime import console, progress_bar
from qefpn.models.budgets import keep_budgets
from qefpn.models.loading import load_trained
from qefpn.models.packed import is_borrowed, network_file
from qefpn.models.pyramid import ImplicitPyramid
from qefpn.reporting.analysis_figures import draw_budget
from qefpn.reporting.analysis_tables import budget_table
from qefpn.reporting.renderers import terminal
from qefpn.text import one_line, open_text

PICTURES = 100


def analyze_budget(options: DictConfig, device: torch.device, folder: Path) -> list[str]:
    """Measure, choose, tell, and keep; a line for each picture that could not be read.

    Raises:
        UserError: no checkpoint, nothing to solve, or no pictures with masks.
    """
    if options.checkpoint is None:
        raise UserError("analyze budget is of a trained network: give checkpoint=RUN/checkpoints/best.ckpt")
    path = network_file(str(options.checkpoint))
    loaded = load_trained(path)
    network = loaded.network.eval().to(device)
    if not isinstance(network.pyramid, ImplicitPyramid):
        raise UserError(one_line(f"{path} has pyramid=none: there are no steps to choose"))
    config = run_config(path)
    pairs = _pairs(options, path, folder)
    side, size = int(options.data.image_size or loaded.image_size), int(options.data.batch_size)
    unreadable: dict[str, str] = {}
    with progress_bar() as progress:
        task = progress.add_task("solving", total=2 * len(pairs))
        chosen = choose_budgets(
            network,
            lambda: _batches(pairs, side, size, unreadable, lambda done: progress.update(task, advance=done)),
            config.protocol,
        )
    _write(chosen, folder)
    drawn = draw_budget(_named(chosen), folder)
    console().print(terminal(budget_table(_named(chosen), len(pairs) - len(unreadable))))
    print(f"figure: {drawn[0]}   numbers: {folder / 'budget.csv'}")
    budgets = {name: {"max_steps": one.max_steps, "rtol": one.rtol} for name, one in chosen.budgets.items()}
    if is_borrowed(str(options.checkpoint)):
        print("the network of the package, or of the cache, is left as it is")
    else:
        print(one_line(f"budget={'|'.join(budgets)} is kept in {keep_budgets(path, budgets)}"))
    return list(unreadable.values())


def _pairs(options: DictConfig, path: Path, folder: Path) -> list[Pair]:
    """Pictures with masks: those that the run held out, or test sets where they are named; evenly spaced."""
    config = run_config(path)
    config.init = config.resume = None
    config.data.augment = None
    if options.data.test is not None or options.data.images is not None or options.data.masks is not None:
        config.data = evaluation_data(config.data, options.data)
        found = [pair for pairs in prepare_data(config, folder, train=False).test_pairs.values() for pair in pairs]
    else:
        tests = config.data.test if config.data.name == "synthetic" else []  # which need not be there
        config.data = replace(config.data, test=tests, cache="none", root=str(options.data.root or config.data.root))
        found = list(prepare_data(config, folder).val_pairs)
        if not found:
            raise UserError("the run held no pictures out: name some that it was not trained on, data.test=[...]")
    most = PICTURES if options.pictures is None else int(options.pictures)
    if most and len(found) > most:
        found = [found[int(i)] for i in np.linspace(0, len(found) - 1, most).round()]
    return found


def _batches(
    pairs: Sequence[Pair], side: int, size: int, unreadable: dict[str, str], advance: Callable[[int], None]
) -> Iterator[Batch]:
    resize = TestTransform(side)
    read = 0
    for start in range(0, len(pairs), size):
        images, masks = [], []
        some = pairs[start : start + size]
        for pair in some:
            try:
                image, mask = read_image(pair.image), read_mask(pair.mask)
            except (OSError, ValueError) as error:
                unreadable[pair.name] = str(error).splitlines()[0]
                continue
            images.append(torch.from_numpy(resize(image)))
            masks.append(mask)
        read += len(images)
        if images:
            yield torch.stack(images).permute(0, 3, 1, 2), masks
        advance(len(some))
    if not read:
        raise UserError(f"not one picture could be read; the first: {next(iter(unreadable.values()))}")


def _named(chosen: Chosen) -> list[tuple[str, Trial]]:
    """Each trial with what it is: nothing, or the budgets that it became."""
    names: dict[Trial, list[str]] = {}
    for name, trial in [*chosen.budgets.items(), ("exact", chosen.exact)]:
        names.setdefault(trial, []).append(name)
    trials = [*chosen.by_steps, *(trial for name in ALLOWED for trial in chosen.by_tolerance[name])]
    ordered = sorted(set(trials), key=lambda one: (one.max_steps, -one.rtol))
    return [(", ".join(names.get(trial, ())), trial) for trial in ordered]


def _write(chosen: Chosen, folder: Path) -> None:
    rows = [asdict(trial) | {"budget": name} for name, trial in _named(chosen)]
    with open_text(folder / "budget.csv") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
