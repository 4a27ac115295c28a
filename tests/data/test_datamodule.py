from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from tests.data.pictures import blob

from qefpn.data import SaliencyDataModule, SaliencyDataset, read_image, read_mask
from qefpn.data.progress import total_steps
from qefpn.data.sampler import SampleKey
from qefpn.data.splits import hold_out
from qefpn.errors import UserError


@pytest.fixture
def root(make_set, tmp_path: Path) -> Path:
    make_set(tmp_path / "data" / "DUTS-TR", "DUTS-TR-Image", "DUTS-TR-Mask", count=24)
    make_set(tmp_path / "data" / "ECSSD", "images", "ground_truth_mask", count=5, size=(48, 30))
    return tmp_path / "data"


def build(root: Path, **options: Any) -> SaliencyDataModule:
    settings = {"test": ["ECSSD"], "batch_size": 8, "num_workers": 0, "image_size": 64, "val_fraction": 0.0}
    return SaliencyDataModule(root, **(settings | options))


def epoch(module: SaliencyDataModule, number: int = 0) -> list[dict[str, Any]]:
    loader = module.train_dataloader()
    loader.batch_sampler.set_epoch(number)
    return list(loader)


def same(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    return len(one) == len(other) and all(
        a["name"] == b["name"]
        and torch.equal(a["image"], b["image"])
        and torch.equal(a["mask"], b["mask"])
        and torch.equal(a["index"], b["index"])
        for a, b in zip(one, other, strict=True)
    )


def test_train_batches(root: Path) -> None:
    module = build(root, scales=[32, 48])
    batches = epoch(module)
    assert len(batches) == 3
    assert sorted(i for batch in batches for i in batch["index"].tolist()) == list(range(24))
    for batch in batches:
        side = batch["image"].shape[-1]
        assert batch["image"].shape == (8, 3, side, side) and side in (32, 48)
        assert batch["mask"].shape == (8, 1, side, side)
        assert batch["image"].dtype == torch.uint8 and batch["mask"].dtype == torch.float32
        assert batch["mask"].min() == 0 and batch["mask"].max() == 1
        assert batch["dataset"] == ["DUTS-TR"] * 8 and batch["index"].dtype == torch.int64
    assert {batch["image"].shape[-1] for number in range(4) for batch in epoch(module, number)} == {32, 48}


def test_pixels_without_augmentation(root: Path) -> None:
    module = build(root, crop=0.0, flip=0.0, scales=[64])
    batch = epoch(module)[0]
    pair = module.train_pairs[int(batch["index"][0])]
    assert batch["name"][0] == pair.name
    resized = np.asarray(Image.fromarray(read_image(pair.image)).resize((64, 64), Image.Resampling.BILINEAR))
    difference = batch["image"][0].permute(1, 2, 0).numpy().astype(int) - resized
    assert np.abs(difference).mean() < 1.0


@pytest.mark.parametrize("options", [{}, {"cache": "ram"}])
def test_same_batches_whatever_the_number_of_workers(root: Path, options: dict[str, Any]) -> None:
    expected = epoch(build(root, seed=3), 1)
    assert same(epoch(build(root, seed=3, num_workers=2, **options), 1), expected)
    assert same(epoch(build(root, seed=3, num_workers=0, **options), 1), expected)
    assert not same(epoch(build(root, seed=4, **options), 1), expected)
    assert not same(epoch(build(root, seed=3, **options), 2), expected)


def test_persistent_workers_follow_the_epoch(root: Path) -> None:
    loader = build(root, num_workers=1).train_dataloader()
    for number in range(2):
        loader.batch_sampler.set_epoch(number)
        assert same(list(loader), epoch(build(root), number))


@pytest.mark.slow
def test_spawned_workers(root: Path) -> None:
    loader = build(root, num_workers=2, cache="ram").train_dataloader()
    loader.multiprocessing_context = "spawn"
    assert same(list(loader), epoch(build(root)))


def test_ram_cache_can_be_smaller(root: Path) -> None:
    module = build(root, cache="ram", cache_size=36, scales=[32], crop=0.0, flip=0.0)
    small = epoch(module)[0]
    assert module.train_set is not None and module.train_set.cache is not None
    image, mask = module.train_set.cache[0]
    assert image.shape == (36, 36, 3) and mask.shape == (36, 36)
    whole = epoch(build(root, scales=[32], crop=0.0, flip=0.0))[0]
    assert (
        small["image"].float() - whole["image"].float()
    ).abs().mean() < 0.1 * 255 * 0.226  # a tenth of ImageNet's spread
    with pytest.raises(UserError, match=r"data\.cache_size=36 is smaller"):
        build(root, cache="ram", cache_size=36, scales=[48])


def test_ram_cache_that_does_not_fit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qefpn.data.cache.available_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"data\.cache=ram needs .* set data\.cache_size"):
        build(root, cache="ram").setup("fit")


