"""One name an option: in the table, in the registry, in `conf`; configurations of earlier versions are read."""

from __future__ import annotations

from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from qefpn.errors import UserError
from qefpn.experiments.assemble import assemble
from qefpn.experiments.composition import compose_config
from qefpn.experiments.config_files import config_content, config_of
from qefpn.experiments.schema import TrainConfig, parse_config
from qefpn.implicit.adjoints import ADJOINTS
from qefpn.implicit.residuals import RESIDUALS
from qefpn.implicit.solvers import SOLVERS
from qefpn.losses import EDGE_FILTERS, LOSSES
from qefpn.models import DECODERS
from qefpn.option_names import TARGETS, option_name, with_names, with_targets
from qefpn.registry import Registry
from qefpn.training.optimizers import OPTIMIZERS
from qefpn.training.schedule import SCHEDULES

REGISTRIES: dict[str, Registry[Any]] = {
    "solver": SOLVERS, "residual": RESIDUALS, "adjoint": ADJOINTS, "decoder": DECODERS, "edge_filter": EDGE_FILTERS,
    "loss": LOSSES, "optimizer": OPTIMIZERS, "schedule": SCHEDULES,
}  # fmt: skip
SMALL = ["data.root=pictures", "backbone=narrow", "trainer=cpu", "trainer.max_steps=3", "data.num_workers=0"]


def composed(*words: str) -> TrainConfig:
    return parse_config(compose_config("train", [*SMALL, *words]))


def files() -> list[tuple[str, str, dict[str, Any]]]:
    """(group, option, content) of the groups that the table knows."""
    conf = resources.files("qefpn.conf")
    return [
        (group, Path(str(file)).stem, yaml.safe_load(file.read_text()))
        for group in TARGETS
        for file in conf.joinpath(group).iterdir()
        if file.name.endswith(".yaml")
    ]


def test_the_table_is_that_of_the_registries() -> None:
    assert TARGETS.keys() == REGISTRIES.keys()
    for group, registry in REGISTRIES.items():
        for name, target in TARGETS[group].items():
            module, _, attribute = target.rpartition(".")
            assert getattr(import_module(module), attribute) is registry.get(name), target
        assert sorted(TARGETS[group]) == registry.names()


def test_every_option_says_what_it_is_built_from() -> None:
    found = files()
    assert {group for group, *_ in found} == set(TARGETS)
    for group, option, content in found:
        assert "name" not in content and "_target_" in content, (group, option)
        assert content["_target_"] in (None, *TARGETS[group].values()), (group, option)
    for group, known in TARGETS.items():  # and every part of the program is an option
        assert set(known.values()) <= {content["_target_"] for own, _, content in found if own == group}, group


@pytest.mark.parametrize("words", [
    (), ("solver=unroll",), ("adjoint=short", "solver=anderson", "residual=literal"), ("experiment=small",),
    ("loss=ssim", "optimizer=muon", "schedule=cosine", "decoder=fpn", "edge_filter=scharr", "adjoint=shine"),
])  # fmt: skip
def test_a_configuration_of_names_is_the_same(words: tuple[str, ...]) -> None:
    config = composed(*words)
    content = config_content(config)
    former = with_names(content)
    for group in (*TARGETS, "backbone", "data"):
        assert former[group].get("name") == option_name(content[group]) and "_target_" not in former[group], group
    assert config_of(former, Path("config.yaml")) == config
    assert with_targets(content) == content


def test_a_configuration_of_an_earlier_version_makes_the_same_run(tmp_path: Path) -> None:
    """Every key of its record stood in config.yaml, whichever optimizer was chosen."""
    for optimizer in TARGETS["optimizer"]:
        config = composed(f"optimizer={optimizer}")
        former: dict[str, Any] = with_names(config_content(config))
        every = {"momentum": 0.9, "nesterov": True, "betas": [0.9, 0.999], "train_stem": False}
        former["optimizer"] = every | former["optimizer"]
        former["pyramid"] |= {"start": "zero"}
        former["solver"] |= {"line_search": False}
        read = config_of(former, Path("config.yaml"))
        assert read == config
        assemble(read, tmp_path)


