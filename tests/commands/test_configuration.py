"""Every option composes, and every mistake is one line that names its key."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tests.commands.runs import TINY, words

from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.experiments.checks import check
from qefpn.experiments.command_line import quote_paths
from qefpn.experiments.composition import command_config, compose_config, group_options
from qefpn.experiments.schema import TrainConfig, parse_config
from qefpn.option_names import option_name

GROUPS = (
    *(
        "adjoint",
        "backbone",
        "callbacks",
        "data",
        "debug",
        "decoder",
        "edge_filter",
        "experiment",
        "logger",
        "loss",
        "optimizer",
    ),
    *("profiler", "pyramid", "residual", "schedule", "solver", "trainer"),
)
OPTIONS = [f"{group}={option}" for group in GROUPS for option in group_options(group)]
SMALL = [word for word in TINY if word.startswith("pyramid.")]


def composed(*overrides: str) -> TrainConfig:
    """As `qefpn train` takes its options."""
    return parse_config(compose_config("train", [*overrides, "data.root=pictures"]))


def test_all_groups_are_known() -> None:
    folder = Path(__file__).parents[2] / "conf"
    own = ("ablation", "hydra")  # tests/commands/test_ablations.py
    found = (p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("_"))
    assert sorted(GROUPS) == sorted(name for name in found if name not in own)
    assert all(group_options(group) for group in GROUPS)


@pytest.mark.parametrize("rank", range(max(len(group_options(group)) for group in GROUPS)))
def test_every_option_of_every_group(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of every group together, then the second, ..."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    choices = {}
    for group in GROUPS:
        there = [o for o in group_options(group) if f"{group}={o}" != "trainer=gpu" or torch.cuda.is_available()]
        choices[group] = there[rank % len(there)]
    experiment = choices.pop("experiment")
    config = composed(*(f"{group}={option}" for group, option in choices.items()), *SMALL)
    check(config)
    assert [*config.callbacks] == ([] if choices["callbacks"] == "none" else [choices["callbacks"]])
    profiler = str(config.profiler.get("_target_", "none")).lower()
    assert choices["profiler"] in profiler
    loggers = [name for name, node in config.logger.items() if isinstance(node, dict)]
    assert "_".join(loggers) == ("" if choices["logger"] == "csv" else choices["logger"])
    for group, name in choices.items():
        if group not in ("callbacks", "debug", "logger", "profiler", "trainer"):
            found = getattr(config, group)
            assert (option_name(found) if isinstance(found, dict) else found.name) in known_as(name, config)
    check(composed(f"experiment={experiment}", *SMALL))


AS_SUITS = {
    "auto": ("implicit", "unrolled"),
    "short": ("implicit", "unrolled"),
    "shine_or_short": ("shine", "implicit", "unrolled"),
    "linear_early": ("linear",),
}
"""Options of ``adjoint`` and ``schedule`` that are named after something else than what they choose."""


def known_as(name: str, config: TrainConfig) -> tuple[str, ...]:
    """What an option may call itself."""
    return (name, f"timm/{config.backbone.model}", *AS_SUITS.get(name, ()))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", group_options("experiment"))
@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.startswith(("experiment", "trainer", "logger"))])
def test_an_experiment_takes_any_option(experiment: str, option: str) -> None:
    """Ablations of an experiment: its own settings must not stand in the way of another option."""
    check(composed(f"experiment={experiment}", option))


@pytest.mark.parametrize("experiment", group_options("experiment"))
def test_every_experiment_takes_two_steps(experiment: str, tmp_path: Path, data_root: Path) -> None:
    data = ["data.train=[SYN-TR]", "data.test=[SYN-TE]", "data.name=synthetic"]
    drawn = ["+data.synthetic={train:12,test:3,size:64,seed:0}"]
    tiny = [
        *("backbone=timm", "backbone.model=resnet10t", "backbone.weights=null"),
        *("backbone.options={channels:[8,8,16,16],stem_width:8}", "pyramid.channels=8", "solver.max_steps=2"),
        *("data.image_size=64", "data.scales=[64]", "data.batch_size=4", "data.num_workers=0"),
        *(
            "trainer.max_steps=2",
            "warmup.steps=1",
            "trainer=cpu",
            "trainer.num_threads=1",
            "data.cache_size=null",
        ),
    ]
    argv = ["train", f"experiment={experiment}", *data, *drawn, *tiny]
    assert (
        main(
            [
                *argv,
                f"data.root={data_root}",
                f"hydra.run.dir={tmp_path}/run",
                "trainer.check_val_every_n_epoch=1",
            ]
        )
        == 0
    )
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2
    assert (tmp_path / "run/metrics.json").is_file()


MISTAKES = [
    (["data.rot=x"], ["data.rot", "data.root"]),
    (["max_step=3"], ["max_step", "trainer.max_steps"]),
    (["+trainer.max_step=3"], ["trainer.max_step", "trainer.max_steps"]),
    (["solver.damping=1"], ["solver.damping"]),
    (["+solver.damp=1"], ["solver", "damp"]),
    (["solver=broydn"], ["solver=broydn", "did you mean broyden", "anderson", "unroll"]),
    (["experiment=dmo"], ["experiment=dmo", "demo", "paper"]),
    (["slver=broyden"], ["slver", "solver"]),
    (["seed=many"], ["seed", "many"]),
    (["seed=-1"], ["seed"]),
    (["trainer.max_steps=2.5"], ["trainer.max_steps"]),
    (["pyramid.levels=[]"], ["pyramid.levels", "empty"]),
    (["pyramid.levels=[5,4]"], ["pyramid.levels"]),
    (["pyramid.levels=[1,2]"], ["pyramid.levels"]),
    (["pyramid.channels=0"], ["pyramid.channels"]),
    (["pyramid.activation=rleu"], ["rleu"]),
    (["residual.p=1.5"], ["residual", "1.5"]),
    (["residual.p=-0.1"], ["residual", "-0.1"]),
    (["residual.p=little"], ["residual", "p"]),
    (["solver.max_steps=0"], ["solver", "max_steps"]),
    (["solver.rtol=-1"], ["solver", "rtol"]),
    (["solver.max_steps=few"], ["solver", "max_steps"]),
    (["loss.edge=strong"], ["loss", "edge"]),
    (["schedule.peak=2"], ["schedule", "peak"]),
    (["+schedule.peek=0.5"], ["schedule", "peek"]),
    (["optimizer.lr=0"], ["optimizer.lr"]),
    (["optimizer.momentum=1.5"], ["optimizer.momentum"]),
    (["data.batch_size=0"], ["data.batch_size"]),
    (["data.val_fraction=1"], ["data.val_fraction"]),
    (["data.on_error=ignore"], ["data.on_error", "skip"]),
    (["data.image_size=8"], ["data.image_size"]),
    (["data.augment=[{name: ColourJitter}]"], ["data.augment", "ColourJitter"]),
    (["warmup.layers=0"], ["warmup.layers"]),
    (["warmup.steps=-1"], ["warmup.steps"]),
    (["protocol=f3"], ["protocol", "pysod"]),
    (["monitor=val_f"], ["monitor", "val_max_f"]),
    (["logger=tensorbord"], ["logger=tensorbord", "tensorboard", "csv"]),
    (["trainer.precision=8"], ["trainer.precision=8"]),
    (["trainer.strategy=dpp"], ["trainer.strategy=dpp"]),
    (["trainer.accelerator=abacus"], ["trainer.accelerator=abacus"]),
    (["trainer.fp32_precision=fast"], ["trainer.fp32_precision"]),
    (["trainer.max_time=ten"], ["trainer.max_time", "DD:HH:MM:SS"]),
    (["trainer.max_steps=-1", "trainer.max_epochs=0"], ["no end", "trainer.max_epochs"]),
    (["trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches"]),
    (["trainer.limit_train_batches=1.5"], ["trainer.limit_train_batches"]),
    (["trainer.limit_val_batches=many"], ["trainer.limit_val_batches"]),
    (["trainer.devices=two"], ["trainer.devices", "two"]),
    (["trainer.callbacks=[x]"], ["trainer.callbacks", "callbacks=NAME"]),
    (["+trainer.default_root_dir=x"], ["trainer.default_root_dir", "hydra.run.dir"]),
    (["trainer.gradient_clip_algorithm=norms"], ["trainer.gradient_clip_algorithm=norms"]),
    (["trainer.reload_dataloaders_every_n_epochs=-1"], ["trainer.reload_dataloaders_every_n_epochs=-1"]),
    (["trainer.overfit_batchs=2"], ["trainer.overfit_batchs", "mean trainer.overfit_batches"]),
    (["trainer.sync_batchnorm=true"], ["trainer.sync_batchnorm=true", "GPUs"]),
    (["trainer.val_check_interval=2.5"], ["trainer.val_check_interval", "2.5"]),
    (["trainer.val_check_interval=00:00:10:00"], ["trainer.val_check_interval", "number of batches"]),
    (["trainer.check_val_every_n_epoch=null"], ["trainer.check_val_every_n_epoch", "trainer.val_check_interval"]),
    (["trainer.val_check_interval=3", "trainer.accumulate_grad_batches=2"], ["trainer.val_check_interval=3", "2"]),
    (["callbacks=early_stoping"], ["early_stoping", "early_stopping"]),
    (["callbacks=early_stopping", "callbacks.early_stopping.mode=up"], ["callbacks.early_stopping", "mode"]),
    (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val_f"], ["callbacks.early_stopping", "val_max_f"]),
    (["callbacks=lr_monitor", "+callbacks.lr_monitor.every=2"], ["callbacks.lr_monitor", "every"]),
    (["+callbacks.mine={patience:2}"], ["callbacks.mine", "_target_"]),
    (["+callbacks.mine._target_=qefpn.QEFPN"], ["callbacks.mine", "Callback"]),
    (["+profiler._target_=pytorch_lightning.callbacks.Timer"], ["profiler", "Profiler"]),
    (["+profiler._target_=pytorch_lightning.profilers.os.mkdir"], ["profiler._target_", "os.mkdir"]),
    (["trainer.accelerator=cpu", "trainer.devices=3", "trainer.strategy=ddp"], ["data.batch_size=4", "3"]),
    (["backbone=resnet50", "backbone.options.depth=3"], ["backbone", "depth"]),
    (["backbone.model=resnet10x"], ["resnet10x"]),
    (["backbone.options={channel:[8]}"], ["backbone", "channel"]),
    (["backbone.weights=nowhere.pth"], ["backbone.weights=nowhere.pth"]),
    (["data.test=[ECSSD"], ["data.test=[ECSSD"]),
    (["data.test='ECSSD"], ["data.test='ECSSD"]),
    (["trainer={a:"], ["trainer={a:"]),
    (["data="], ["data"]),
    (["seed=0,1"], ["seed=0,1", "-m"]),
    (["data=duts", "data.root=nowhere"], ["data.root=nowhere"]),
    (["data=duts", "~data.root"], ["data.root"]),
    (["resume=nowhere.ckpt"], ["resume=nowhere.ckpt"]),
    (["init=nowhere.ckpt"], ["init=nowhere.ckpt"]),
    (["hello"], ["'hello'", "key=value"]),
    (["--multrun"], ["--multrun", "-m"]),
    (["-x"], ["-x"]),
]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        pytest.param(*mistake, id=" ".join(mistake[0]), marks=[pytest.mark.slow] if number % 6 else [])
        for number, mistake in enumerate(MISTAKES)
    ],
)
def test_a_mistake_is_one_line_that_names_its_key(
    overrides: list[str],
    said: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words(tmp_path / "run", tmp_path / "data", *overrides)) == 2
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    (line,) = err.splitlines()
    assert line.startswith("qefpn train: ")
    for part in said:
        assert part in line
    assert not (tmp_path / "data").exists()  # told before any data is drawn or read
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unknown_key_is_not_offered_as_its_own_correction() -> None:
    with pytest.raises(UserError) as error:
        compose_config("train", ["solver=fixed_point", "solver.memory=3"])
    assert "solver.memory or" not in str(error.value)
    assert "mean solver.memory?" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [word for word in words(tmp_path / "run", tmp_path) if word != "trainer=cpu"]
    assert main([*given, "trainer=gpu"]) == 2
    assert "trainer=cpu" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["resume", "init"])
def test_a_text_file_is_no_checkpoint(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.ckpt"
    path.write_text("buy milk\n")
    assert main(words(tmp_path / "run", tmp_path / "data", f"{key}={path}")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{key}={path}" in line


def test_a_data_set_without_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [w for w in words(tmp_path / "run", tmp_path) if not w.startswith(("data.root", "data.synthetic"))]
    assert main([*given, "data=duts"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.root is not set" in line


def test_nothing_at_the_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    given = [w for w in words(tmp_path / "run", tmp_path / "empty") if not w.startswith("data.synthetic")]
    for data in ("duts", "folder"):
        assert main([*given, f"data={data}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(tmp_path / "empty") in line


def test_other_commands_tell_mistakes_in_one_line(
    tmp_path: Path, tiny_run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    best = f"checkpoint={tiny_run}/checkpoints/best.ckpt"
    text = tmp_path / "notes.ckpt"
    text.write_text("buy milk\n")
    (tmp_path / "picture.png").write_bytes(b"no picture")
    places = [f"input={tmp_path}/picture.png", f"output={tmp_path}/out"]
    cases = [
        (["tran"], "train"),
        (["evaluate"], "checkpoint"),
        (["evaluate", "checkpoint=nowhere.ckpt"], "nowhere.ckpt"),
        (["evaluate", f"checkpoint={text}"], "notes.ckpt: cannot be read as a PyTorch file"),
        (["evaluate", best, "chekpoint=x"], "chekpoint"),
        (["evaluate", best, "data.rot=x"], "data.root"),
        (["evaluate", best, "data.root=nowhere"], "nowhere"),
        (["evaluate", best, "data.batch_size=many"], "data.batch_size"),
        (["evaluate", best, "report=perhaps"], "report"),
        (["evaluate", best, "protocol=f4", f"output={tmp_path}/e"], "protocol"),
        (["evaluate", best, "device=gpu7", f"output={tmp_path}/e"], "device"),
        (["evaluate", best, "data.test=[ELSEWHERE]", f"output={tmp_path}/e"], "ELSEWHERE"),
        (["predict", best], "input"),
        (["predict", best, "input=nowhere.jpg", "output=x"], "nowhere.jpg"),
        (["predict", "checkpoint=nowhere.ckpt", *places], "nowhere.ckpt"),
        (["predict", f"checkpoint={text}", *places], "notes.ckpt"),
        (["predict", best, *places, "output_type=mask"], "rgba"),
        (["predict", best, *places, "threshold=2"], "threshold"),
        (["predict", best, *places, "threshold=high"], "threshold"),
        (["predict", best, *places, "batch_size=0"], "batch_size"),
        (["predict", best, *places, "batch_size=two"], "batch_size"),
        (["predict", best, *places, "image_size=16"], "image_size"),
        (["predict", best, *places, "device=warp"], "device"),
        (["predict", best, *places, "--fast"], "--fast"),
        (["report"], "run"),
        (["report", "run=nowhere"], "nowhere"),
        (["data", "verfy"], "verify"),
        (["data", "verify"], "data.root"),
        (["data", "verify", "data.root=nowhere"], "nowhere"),
        (["data", "synthesize", f"data.root={tmp_path}/s", "synthetic.train=lots"], "synthetic.train"),
        (["data", "synthesize", f"data.root={tmp_path}/s", "synthetic.size=2"], "size"),
    ]
    for argv, said in cases:
        assert main(argv) == 2, argv
        out, err = capfd.readouterr()
        assert len(err.splitlines()) == 1, (argv, err)
        assert said in err, (argv, err)


def test_help_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in {
        "train": "max_steps",
        "evaluate": "checkpoint",
        "predict": "output_type",
        "data": "synthesize",
        "report": "output",
    }.items():
        assert main([name, "--help"]) == 0
        assert said in capsys.readouterr().out
    assert main(["--help"]) == 0
    assert "predict" in capsys.readouterr().out
    assert main([]) == 2


def test_help_of_train_has_keys_comments_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "optimizer steps with weight-tied layers before the solver takes over" in text
    assert "solver=anderson|broyden|fixed_point|unroll" in text
    assert "adjoint=auto|implicit" in text
    assert "batch_size: 32 # total over all devices" in text
    assert "hydra" not in text
    assert "defaults:" not in text


def test_the_configuration_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--cfg", "job", "data.root=it's (1), é"]) == 0
    assert "root: it's (1), é" in capsys.readouterr().out


PATHS = [
    *(
        "é",
        "two words",
        "it's",
        "[ab]",
        "(1)",
        "a=b",
        "a&b",
        "a,b",
        "{x}",
        "$HOME",
        "${seed}",
        "\\${seed}",
        "#c",
    ),
    *(
        " leading",
        "trailing ",
        "back\\slash",
        "end\\",
        "\\'",
        '"quoted"',
        "'quoted'",
        "a:b",
        "a;b",
        "%",
        "1e3",
    ),
    *("true", "0x10", "*", "?", "~", "\\\\${x}", "a\\'b"),
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_taken_verbatim(path: str) -> None:
    for key in ("data.root", "init", "checkpoint", "hydra.sweep.dir", "data.lists.ECSSD"):
        if "${" in path and key.startswith("hydra."):
            continue
        (parsed,) = OverridesParser.create().parse_overrides(quote_paths([f"{key}={path}"]))
        assert OmegaConf.create({"value": parsed.value()}).value == path


def test_awkward_paths_reach_the_configuration() -> None:
    path = " it's [é] (1) a=b,c {x} ${seed} \\"
    config = parse_config(compose_config("train", [f"data.root={path}", f"init={path}", f"data.lists.ECSSD={path}"]))
    assert config.data.root == config.init == path
    assert config.data.lists == {"ECSSD": path}
    options = command_config("predict", [f"checkpoint={path}", f"input={path}", f"output={path}"])
    assert [options.checkpoint, options.input, options.output] == [path] * 3


def test_null_and_hydra_s_own_words_keep_their_meaning() -> None:
    assert quote_paths(["init=null", "-m", "hydra.run.dir=a/${now:%Y}", "solver=broyden"]) == [
        "init=null",
        "-m",
        "hydra.run.dir=a/${now:%Y}",
        "solver=broyden",
    ]


@pytest.mark.parametrize("way", ["--config-dir", "hydra.searchpath", "--config-dir, sweep"])
def test_configuration_files_of_one_s_own(way: str, tmp_path: Path, data_root: Path) -> None:
    own = tmp_path / "it's [mine]"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\noptimizer:\n  lr: 0.00123\n")
    (own / "solver").mkdir()
    (own / "solver" / "short.yaml").write_text("name: anderson\nmax_steps: 3\nrtol: 0.1\n")
    found = [f"hydra.searchpath=['file://{str(own)}']".replace("it's", "it\\'s")] if way == "hydra.searchpath" else []
    flags = [] if found else ["--config-dir", str(own)]
    short = [
        "trainer.max_steps=1",
        "evaluate=false",
        "report=false",
        "experiment=mine",
        "solver=short",
        "solver.rtol=0.1",
    ]
    given = [word for word in words(tmp_path / "run", data_root, *short) if not word.startswith("solver.max_steps")]
    if "sweep" in way:
        given = [word for word in given if not word.startswith("hydra.run.dir")]
        flags += ["-m", f"hydra.sweep.dir={tmp_path}/sweep", "seed=1"]
    assert main([*given, *flags, *found]) == 0
    run = tmp_path / ("sweep/0" if "sweep" in way else "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 0.00123
    assert config["solver"]["_target_"] == "qefpn.implicit.Anderson"
    assert config["solver"]["max_steps"] == 3


def test_a_configuration_directory_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config-dir", "/nowhere/conf", "data.root=x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "/nowhere/conf" in line


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["pyramid=none", "solver.max_steps=3"], "solver.max_steps=3 changes nothing: with pyramid=none"),
        (["backbone=resnet18", "backbone.model=resnet10t"], "backbone.model=resnet10t changes nothing: it is of"),
        (["data=duts", "data.synthetic.train=4"], "data.synthetic.train=4 changes nothing: it is of data=synthetic"),
        (["data=duts", "data.test_fraction=0.5"], "data.test_fraction=0.5 changes nothing: data.test names sets"),
        (["pyramid=none", "adjoint=short"], "adjoint=short"),
        (["data.cache=none", "data.cache_size=400"], "data.cache=ram"),
        (["data=folder", "data.synthetic.train=3"], "data.synthetic"),
        (["loss=no_edges", "edge_filter=scharr"], "loss=no_edges"),
    ],
)
def test_a_key_that_means_nothing_is_refused(
    given: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *given, f"data.root={tmp_path}", f"hydra.run.dir={tmp_path}/run"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("action", ["list", "verify", "download"])
def test_an_action_takes_no_key_of_another(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", action, f"data.root={tmp_path}", "synthetic.train=3"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "synthetic.train" in line and "data synthesize" in line