def test_test_batches_keep_the_masks_own_size(root: Path) -> None:
    module = build(root)
    module.setup("test")
    assert module.test_names == ["ECSSD"]
    (loader,) = module.test_dataloader()
    (batch,) = list(loader)
    assert batch["image"].shape == (5, 3, 64, 64) and batch["image"].dtype == torch.uint8
    assert batch["size"] == [(48, 30)] * 5 and [tuple(mask.shape) for mask in batch["mask"]] == batch["size"]
    assert batch["mask"][0].dtype == np.uint8
    assert np.array_equal(batch["mask"][2], read_mask(module.test_pairs["ECSSD"][2].mask))
    assert batch["name"] == [f"p{n:03d}" for n in range(5)] and batch["dataset"] == ["ECSSD"] * 5


def test_testing_needs_no_training_pictures(root: Path) -> None:
    module = build(root, train=["DUTS-TR-elsewhere"])
    module.setup("test")
    assert [one.name for one in module.report().sets] == ["ECSSD"] and len(module.test_dataloader()) == 1
    with pytest.raises(UserError, match="no data set DUTS-TR-elsewhere"):
        module.setup("fit")
    both = build(root)
    both.setup("test")
    both.setup("fit")
    assert [one.name for one in both.report().sets] == ["DUTS-TR", "ECSSD"] and len(both.train_pairs) == 24


def test_soft_masks_reach_the_batch(make_set, tmp_path: Path) -> None:
    root = make_set(tmp_path / "soft", count=2)
    for number in range(2):
        soft = Image.fromarray(blob(number)).resize((14, 10)).resize((56, 40), Image.Resampling.BILINEAR)
        soft.save(root / "masks" / f"p{number:03d}.png")
    (batch,) = epoch(build(root, train=None, test=[], crop=0.0, flip=0.0, scales=[56]))
    middle = batch["mask"][(batch["mask"] > 0.1) & (batch["mask"] < 0.9)]
    assert len(middle.unique()) > 20


def test_validation_share_depends_on_names_only(root: Path) -> None:
    one, other = build(root, val_fraction=0.25, seed=1), build(root, val_fraction=0.25, seed=9)
    one.setup(), other.setup()
    names = {pair.name for pair in one.val_pairs}
    assert len(names) == 6 and names == {pair.name for pair in other.val_pairs}
    assert names.isdisjoint(pair.name for pair in one.train_pairs) and len(one.train_pairs) == 18
    limited = build(root, val_fraction=0.25, val_limit=2)
    limited.setup()
    assert {pair.name for pair in limited.val_pairs} < names and len(limited.val_pairs) == 2
    batch = next(iter(one.val_dataloader()))
    assert isinstance(batch["mask"], list) and batch["image"].shape[-1] == 64
    none = build(root)
    none.setup()
    assert none.val_pairs == () and none.val_dataloader() == []
    pairs = one.train_pairs
    held = {pairs[i].name for i in hold_out(pairs, 0.5, None, "x")}
    assert held == {pairs[::-1][i].name for i in hold_out(pairs[::-1], 0.5, None, "x")}


def test_folder_of_ones_own(make_set, tmp_path: Path) -> None:
    own = make_set(tmp_path / "mine", "photos", "masks", count=20)
    module = build(own, train=None, test=None, test_fraction=0.2, val_fraction=0.1)
    module.setup()
    parts = [module.train_pairs, module.val_pairs, module.test_pairs["mine"]]
    assert [len(part) for part in parts] == [14, 2, 4]
    assert len({pair.name for part in parts for pair in part}) == 20
    again = build(own, train=None, test=None, test_fraction=0.2, val_fraction=0.1, seed=5)
    again.setup()
    assert again.test_pairs == module.test_pairs


