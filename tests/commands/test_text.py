"""Names of any bytes and consoles of any encoding: every command ends as it should, and writes UTF-8."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.data.pictures import blob, picture

from qefpn.cli import main
from qefpn.text import one_line

NAMES = ["plain", "é 字", "two\nlines", "\x1b[31mred", os.fsdecode(b"raw \xff\xfe"), "=1+1", "$x^$ & <b>"]


def run(monkeypatch: pytest.MonkeyPatch, encoding: str, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command on a console of this encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        code = main(list(words))
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    return code, out, err


@pytest.fixture(scope="module")
def odd_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd") / NAMES[4]
    for number, name in enumerate(NAMES):
        for folder, array in (("images", picture(number)), ("masks", blob(number))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            with open(root / folder / f"{name}.png", "wb") as stream:
                Image.fromarray(array).save(stream, "PNG")
    return root


def texts_are_utf8(folder: Path) -> int:
    kinds = (".csv", ".json", ".html", ".md", ".tex", ".yaml", ".txt")
    files = [path for path in folder.rglob("*") if path.suffix in kinds and path.is_file()]
    for path in files:
        path.read_bytes().decode("utf-8")
    return len(files)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_predict_and_verify(
    encoding: str, odd_set: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"checkpoint={tiny_run}/checkpoints/best.ckpt", f"input={odd_set}/images", f"output={tmp_path}/out"]
    (odd_set / "images" / "no picture\n\udcff.txt").write_text("x")
    code, out, err = run(monkeypatch, encoding, "predict", *words)
    assert (code, len(out.splitlines())) == (0, 1) and f"{len(NAMES)} of {len(NAMES)} pictures" in out
    assert err == "qefpn predict: passed over a file that is no picture: no picture\\n\\udcff.txt\n"
    assert {path.stem for path in (tmp_path / "out").iterdir()} == set(NAMES)
    code, out, err = run(monkeypatch, encoding, "data", "verify", f"data.root={odd_set}")
    assert (code, err, out.splitlines()[-1]) == (0, "", "nothing is wrong")
    (odd_set / "images" / "film.mp4").write_bytes(b"x")
    code, _, err = run(monkeypatch, encoding, "data", "verify", f"data.root={odd_set}")
    (odd_set / "images" / "film.mp4").unlink()
    assert (code, err.split(": ", 1)[1]) == (0, "passed over a file that is no picture: images/film.mp4\n")
    code, _, err = run(monkeypatch, encoding, "predict", *words[:1], "input=gone\n\udcff", words[2])
    assert code == 2 and len(err.splitlines()) == 1 and "gone\\n\\udcff" in err


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_evaluate_and_benchmark(
    encoding: str, odd_set: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = f"checkpoint={tiny_run}/checkpoints/best.ckpt"
    code, out, err = run(
        monkeypatch, encoding, "evaluate", checkpoint, f"data.root={odd_set}", f"output={tmp_path}/evaluated"
    )
    assert code == 0 and "Traceback" not in out + err
    maps = tmp_path / "maps" / os.fsdecode(b"m \xff $x^$ <b>")
    maps.parent.mkdir()
    saved = sorted((tmp_path / "evaluated" / "maps").rglob("*.png"))
    assert len(saved) == len(NAMES)
    saved[0].parent.rename(maps)
    (maps / "film.mp4").write_bytes(b"x")
    code, out, err = run(
        monkeypatch, encoding, "benchmark", f"maps={maps.parent}", f"data.root={odd_set}", f"output={tmp_path}/scored"
    )
    assert code == 0 and err == f"{one_line(maps)}: passed over a file that is no picture: film.mp4\n"
    assert texts_are_utf8(tmp_path / "evaluated") >= 4 and texts_are_utf8(tmp_path / "scored") >= 6
    assert "<b>m" not in (tmp_path / "scored" / "leaderboard.html").read_text(encoding="utf-8")
