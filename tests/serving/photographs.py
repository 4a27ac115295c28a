"""Photographs, and what is none, as the bytes that somebody uploads."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from qefpn.inference.export import drawn_picture

PAYLOAD = b"<script>alert(document.domain)</script>"


def encoded(picture: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def photograph(height: int = 150, width: int = 200, kind: str = "JPEG") -> bytes:
    return encoded(drawn_picture(height, width), kind)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, body: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that claims a size, whatever its pixels are."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def no_pictures() -> dict[str, bytes]:
    """What is refused, by name."""
    png, jpeg = photograph(kind="PNG"), photograph()
    zeros = zlib.compress(bytes(10_000_000), 9)
    made = {
        "empty": b"",
        "one byte": b"\0",
        "text": b"a photograph",
        "zeros": bytes(5000),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "svg that fetches": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "http://127.0.0.1:1/x">]><svg>&x;</svg>',
        "html": b"<!DOCTYPE html>" + PAYLOAD,
        "pdf": b"%PDF-1.7\n" + PAYLOAD,
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run",
        "zip": b"PK\x03\x04" + bytes(200),
        "gzip of a picture": zlib.compress(png),
        "shell script": b"#!/bin/sh\nrm -rf /\n",
        "elf": b"\x7fELF" + bytes(300),
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "numpy file": b"\x93NUMPY\x01\x00" + bytes(100),
        "film": b"\0\0\0\x18ftypisom" + bytes(100),
        "heic": b"\0\0\0\x18ftypheic" + bytes(100),
        "photoshop": b"8BPS\0\1" + bytes(100),
        "path": b"/etc/passwd",
        "address": b"http://127.0.0.1:1/photo.jpg",
        "png head alone": png[:8],
        "png without pixels": png[:40],
        "png cut in half": png[: len(png) // 2],
        "png with a damaged byte": png[:60] + bytes([png[60] ^ 255]) + png[61:],
        "jpeg head alone": jpeg[:4],
        "jpeg cut at its start": jpeg[:300],
        "jpeg cut in half": jpeg[: len(jpeg) // 2],
        "gif head": b"GIF89a" + bytes(20),
        "webp head": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(4),
        "tiff head": b"II*\0\x08\0\0\0" + bytes(4),
        "tiff whose directory points at itself": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "bmp head": b"BM" + bytes(60),
        "jpeg 2000 head": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
        "avif head": b"\0\0\0\x18ftypavif" + bytes(60),
        "ppm of no size": b"P6 0 0 255\n",
        "ppm that claims much": b"P6 60000 60000 255\n" + bytes(100),
        "png bomb of a gigapixel": png_of(40_000, 40_000, zeros),
        "png bomb of 4 gigapixels by 1": png_of(2**31 - 1, 1, zeros),
        "png of no size": png_of(0, 0, zlib.compress(b"")),
        "png with too few pixels": png_of(3000, 3000, zlib.compress(bytes(10))),
        "png of an odd depth": png_of(10, 10, zlib.compress(bytes(200)), depth=3),
        "gif bomb": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf0\0\0" + bytes(6) + b"," + bytes(20),
        "bmp bomb": b"BM" + struct.pack("<IIIIiiHH", 54, 0, 54, 40, 2**30, 2**30, 1, 24) + bytes(30),
        "tiff bomb": encoded(np.zeros((4, 4), np.uint8), "TIFF").replace(b"\4\0\0\0", b"\xff\xff\0\0"),
    }
    return made


def odd_pictures() -> dict[str, bytes]:
    """Pictures with something behind or within them that must not come out again."""
    png = photograph(kind="PNG")
    text = chunk(b"tEXt", b"Comment\0" + PAYLOAD)
    return {
        "png and html": png + PAYLOAD,
        "jpeg and html": photograph() + PAYLOAD,
        "gif and javascript": encoded(drawn_picture(50, 60), "GIF") + b"/*" + PAYLOAD + b"*/",
        "png with a text": png[:33] + text + png[33:],
        "png with a text bomb": png[:33] + chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(50_000_000), 9)) + png[33:],
        "png with a profile that is none": png[:33] + chunk(b"iCCP", b"p\0\0" + zlib.compress(PAYLOAD)) + png[33:],
        "one pixel": encoded(np.zeros((1, 1, 3), np.uint8)),
        "a line": encoded(np.zeros((1, 40_000, 3), np.uint8)),
        "a column": encoded(np.zeros((40_000, 1, 3), np.uint8)),
        "all transparent": encoded(np.zeros((40, 50, 4), np.uint8)),
    }
