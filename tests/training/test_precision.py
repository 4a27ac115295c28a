"""`trainer.fp32_precision` holds in training, validation and test, whatever the process had chosen, and is undone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.commands.runs import losses, train
from torch import nn
from torch.utils.data import DataLoader

from qefpn.training import hardware
from qefpn.training.callbacks import Float32Precision


def settings() -> tuple[Any, ...]:
    """What whoever reads the settings sees; the older ones raise where the newer ones differ from them."""
    backends: Any = torch.backends
    older = (torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)
    if not hasattr(backends.mkldnn, "conv"):
        return older
    own = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv)
    return (*older, *(place.fp32_precision for place in own))


@pytest.fixture
def reduced() -> Iterator[tuple[Any, ...]]:
    """A process that has chosen bfloat16 for products and convolutions of float32."""
    with hardware.fp32_precision("bf16"):
        x, kernel = torch.full((4, 32, 16, 16), 1 + 2**-12), torch.ones(32, 32, 3, 3)  # x is 1 in bfloat16
        if float(nn.functional.conv2d(x, kernel)[0, 0, 0, 0]) != 32 * 9:
            pytest.skip("this processor convolves no float32 in bfloat16 when asked to")
        yield settings()


class Seen(pl.LightningModule):
    """A convolution that writes down the settings of each stage, and what it made."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(32, 32, 3)
        self.seen: dict[str, tuple[Any, ...]] = {}
        self.made: dict[str, torch.Tensor] = {}

    def _step(self, x: torch.Tensor, stage: str) -> torch.Tensor:
        self.seen[stage] = settings()
        self.made[stage] = self.convolution(x).detach()
        return self.convolution(x).square().mean()

    def training_step(self, x: torch.Tensor, index: int) -> torch.Tensor:
        return self._step(x, "train")

    def validation_step(self, x: torch.Tensor, index: int) -> torch.Tensor:
        return self._step(x, "validate")

    def test_step(self, x: torch.Tensor, index: int) -> torch.Tensor:
        return self._step(x, "test")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def stages(name: str | None) -> Seen:
    module = Seen()
    loader = DataLoader(list(torch.randn(4, 32, 16, 16, generator=torch.Generator().manual_seed(1))), batch_size=4)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, callbacks=[Float32Precision(name)], enable_model_summary=False, **quiet
    )
    trainer.fit(module, loader, loader)
    trainer.validate(module, loader, verbose=False)
    trainer.test(module, loader, verbose=False)
    return module


def test_it_holds_in_every_stage_and_is_undone(reduced: tuple[Any, ...]) -> None:
    exact, own, fast = (stages(name) for name in ("ieee", None, "tf32"))
    assert settings() == reduced
    for module in (exact, own, fast):
        assert set(module.seen) == {"train", "validate", "test"} and len(set(module.seen.values())) == 1
    assert exact.seen["test"][:3] == ("highest", False, False) and set(exact.seen["test"][3:]) <= {"ieee"}
    assert own.seen["test"] == reduced
    assert fast.seen["test"][:3] == ("high", True, True) and set(fast.seen["test"][3:]) <= {"tf32"}
    with hardware.fp32_precision("ieee"):
        reference = stages(None)
    for stage, made in exact.made.items():
        assert torch.equal(made, reference.made[stage])
        assert not torch.equal(made, own.made[stage])


def test_it_is_undone_where_a_stage_fails(reduced: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError("gone")

    monkeypatch.setattr(Seen, "training_step", fails)
    with pytest.raises(OSError, match="gone"):
        stages("ieee")
    assert settings() == reduced


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="this torch has the older settings alone")
def test_settings_of_which_the_newer_alone_were_made_come_back() -> None:
    backends: Any = torch.backends
    place, former = backends.cuda.matmul, backends.cuda.matmul.fp32_precision
    try:
        place.fp32_precision = "tf32"  # torch.get_float32_matmul_precision raises from here on
        with hardware.fp32_precision("ieee"):
            assert place.fp32_precision == "ieee" and torch.get_float32_matmul_precision() == "highest"
        assert place.fp32_precision == "tf32"
    finally:
        place.fp32_precision = former


def test_a_run_is_exact_by_itself(reduced: tuple[Any, ...], tmp_path: Path, data_root: Path) -> None:
    words = ["evaluate=false", "warmup.steps=0", "trainer.max_steps=1"]
    run, own = (train(tmp_path / name, data_root, *words, *more) for name, more in
                (("run", []), ("own", ["trainer.fp32_precision=null"])))  # fmt: skip
    with hardware.fp32_precision("ieee"):
        expected = train(tmp_path / "expected", data_root, *words, "trainer.fp32_precision=null")
    assert losses(run) == losses(expected) != losses(own)


@pytest.mark.parametrize("emulated", [True, False])
def test_bfloat16_is_chosen_where_it_is_not_emulated(emulated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulated

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    for accelerator in ("gpu", "cuda", "auto"):
        assert hardware.fast_bfloat16(accelerator) is not emulated
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert hardware.fast_bfloat16("cpu")
    assert not hardware.fast_bfloat16("auto") and not hardware.fast_bfloat16("mps")
