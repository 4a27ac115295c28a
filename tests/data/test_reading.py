from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.data.pictures import blob, picture

from qefpn.data import read_image, read_mask
from qefpn.data.reading import picture_size
from qefpn.errors import UserError


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


RGB = picture(1)
GREY = np.array(Image.fromarray(RGB).convert("L"))
MASK = blob(1)
SOFT = np.array(Image.fromarray(MASK).resize((28, 20)).resize((56, 40), Image.Resampling.BILINEAR))


def test_plain_colour_agrees_with_opencv() -> None:
    data = saved(Image.fromarray(RGB))
    assert np.array_equal(read_image(data), RGB)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(read_image(data), theirs[:, :, ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(RGB).save(path, "JPEG", quality=95, exif=exif)
    theirs = cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1]  # OpenCV turns by EXIF too
    ours = read_image(path)
    assert ours.shape == theirs.shape == ((56, 40, 3) if orientation > 4 else (40, 56, 3))
    assert np.abs(ours.astype(int) - theirs).max() <= 3
    assert picture_size(path) == ours.shape[:2]
    png = tmp_path / "mask.png"
    Image.fromarray(MASK).save(png, exif=exif)
    assert read_mask(png).shape == ours.shape[:2]


def test_grey_picture() -> None:
    assert np.array_equal(read_image(saved(Image.fromarray(GREY))), np.repeat(GREY[:, :, None], 3, 2))


def test_one_bit_picture_and_mask() -> None:
    data = saved(Image.fromarray(MASK).convert("1"))
    assert np.array_equal(read_image(data)[:, :, 1], MASK)
    assert np.array_equal(read_mask(data), MASK)


def test_palette_picture() -> None:
    image = Image.fromarray(RGB).quantize(32)
    assert np.array_equal(read_image(saved(image)), np.array(image.convert("RGB")))


def test_cmyk_jpeg_keeps_its_colours() -> None:
    data = saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read_image(data).astype(int) - RGB).mean() < 4


def test_sixteen_bits_are_scaled_not_cut() -> None:
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert np.array_equal(read_image(saved(deep))[:, :, 0], GREY)
    assert np.array_equal(read_mask(saved(Image.fromarray(SOFT.astype(np.uint16) * 257))), SOFT)
    # an 8-bit mask in a 16-bit file, and a label map in one
    assert np.array_equal(read_mask(saved(Image.fromarray(SOFT.astype(np.uint16)))), SOFT)
    assert np.array_equal(read_mask(saved(Image.fromarray((MASK // 255).astype(np.uint16)))), MASK)


def test_sixteen_bit_colour() -> None:
    encoded = cv2.imencode(".png", RGB[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes()
    assert np.abs(read_image(encoded).astype(int) - RGB).max() <= 1


def test_float_tiff() -> None:
    data = saved(Image.fromarray((SOFT / 255).astype(np.float32)), "TIFF")
    assert np.array_equal(read_mask(data), SOFT)


def test_alpha_is_laid_on_white() -> None:
    rgba = np.dstack([RGB, MASK])
    ours = read_image(saved(Image.fromarray(rgba)))
    assert np.array_equal(ours[MASK == 255], RGB[MASK == 255])
    assert (ours[MASK == 0] == 255).all()
    grey_alpha = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(MASK)))
    assert (read_image(saved(grey_alpha))[MASK == 0] == 255).all()
    palette = Image.fromarray(np.where(MASK > 0, 1, 0).astype(np.uint8), "L").convert("P")
    palette.putpalette([0, 0, 0, 10, 200, 30])
    data = saved(palette, transparency=0)
    assert read_image(data)[0, 0].tolist() == [255, 255, 255]
    assert read_image(data)[MASK == 255][0].tolist() == [10, 200, 30]


def test_soft_mask_stays_soft() -> None:
    assert len(np.unique(SOFT)) > 10
    for image in (
        Image.fromarray(SOFT),
        Image.fromarray(SOFT).convert("RGB"),
        Image.fromarray(SOFT).convert("P"),
    ):
        assert np.array_equal(read_mask(saved(image)), SOFT)


def test_label_map_of_zeros_and_ones() -> None:
    assert np.array_equal(read_mask(saved(Image.fromarray(MASK // 255))), MASK)
    assert np.array_equal(read_mask(saved(Image.fromarray(np.dstack([MASK // 255] * 3)))), MASK)


def test_label_palette() -> None:
    labels = (MASK // 255).copy()
    labels[:20] *= 2
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])  # maroon and green: both dark, both object
    assert image.mode == "P"
    assert np.array_equal(read_mask(saved(image)), MASK)
    blind = Image.fromarray(labels)
    blind.putpalette([0] * 9)
    assert np.array_equal(read_mask(saved(blind)), MASK)


@pytest.mark.parametrize("colour", [(255, 0, 0), (128, 0, 0), (0, 0, 255), (30, 200, 90)])
def test_colour_mask_is_object_wherever_it_is_not_black(colour: tuple[int, int, int]) -> None:
    flat = (MASK[:, :, None] // 255) * np.array(colour, dtype=np.uint8)
    assert np.array_equal(read_mask(saved(Image.fromarray(flat))), MASK)
    soft = np.rint(SOFT[:, :, None] / 255 * np.array(colour)).astype(np.uint8)
    assert np.abs(read_mask(saved(Image.fromarray(soft))).astype(int) - SOFT).max() <= 2


def test_jpeg_noise_does_not_make_a_colour_mask() -> None:
    data = saved(Image.fromarray(np.dstack([MASK] * 3)), "JPEG", quality=80)
    assert ((read_mask(data) >= 128) == (MASK >= 128)).mean() > 0.99


def test_cut_out_as_mask() -> None:
    assert np.array_equal(read_mask(saved(Image.fromarray(np.dstack([RGB, SOFT])))), SOFT)
    black = np.dstack([np.zeros_like(RGB), SOFT])
    assert np.array_equal(read_mask(saved(Image.fromarray(black))), SOFT)
    white = np.dstack([np.full_like(RGB, 255), SOFT])
    assert np.array_equal(read_mask(saved(Image.fromarray(white))), SOFT)


def test_opaque_alpha_says_nothing() -> None:
    rgba = np.dstack([SOFT] * 3 + [np.full_like(SOFT, 255)])
    assert np.array_equal(read_mask(saved(Image.fromarray(rgba))), SOFT)


def test_black_and_white_mask_with_a_transparent_margin() -> None:
    alpha = np.full_like(MASK, 255)
    alpha[:3] = 0
    assert np.array_equal(read_mask(saved(Image.fromarray(np.dstack([MASK] * 3 + [alpha])))), MASK * (alpha // 255))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("reader", [read_image, read_mask, picture_size])
def test_truncated(kind: str, reader, tmp_path: Path) -> None:
    data = saved(Image.fromarray(picture(3, 120, 160)), kind)
    path = tmp_path / "a.jpg"
    for share in (0.5, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError, match=r"a\.jpg: truncated"):
            reader(path)


@pytest.mark.parametrize(("content", "message"), [(b"this is no picture\n" * 30, "not a picture"), (b"", "empty file")])
def test_text_named_jpg(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for reader in (read_image, read_mask, picture_size):
        with pytest.raises(UserError, match=message) as caught:
            reader(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read .*gone"):
        read_image(tmp_path / "gone.jpg")
