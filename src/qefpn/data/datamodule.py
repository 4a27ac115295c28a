"""The LightningDataModule: from names of data sets to batches."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from qefpn.data.cache import PictureCache
from qefpn.data.dataset import SaliencyDataset, collate_test, collate_train
from qefpn.data.integrity import Progress
from qefpn.data.layouts import Pair
from qefpn.data.lists import lists_by_set
from qefpn.data.options import check_options, default_scales
from qefpn.data.progress import training_share
from qefpn.data.ranks import first_finds, ranks
from qefpn.data.reading import TestTransform
from qefpn.data.resume import Place, ResumableLoader, check_identity, fingerprint, place_of
from qefpn.data.sampler import MultiScaleBatchSampler, ShardSampler, batch_of
from qefpn.data.splits import Part, chosen_parts, hold_out, shared_lines, without
from qefpn.data.survey import DataReport, SetReport, load_set, make_report
from qefpn.data.transforms import TrainTransform
from qefpn.data.workers import limit_threads, start_worker, worker_count
from qefpn.errors import UserError

__all__ = ["SaliencyDataModule"]

log = logging.getLogger(__name__)


class SaliencyDataModule(pl.LightningDataModule):
    """Training, validation and test sets.

    A set is a published one ("DUTS-TR"), a folder or zip below ``root``, or an absolute path; ``root`` may
    itself be the set (:func:`qefpn.data.survey.locate`). Every picture is checked before training
    (:func:`qefpn.data.integrity.check_pairs`).

    Training batches: ``image`` uint8 (B, 3, S, S), RGB, ``mask`` float32 (B, 1, S, S) in [0, 1],
    ``name`` and ``dataset`` lists of B strings, ``index`` int64 (B,); S differs from batch to batch.
    Validation and test batches: ``image`` uint8 (B, 3, image_size, image_size); ``mask`` a list of uint8 (H_i, W_i)
    at their own sizes and ``size`` their (H_i, W_i). There is one test loader a set, in the order of
    ``test_names``.

    On several devices each has its share of every batch, and each picture is tested once, whatever the trainer's
    ``use_distributed_sampler`` says.

    Args:
        root: folder of the data sets, or one data set (folder or zip).
        train: sets to train on; None: ``root`` itself.
        test: sets to test on; None: a share of the training pictures, held out; empty: none.
        extra_test: further sets to test on, whatever ``test`` is, such as one of the domain that a network comes from.
        batch_size: pictures in a training batch, over all devices together.
        num_workers: loader processes a device; None: what suits the machine.
        image_size: side to which test pictures are resized.
        scales: sides of training pictures, one drawn a batch; None: the paper's five in proportion to
            ``image_size``.
        progressive: instead of drawing, grow through ``scales`` over this share of training, in (0, 1], and stay at
            the largest for the rest: more pictures in the same time. None: draw.
        crop, flip, augment: see :class:`TrainTransform`.
        val_fraction: share of the training pictures held out for validation, by name; 0 is the paper's
            recipe.
        val_limit: at most so many of them.
        test_fraction: share of the training pictures held out for testing where ``test`` is None.
        on_error: ``"fail"`` or ``"skip"`` when files are unusable.
        blank_masks: ``"error"`` or ``"keep"``: training masks that are empty or all foreground.
        cache: ``"ram"`` keeps the training pictures decoded in memory, ``"none"`` reads them each time.
        cache_size: longest side kept in memory (each side on its own), in pixels; None keeps them whole.
        lists: list file a set.
        layout: ``"PICTURES/MASKS"``, for folders that are not recognised.
        images, masks: the two folders outright, absolute or relative to ``root``; ``root`` may then be None.
        eval_batch_size: pictures in a validation or test batch, a device; None: a device's share of
            ``batch_size``.
        findings_file: CSV for all findings; None: in the cache folder.
        seed: of order, sizes and augmentation.
        progress: called as ``progress(what, done, total)`` while checking and decoding.

    Raises:
        UserError: a value that is impossible, in one line that names its key.
    """

    def __init__(
        self,
        root: str | Path | None,
        *,
        train: Sequence[str] | str | None = ("DUTS-TR",),
        test: Sequence[str] | str | None = ("ECSSD", "DUTS-TE", "DUT-OMRON", "PASCAL-S", "HKU-IS"),
        extra_test: Sequence[str] | str = (),
        batch_size: int = 32,
        num_workers: int | None = None,
        image_size: int = 352,
        scales: Sequence[int] | None = None,
        progressive: float | None = None,
        crop: float = 0.125,
        flip: float = 0.5,
        augment: Sequence[Mapping[str, Any]] | None = None,
        val_fraction: float = 0.05,
        val_limit: int | None = None,
        test_fraction: float = 0.1,
        on_error: str = "fail",
        blank_masks: str = "error",
        cache: str = "none",
        cache_size: int | None = None,
        lists: Mapping[str, str] | None = None,
        layout: str | None = None,
        images: str | Path | None = None,
        masks: str | Path | None = None,
        eval_batch_size: int | None = None,
        findings_file: str | Path | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        # With fewer pictures than devices some have none, and must not get those of others a second time.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.prepare_data_per_node = False  # the first process looks at the data for all
        if root is None and (images is None or masks is None):
            raise UserError("data.root is not set; give the folder of the data sets (data.root=DIR)")
        self.root = None if root is None else Path(root).expanduser()
        self.train_sets = None if train is None else [train] if isinstance(train, str) else [str(n) for n in train]
        self.test_sets = None if test is None else [test] if isinstance(test, str) else [str(n) for n in test]
        self.extra_test = [extra_test] if isinstance(extra_test, str) else [str(n) for n in extra_test or ()]
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.image_size = image_size
        self.scales = default_scales(image_size) if scales is None else tuple(int(size) for size in scales)
        self.progressive = progressive
        self.val_fraction, self.val_limit, self.test_fraction = val_fraction, val_limit, test_fraction
        self.on_error, self.blank_masks = on_error, blank_masks
        self.cache, self.cache_size = cache, cache_size
        self.lists = dict(lists or {})
        self.layout, self.images, self.masks = layout, images, masks
        self.eval_batch_size = eval_batch_size
        self.findings_file = findings_file
        self.seed = seed
        self.progress = progress
        check_options(self)
        self.train_transform = TrainTransform(crop=crop, flip=flip, augment=augment, seed=seed)
        self._report: DataReport | None = None
        self._found_training = False
        self.train_pairs: tuple[Pair, ...] = ()
        self.val_pairs: tuple[Pair, ...] = ()
        self.test_pairs: dict[str, tuple[Pair, ...]] = {}
        self._train_shapes: list[tuple[int, int]] = []
        self.train_set: SaliencyDataset | None = None
        self._place = Place(0, 0)

    @property
    def test_names(self) -> list[str]:
        """Names of the test sets, in the order of the test loaders."""
        return list(self.test_pairs)

    # ------------------------------------------------------------------ finding and checking

    def report(self) -> DataReport:
        """What was found: all sets, or the test sets alone after ``setup("test")``.

        Raises:
            UserError: a set is not there; it has unusable files and ``on_error`` is ``"fail"``; or nothing is
            left.
        """
        if self._report is None:
            self._find(training=True)
        assert self._report is not None
        return self._report

    def prepare_data(self) -> None:
        """Find and check the sets: Lightning calls this in one process, and :meth:`setup` tells the others."""
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            self._find(training=trainer is None or trainer.state.fn not in ("test", "predict"))

    def setup(self, stage: str | None = None) -> None:
        """Find and split the sets, and for fitting fill the cache. Testing asks for the test sets alone: the
        training pictures need not be there."""
        training = stage not in ("test", "predict")
        told = ("_report", "_found_training", "train_pairs", "val_pairs", "test_pairs", "_train_shapes")
        first_finds(self.trainer, lambda: self._find(training), self, told)
        limit_threads()
        if stage in (None, "fit"):
            self._place = Place(0, 0)  # until a checkpoint says otherwise
        if stage in (None, "fit") and self.train_set is None:
            decoded = None
            if self.cache == "ram":
                decoded = PictureCache(
                    self.train_pairs, self._train_shapes, limit=self.cache_size, progress=self.progress
                )
                log.info("%d pictures in memory, %.2f GiB", len(decoded), decoded.nbytes / 2**30)
            self.train_set = SaliencyDataset(
                self.train_pairs, transform=self.train_transform, cache=decoded, size=max(self.scales)
            )

    def _load(self, part: Part, role: str, files: Mapping[str | None, str], *, own: bool = True) -> SetReport:
        """``own``: of the user's pictures, whose folders may be named outright."""
        name, split = part
        return load_set(
            self.root,
            name,
            role=role,
            split=split or role,
            list_file=files.get(name),
            layout=self.layout if own else None,
            images=self.images if own else None,
            masks=self.masks if own else None,
            blank_masks=self.blank_masks,
            progress=self.progress,
        )

    def _find(self, training: bool) -> None:
        if self._report is not None and (self._found_training or not training):
            return
        train, val, test, notes = chosen_parts(
            self.root,
            self.train_sets,
            self.test_sets,
            outright=self.images is not None or self.masks is not None or self.layout is not None,
            validates=self.val_fraction > 0,
        )
        for note in notes:
            log.warning(note)
        files = lists_by_set(
            self.lists, [name for name, _ in [*train, *val, *(test or ())]] + self.extra_test, self.root
        )
        training = training or test is None  # what is held out for testing is part of the training set
        trained = [self._load(part, "train", files) for part in train] if training else []
        validated = [self._load(part, "val", files) for part in val] if training else []
        tested = [self._load(part, "test", files) for part in test or ()]
        extra = [self._load((name, None), "test", files, own=False) for name in self.extra_test]
        reports = [*trained, *validated, *tested, *extra]
        report = make_report(self.root or reports[0].path, reports, self.findings_file)
        for line in report.lines():
            log.info(line)
        if self.on_error == "fail":
            report.raise_for_errors()
        if report.findings:
            log.warning(
                "%d findings in the data, of which %d left out (data.on_error=%s); all of them: %s",
                len(report.findings),
                sum(one.found - len(one.usable) for one in report.sets),
                self.on_error,
                report.findings_file or "not written, no cache folder",
            )
        for one in report.sets:
            if not len(one.usable):
                raise UserError(f"nothing usable is left of {one.name} at {one.path}: {one.line()}")
        self._split(trained, validated, tested)
        self._add_tests(extra)
        self._report, self._found_training = report, training

    def _add_tests(self, tested: Sequence[SetReport]) -> None:
        for one in tested:
            title = one.name
            while title in self.test_pairs:  # two folders of one name
                title += "'"
            self.test_pairs[title] = one.usable.items

    def _split(self, trained: Sequence[SetReport], validated: Sequence[SetReport], tested: Sequence[SetReport]) -> None:
        pairs = [pair for one in trained for pair in one.usable]
        shapes = [shape for one in trained for shape in one.sizes]
        self.test_pairs = {}
        self._add_tests(tested)
        if not trained:
            return
        if self.test_sets is None and not tested:
            held = hold_out(pairs, self.test_fraction, None, "test")
            if held:
                self.test_pairs[trained[0].name] = tuple(pairs[i] for i in sorted(held))
            pairs, shapes = without(pairs, held), without(shapes, held)
        if validated:
            self.val_pairs, held = tuple(pair for one in validated for pair in one.usable), set()
        else:
            held = hold_out(pairs, self.val_fraction, self.val_limit, "validation")
            self.val_pairs = tuple(pairs[i] for i in sorted(held))
        self.train_pairs = tuple(without(pairs, held))
        self._train_shapes = without(shapes, held)
        if not self.train_pairs:
            raise UserError("no training pictures are left; add pictures, or lower data.test_fraction")
        tested_pairs = [pair for test in self.test_pairs.values() for pair in test]
        for line in shared_lines(pairs, self.train_pairs, self.val_pairs, tested_pairs):
            log.warning(line)

    # ------------------------------------------------------------------ going on

    def state_dict(self) -> dict[str, Any]:
        """``epoch`` and ``batch``: where training goes on; ``pictures``, ``fingerprint``, ``batch_size`` and ``seed``:
        what must be as it was for that to be the same run. Lightning keeps it in every checkpoint."""
        place = self._place if self.trainer is None else place_of(self.trainer)
        if self.trainer is not None and place.batch >= self.trainer.num_training_batches:
            place = Place(place.epoch + 1, 0)  # by itself Lightning goes on with the next epoch
        return place._asdict() | self._identity()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on at the place of a checkpoint.

        Raises:
            UserError: the batches that follow would be others: other pictures, batches of another size, another seed.
        """
        self.check_state(state_dict)
        self._place = Place(int(state_dict["epoch"]), int(state_dict["batch"]))

    def check_state(self, state_dict: Mapping[str, Any]) -> None:
        """Raise as :meth:`load_state_dict` does, without going anywhere."""
        check_identity(state_dict, self._identity())

    def _identity(self) -> dict[str, Any]:
        same = {"pictures": len(self.train_pairs), "fingerprint": fingerprint(self.train_pairs)}
        return same | {"batch_size": self.batch_size, "seed": self.seed}

    # ------------------------------------------------------------------ loaders

    def _workers(self, pictures: int, side: int) -> int:
        """Loading processes for batches of so many pictures of ``side`` pixels: three bytes and a float32 each."""
        return worker_count(
            self.num_workers,
            cached=self.cache == "ram",
            world_size=ranks(self.trainer)[1],
            batch_bytes=7 * pictures * side * side,
        )

    def train_dataloader(self) -> ResumableLoader:
        """Batches of the training pictures; goes on where a resumed run stopped. The same ones each epoch where the
        trainer overfits some."""
        if self.train_set is None:
            self.setup("fit")
        assert self.train_set is not None
        rank, world_size = ranks(self.trainer)
        sampler = MultiScaleBatchSampler(
            len(self.train_set),
            self.batch_size,
            self.scales,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            shuffle=self.trainer is None or not self.trainer.overfit_batches,  # type: ignore[attr-defined]
            progressive=self.progressive,
            progress=self._share_done,
        )
        sampler.resume(*self._place)
        workers = self._workers(self.batch_size // world_size, max(self.scales))
        return ResumableLoader(
            self.train_set,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate_train,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )

    @property
    def batches_per_epoch(self) -> int:
        """Training batches of an epoch, over all devices together."""
        count, world_size = len(self.train_pairs), ranks(self.trainer)[1]
        return count // max(1, batch_of(count, self.batch_size, world_size))

    def _share_done(self, batches: int) -> float:
        """Of training, after so many batches: by their number, since loaders run ahead of the steps."""
        if self.trainer is None:
            return 0.0
        return training_share(self.trainer, batches / self.trainer.accumulate_grad_batches)

    def _eval_loader(self, pairs: Sequence[Pair]) -> DataLoader[dict[str, Any]]:
        rank, world_size = ranks(self.trainer)
        batch_size = self.eval_batch_size or max(1, self.batch_size // world_size)
        return DataLoader(
            SaliencyDataset(pairs, transform=TestTransform(self.image_size)),
            batch_size=batch_size,
            sampler=ShardSampler(len(pairs), rank=rank, world_size=world_size),
            num_workers=self._workers(batch_size, self.image_size),
            collate_fn=collate_test,
            worker_init_fn=start_worker,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]] | list[Any]:
        """The held-out share; an empty list where there is none."""
        self._find(training=True)
        if not self.val_pairs:
            warnings.filterwarnings("ignore", "Total length of `list` across ranks is zero")
            return []
        return self._eval_loader(self.val_pairs)

    def test_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """One loader a test set, in the order of ``test_names``."""
        self._find(training=False)
        return [self._eval_loader(pairs) for pairs in self.test_pairs.values()]

    def predict_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """The pictures of the test sets, as :meth:`test_dataloader` has them."""
        return self.test_dataloader()
