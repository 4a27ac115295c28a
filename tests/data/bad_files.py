"""Picture files as people have them: broken in every way that we know, or strange and still pictures."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from tests.data.pictures import picture

from qefpn.data.files import FORMATS

SIDE = (48, 40)
EXIF = b"Exif\0\0"
TIFF_HEAD = b"II*\0\x08\0\0\0"
PNG_HEAD = b"\x89PNG\r\n\x1a\n"
KINDS = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP", "tif": "TIFF", "gif": "GIF", "ppm": "PPM"}
KINDS |= {"avif": "AVIF", "jp2": "JPEG2000"}


def colours(seed: int = 0) -> Image.Image:
    return Image.fromarray(picture(seed, SIDE[1], SIDE[0]))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes, *, sound: bool = True) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ (not sound))


def png(width: int, height: int, data: bytes | None = None, *extra: bytes) -> bytes:
    """A grey PNG that claims a size and holds any data."""
    body = _black(width, height) if data is None else data
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return PNG_HEAD + head + b"".join(extra) + (chunk(b"IDAT", body) if body else b"") + chunk(b"IEND", b"")


def _black(width: int, height: int) -> bytes:
    """The packed rows of a black picture; made row by row, as a bomb is smaller than what it holds."""
    pack, row = zlib.compressobj(1), bytes(width + 1)
    return b"".join(pack.compress(row) for _ in range(height)) + pack.flush()


def with_chunk(extra: bytes) -> bytes:
    """A sound PNG with a further chunk after its header."""
    data = saved(colours())
    return data[:33] + extra + data[33:]


def claiming(width: int, height: int) -> dict[str, bytes]:
    """Headers that promise a size, by suffix, with next to nothing behind them."""
    bmp = bytearray(saved(colours(), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 4)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return {
        "png": png(width, height, zlib.compress(bytes(5000))),
        "bmp": bytes(bmp),
        "ppm": b"P6 %d %d 255\n" % (width, height) + bytes(500),
        "tif": TIFF_HEAD + struct.pack("<H", len(tags)) + entries + bytes(4),
    }


def _refused() -> dict[str, bytes]:
    found: dict[str, bytes] = {
        "empty.jpg": b"",
        "one_byte.jpg": b"\xff",
        "zeros.png": bytes(4000),
        "text.jpg": b"this is no picture\n" * 30,
        "web_page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "drawing.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "json.png": b'{"error": "not found"}',
        "git_lfs_pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "page.jpg": b"%PDF-1.7\n" + bytes(99),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "photoshop.png": b"8BPS\0\1" + bytes(99),
        "iphone_heic.jpg": b"\0\0\0\x18ftypheic" + bytes(99),
        "film.jpg": b"\0\0\0\x18ftypisom" + bytes(99),
        "zip.png": b"PK\3\4" + bytes(99),
        "program.bmp": b"MZ" + bytes(99),
        "icon.png": saved(colours(), "ICO"),
        "resource_fork.jpg": b"\0\5\x16\7" + bytes(4000),
        "jpeg_start_and_end.jpg": b"\xff\xd8\xff\xd9",
        "jpeg_of_zeros.jpg": saved(colours(), "JPEG")[:200] + bytes(600),
        "png_no_data.png": png(9, 9, b""),
        "png_garbage_data.png": png(9, 9, b"garbage" * 9),
        "png_short_data.png": png(99, 99, zlib.compress(bytes(50))),
        "png_wrong_checksum.png": saved(colours()).replace(b"IHDR\0\0\0\x30", b"IHDR\0\0\0\x31"),
        "png_no_pixels.png": png(0, 0, zlib.compress(b"")),
        "ppm_no_pixels.ppm": b"P6 0 0 255\n",
        "ppm_words.ppm": b"P6 wide high 255\n" + bytes(99),
        "ppm_no_range.ppm": b"P6 9 9 0\n" + bytes(999),
        "ppm_endless.ppm": b"P5 18446744073709551617 1 255\n",
        "gif_no_frame.gif": b"GIF89a\x09\0\x09\0\0\0\0;",
        "tiff_loop.tif": TIFF_HEAD + b"\0\0\x08\0\0\0",
        "tiff_nowhere.tif": b"II*\0\xff\xff\xff\x7f",
        "tiff_unknown_compression.tif": saved(colours(), "TIFF").replace(
            struct.pack("<HHI", 259, 3, 1) + b"\1\0", struct.pack("<HHI", 259, 3, 1) + b"\xee\xee"
        ),
        "bomb_20000x20000.png": png(20_000, 20_000),
    }
    for suffix, data in claiming(60_000, 60_000).items():
        found[f"claims_60000x60000_{suffix}.{suffix}"] = data
    for suffix, kind in KINDS.items():
        if kind in FORMATS:
            data = saved(colours(), kind)
            found[f"half_{suffix}.{suffix}"] = data[: len(data) // 2]
            found[f"first_20_bytes_{suffix}.{suffix}"] = data[:20]
    return found


def _read() -> dict[str, bytes]:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    deep = (np.arange(SIDE[0] * SIDE[1]).reshape(SIDE[::-1]) * 30).astype(np.uint16)
    clear = colours()
    clear.putalpha(colours(1).convert("L"))
    number = struct.pack("<H", 2) + struct.pack("<HHII", 0x112, 3, 1, 6)
    exifs = {
        "exif_twice": EXIF + EXIF + TIFF_HEAD + bytes(6),
        "exif_of_python": EXIF + b"b'Exif",
        "exif_garbage": EXIF + b"IIU\0\x18\0\0\0",
        "exif_zero_denominator": EXIF + TIFF_HEAD + number + struct.pack("<HHII", 0x11A, 5, 1, 38) + bytes(12),
        "exif_beyond_its_end": EXIF + TIFF_HEAD + number + struct.pack("<HHII", 0x8769, 13, 1, 0xFFFFFFF0) + bytes(4),
        "exif_orientation_99": EXIF + TIFF_HEAD + struct.pack("<HHHII", 1, 0x112, 3, 1, 99) + bytes(4),
        "exif_orientation_text": EXIF + TIFF_HEAD + struct.pack("<HHHI", 1, 0x112, 2, 4) + b"six\0" + bytes(4),
    }
    found = {f"{name}.jpg": saved(colours(), "JPEG", exif=exif) for name, exif in exifs.items()}
    frames = {"save_all": True, "append_images": [colours(1), colours(2)]}
    return found | {
        "cmyk.jpg": saved(colours().convert("CMYK"), "JPEG"),
        "grey_16_bit.png": saved(Image.fromarray(deep)),
        "grey_float.tif": saved(Image.fromarray(deep.astype(np.float32)), "TIFF"),
        "grey_alpha.png": saved(clear.convert("LA")),
        "colour_alpha.png": saved(clear),
        "one_bit.png": saved(colours().convert("1")),
        "palette_transparent.png": saved(colours().quantize(16), transparency=3),
        "progressive.jpg": saved(colours(), "JPEG", progressive=True),
        "animated_gif.gif": saved(colours(), "GIF", **frames),
        "animated_webp.webp": saved(colours(), "WEBP", **frames),
        "animated_png.png": saved(colours(), "PNG", **frames),
        "three_pages.tif": saved(colours(), "TIFF", **frames),
        "stereo.mpo": saved(colours(), "MPO", **frames),
        "text_of_70_MB.png": with_chunk(chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(70_000_000)))),
        "text_of_2_MB.png": with_chunk(chunk(b"tEXt", b"prompt\0" + b"a" * 2_000_000)),
        "text_wrong_checksum.png": with_chunk(chunk(b"tEXt", b"a\0b", sound=False)),
        "profile_of_2_MB.png": with_chunk(chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2_000_000)))),
        "profile_not_packed.png": with_chunk(chunk(b"iCCP", b"icc\0\0nothing packed")),
        "profile_garbage.jpg": saved(colours(), "JPEG", icc_profile=b"no profile" * 40),
        "profile_cut.jpg": saved(colours(), "JPEG", icc_profile=srgb[: len(srgb) // 2]),
        "profile_of_colour_in_grey.jpg": saved(colours().convert("L"), "JPEG", icc_profile=srgb),
        "profile_of_colour_in_cmyk.jpg": saved(colours().convert("CMYK"), "JPEG", icc_profile=srgb),
        "jpeg_called_png.png": saved(colours(), "JPEG"),
        "png_called_jpg.jpg": saved(colours()),
        "garbage_behind.jpg": saved(colours(), "JPEG") + b"\0garbage" * 99,
        "long_comment.jpg": saved(colours(), "JPEG", comment=b"c" * 65_000),
        "one_pixel.png": saved(colours().resize((1, 1))),
        "one_pixel_wide.png": saved(colours().resize((1, 900))),
        "UPPER.JPG": saved(colours(), "JPEG"),
        "browser.jfif": saved(colours(), "JPEG"),
        "wörter 字 😀.png": saved(colours()),
        "two\nlines.png": saved(colours()),
        "q'uo\"te, a=b {c} $HOME ${x} %s #1 &amp; <b>.png": saved(colours()),
        f"{'long' * 50}.png": saved(colours()),
        os.fsdecode(b"no utf-8 \xff\xfe.png"): saved(colours()),
    }


def write_bad_files(folder: Path) -> dict[str, bool]:
    """Write them all.

    Returns:
        name → whether there is a picture to be read in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds: list[tuple[Callable[[], dict[str, bytes]], bool]] = [(_refused, False), (_read, True)]
    expected = {}
    for make, readable in kinds:
        for name, data in make().items():
            (folder / name).write_bytes(data)
            expected[name] = readable
    for name, target in (("link_to_nothing.png", "nothing.png"), ("link_to_itself.png", "link_to_itself.png")):
        (folder / name).symlink_to(target)
        expected[name] = False
    return expected
