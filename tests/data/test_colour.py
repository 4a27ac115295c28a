"""Colour profiles, transparency, and the limit of pixels."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.data.bad_files import claiming, png, saved
from tests.data.pictures import blob, picture

from qefpn.data.reading import read_image, read_layers, read_mask
from qefpn.errors import UserError

RGB, MASK = picture(1), blob(1)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """sRGB with the primaries red and green in each other's place: nobody can miss whether it was applied."""
    profile = bytearray(srgb())
    for entry in range(struct.unpack(">I", profile[128:132])[0]):
        place = 132 + 12 * entry
        name = bytes(profile[place : place + 4])
        profile[place : place + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(name, name)
    return bytes(profile)


def dim_grey() -> bytes:
    """A grey profile with a gamma of 4, in which half is nearly black."""
    head = bytearray(srgb()[:128])
    head[16:20] = b"GRAY"
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 4 * 256) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    body = struct.pack(">I4sII4sII", 2, b"kTRC", 156, len(curve), b"wtpt", 156 + len(curve), len(white)) + curve + white
    head[0:4] = struct.pack(">I", 128 + len(body))
    return bytes(head) + body


def inks() -> bytes:
    """A CMYK profile by a table of two points an ink, in which cyan alone is a bright yellow."""
    head = bytearray(srgb()[:128])
    head[8:12], head[12:24] = b"\x02\x40\0\0", b"prtrCMYKLab "
    ramp = bytes(range(256))
    nodes = bytearray()
    for cyan in (0, 1):
        for magenta in (0, 1):
            for yellow in (0, 1):
                for key in (0, 1):
                    light = 0 if key else 240 - 60 * magenta - 30 * yellow
                    nodes += bytes([light, 128, 220 if cyan and not key else 128])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table += ramp * 4 + bytes(nodes) + ramp * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    body = struct.pack(">I4sII4sII", 2, b"A2B0", 156, len(table), b"wtpt", 156 + len(table), len(white)) + table + white
    head[0:4] = struct.pack(">I", 128 + len(body))
    return bytes(head) + body


def shown(data: bytes) -> np.ndarray:
    """As a viewer that manages colours shows it, by Pillow alone."""
    image = Image.open(io.BytesIO(data))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    return np.asarray(ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {})])
def test_a_profile_is_applied(kind: str, options: dict[str, object]) -> None:
    data = saved(Image.fromarray(RGB), kind, icc_profile=swapped(), **options)
    ours = read_image(data)
    assert np.abs(ours.astype(int) - shown(data)).max() <= 1
    assert np.abs(ours.astype(int) - RGB).mean() > 20


def test_a_profile_of_grey_and_of_inks_is_applied() -> None:
    grey = saved(Image.new("L", (9, 9), 128), icc_profile=dim_grey())
    assert read_image(grey)[4, 4].max() < 80  # 0.5 ** 4 is 16 of 255 in linear light, 71 in sRGB
    assert np.abs(read_image(grey).astype(int) - shown(grey)).max() <= 1
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert read_image(saved(cyan, "TIFF"))[8, 8].tolist() == [0, 255, 255]
    red, green, blue = read_image(saved(cyan, "TIFF", icc_profile=inks()))[8, 8].tolist()
    assert red > 200 and green > 200 and blue < 120
    jpeg = read_image(saved(cyan, "JPEG", icc_profile=inks(), quality=95))[8, 8].astype(int)
    assert np.abs(jpeg - [red, green, blue]).max() <= 6


def test_profiles_that_change_nothing_or_make_no_sense_change_nothing() -> None:
    image = Image.fromarray(RGB)
    for profile in (srgb(), b"", b"garbage" * 50, srgb()[:300], dim_grey(), inks()):
        assert np.array_equal(read_image(saved(image, icc_profile=profile)), RGB)
    grey = Image.fromarray(RGB[..., 0])
    assert np.array_equal(read_image(saved(grey, icc_profile=srgb()))[..., 1], RGB[..., 0])


def test_masks_are_numbers_whatever_their_profile() -> None:
    assert np.array_equal(read_mask(saved(Image.fromarray(MASK // 2 + 3), icc_profile=dim_grey())), MASK // 2 + 3)


def test_alpha_stays_beside_the_colours() -> None:
    alpha = RGB[..., 2] // 2
    found = read_layers(saved(Image.fromarray(np.dstack([RGB, alpha]))))
    assert np.array_equal(found.colours, RGB) and found.alpha is not None and np.array_equal(found.alpha, alpha)
    assert found.own is None and found.profile is None
    assert read_layers(saved(Image.fromarray(np.dstack([RGB, np.full_like(alpha, 255)])))).alpha is None
    profile = swapped()  # which holds the time of its making
    found = read_layers(saved(Image.fromarray(np.dstack([RGB, alpha])), icc_profile=profile))
    meant = shown(saved(Image.fromarray(RGB), icc_profile=swapped()))
    assert np.abs(found.colours.astype(int) - meant).max() <= 1
    assert found.own is not None and np.array_equal(found.own, RGB) and found.profile == profile
    found = read_layers(saved(Image.fromarray(np.dstack([RGB[..., 0], alpha]))))
    assert np.array_equal(found.colours[..., 1], RGB[..., 0])
    assert found.alpha is not None and np.array_equal(found.alpha, alpha)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif"])
def test_the_header_decides_on_size(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = claiming(30_000, 20_000)[suffix]
    with pytest.raises(UserError, match=r"30000x20000 = 600 megapixels are more than 300; .*QEFPN_MAX_MEGAPIXELS=600"):
        read_image(data)
    with pytest.raises(UserError, match=r"more than 8; .*allow more by max_megapixels=600"):
        read_image(data, max_megapixels=8)
    with pytest.raises(UserError, match="truncated or damaged"):  # allowed, it is looked at
        read_image(claiming(300, 200)[suffix])
    limit = Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv("QEFPN_MAX_MEGAPIXELS", "0.001")
    with pytest.raises(UserError, match="more than 0.001"):
        read_image(saved(Image.fromarray(RGB)))
    monkeypatch.setenv("QEFPN_MAX_MEGAPIXELS", "many")
    with pytest.raises(UserError, match="QEFPN_MAX_MEGAPIXELS=many is no number"):
        read_image(saved(Image.fromarray(RGB)))
    assert limit == Image.MAX_IMAGE_PIXELS  # Pillow's own limit is other code's


@pytest.mark.slow
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000))
    code = (
        "import resource, sys; from qefpn.data.reading import read_image, picture_size, read_mask\n"
        "from qefpn.errors import UserError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for read in (read_image, read_mask, picture_size):\n"
        "    try: read(sys.argv[1])\n"
        "    except UserError as error: assert '900 megapixels' in str(error), error\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "bomb.png")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
    assert int(done.stdout) < 20_000  # KiB; decoded it would be 900 MB
