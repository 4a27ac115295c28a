"""A package of somebody's own, as docs/extending.md has it: not allowed, nothing of it is imported."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from qefpn import load_model
from qefpn.cli import main
from qefpn.errors import UserError

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page, the package on the path."""
    for name, content in re.findall(
        r"^`([\w/.]+)`[^\n]*\n\n```\w+\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with (tmp_path / "my_package" / "__init__.py").open("a") as file:
        file.write(f"\n(__import__('pathlib').Path({str(tmp_path)!r}) / 'imported').touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_package", None)


@pytest.fixture
def pictures(tiny_run: Path, data_root: Path, tmp_path: Path) -> Path:
    """The drawn training pictures under other names."""
    (source,) = (path for path in data_root.iterdir() if path.name == "SYN-TR")
    for new, end in (("photos", "Image"), ("truth", "Mask")):
        shutil.copytree(source / f"SYN-TR-{end}", tmp_path / "pictures" / new)
    return tmp_path / "pictures"


def words(own: Path, pictures: Path, *more: str) -> list[str]:
    return [
        "train", "--config-dir", str(own / "my_conf"), "experiment=mine", f"data.root={pictures}", "trainer=cpu",
        "data.num_workers=0", f"hydra.run.dir={own}/run", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_allowed_it_trains_and_is_read_again(
    own: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(own, pictures, "allow=[my_package]")) == 0
    config = yaml.safe_load((own / "run" / "config.yaml").read_text())
    assert config["solver"]["_target_"] == "my_package.Relaxed" and config["solver"]["relaxation"] == 0.8
    assert config["backbone"]["name"] == "Pooled" and config["edge_filter"] == {"_target_": "my_package.roberts"}
    checkpoint = own / "run" / "checkpoints" / "best.ckpt"
    network = load_model(checkpoint, allow=["my_package"])
    assert type(network.backbone).__name__ == "Pooled" and network.pyramid.solver.max_steps == 8
    with torch.no_grad():
        assert network(torch.rand(1, 3, 64, 64)).shape == (1, 1, 64, 64)
    assert main(["evaluate", f"checkpoint={checkpoint}", f"output={tmp_path}/out", "allow=[my_package]"]) == 0
    picture = next((pictures / "photos").iterdir())
    given = ["predict", f"checkpoint={checkpoint}", f"input={picture}", f"output={tmp_path}/maps"]
    assert main([*given, "allow=[my_package]"]) == 0
    (own / "imported").unlink()
    sys.modules.pop("my_package")
    capsys.readouterr()
    for command in (given, ["evaluate", f"checkpoint={checkpoint}", f"output={tmp_path}/out"]):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "my_package" in line and "allow=[my_package]" in line
    with pytest.raises(UserError, match=r"allow=\[my_package\]"):
        load_model(checkpoint)
    assert not (own / "imported").exists()


@pytest.mark.slow
def test_a_sweep_over_ones_own(own: Path, pictures: Path) -> None:
    given = [word for word in words(own, pictures, "allow=[my_package]") if not word.startswith("hydra.run.dir")]
    sweep = ["-m", "solver=relaxed,broyden", f"hydra.sweep.dir={own}/sweep", "evaluate=false", "trainer.max_steps=2"]
    assert main([*given, *sweep]) == 0
    solvers = [yaml.safe_load((own / "sweep" / n / "config.yaml").read_text())["solver"] for n in ("0", "1")]
    assert [solver["_target_"] for solver in solvers] == ["my_package.Relaxed", "qefpn.implicit.Broyden"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ([], "my_package may not be named; if you trust it, allow=[my_package]"),
        (["allow=[other]"], "allow=[my_package]"),
        (["-m", "seed=0,1"], "allow=[my_package]"),
        (["allow=[my-package]"], "is no name of a package"),
    ],
)
def test_not_allowed_nothing_is_imported(
    more: list[str], told: str, own: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(own, pictures, *more)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line
    assert not (own / "imported").exists() and "my_package" not in sys.modules


@pytest.mark.parametrize(
    ("group", "content", "told"),
    [
        ("solver", "_target_: torch.hub.load", "is no Solver"),
        ("solver", "_target_: torch.os.system", "has no such class"),
        ("solver", "_target_: qefpn.atomic.write_atomic", "is no Solver"),
        ("solver", "_target_: my_package.Pooled", "solver"),
        ("solver", "_target_: my_package.Relaxed\nstep: 3", "step"),
        ("solver", "_target_: my_package.Gone", "has no such class"),
        ("solver", "_target_: not_installed.Solver", "allow=[not_installed]"),
        ("backbone", "_target_: torch.nn.Conv2d", "is no Backbone"),
        (
            "adjoint",
            "_target_: qefpn.implicit.ImplicitAdjoint\nsolver: {_target_: torch.nn.Linear}",
            "cannot stand there",
        ),
        ("optimizer", "_target_: my_package.Relaxed", "optimizer"),
    ],
)
def test_what_is_named_is_looked_at_before_it_is_called(
    group: str, content: str, told: str, own: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "my_conf" / group).mkdir(exist_ok=True)
    (own / "my_conf" / group / "bad.yaml").write_text(content)
    assert main(words(own, pictures, "allow=[my_package]", f"{group}=bad")) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert told in line and "Traceback" not in line
    assert not (own / "run" / "checkpoints").exists()
