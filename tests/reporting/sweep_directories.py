"""Run directories of a sweep as `qefpn train -m` leaves them, with chosen figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from tests.reporting.conftest import write_csv

FIGURES = ("mae", "mean_f", "weighted_f", "max_f", "s_measure", "e_measure", "binary_ratio")
#: figures of the rows of the solver table by seed, from which the rest of the metrics follow
SOLVER = {
    "unroll_1": (0.70, 0.72, 0.71),
    "unroll_2": (0.74, 0.75, 0.745),
    "equilibrium": (0.80, 0.83, 0.86),
    "quasi": (0.82, 0.84, 0.87),
    "no_pyramid": (0.50, 0.51, 0.50),
}


def figures(level: float, images: int = 100) -> dict[str, Any]:
    """Figures that get better with ``level``; the share of binary pixels is in percent."""
    rest = {"mae": 0.5 - level / 2, "binary_ratio": 100 * level, "images": images}
    return {**{key: level + index / 50 for index, key in enumerate(FIGURES)}, **rest}


def config(**changes: Any) -> dict[str, Any]:
    """A resolved configuration; ``changes`` by dotted keys with double underscores."""
    content: dict[str, Any] = {
        "backbone": {"name": "resnet18", "weights": None},
        "pyramid": {"name": "implicit", "levels": [2, 3, 4, 5], "intermediate_supervision": False},
        "solver": {"name": "broyden", "max_steps": 4, "rtol": 0.01},
        "residual": {"name": "quasi", "p": 5e-7},
        "edge_filter": {"name": "sobel"},
        "loss": {"name": "paper", "edge": 1.0},
        "data": {
            "name": "synthetic", "root": "data/synthetic", "train": ["SYN-TR"], "image_size": 112,
            "scales": [64, 80, 96], "batch_size": 16, "synthetic": {"train": 400},
        },
        "optimizer": {"name": "adamw", "lr": 0.002},
        "trainer": {"max_steps": 60, "accumulate_grad_batches": 1},
        "logger": {"name": "csv"},
        "seed": 0,
        "resume": None,
        "protocol": "f3net",
        "monitor": "val_weighted_f",
    }  # fmt: skip
    for key, value in changes.items():
        *groups, last = key.split("__")
        node = content
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return content


def write_job(
    directory: Path,
    content: dict[str, Any],
    metrics: dict[str, dict[str, Any]] | None,
    *,
    steps: int = 60,
    ablation: dict[str, Any] | None = None,
    state: str | None = None,
) -> Path:
    """One job's directory; ``metrics`` None leaves metrics.json out, as a run that was cut off does."""
    directory.mkdir(parents=True)
    content = {**content, **({"ablation": ablation} if ablation else {})}
    (directory / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    if steps:
        write_csv(directory / "log.csv", log_rows(steps))
    if metrics is not None:
        (directory / "metrics.json").write_text(json.dumps(metrics))
    if state is not None:
        (directory / "job.json").write_text(json.dumps({"number": int(directory.name), "state": state}))
    return directory


def log_rows(steps: int) -> list[dict[str, Any]]:
    """25 steps an epoch, half a second each; layers are unrolled before step 20, the solver runs from there on."""
    rows: list[dict[str, Any]] = []
    for step in range(steps):
        row: dict[str, Any] = {"step": step, "epoch": step // 25, "seconds": (step + 1) / 2, "loss": 2 - step / 100}
        row |= {"unrolled_layers": 2, "solver_steps": 2, "solver_evaluations": 2, "solver_residual": 9.0}
        if step >= 20:
            row |= {"unrolled_layers": 0, "solver_steps": 4, "solver_evaluations": 5, "solver_residual": 0.5 / step}
        rows.append(row)
        if step % 10 == 9:
            rows.append({"step": step, "epoch": step // 25, "seconds": step / 2 + 0.6, "val_weighted_f": step / 100})
    return rows


def write_solver_sweep(directory: Path, seeds: int = 3, dataset: str = "SYN-TE") -> Path:
    """`qefpn train -m ablation=solver seed=0,1,...` with the figures of `SOLVER`."""
    number = 0
    for place, (row, levels) in enumerate(SOLVER.items()):
        changes: dict[str, Any] = {}
        if row.startswith("unroll"):
            changes = {"solver": {"name": "unroll", "max_steps": int(row[-1])}, "residual": {"name": "equilibrium"}}
        elif row == "equilibrium":
            changes = {"residual": {"name": "equilibrium"}}
        elif row == "no_pyramid":
            changes = {"pyramid__name": "none"}
        for seed, level in enumerate(levels[:seeds]):
            ablation = {"name": "solver", "table": "IV", "row": row, "place": place}
            content = config(**changes, seed=seed)
            write_job(directory / str(number), content, {dataset: figures(level)}, ablation=ablation, state="done")
            number += 1
    return directory
