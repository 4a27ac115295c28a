"""Whatever bytes a file holds: an array of the right shape, or one line."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data.pictures import picture

from qefpn.benchmark.maps import read_map
from qefpn.data.decoding import open_picture, orientation
from qefpn.data.files import FORMATS
from qefpn.data.reading import read_image, read_layers, read_mask
from qefpn.errors import UserError

MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
MANY = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def drawn(mode: str, width: int, height: int, seed: int) -> Image.Image:
    """A picture of any mode, alpha included."""
    colours = Image.fromarray(picture(seed, height, width))
    alpha = Image.fromarray(picture(seed + 1, height, width)[..., 0])
    if mode in ("I", "I;16", "F"):
        values = np.asarray(colours.convert("L")).astype(np.int64) * 257
        kinds = {"I": np.int32, "I;16": np.uint16, "F": np.float32}
        return Image.fromarray(values.astype(kinds[mode]))
    if mode in ("LA", "RGBA"):
        colours = colours.convert(mode[:-1])
        colours.putalpha(alpha)
        return colours
    if mode in ("La", "RGBa"):
        return drawn(mode.upper(), width, height, seed).convert(mode)
    if mode == "PA":
        indexed = drawn("P", width, height, seed).convert("PA")
        indexed.putalpha(alpha)
        return indexed
    return colours.convert("LAB" if mode == "LAB" else mode) if mode != "LAB" else Image.merge("LAB", colours.split())


def saved(image: Image.Image, kind: str, **options: object) -> bytes | None:
    """The file's bytes; None where the format has no such mode."""
    stream = io.BytesIO()
    try:
        image.save(stream, kind, **options)
    except (OSError, KeyError, ValueError, TypeError):
        return None
    return stream.getvalue()


@cache
def files() -> list[bytes]:
    """A file of every format in every mode that it knows, and some with more in them."""
    found = [saved(drawn(mode, 23, 17, 3), kind) for kind in FORMATS for mode in MODES]
    exif = Image.Exif()
    exif[0x0112] = 6
    colour, grey = drawn("RGB", 23, 17, 4), drawn("P", 23, 17, 5)
    frames = [drawn("RGB", 23, 17, seed) for seed in (6, 7)]
    found += [saved(colour, kind, exif=exif.tobytes()) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")]
    found += [
        saved(colour, kind, save_all=True, append_images=frames) for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
    ]
    found += [saved(colour, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    found += [
        saved(colour, "JPEG", progressive=True),
        saved(grey, "PNG", transparency=2),
        saved(grey, "GIF", transparency=2),
    ]
    return [data for data in found if data is not None]


def check(data: bytes) -> bool:
    """Every reader answers with an array or one line, and no warning. Whether there was an array."""
    readers: list[tuple[Callable[[bytes], np.ndarray], int]] = [
        *((read_image, 3), (read_mask, 2)),
        (lambda content: read_map(content)[0], 2),
    ]
    shapes = set()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for read, dimensions in readers:
            try:
                array = read(data)
            except UserError as error:
                assert str(error) and "\n" not in str(error), error
                continue
            assert array.dtype == np.uint8 and array.ndim == dimensions and array.size > 0
            if dimensions == 3:
                assert array.shape[2] == 3
            if read is not readers[2][0]:  # maps are taken as they lie
                shapes.add(array.shape[:2])
        try:
            layers = read_layers(data)
            colours, alpha = layers.colours, layers.alpha
            assert alpha is None or (alpha.shape == colours.shape[:2] and alpha.dtype == np.uint8)
            assert layers.own is None or (layers.own.shape == colours.shape and layers.profile)
            image, (width, height) = open_picture(data, draft=1)
            shapes.add((width, height) if orientation(image) > 4 else (height, width))
        except UserError:
            pass
    assert not said, [str(one.message) for one in said]
    assert len(shapes) <= 1
    return bool(shapes)


def test_every_format_is_read_in_every_mode() -> None:
    assert len(files()) > 60
    assert all(check(data) for data in files())


@MANY
@given(st.binary(max_size=300), st.sampled_from([b"", *(data[:16] for data in files())]))
def test_any_bytes(content: bytes, start: bytes) -> None:
    check(start + content)


@MANY
@given(
    data=st.sampled_from(files()),
    share=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=6),
)
def test_a_file_that_was_cut_or_has_wrong_bits(data: bytes, share: float, flips: list[tuple[float, int]]) -> None:
    broken = bytearray(data[: round(len(data) * share)] if not flips else data)
    for place, bits in flips:
        broken[int(place * (len(broken) - 1))] ^= bits
    check(bytes(broken))


@MANY
@given(
    mode=st.sampled_from(MODES),
    kind=st.sampled_from(sorted(FORMATS)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 9),
)
def test_any_mode_and_size(mode: str, kind: str, size: tuple[int, int], seed: int) -> None:
    data = saved(drawn(mode, *size, seed), kind)
    if data is not None:
        assert check(data)
        assert read_image(data).shape[:2] == size[::-1]


@pytest.fixture(autouse=True)
def _silent(capfd: pytest.CaptureFixture[str]):  # libraries in C write there without asking Python
    yield
    assert capfd.readouterr().err == ""
