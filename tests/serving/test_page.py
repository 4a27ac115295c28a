"""The page in a browser: what a visitor does, by mouse, by keyboard, light and dark, on a telephone."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.serving.photographs import photograph

from qefpn import Predictor

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
DONE = "#download:not([disabled])"
PATIENCE = 120_000


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my holiday.jpg"
    path.write_bytes(photograph(300, 400))
    return path


@pytest.fixture(params=[("light", 1200), ("dark", 390), ("light", 390)], ids=lambda one: f"{one[0]}-{one[1]}")
def page(
    request: pytest.FixtureRequest, browser: sync_api.Browser, server: tuple[subprocess.Popen[str], str]
) -> Iterator[sync_api.Page]:
    scheme, width = request.param
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    context.set_default_timeout(PATIENCE)
    made = context.new_page()
    said: list[str] = []
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    made.goto(server[1])
    made.wait_for_selector("html[data-ready=true]")
    yield made
    context.close()
    assert [line for line in said if "422" not in line] == []


def saved(page: sync_api.Page) -> tuple[str, Image.Image]:
    """What the button downloads."""
    page.wait_for_selector(DONE)
    with page.expect_download() as download:
        page.click("#download")
    data = Path(download.value.path()).read_bytes()
    return download.value.suggested_filename, Image.open(io.BytesIO(data))


def shot(page: sync_api.Page, name: str) -> None:
    """A picture of the page, where somebody wants to look at it."""
    if folder := os.environ.get("QEFPN_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_a_visit(page: sync_api.Page, file: Path, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    assert "DUTS" in page.inner_text("#network") and "academic" in page.inner_text("#licence")
    shot(page, f"{name}-empty")
    page.set_input_files("#file", file)
    called, cutout = saved(page)
    assert (called, cutout.size, cutout.mode) == ("my holiday-cutout.png", (400, 300), "RGBA")
    assert not page.is_visible("#drop") and not page.is_visible("#status") and not page.is_visible("#problem")
    shot(page, f"{name}-cutout")

    page.check("input[value='#ffffff']", force=True)
    white = np.asarray(saved(page)[1])
    assert (white[2, 2] == 255).all()
    page.check("input[name=background][value=blur]", force=True)
    called, blurred = saved(page)
    assert called == "my holiday-cutout.png" and blurred.mode == "RGB"
    page.fill("#colour", "#0000ff")
    assert tuple(np.asarray(saved(page)[1])[2, 2][:3]) == (0, 0, 255)

    page.check("input[value=mask]", force=True)
    called, mask = saved(page)
    assert called == "my holiday-mask.png" and (np.asarray(mask) == Predictor()(file)).mean() > 0.99
    assert not page.is_visible("#backgrounds")
    shot(page, f"{name}-mask")
    page.check("input[value=edges]", force=True)
    called, edges = saved(page)
    assert (called, edges.mode) == ("my holiday-edges.png", "L")
    page.check("input[value=original]", force=True)
    assert saved(page)[0] == "my holiday.jpg"

    page.click("#solve summary")
    assert "4 times (the solver's steps)" in page.inner_text("#facts") and "% (the residual)" in page.inner_text(
        "#facts"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shot(page, f"{name}-solve")


def test_light_and_dark_differ_and_can_be_read(page: sync_api.Page, request: pytest.FixtureRequest) -> None:
    """Contrast of WCAG 2.1, level AA: 4.5 to 1."""
    found = page.evaluate(
        """() => ["h1", "header .soft", ".drop b", ".drop .small", "#licence"].map((selector) => {
            const one = document.querySelector(selector);
            let behind = one;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            return [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
        })"""
    )

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
        linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ink, behind in found:
        low, high = sorted((light(ink), light(behind)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, behind)
    assert (light(found[0][1]) < 0.1) is ("dark" in request.node.callspec.id)


def test_by_keyboard_and_by_paste_and_drop(page: sync_api.Page, file: Path) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    data = list(file.read_bytes())
    given = """([data, kind]) => {
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(data)], "given.jpg", {type: "image/jpeg"}));
        const options = {bubbles: true, cancelable: true};
        document.dispatchEvent(kind === "drop" ? new DragEvent(kind, {...options, dataTransfer: files})
                                               : new ClipboardEvent(kind, {...options, clipboardData: files}));
    }"""
    page.evaluate(given, [data, "paste"])
    page.wait_for_selector(DONE)
    assert page.evaluate("document.activeElement.id") == "again" or page.is_visible("#again")
    page.focus("input[name=view]:checked")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(DONE)
    assert page.is_checked("input[value=mask]") and page.get_attribute("#shown", "alt") == "The mask"
    page.evaluate(given, [data, "drop"])
    page.wait_for_selector(DONE)
    assert page.is_checked("input[value=cutout]") and saved(page)[0] == "given-cutout.png"


def test_what_is_no_picture_is_told(page: sync_api.Page, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not at all")
    page.set_input_files("#file", broken)
    page.wait_for_selector("#problem:not([hidden])")
    assert "not a picture" in page.inner_text("#problem") and page.is_visible("#drop")
    broken.write_bytes(photograph())
    page.set_input_files("#file", broken)  # and it goes on
    page.wait_for_selector(DONE)
    assert not page.is_visible("#problem")