@pytest.mark.parametrize(("group", "key", "value"), [("pyramid", "start", "last"), ("solver", "line_search", True)])
def test_a_configuration_that_needs_what_is_gone_is_told(group: str, key: str, value: Any) -> None:
    former = with_names(config_content(composed()))
    former[group] |= {key: value}
    with pytest.raises(UserError, match=rf"^{group}.{key} is gone: .*; leave it out$"):
        config_of(former, Path("config.yaml"))


def test_a_name_that_is_no_option_is_told(tmp_path: Path) -> None:
    config = composed()
    config.solver = {"name": "broydn", "max_steps": 3}
    with pytest.raises(UserError, match=r"solver=broydn is no option \(did you mean broyden\?\); there are: anderson"):
        assemble(config, tmp_path)


@pytest.mark.parametrize(("words", "said"), [
    (["optimizer.lr=0"], "optimizer.lr must be positive, not 0"),
    (["optimizer.lr=fast"], "optimizer.lr must be a number, not 'fast'"),
    (["optimizer=adamw", "optimizer.betas=[0.9]"], "optimizer.betas are two numbers"),
    (["optimizer=muon", "optimizer.momentum=1"], "optimizer.momentum must be in [0, 1), not 1"),
    (["optimizer=sgd", "optimizer.momentum=0"], "optimizer.nesterov needs momentum above 0"),
    (["+optimizer.beta=0.9"], "optimizer has no option 'beta'"),
    (["schedule.peak=2"], "schedule.peak must be in [0, 1], not 2"),
    (["+schedule.peek=2"], "schedule has no option 'peek' (did you mean peak?)"),
    (["loss.edge=high"], "loss.edge must be a number, not 'high'"),
    (["+decoder.pases=3"], "decoder has no option 'pases' (did you mean passes?)"),
    (["optimizer._target_=torch.optim.Adamw"], "has no such class"),
    (["optimizer._target_=torch.nn.Linear"], "is no Optimizer"),
    (["schedule._target_=torch.nn.functional.relu"], "is no float or LRScheduler"),
    (["solver._target_=qefpn.implicit.QuasiEquilibrium"], "is no Solver"),
    (["data._target_=qefpn.training.module.SaliencyModule"], "is no SaliencyDataModule"),
    (["trainer._target_=qefpn.training.module.SaliencyModule"], "is no Trainer"),
    (["loss._target_=qefpn.losses.build_loss"], "is no Module"),
    (["edge_filter._target_=qefpn.data.reading.read_layers", "+edge_filter.source=a"], "is no tuple"),
    (["schedule={_target_: qefpn.metrics.scores.mean, _partial_: true}"], "qefpn.metrics.scores"),
])  # fmt: skip
def test_what_cannot_be_is_told_before_anything_is_read(words: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        assemble(composed(*words), tmp_path)
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_torch_s_own_optimizers_and_schedules(tmp_path: Path) -> None:
    """Any optimizer of groups of parameters, any scheduler of an optimizer."""
    radam = "optimizer={_target_: torch.optim.RAdam, _partial_: true, lr: 0.004}"
    step = "schedule={_target_: torch.optim.lr_scheduler.StepLR, _partial_: true, step_size: 2}"
    config = composed("experiment=demo", *SMALL)
    for word in (radam, step):
        group, _, text = word.partition("=")
        setattr(config, group, yaml.safe_load(text))
    module = assemble(config, tmp_path).module
    made: Any = module.configure_optimizers()
    assert type(made["optimizer"]) is torch.optim.RAdam
    assert [group["lr"] for group in made["optimizer"].param_groups] == [0.004] * len(made["optimizer"].param_groups)
    assert type(made["lr_scheduler"]["scheduler"]) is torch.optim.lr_scheduler.StepLR


def test_a_default_is_the_same_wherever_it_is_stated() -> None:
    """The schema has it for Python and for configurations of earlier versions, `conf` for whoever reads there."""
    conf, schema = resources.files("qefpn.conf"), config_content(TrainConfig())
    for file, group in (("base.yaml", None), ("sets.yaml", None), ("pyramid/implicit.yaml", "pyramid")):
        stated = yaml.safe_load(conf.joinpath(file).read_text())
        for key, options in ({group: stated} if group else stated).items():
            assert {name: schema[key][name] for name in options} == options, file
