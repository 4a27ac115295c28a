"""`qefpn analyze depth | convergence | budget`: the paper's Fig. 2 and Fig. 7, measured on any network, and how few
steps of a solve are enough."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from qefpn.analysis.states import (
    CURVES,
    DepthSummary,
    Entrant,
    build_entrants,
    injection_of,
    layer_of,
    solve_batch,
    trace_depth,
)
from qefpn.commands.analysis_inputs import FRESH, Pictures, as_list, chosen_network
from qefpn.commands.analyze_budget import analyze_budget
from qefpn.errors import UserError
from qefpn.experiments.command_line import command_help
from qefpn.experiments.composition import command_config
from qefpn.experiments.runtime import choose_device, console, progress_bar, quiet_libraries
from qefpn.experiments.schema import build_named, ensure
from qefpn.models import QEFPN
from qefpn.reporting.analysis_figures import Convergence, draw_convergence, draw_depth
from qefpn.reporting.analysis_tables import convergence_summary, convergence_table, depth_table
from qefpn.reporting.renderers import terminal
from qefpn.text import open_text

SUMMARY = """
qefpn analyze - does f_theta have an equilibrium, and how near do the solvers come to it?

qefpn analyze depth checkpoint=RUN/checkpoints/best.ckpt data.root=DIR data.test=[ECSSD]
    Fig. 2: states and their first and second differences along 5,000 weight-tied layers
qefpn analyze convergence checkpoint=RUN/checkpoints/best.ckpt data.root=DIR pictures=0
    Fig. 7: relative change |f(z*) - z*| / |z*| a picture, for residuals and solvers on the same weights
qefpn analyze budget checkpoint=RUN/checkpoints/best.ckpt
    quality against solver steps on the pictures that the run held out; what it chooses is kept in the checkpoint, for
    budget=fast|balanced of predict, evaluate and export
qefpn analyze depth backbone=resnet50
    of a fresh network, on drawn pictures; its groups are backbone, pyramid and decoder, as in qefpn train

