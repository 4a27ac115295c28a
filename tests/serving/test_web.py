"""`qefpn export format=web`: what is refused, and the page on a web server that only hands out files."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.serving.photographs import photograph

from qefpn import Predictor
from qefpn.cli import main
from qefpn.serving.web import ARCHIVE, RUNTIME, page_file

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 120_000


def test_mistakes_are_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEFPN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "page").mkdir()
    for name in ("index.html", "model.onnx"):
        (tmp_path / "page" / name).write_text("x")
    cases = [
        (["output=file"], "output=file is a file: format=web writes a folder"),
        (["output=full"], "output=full: the folder holds other files"),
        (["output=page"], "output=page holds a page: overwrite=true replaces it"),
        (["output=new", "runtime=gone.tgz"], "runtime=gone.tgz: no such file; `npm pack onnxruntime-web@"),
        (["output=new", "runtime=file"], "runtime=file: is not the onnxruntime-web-"),
        (["output=new"], "which is not installed: `npm pack onnxruntime-web@"),
        (["output=new", "dtype=float61"], "dtype must be one of"),
        (["output=a.onnx", "format=onnx", "runtime=file"], "runtime is of format=web"),
    ]
    monkeypatch.chdir(tmp_path)
    for words, said in cases:
        assert main(["export", "format=web", *words]) == 2, words
        out, err = capfd.readouterr()
        assert (len(err.splitlines()), out) == (1, ""), (words, err)
        assert said in err, (words, err)
    assert not (tmp_path / "new").exists() and (tmp_path / "full" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'npm error network' >&2; exit 1", "npm does not fetch it (npm error network)"),
        (f'shift 3; echo x > "$1/{ARCHIVE}"', "is not the onnxruntime-web-"),
    ],
    ids=["no network", "another archive"],
)
def test_what_npm_does_not_fetch(
    script: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("QEFPN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert main(["export", "format=web", f"output={tmp_path / 'new'}"]) == 2
    err = capfd.readouterr().err
    assert said in err and len(err.splitlines()) == 1, err
    assert not (tmp_path / "new").exists() and not list((tmp_path / "cache").glob("*.tgz"))


def test_both_pages_share_their_parts() -> None:
    """An engine gives page.js what it asks for."""
    for engine in ("engine_server.js", "engine_local.js"):
        text = page_file(engine).decode()
        for name in ("const where", "const kinds", "about", "async function make"):
            assert f"export {name}" in text or f"export async function {name}" in text or f"export const {name}" in text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("no npm: apt-get install npm")
    place = tmp_path_factory.mktemp("web")
    done = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", str(place), RUNTIME], capture_output=True, timeout=300
    )
    if done.returncode:
        pytest.skip(f"npm cannot fetch {RUNTIME}: is the registry within reach?")
    assert main(["export", "format=web", f"output={place / 'page'}", f"runtime={place / ARCHIVE}"]) == 0
    return place / "page"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None


@contextlib.contextmanager
def handing_out(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.slow
def test_the_folder_is_all_there_is(folder: Path) -> None:
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    assert about["network"] == "mobile" and about["steps"] == 4 and "academic" in about["licence"]
    assert {path.suffix for path in folder.iterdir()} == {".html", ".js", ".css", ".json", ".mjs", ".wasm", ".onnx"}
    assert "Content-Security-Policy" in (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_a_browser_cuts_out_by_itself(folder: Path, tmp_path: Path, scheme: str, width: int) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    file = tmp_path / "my holiday.jpg"
    file.write_bytes(photograph(300, 400))
    asked: list[tuple[str, str]] = []
    said: list[str] = []
    with handing_out(folder) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", lambda request: asked.append((request.method, request.url)))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.wait_for_selector("html[data-ready=true]")
        assert "stays in your browser" in page.inner_text("#where") and "DUTS" in page.inner_text("#network")
        page.set_input_files("#file", file)
        saved = {}
        for view in ("cutout", "mask"):
            page.check(f"input[value={view}]", force=True)
            page.wait_for_selector("#download:not([disabled])")
            with page.expect_download() as download:
                page.click("#download")
            assert download.value.suggested_filename == f"my holiday-{view}.png"
            saved[view] = np.asarray(Image.open(io.BytesIO(Path(download.value.path()).read_bytes())))
        page.click("#solve summary")
        assert "4 times" in page.inner_text("#facts")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if shots := os.environ.get("QEFPN_SCREENSHOTS"):
            page.screenshot(path=Path(shots) / f"web-{scheme}-{width}.png", full_page=True)
        browser.close()
    assert said == []
    sent = [(how, url) for how, url in asked if how != "GET" or not url.startswith((address, "blob:", "data:"))]
    assert sent == []  # nothing left the browser
    expected = Predictor()(file).astype(int)
    for made in (saved["mask"][:, :, 0], saved["cutout"][:, :, 3]):
        # a browser's JPEG decoder is another one
        assert np.abs(made - expected).mean() < 1 and (np.abs(made - expected) > 10).mean() < 0.005
    opaque = saved["cutout"][:, :, 3] == 255
    photo = np.asarray(Image.open(file)).astype(int)
    assert opaque.sum() > 1000 and np.abs(saved["cutout"][opaque][:, :3] - photo[opaque]).mean() < 2
