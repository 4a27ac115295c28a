"""`ablation=NAME`: every row of every table composes, is what its table says, and says so in its config.yaml."""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.commands.runs import SYNTHETIC, TINY, log, words

from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.experiments.checks import check
from qefpn.experiments.command_line import CONFIG_MODULE
from qefpn.experiments.composition import (
    catalogue,
    check_overrides,
    command_config,
    compose_config,
    expand_rows,
    group_options,
)
from qefpn.experiments.config_files import read_config
from qefpn.experiments.schema import TrainConfig, parse_config
from qefpn.option_names import option_name

ABLATIONS = group_options("ablation")
CONF = Path(str(files(CONFIG_MODULE)))


def rows_of(ablation: str) -> list[str]:
    return catalogue().rows(ablation)


def read_ablation(path: Path) -> dict[str, Any] | None:
    return read_config(path).ablation


EXPERIMENTS = (None, "demo", "small", "paper")


def row(ablation: str, name: str, *more: str) -> TrainConfig:
    return parse_config(
        compose_config("train", [*more, f"ablation={ablation}", f"ablation.row={name}", "data.root=pictures"])
    )


def of(experiment: str | None) -> list[str]:
    return [] if experiment is None else [f"experiment={experiment}"]


def differences(first: Any, second: Any, prefix: str = "") -> set[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = {*first, *second}
        return {d for k in keys for d in differences(first.get(k), second.get(k), f"{prefix}{k}.")}
    return set() if first == second else {prefix.rstrip(".")}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_rows_of_the_solver_table(experiment: str | None) -> None:
    for layers in (1, 2, 3):
        config = row("solver", f"unroll_{layers}", *of(experiment))
        # nothing of the experiment's solver is left: so many layers from the first step to the last
        assert config.solver == {"_target_": "qefpn.implicit.Unroll", "max_steps": layers, "rtol": 0.0}
        assert config.adjoint == {"_target_": "qefpn.implicit.UnrolledAdjoint"}
        assert config.warmup.steps == 0
        assert config.pyramid.name == "implicit"
    found = [
        compose_config("train", [*of(experiment), "ablation=solver", f"ablation.row={name}", "data.root=x"])
        for name in ("equilibrium", "quasi")
    ]
    assert differences(*map(dict, found)) == {"residual", "ablation"}
    assert [option_name(dict(config.residual)) for config in found] == ["equilibrium", "quasi"]
    assert option_name(dict(found[0].solver)) == "broyden"
    assert row("solver", "no_pyramid", *of(experiment)).pyramid.name == "none"


@pytest.mark.slow
def test_rows_of_the_other_tables() -> None:
    losses = [option_name(row("edge", name, "experiment=demo").loss) for name in rows_of("edge")]
    assert losses == ["ssim", "weighted_iou", "low_level_edges", "no_edges", "paper"]
    filters = [option_name(row("filter", name).edge_filter) for name in rows_of("filter")]
    assert filters == ["prewitt", "laplacian", "frei_chen", "sobel", "scharr"]
    levels = [row("pyramid", name, "experiment=demo").pyramid for name in rows_of("pyramid")]
    assert [(p.intermediate_supervision, p.levels) for p in levels] == [
        (True, [2, 3, 4, 5]),
        (False, [3, 4, 5]),
        (False, [2, 3, 4, 5]),
    ]
    assert [row("p", name).residual["p"] for name in rows_of("p")] == [0.0, 5e-7, 1e-4, 1e-2]
    adjoints = [option_name(row("adjoint", name, "experiment=demo").adjoint) for name in rows_of("adjoint")]
    assert adjoints == ["implicit", "implicit", "phantom", "jacobian_free", "shine", "unrolled"]
    names = [row("backbone", name, "experiment=paper").backbone for name in rows_of("backbone")]
    assert [b.name for b in names] == [
        *("resnet18", "resnet50", "timm/swin_tiny_patch4_window7_224", "timm/pvt_v2_b2", "timm/convnext_tiny"),
    ]
    assert {b.weights for b in names} == {"DEFAULT"}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_row_can_be_built(ablation: str, experiment: str | None) -> None:
    for name in rows_of(ablation):
        check(row(ablation, name, *of(experiment)))


def test_a_multirun_expands_to_the_rows() -> None:
    given = ["experiment=demo", "ablation=solver", "seed=0,1"]
    expanded = expand_rows(given)
    rows = ("unroll_1", "unroll_2", "unroll_3", "equilibrium", "quasi", "no_pyramid")
    assert expanded == ["experiment=demo", f"ablation={','.join(f'solver/{name}' for name in rows)}", "seed=0,1"]
    # every choice of every axis once: six rows with the first seed, and the other seed
    assert len(list(check_overrides("train", expanded, multirun=True))) == 7
    chosen = [*given, "ablation.row=quasi,equilibrium"]
    assert expand_rows(chosen) == ["experiment=demo", "ablation=solver/quasi,solver/equilibrium", "seed=0,1"]
    assert expand_rows(expanded) == expanded


def test_what_is_given_reaches_the_rows_that_do_not_fix_it() -> None:
    budget = ["solver.max_steps=9", "solver.rtol=0.1", "residual.p=0.01", "warmup.steps=7"]
    assert row("solver", "unroll_2", *budget).solver == {
        "_target_": "qefpn.implicit.Unroll",
        "max_steps": 2,
        "rtol": 0.0,
    }
    quasi = row("solver", "quasi", *budget)
    assert (quasi.solver["max_steps"], quasi.solver["rtol"], quasi.warmup.steps) == (9, 0.1, 7)
    assert quasi.residual == {"_target_": "qefpn.implicit.QuasiEquilibrium", "p": 0.01}
    assert row("solver", "equilibrium", *budget).residual == {"_target_": "qefpn.implicit.Equilibrium"}
    assert option_name(row("solver", "equilibrium", "solver=anderson").solver) == "anderson"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_unrolled_layers_take_nothing_from_an_experiment_s_solver(experiment: str | None) -> None:
    def of_words(*given: str) -> TrainConfig:
        return parse_config(compose_config("train", [*of(experiment), *given, "data.root=pictures"]))

    config = of_words("solver=unroll")
    assert config.solver == {"_target_": "qefpn.implicit.Unroll", "max_steps": 3, "rtol": 0.0}
    assert (config.adjoint, config.warmup.steps) == ({"_target_": "qefpn.implicit.UnrolledAdjoint"}, 0)
    own = ["solver=unroll", "solver.max_steps=2", "adjoint=phantom", "adjoint.steps=1", "warmup.steps=5"]
    config = of_words(*own, "++solver.rtol=0.1")
    assert config.solver == {"_target_": "qefpn.implicit.Unroll", "max_steps": 2, "rtol": 0.1}
    assert (option_name(config.adjoint), config.adjoint["steps"], config.warmup.steps) == ("phantom", 1, 5)
    axis = ["solver=broyden,unroll", "seed=0", *of(experiment), "data.root=x"]
    found = [parse_config(one) for one in check_overrides("train", axis, multirun=True)]
    assert [option_name(one.solver) for one in found] == ["broyden", "unroll"]
    assert found[1].solver["max_steps"] == 3
    assert found[0].adjoint == of_words().adjoint != found[1].adjoint


def test_small_takes_the_gradient_that_suits_the_solver() -> None:
    def adjoint(solver: str) -> dict[str, Any]:
        words = ["experiment=small", f"solver={solver}", "data.root=pictures"]
        return parse_config(compose_config("train", words)).adjoint

    solver = {"_target_": "qefpn.implicit.Broyden", "max_steps": 5, "rtol": 0.01}
    short = {"_target_": "qefpn.implicit.ImplicitAdjoint", "solver": solver}
    found = {solver: adjoint(solver) for solver in group_options("solver")}
    assert found == {
        "anderson": short,
        "broyden": {"_target_": "qefpn.implicit.ShineAdjoint"},
        "fixed_point": short,
        "unroll": {"_target_": "qefpn.implicit.UnrolledAdjoint"},
    }


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_solver_takes_two_steps_of_every_experiment(
    experiment: str | None, tmp_path: Path, data_root: Path
) -> None:
    """One before the warm-up ends and one after; the experiment's own adjoint, but for unrolled layers."""
    kept = [
        *TINY[:5],
        *SYNTHETIC,
        "data=synthetic",
        "data.train=[SYN-TR]",
        "data.test=[SYN-TE]",
        "data.cache_size=null",
    ]
    kept += ["backbone.weights=null", "trainer=cpu", "trainer.max_steps=2", "trainer.max_time=null", "evaluate=false"]
    places = ["-m", f"data.root={data_root}", f"hydra.sweep.dir={tmp_path}", "data.val_fraction=0"]
    axis = f"solver={','.join(group_options('solver'))}"
    assert main(["train", *of(experiment), *kept, *places, axis, "warmup.steps=1"]) == 0
    for number, solver in enumerate(group_options("solver")):
        assert [int(line["step"]) for line in log(tmp_path / str(number))] == [0, 1]
        config = read_config(tmp_path / str(number) / "config.yaml")
        assert option_name(config.solver) == solver
        assert (option_name(config.adjoint) == "unrolled") == (solver == "unroll")


COMMANDS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem not in ("base", "train"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_configuration_of_every_command_composes(name: str) -> None:
    assert len(command_config(name, [])) > 0
    with pytest.raises(UserError, match="nothing_like_it"):
        command_config(name, ["nothing_like_it=1"])


def test_a_row_s_label() -> None:
    label = compose_config("train", ["ablation=edge", "ablation.row=no_edges", "data.root=x"]).ablation
    assert label == {"name": "edge", "table": "V", "row": "no_edges", "place": 3}
    assert parse_config(compose_config("train", ["data.root=x"])).ablation is None


def test_a_row_alone_is_a_run(tmp_path: Path, data_root: Path) -> None:
    given = words(tmp_path / "run", data_root, "evaluate=false", "trainer.max_steps=1")
    assert main([*given, "ablation=solver", "ablation.row=unroll_2"]) == 0
    path = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(path.read_text())["ablation"] == {
        "name": "solver",
        "table": "IV",
        "row": "unroll_2",
        "place": 1,
    }
    assert read_ablation(path) == {"name": "solver", "table": "IV", "row": "unroll_2", "place": 1}
    assert read_config(path).solver["max_steps"] == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["ablation=solvr"], ["ablation=solvr", "did you mean solver", "adjoint, backbone, edge"]),
        (["ablation=solver", "ablation.row=unrol_1"], ["unroll_1", "no_pyramid"]),
        (["ablation=solver,edge"], ["one ablation"]),
        (["ablation=edge", "loss=ssim"], ["loss", "ablation=edge"]),
        (["ablation=solver", "solver=broyden,anderson"], ["solver", "axis"]),
        (["ablation=solver", "solver.max_steps=4,8"], ["solver.max_steps", "axis"]),
        (["ablation=p", "solver=broyden,andersn"], ["solver=andersn", "anderson"]),
    ],
)
def test_mistakes_are_one_line(
    given: list[str], said: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = [w for w in words(tmp_path, tmp_path / "data") if "hydra.run.dir" not in w]
    assert main([*sweep, "-m", f"hydra.sweep.dir={tmp_path}/sweep", *given]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    for part in said:
        assert part in line
    assert not list(tmp_path.iterdir())


def test_a_run_of_an_ablation_needs_a_row() -> None:
    with pytest.raises(UserError, match=r"-m.*ablation\.row=unroll_1\|"):
        compose_config("train", ["ablation=solver"])


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_row_takes_two_steps(ablation: str, tmp_path: Path, data_root: Path) -> None:
    given = words(tmp_path, data_root, "trainer.max_steps=2", "report=false")
    gone = ("hydra.run.dir", "solver.max_steps", *(["backbone"] if ablation == "backbone" else []))
    given = [word for word in given if not word.startswith(gone)]
    assert main([*given, "-m", f"hydra.sweep.dir={tmp_path}", f"ablation={ablation}"]) == 0
    runs = [tmp_path / str(number) for number in range(len(rows_of(ablation)))]
    assert [read_ablation(run / "config.yaml") for run in runs] == [
        {"name": ablation, "table": (read_ablation(runs[0] / "config.yaml") or {})["table"], "row": name, "place": i}
        for i, name in enumerate(rows_of(ablation))
    ]
    assert all((run / "metrics.json").is_file() for run in runs)


def documented() -> list[list[str]]:
    """The commands of docs/sweeps.md, as a shell splits them."""
    text = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")
    return [shlex.split(line) for line in text.splitlines() if line.startswith(("qefpn train", "torchrun"))]


@pytest.mark.slow
@pytest.mark.parametrize("command", documented(), ids=" ".join)
def test_documented_commands_compose(command: list[str]) -> None:
    if any(word.startswith("hydra/") for word in command):
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
        pytest.importorskip("optuna")
    given = command[command.index("train") + 1 :]
    multirun = "-m" in given
    given = [word for word in given if word != "-m"]
    configs = list(check_overrides("train", expand_rows(given) if multirun else given, multirun=multirun))
    assert len(configs) > 1 if multirun else len(configs) == 1
    for config in configs:
        parse_config(config)
