"""A network in two files: packed, listed, found by its name, used by every command; and what is no such thing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.commands.runs import words

from qefpn import Predictor, load_model
from qefpn.cli import main
from qefpn.errors import UserError
from qefpn.models import packed, weights

ABOUT = {
    "data": "SYN-TR, drawn",
    "licence": "free",
    "recipe": {"command": "qefpn train experiment=demo", "commit": "0" * 40},
    "scores": {"f3net": {"SYN-TE": {"max_f": 0.5, "mae": 0.25}}},
}


@pytest.fixture
def shipped(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the package's networks, with the tiny run's as the usual one."""
    folder = tmp_path / "pretrained"
    content = weights.read_checkpoint(tiny_run / "checkpoints" / "best.ckpt")
    about = {**ABOUT, "config": content["qefpn"]["config"], "parameters": 12345}
    packed.write_packed(content, folder / "mobile.safetensors", about)
    monkeypatch.setattr(packed, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    yield folder


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_same_network_in_half_the_bytes(shipped: Path, tiny_run: Path) -> None:
    run, own = load_model(tiny_run / "checkpoints" / "best.ckpt"), load_model()
    for name, value in run.state_dict().items():
        held = own.state_dict()[name]
        assert held.dtype == value.dtype and torch.allclose(held, value, rtol=2**-10, atol=1e-6), name
        if value.ndim < 2:
            assert torch.equal(held, value), name
    tensors = load_file(shipped / "mobile.safetensors")
    assert {value.dtype for value in tensors.values() if value.ndim > 1} == {torch.float16}
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert (run(images).sigmoid() - own(images).sigmoid()).abs().max() < 2 / 255


def test_every_command_takes_it(
    shipped: Path, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = sorted((data_root / "SYN-TE" / "SYN-TE-Image").iterdir())[0]
    assert main(["predict", f"input={picture}", "output=mask.png"]) == 0
    saved = np.asarray(Image.open("mask.png"))
    assert np.array_equal(saved, Predictor()(picture)) and np.array_equal(saved, Predictor("mobile")(picture))
    given = ["checkpoint=mobile", f"data.root={data_root}", "data.test=[SYN-TE]", "floors=false"]
    assert main(["evaluate", *given]) == 0
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["SYN-TE"]["images"] == 3
    assert sorted(path.name for path in shipped.iterdir()) == ["mobile.json", "mobile.safetensors"]
    assert main(["evaluate"]) == 2  # its run's pictures are not there
    assert "data.root is not set" in last_line(capsys)
    tune = ["init=mobile", "evaluate=false", "report=false", "trainer.max_steps=1"]
    assert main(words(tmp_path / "run", data_root, *tune)) == 0
    capsys.readouterr()
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    for part in ("mobile (the usual one)", "12,345 parameters", "SYN-TE (f3net): max_f 0.500  mae 0.250", "free"):
        assert part in told
    assert main(["models", "mobile"]) == 0
    assert "qefpn train experiment=demo" in capsys.readouterr().out


def test_a_file_of_that_name_is_meant_first(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "mobile").write_bytes(b"mine")
    assert packed.network_file("mobile") == Path("mobile")
    assert packed.network_file(None) == shipped / "mobile.safetensors"


@pytest.mark.parametrize(("given", "said"), [
    (["predict", "checkpoint=mobil"], "no network 'mobil' comes with the package (did you mean mobile?); there are"),
    (["predict", "checkpoint=none.ckpt"], "none.ckpt: no such file"),
    (["evaluate", "checkpoint=big", "data.root=."], "no network 'big' comes with the package; there are: mobile"),
    (["models", "big"], "no network 'big' comes with the package; there are: mobile"),
    (["train", "init=big", "data=folder", "data.root=."], "no network 'big' comes with the package"),
])  # fmt: skip
def test_a_name_that_is_none(given: list[str], said: str, shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (40, 40)).save("a.png")
    more = ["input=a.png", "output=b.png"] if given[0] == "predict" else []
    assert main([*given, *more]) == 2
    assert said in last_line(capsys)
    assert not Path("b.png").exists()


def test_none_comes_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packed, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no network 'mobile' comes with the package; none comes with this version"):
        Predictor()
    assert main(["models"]) == 0
    assert "train one" in capsys.readouterr().out


def _changed(card: dict[str, Any], **changes: Any) -> str:
    return json.dumps({**card, **changes})


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda file, card: file.write_bytes(file.read_bytes()[:-1] + b"x"), "is not the file that mobile.json describes"),
    (lambda file, card: file.write_bytes(b"x" * 40), "cannot be read as a safetensors file"),
    (lambda file, card: file.with_suffix(".json").unlink(), "mobile.json, is missing"),
    (lambda file, card: file.with_suffix(".json").write_text("[1"), "is no card of a network"),
    (lambda file, card: file.with_suffix(".json").write_text("{}"), "is no card of a network (it says nothing of name"),
    (lambda file, card: file.with_suffix(".json").write_text(
        _changed(card, network={**card["network"], "channels": 9})), "does not fit this version's network"),
    (lambda file, card: file.with_suffix(".json").write_text(
        _changed(card, network={**card["network"], "solver": {"_target_": "turtle.Turtle"}})), "allow=[turtle]"),
])  # fmt: skip
def test_a_card_and_a_file_that_do_not_belong_together(
    spoil: Any, said: str, shipped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shipped / "mobile.safetensors"
    spoil(file, packed.read_card(file))
    Image.new("RGB", (40, 40)).save("a.png")
    assert main(["predict", "input=a.png", "output=b.png"]) == 2
    assert said in last_line(capsys)
    assert not Path("b.png").exists()


def test_it_is_no_run_to_go_on_with(shipped: Path, data_root: Path, tmp_path: Path, capsys: Any) -> None:
    given = words(tmp_path / "run", data_root, f"resume={shipped}/mobile.safetensors", "evaluate=false")
    assert main(given) == 2
    assert "does not say exactly where to go on" in last_line(capsys)


def test_a_backbone_s_weights_in_anybody_s_safetensors(tmp_path: Path) -> None:
    from qefpn.models import build_backbone

    torch.manual_seed(1)
    source = build_backbone("resnet18")
    save_file({f"model.{key}": value for key, value in source.state_dict().items()}, tmp_path / "own.safetensors")
    filled = build_backbone("resnet18", weights=tmp_path / "own.safetensors")
    for name, value in source.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(filled.state_dict()[name], value), name