def test_folder_of_ones_own_with_train_and_test(make_set, tmp_path: Path) -> None:
    make_set(tmp_path / "mine" / "train", count=6)
    make_set(tmp_path / "mine" / "test", count=3)
    module = build(tmp_path / "mine", train=None, test=None)
    module.setup()
    assert len(module.train_pairs) == 6 and {n: len(p) for n, p in module.test_pairs.items()} == {"test": 3}


def test_several_training_sets_and_a_zip(root: Path, make_set, tmp_path: Path) -> None:
    import shutil

    make_set(tmp_path / "z" / "HKU-IS", "imgs", "gt", count=4)
    shutil.make_archive(str(root / "hku_is"), "zip", tmp_path / "z")
    module = build(root, train=["DUTS-TR", "HKU-IS"], batch_size=28, num_workers=2)
    (batch,) = epoch(module)
    assert sorted(set(batch["dataset"])) == ["DUTS-TR", "HKU-IS"]
    assert module.report().sets[1].official_count == 4447
    assert same([batch], epoch(build(root, train=["DUTS-TR", "HKU-IS"], batch_size=28)))


def test_training_pictures_in_the_test_set_are_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        build(root, test=["DUTS-TR"]).setup()
    assert "24 test pictures are training pictures too" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size"),
        ({"image_size": 16}, "data.image_size"),
        ({"scales": []}, "data.scales"),
        ({"val_fraction": 1.0}, "data.val_fraction"),
        ({"on_error": "ignore"}, "data.on_error"),
        ({"cache": "disk"}, "data.cache"),
        ({"train": []}, "data.train"),
        ({"seed": -1}, "data.seed"),
        ({"num_workers": -1}, "data.num_workers"),
        ({"progressive": 0.0}, "data.progressive is a share"),
        ({"progressive": 1.5}, "data.progressive is a share"),
    ],
)
def test_impossible_values(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        build(root, **options)


def test_no_data(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root is not set"):
        SaliencyDataModule(None)
    with pytest.raises(UserError, match=r"data\.root=.*does not exist"):
        build(tmp_path / "gone").prepare_data()
    with pytest.raises(UserError, match=r"data\.root=.*does not exist"):
        build(tmp_path / "gone", train=None, test=None).prepare_data()
    with pytest.raises(UserError, match="no data set PASCAL-S"):
        build(root, test=["PASCAL-S"]).prepare_data()


def test_dataset_alone(root: Path) -> None:
    data = SaliencyDataset(root / "DUTS-TR")
    assert len(data) == 24
    sample = data[-1]
    assert sample["image"].shape == (40, 56, 3) and sample["mask"].shape == (40, 56)
    assert sample["name"] == "p023" and sample["index"] == 23 and sample["size"] == (40, 56)
    assert data[SampleKey(3, 0, 64)]["name"] == "p003"
    with pytest.raises(IndexError):
        data[24]


class Recorder(pl.LightningModule):
    """Remembers what it was fed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, tuple[str, ...], float]] = []

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, tuple(batch["name"]), float(batch["image"].sum())))
        return self.weight.sum()

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        assert isinstance(batch["mask"], list)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(pl.Callback):
    """Saves a checkpoint at one step, at the end of that batch or of its epoch."""

    def __init__(self, step: int, path: Path, hook: str) -> None:
        self.step, self.path, self.hook = step, path, hook

    def _save(self, trainer: pl.Trainer, hook: str) -> None:
        if hook == self.hook and trainer.global_step == self.step and not trainer.sanity_checking:
            trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._save(trainer, "batch")

    def on_validation_end(self, trainer: pl.Trainer, _: Any) -> None:
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, _: Any) -> None:
        self._save(trainer, "epoch")


def fit(root: Path, workers: int, epochs: int = 3, resume: Path | None = None, **options: Any) -> Recorder:
    module = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, callbacks=options.pop("callbacks", None),
    )  # fmt: skip
    data = build(root, num_workers=workers, batch_size=4, scales=[32, 48], **options)
    trainer.fit(module, datamodule=data, ckpt_path=str(resume) if resume else None, weights_only=True)
    return module


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("step", "hook", "validation"),
    [(8, "batch", 0.0), (6, "batch", 0.0), (6, "epoch", 0.0), (4, "validation", 0.2), (7, "batch", 0.2)],
)
def test_a_resumed_run_sees_what_the_whole_run_sees(
    root: Path, tmp_path: Path, workers: int, step: int, hook: str, validation: float
) -> None:
    """Saved amid an epoch (of 6 or 4 batches), at its last batch, at its end, or after validation."""
    path = tmp_path / "at.ckpt"
    whole = fit(root, workers, val_fraction=validation, callbacks=[SaveAt(step, path, hook)])
    resumed = fit(root, workers, resume=path, val_fraction=validation)
    assert len(whole.seen) == (12 if validation else 18)
    assert len({names for _, names, _ in whole.seen}) == len(whole.seen)
    assert resumed.seen == whole.seen[step:]


@pytest.mark.parametrize(
    "limits",
    [
        {"max_epochs": 3},
        {"max_steps": 5},
        {"max_epochs": 2, "max_steps": 7},
        {"max_epochs": 2, "accumulate_grad_batches": 4},
        {"max_epochs": 2, "limit_train_batches": 0.5, "accumulate_grad_batches": 2},
        {"max_epochs": 2, "limit_train_batches": 5},
        {"max_epochs": 2, "limit_train_batches": 50},
        {"fast_dev_run": True},
    ],
    ids=str,
)
def test_the_steps_of_a_run_are_counted_as_lightning_counts_them(root: Path, limits: dict[str, Any]) -> None:
    """Before any loader is made, and again when training begins."""
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0, **limits,
    )  # fmt: skip
    counted: list[float] = []

    class Asks(Recorder):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            counted.append(total_steps(self.trainer))
            assert self.trainer.train_dataloader is None
            return torch.optim.SGD(self.parameters(), lr=0.0)

        def on_train_start(self) -> None:
            counted.append(total_steps(self.trainer))
            counted.append(float(self.trainer.estimated_stepping_batches))

    trainer.fit(Asks(), datamodule=build(root, num_workers=0, batch_size=4, scales=[32], val_fraction=0.0))
    assert len(counted) == 3
    assert len(set(counted)) == 1
    assert trainer.global_step == counted[0]


class Shards(Recorder):
    """Writes down what each rank saw."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def _note(self, kind: str, batch: dict[str, Any]) -> None:
        side = batch["image"].shape[-1]
        with open(self.folder / f"{kind}-{self.global_rank}.txt", "a") as stream:
            stream.writelines(f"{self.current_epoch} {name} {side}\n" for name in batch["name"])

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        self._note("train", batch)
        return self.weight.sum()

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        self._note("val", batch)


@pytest.mark.slow
def test_two_processes_share_the_batches_and_evaluate_each_picture_once(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=2, logger=False, num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    data = build(root, batch_size=4, scales=[32, 48], val_fraction=0.2)
    trainer.fit(Shards(folder), datamodule=data)

    def lines(kind: str) -> list[list[str]]:
        return [(folder / f"{kind}-{rank}.txt").read_text().splitlines() for rank in range(2)]

    left, right = lines("val")
    assert len(left) == 6 and len(right) == 4  # five pictures, two epochs: no picture twice
    assert len(set(left) | set(right)) == 10
    left, right = lines("train")
    alone = build(root, batch_size=4, scales=[32, 48], val_fraction=0.2)
    for number in range(2):
        expected = [(sorted(batch["name"]), batch["image"].shape[-1]) for batch in epoch(alone, number)]
        ours = [line.split()[1:] for line in left if line.startswith(f"{number} ")]
        others = [line.split()[1:] for line in right if line.startswith(f"{number} ")]
        assert len(ours) == len(others) == 8
        for position, (names, side) in enumerate(expected):
            both = ours[2 * position : 2 * position + 2] + others[2 * position : 2 * position + 2]
            assert sorted(name for name, _ in both) == names and {size for _, size in both} == {str(side)}