Each writes a PNG, an SVG and its numbers as CSV to output=DIR.
"""

ACTIONS = ("depth", "convergence", "budget")
OWN = {
    "depth": ("layers", "threshold", "curves"),
    "convergence": ("residuals", "p", "solvers", "max_steps", "rtol"),
    "budget": (),
}
"""Keys that mean something to one of them alone."""
PICTURE = ("dataset", "name")
DEPTH_COLUMNS = ("norm", "last_first", "last_second", "share_first", "share_second", "settled", "ratio")
SOLVED_COLUMNS = ("relative_change", "residual", "steps", "evaluations", "converged", "drops", "distance")


def main(argv: Sequence[str]) -> int:
    """0 when all pictures were measured, 1 when some could not be read (they are listed), 2 for a mistake."""
    if not argv or any(word in ("-h", "--help") for word in argv):
        print(command_help("analyze", SUMMARY))
        return 0 if argv else 2
    action, *rest = argv
    if action not in ACTIONS:
        raise UserError(f"there is no `analyze {action}`; there are: {', '.join(ACTIONS)}")
    quiet_libraries()
    options = command_config("analyze", rest)
    _check(action, options, rest)
    device = choose_device(str(options.device))
    if action == "budget":
        unreadable = analyze_budget(options, device, _folder(action, options))
        for line in unreadable:
            print(f"left out: {line}")
        return 1 if unreadable else 0
    entrants = _entrants(options) if action == "convergence" else []
    network, own_size = chosen_network(options)
    layer = layer_of(network, options.block_dtype)
    network.eval().to(device)
    side = int(options.data.image_size or own_size)
    pictures = Pictures(options, side)
    folder = _folder(action, options)
    if action == "depth":
        _depth(options, network, layer, device, pictures, folder)
    else:
        _convergence(entrants, network, layer, device, pictures, folder, int(options.data.batch_size))
    for line in pictures.unreadable:
        print(f"left out: {line}")
    return 1 if pictures.unreadable else 0


def _check(action: str, options: DictConfig, overrides: Sequence[str]) -> None:
    given = {word.lstrip("+~").partition("=")[0] for word in overrides}
    for other in ACTIONS:
        for key in OWN[other]:
            ensure(action == other or key not in given, f"{key} is of `analyze {other}`, not of `analyze {action}`")
    if options.checkpoint is not None:
        fresh = [key for key in sorted(given) if key.split(".")[0] in FRESH]
        if fresh:
            raise UserError(f"{fresh[0]} is of a fresh network, and checkpoint brings its own: give one of the two")
    image_size = options.data.image_size
    for key, value, least in (
        ("pictures", options.pictures or 0, 0),
        ("seed", options.seed, 0),
        ("layers", options.layers, 2),
        ("curves", options.curves, 0),
        ("data.batch_size", options.data.batch_size, 1),
        ("data.image_size", 32 if image_size is None else image_size, 32),
    ):
        ensure(value >= least, f"{key} must be at least {least}, not {value}")
    ensure(options.threshold > 0, f"threshold must be above 0, not {options.threshold}")
    if options.data.root is None and action != "budget":
        ensure(options.data.test is None, "data.test names sets below data.root: give data.root=DIR too")
        ensure(options.pictures != 0, "pictures=0 means all there are: give data.root=DIR, or a number to draw")


def _entrants(options: DictConfig) -> list[Entrant]:
    for key in ("residuals", "solvers", "p"):
        ensure(options[key] is not None and bool(as_list(options[key])), f"{key} is empty: name at least one")
    residuals = [str(name) for name in as_list(options.residuals)]
    return build_named(
        "solvers, residuals, p, max_steps or rtol",
        lambda: build_entrants(
            [str(name) for name in as_list(options.solvers)],
            residuals,
            as_list(options.p),
            max_steps=options.max_steps,
            rtol=options.rtol,
            seed=options.seed,
        ),
    )


def _folder(action: str, options: DictConfig) -> Path:
    folder = Path(str(options.output or time.strftime(f"outputs/analyze/{action}_%Y-%m-%d_%H-%M-%S"))).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"output={folder} cannot be made ({error.strerror})") from None
    return folder


def _require_some(results: Sequence[Any], pictures: Pictures) -> None:
    if not results:
        raise UserError(f"not one picture could be read; the first: {pictures.unreadable[0]}")


class CsvFile:
    """Rows written as they come; floats in full."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._file = open_text(path)
        self._writer = csv.DictWriter(self._file, columns)
        self._writer.writeheader()

    def __enter__(self) -> CsvFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows."""
        for row in rows:
            self._writer.writerow({key: "" if value is None else value for key, value in row.items()})
        self._file.flush()


def _depth(
    options: DictConfig, network: QEFPN, layer: Any, device: torch.device, pictures: Pictures, folder: Path
) -> None:
    layers, threshold = int(options.layers), float(options.threshold)
    summary = DepthSummary(layers, threshold, keep=int(options.curves))
    rows: list[dict[str, Any]] = []
    with progress_bar() as progress, CsvFile(folder / "depth_pictures.csv", [*PICTURE, *DEPTH_COLUMNS]) as file:
        task = progress.add_task("layers of all pictures", total=layers * len(pictures))
        for names, _, images in pictures:
            count = len(names)
            trace = trace_depth(
                layer,
                injection_of(network, images.to(device)),
                layers,
                lambda done, count=count: progress.update(task, advance=done * count),  # type: ignore[misc]
            )
            found = [
                {**dict(zip(PICTURE, name, strict=True)), **row}
                for name, row in zip(names, summary.add(trace), strict=True)
            ]
            file.write(found)
            rows += found
    _require_some(rows, pictures)
    curves = summary.curves()
    with CsvFile(folder / "depth.csv", ["layer", *curves]) as file:
        columns = [values.tolist() for values in curves.values()]
        file.write(
            dict(zip(["layer", *curves], row, strict=True)) for row in zip(range(1, layers + 1), *columns, strict=True)
        )
    with CsvFile(folder / "depth_curves.csv", [*PICTURE, "layer", *CURVES]) as file:
        for row, kept in zip(rows, summary.kept, strict=False):
            series = zip(range(1, layers + 1), *(kept[key].tolist() for key in CURVES), strict=True)
            head = [row[key] for key in PICTURE]
            file.write(dict(zip([*PICTURE, "layer", *CURVES], [*head, *values], strict=True)) for values in series)
    shares = {key: float(np.mean([row[f"share_{key}"] for row in rows])) for key in ("first", "second")}
    drawn = draw_depth(curves, summary.kept, folder, threshold=threshold, shares=shares, pictures=len(rows))
    console().print(terminal(depth_table(rows, layers, threshold)))
    print(f"figure: {drawn[0]}   numbers: {folder / 'depth.csv'}, depth_pictures.csv, depth_curves.csv")


def _convergence(
    entrants: Sequence[Entrant],
    network: QEFPN,
    layer: Any,
    device: torch.device,
    pictures: Pictures,
    folder: Path,
    batch_size: int,
) -> None:
    columns = [*PICTURE, "solver", "residual_name", "p", *SOLVED_COLUMNS]
    figures: dict[int, dict[str, list[float]]] = {i: {key: [] for key in SOLVED_COLUMNS} for i in range(len(entrants))}
    with progress_bar() as progress, CsvFile(folder / "convergence.csv", columns) as file:
        task = progress.add_task("solves", total=len(entrants) * len(pictures))
        for names, numbers, images in pictures:
            injection = injection_of(network, images.to(device))
            keys = torch.tensor(numbers, dtype=torch.int64)
            references: dict[str, Any] = {}
            for index, entrant in enumerate(entrants):
                solved = solve_batch(layer, injection, entrant, keys, references.get(entrant.solver_name))
                references.setdefault(entrant.solver_name, solved.state)
                head = {"solver": entrant.solver_name, "residual_name": entrant.residual_name, "p": entrant.p}
                file.write(
                    {**dict(zip(PICTURE, name, strict=True)), **head, **row}
                    for name, row in zip(names, solved.rows, strict=True)
                )
                for row in solved.rows:
                    for key, value in row.items():
                        figures[index][key].append(float("nan") if value is None else float(value))
                progress.update(task, advance=len(names))
    _require_some(figures[0]["steps"], pictures)
    summaries = [
        {
            "solver": one.solver_name,
            "residual_name": one.residual_name,
            "p": one.p,
            **convergence_summary(figures[index]),
        }
        for index, one in enumerate(entrants)
    ]
    with CsvFile(folder / "convergence_summary.csv", list(summaries[0])) as file:
        file.write(summaries)
    results = [
        Convergence(
            entrant.solver_name,
            entrant.label,
            np.asarray(figures[index]["relative_change"]),
            np.asarray(figures[index]["evaluations"]),
        )
        for index, entrant in enumerate(entrants)
    ]
    drawn = draw_convergence(results, folder)
    console().print(terminal(convergence_table([(one.solver_name, one.label) for one in entrants], summaries)))
    if any(np.isinf(values["relative_change"]).any() for values in figures.values()):
        print("inf: the best iterate is z = 0, where the solve starts, and the relative change is divided by zero")
    print(f"figure: {drawn[0]}   numbers: {folder / 'convergence.csv'}, convergence_summary.csv")
