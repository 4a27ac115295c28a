"""`qefpn export format=web`: the page in a folder, with the network as ONNX, which a browser runs by itself.

onnxruntime-web does that: its files come from npm's archive, which is checked, and lie in the folder as well.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from qefpn.atomic import atomic_file, write_atomic
from qefpn.data.files import cache_dir
from qefpn.errors import UserError

RUNTIME = "onnxruntime-web@1.30.0"
ARCHIVE = "onnxruntime-web-1.30.0.tgz"
SHA512 = "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"  # noqa: E501
RUNTIME_FILES = (
    *("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    *("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
)
"""For the processor, and for WebGPU; a browser loads one of the two lines."""
MODEL = "model.onnx"
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self' blob: data:; base-uri 'none'; form-action 'none'"
)
"""The browser's own word that no photograph leaves it."""
_PATIENCE = 600


def page_file(name: str) -> bytes:
    """A file of the page."""
    return (resources.files("qefpn.serving") / "page" / name).read_bytes()


def write_page(folder: Path, about: Mapping[str, object], archive: Path) -> int:
    """Write the page and what it runs with beside its :data:`MODEL`.

    Args:
        folder: where to.
        about: what the page tells of the network: ``network``, ``data``, ``licence``, ``steps``.
        archive: of :func:`runtime_archive`.

    Returns:
        Bytes of all files in the folder that belong to the page.
    """
    with tarfile.open(archive) as packed:
        for name in RUNTIME_FILES:
            member = packed.extractfile(f"package/dist/{name}")
            assert member is not None  # its sum was right
            with atomic_file(folder / name) as part, part.open("wb") as file:
                shutil.copyfileobj(member, file)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
    index = page_file("index.html").decode().replace("<title>", f"{policy}<title>", 1)
    write_atomic(folder / "page.css", page_file("page.css").decode())
    write_atomic(folder / "page.js", page_file("page.js").decode())
    write_atomic(folder / "engine.js", page_file("engine_local.js").decode())
    write_atomic(folder / "about.json", json.dumps(dict(about), indent=1, ensure_ascii=False) + "\n")
    write_atomic(folder / "index.html", index)
    return sum((folder / name).stat().st_size for name in (*RUNTIME_FILES, MODEL))


def runtime_archive(given: str | None) -> Path:
    """The archive of onnxruntime-web: the file that was given, else that of the cache, else npm's.

    Raises:
        UserError: it is not there, is another one, or npm is not there or fetches nothing.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"runtime={given}: no such file; `npm pack {RUNTIME}` makes it")
        if not _is_it(path):
            raise UserError(f"runtime={given}: is not the {ARCHIVE} of npm (its sha512 is another)")
        return path
    cache = cache_dir()
    if cache is None:
        raise UserError(f"there is no cache folder to keep {ARCHIVE} in: name one by QEFPN_CACHE, or give runtime=FILE")
    kept = cache / ARCHIVE
    if not (kept.is_file() and _is_it(kept)):
        _fetch(kept)
    return kept


def _is_it(path: Path) -> bool:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest() == SHA512


def _fetch(kept: Path) -> None:
    npm = shutil.which("npm")
    by_hand = f"`npm pack {RUNTIME}` on a machine that can makes {ARCHIVE}: give it as runtime=FILE"
    if npm is None:
        raise UserError(f"format=web needs {RUNTIME} from npm, which is not installed: {by_hand}")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--pack-destination", folder, RUNTIME]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE)
            said = next((line for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
        except subprocess.TimeoutExpired:
            said = f"nothing within {_PATIENCE} s"
        made = Path(folder) / ARCHIVE
        if not made.is_file():
            raise UserError(f"format=web needs {RUNTIME}, and npm does not fetch it ({said}): {by_hand}")
        if not _is_it(made):
            raise UserError(f"what npm fetched is not the {ARCHIVE} that is known (its sha512 is another): {by_hand}")
        with atomic_file(kept) as part:
            shutil.copyfile(made, part)
