"""From the bytes of a picture file to a Pillow picture: within a limit of pixels, whole, or refused in one line."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import os
import threading
import warnings
import zipfile
import zlib
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from qefpn.data.files import FORMATS, PictureFile, open_file
from qefpn.errors import UserError

__all__ = ["MAX_MEGAPIXELS", "decode", "open_picture", "orientation"]

MAX_MEGAPIXELS = 300.0
"""Larger pictures are refused unless more is allowed: phones make 200 megapixels, a decompression bomb claims more."""
LIMIT_VARIABLE = "QEFPN_MAX_MEGAPIXELS"

_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
_PROFILE_BYTES = 1 << 24
_OTHER_KINDS = (
    (4, (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc", b"ftypmsf1"), "a HEIC picture: save it as JPEG or PNG"),
    *([] if "AVIF" in FORMATS else [(4, (b"ftypavi",), "an AVIF picture, which this Pillow lacks: save it as PNG")]),
    (4, (b"ftypisom", b"ftypmp4", b"ftypM4V", b"ftypqt"), "a film: take a frame out of it"),
    (0, (b"8BPS",), "a Photoshop file: export it as PNG"),
    (0, (b"%PDF", b"%!PS"), "a page, not a picture: export it as PNG"),
    (0, (b"<svg", b"<?xml"), "a drawing or XML, not a picture: export it as PNG"),
    (0, (b"<!DOC", b"<!doc", b"<html", b"<HTML"), "a web page: the download went wrong"),
    (0, (b"version https://git-lfs",), "a pointer of Git LFS, not the picture: run git lfs pull"),
)
_OUR_KINDS = (
    *(
        (0, _PNG, "PNG"),
        (0, b"\xff\xd8\xff", "JPEG"),
        (0, b"GIF8", "GIF"),
        (0, b"II*\0", "TIFF"),
        (0, b"MM\0*", "TIFF"),
    ),
    *((4, b"ftypavi", "AVIF"), (8, b"WEBP", "WebP"), (4, b"jP  ", "JPEG 2000")),
)

# Pillow logs what is odd about a TIFF; without a handler Python prints that on standard error. Its libtiff prints there
# by itself, a line a broken strip, until told not to; where it is built in, as on Windows, it cannot be told.
logging.getLogger("PIL").addHandler(logging.NullHandler())
with contextlib.suppress(OSError, AttributeError, TypeError):
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)
_opening = threading.Lock()


def decode(
    file: PictureFile | bytes,
    *,
    draft: int | None = None,
    name: str | None = None,
    max_megapixels: float | None = None,
) -> Image.Image:
    """Decode ``file`` completely: the first picture of an animation, page or stack.

    Args:
        file: path, zip member or the bytes themselves.
        draft: decode a JPEG at the smallest 1/1, 1/2, 1/4, 1/8 scale of at least this many pixels a side:
            every byte is still parsed, so that truncation shows, in a third of the time.
        name: what to call bytes in an error.
        max_megapixels: millions of pixels above which it is refused, by its header, before anything is decoded;
            None for ``$QEFPN_MAX_MEGAPIXELS``, else :data:`MAX_MEGAPIXELS`.

    Raises:
        UserError: missing, no picture, truncated, or too large.
    """
    return open_picture(file, draft=draft, name=name, max_megapixels=max_megapixels)[0]


def open_picture(
    file: PictureFile | bytes,
    *,
    draft: int | None = None,
    name: str | None = None,
    max_megapixels: float | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """As :func:`decode`, with the (width, height) that the file holds before EXIF orientation, whatever the draft."""
    label = name or ("the picture" if isinstance(file, bytes) else str(file))
    # Odd metadata is no concern of ours: broken pixels raise. Not by catch_warnings, which threads undo for each other.
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    with _stream(file) as stream:
        try:
            return _loaded(stream, draft, label, max_megapixels)
        except UserError:
            raise
        except MemoryError:
            raise UserError(f"cannot read {label}: it does not fit into memory") from None
        except Exception as error:
            # Damaged files make decoders raise anything: OSError, SyntaxError, struct.error, ...
            try:
                slim = _essential_chunks(_all(stream))
                if slim is not None:
                    return _loaded(io.BytesIO(slim), draft, label, max_megapixels)
            except UserError:
                raise
            except Exception:
                pass  # it was not the texts: the first error says what it was
            raise UserError(f"cannot read {label}: {_reason(error, stream)}") from error


def _stream(file: PictureFile | bytes) -> BinaryIO:
    if isinstance(file, bytes):
        return io.BytesIO(file)
    try:
        return open_file(file)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def _all(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return stream.read()


def _loaded(
    stream: BinaryIO, draft: int | None, label: str, max_megapixels: float | None
) -> tuple[Image.Image, tuple[int, int]]:
    with _opening:  # Pillow's own limit is one for the process: ours is applied below, theirs comes back
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image: Image.Image = Image.open(stream, formats=tuple(FORMATS))
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    size = image.size
    _check_size(size, label, max_megapixels)
    if draft is not None:
        image.draft(None, (draft, draft))
    image.load()
    if image.mode in ("RGBa", "La"):  # colours multiplied by alpha, which little converts from
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    return image, size


def _check_size(size: tuple[int, int], label: str, max_megapixels: float | None) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UserError(f"cannot read {label}: it holds no pixels ({width}x{height})")
    limit, way_out = max_megapixels, "max_megapixels"
    if limit is None:
        limit, way_out = MAX_MEGAPIXELS, LIMIT_VARIABLE
        if LIMIT_VARIABLE in os.environ:
            try:
                limit = float(os.environ[LIMIT_VARIABLE])
            except ValueError:
                raise UserError(f"{LIMIT_VARIABLE}={os.environ[LIMIT_VARIABLE]} is no number of megapixels") from None
    pixels = width * height
    if pixels > limit * 1e6:
        raise UserError(
            f"cannot read {label}: its {width}x{height} = {pixels / 1e6:,.0f} megapixels are more than {limit:g}; "
            f"make it smaller, or allow more by {way_out}={-(-pixels // 1_000_000)}"
        )


def _reason(error: Exception, stream: BinaryIO) -> str:
    stream.seek(0)
    head = stream.read(64)
    if not head:
        return "an empty file"
    if isinstance(error, UnidentifiedImageError):
        for place, starts, what in _OTHER_KINDS:
            if head[place:].lstrip(b"\xef\xbb\xbf \r\n\t").startswith(starts):
                return what
        for place, start, kind in _OUR_KINDS:
            if head[place:].startswith(start):
                return f"truncated or damaged (no header of a {kind} file)"
        return "not a picture, whatever its name says"
    reason = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
    return f"truncated or damaged ({reason})"


def _essential_chunks(data: bytes) -> bytes | None:
    """A PNG without what its pixels do not need; None where that is all there is, or it is no PNG.

    Pillow refuses a picture for a text of over 1 MB (programs that draw by prompt write theirs into it), for a large
    colour profile, and for a damaged chunk that no viewer looks at.
    """
    if not data.startswith(_PNG):
        return None
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        chunk = data[place : place + 12 + length]
        body = chunk[8 : 8 + length]
        sound = len(chunk) == 12 + length and zlib.crc32(kind + body) == int.from_bytes(chunk[-4:], "big")
        # Critical chunks have a capital first letter; of the others those that change what is seen.
        if kind[:1].isupper() or (sound and (kind in (b"tRNS", b"eXIf") or (kind == b"iCCP" and _is_small(body)))):
            kept.append(chunk)
        place += 12 + length
        if kind == b"IEND":
            break
    slim = b"".join(kept)
    return slim if len(slim) < len(data) else None


def _is_small(profile: bytes) -> bool:
    packed = profile.partition(b"\0")[2][1:]
    try:
        return len(zlib.decompressobj().decompress(packed, 1 << 20)) < 1 << 20
    except zlib.error:
        return False


def orientation(image: Image.Image) -> int:
    """How EXIF says that the picture lies, 1 to 8; 1 where that cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # written by anything, broken in any way
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
