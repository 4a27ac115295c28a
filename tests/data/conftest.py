"""Small pictures made on the spot, and a cache folder of each test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tests.data.pictures import blob, picture

MakeSet = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache-of-this-test"
    monkeypatch.setenv("QEFPN_CACHE", str(folder))
    return folder


@pytest.fixture
def make_set() -> MakeSet:
    """make_set(folder, images="images", masks="masks", count=3, image_suffix=".jpg", ...) -> folder"""

    def make(
        folder: Path,
        images: str = "images",
        masks: str = "masks",
        *,
        count: int = 3,
        image_suffix: str = ".jpg",
        mask_suffix: str = ".png",
        size: tuple[int, int] = (40, 56),
        start: int = 0,
    ) -> Path:
        (folder / images).mkdir(parents=True, exist_ok=True)
        (folder / masks).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + count):
            # The format is given: Pillow knows no format for every spelling of a suffix.
            kind = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "bmp": "BMP"}[image_suffix[1:].lower()]
            Image.fromarray(picture(number, *size)).save(folder / images / f"p{number:03d}{image_suffix}", kind)
            kind = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP"}[mask_suffix.rsplit(".", 1)[1].lower()]
            Image.fromarray(blob(number, *size)).save(folder / masks / f"p{number:03d}{mask_suffix}", kind)
        return folder

    return make
