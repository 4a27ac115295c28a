"""The options of the data module: what they may be, and the sizes of training pictures where none are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qefpn.errors import UserError

if TYPE_CHECKING:
    from qefpn.data.datamodule import SaliencyDataModule

__all__ = ["PAPER_SCALES", "check_options", "default_scales"]

PAPER_SCALES = (224, 256, 288, 320, 352)


def default_scales(image_size: int) -> tuple[int, ...]:
    """The paper's five sizes, in proportion for other test sizes than 352: multiples of 16, at least 32."""
    return tuple(sorted({max(32, round(scale * image_size / PAPER_SCALES[-1] / 16) * 16) for scale in PAPER_SCALES}))


def check_options(data: SaliencyDataModule) -> None:
    """Raise ``UserError``, one line that names the key, for a value that cannot work. Nothing is read."""
    for key, value, least in (
        ("batch_size", data.batch_size, 1),
        ("image_size", data.image_size, 32),
        ("num_workers", data.num_workers, 0),
        ("eval_batch_size", data.eval_batch_size, 1),
        ("val_limit", data.val_limit, 1),
        ("seed", data.seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"data.{key} must be at least {least}, got {value}")
    if not data.scales or min(data.scales) < 32:
        raise UserError(f"data.scales needs sizes of at least 32 pixels, got {list(data.scales)}")
    if data.progressive is not None and not 0.0 < data.progressive <= 1.0:
        raise UserError(f"data.progressive is a share of training in (0, 1], got {data.progressive}")
    for key, share in (("val_fraction", data.val_fraction), ("test_fraction", data.test_fraction)):
        if not 0.0 <= share < 1.0:
            raise UserError(f"data.{key} is a share in [0, 1), got {share}")
    for key, choice, choices in (
        ("on_error", data.on_error, ("fail", "skip")),
        ("blank_masks", data.blank_masks, ("error", "keep")),
        ("cache", data.cache, ("none", "ram")),
    ):
        if choice not in choices:
            raise UserError(f"data.{key} is one of {', '.join(choices)}; got {choice!r}")
    if data.cache_size is not None and data.cache_size < max(data.scales):
        raise UserError(
            f"data.cache_size={data.cache_size} is smaller than the largest of data.scales, "
            f"{max(data.scales)}: pictures would be enlarged again"
        )
    if data.train_sets is not None and not data.train_sets:
        raise UserError("data.train is empty; name a data set, or null for the pictures at data.root itself")
