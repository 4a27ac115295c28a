from __future__ import annotations

import pickle

import albumentations as A  # noqa: N812
import cv2
import numpy as np
import pytest
from scipy import stats
from tests.data.pictures import blob, picture

from qefpn.data import RandomTrim, TestTransform, TrainTransform
from qefpn.data.transforms import build_transform
from qefpn.errors import UserError

IMAGE, MASK = picture(1, 80, 120), blob(1, 80, 120)


def test_trim_takes_up_to_an_eighth_evenly() -> None:
    trim = A.Compose([RandomTrim(limit=0.125)], seed=0)
    y, x = np.mgrid[0:80, 0:120].astype(np.uint8)
    lost_rows, lost_columns, tops = [], [], []
    for _ in range(3000):
        cut = trim(image=np.dstack([y, x, x]), mask=MASK)
        image = cut["image"]
        assert np.array_equal(MASK[image[0, 0, 0] :, image[0, 0, 1] :][: image.shape[0], : image.shape[1]], cut["mask"])
        lost_rows.append(80 - image.shape[0])
        lost_columns.append(120 - image.shape[1])
        tops.append(image[0, 0, 0] / lost_rows[-1] if lost_rows[-1] else 0.5)
    assert min(lost_rows) == 0 and max(lost_rows) == 10 and max(lost_columns) == 15
    assert stats.chisquare(np.bincount(lost_rows, minlength=11)).pvalue > 1e-4
    assert stats.chisquare(np.bincount(lost_columns, minlength=16)).pvalue > 1e-4
    assert abs(np.mean(tops) - 0.5) < 0.03


def test_train_transform_is_crop_flip_and_bilinear_resize() -> None:
    transform = TrainTransform(crop=0.0, flip=1.0)
    image, mask = transform(IMAGE, MASK, size=32, epoch=0, index=0)
    assert np.array_equal(image, cv2.resize(IMAGE[:, ::-1], (32, 32), interpolation=cv2.INTER_LINEAR))
    assert np.array_equal(mask, cv2.resize(MASK[:, ::-1], (32, 32), interpolation=cv2.INTER_LINEAR))
    assert ((mask > 0) & (mask < 255)).any()  # soft where bilinear makes it so, and not rounded away
    assert image.dtype == mask.dtype == np.uint8


def test_sample_depends_on_seed_epoch_and_index_only() -> None:
    make = TrainTransform(seed=5, augment=[{"name": "RandomBrightnessContrast", "p": 0.5}])
    first = make(IMAGE, MASK, size=64, epoch=1, index=7)
    for other in (0, 3, 9):
        make(IMAGE, MASK, size=64, epoch=1, index=other)  # what was drawn in between does not matter
    again = pickle.loads(pickle.dumps(make))(IMAGE, MASK, size=64, epoch=1, index=7)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    for seed, epoch, index in ((6, 1, 7), (5, 2, 7), (5, 1, 8)):
        changed = TrainTransform(seed=seed)(IMAGE, MASK, size=64, epoch=epoch, index=index)
        assert not np.array_equal(first[0], changed[0])


def test_two_transforms_of_one_probability_are_independent() -> None:
    """With Compose.set_random_seed they would always come together."""
    make = TrainTransform(crop=0.0, flip=0.5, augment=[{"name": "InvertImg", "p": 0.5}])
    ramp = np.repeat(np.linspace(40, 90, 64, dtype=np.uint8)[None, :], 64, 0)
    ramp[:, 0] = 0
    together = np.zeros((2, 2))
    for index in range(600):
        image, mask = make(np.dstack([ramp] * 3), ramp, size=64, epoch=0, index=index)
        together[int(mask[0, 0] > 0), int(image[0, 32, 0] > 128)] += 1
    assert together.sum(1).min() > 240 and together.sum(0).min() > 240
    assert stats.chi2_contingency(together).pvalue > 1e-4


def test_picture_and_mask_stay_together() -> None:
    make = TrainTransform(seed=1)
    for index in range(20):
        image, mask = make(np.dstack([MASK] * 3), MASK, size=96, epoch=0, index=index)
        assert np.array_equal(image[:, :, 0], mask)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "HorizontalFlipp"}, "did you mean HorizontalFlip"),
        ({"name": "HorizontalFlip", "probability": 0.5}, "probability"),
        ({"name": "RandomBrightnessContrast", "brightnes_limit": 0.2}, "brightnes_limit"),
        ({"name": "HorizontalFlip", "p": 2}, "HorizontalFlip"),
        ({"p": 0.5}, "name"),
        ({"name": "Normalize"}, "keep 8-bit"),
    ],
)
def test_misspelled_augmentation_is_an_error(entry: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        TrainTransform(augment=[entry])
    assert "data.augment" in str(caught.value) and "\n" not in str(caught.value)


def test_arguments_out_of_range() -> None:
    with pytest.raises(UserError, match=r"data\.crop"):
        TrainTransform(crop=1.0)
    with pytest.raises(UserError, match=r"data\.flip"):
        TrainTransform(flip=1.5)
    assert build_transform("RandomTrim", limit=0.25).limit == 0.25


def test_test_transform() -> None:
    height, width = IMAGE.shape[:2]
    assert min(height, width) > 48
    image = TestTransform(48)(IMAGE)
    assert np.array_equal(image, cv2.resize(IMAGE, (48, 48), interpolation=cv2.INTER_AREA))
    larger = TestTransform(300)(IMAGE)
    assert np.array_equal(larger, cv2.resize(IMAGE, (300, 300), interpolation=cv2.INTER_LINEAR_EXACT))
    narrow = cv2.resize(IMAGE[:, :20], (20, 48), interpolation=cv2.INTER_AREA)  # one side shrinks, the other grows
    expected = cv2.resize(narrow, (48, 48), interpolation=cv2.INTER_LINEAR_EXACT)
    assert np.array_equal(TestTransform(48)(IMAGE[:, :20]), expected)


def test_a_fine_pattern_does_not_alias() -> None:
    """Stripes of one pixel are grey from afar; without antialiasing they come out as other stripes."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(TestTransform(96)(stripes)[:, 2:-2].astype(int)) < 110
    assert np.ptp(cv2.resize(stripes, (96, 96), interpolation=cv2.INTER_LINEAR)[:, 2:-2].astype(int)) > 150


def test_one_pixel_wide() -> None:
    image, mask = TrainTransform()(IMAGE[:, :1], MASK[:, :1], size=32, epoch=0, index=0)
    assert image.shape == (32, 32, 3) and mask.shape == (32, 32)
