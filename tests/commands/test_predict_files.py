"""`qefpn predict`: which pictures, where the results go, pipes, going on, and what stops it."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.bad_files import saved
from tests.data.pictures import picture

from qefpn import Predictor
from qefpn.cli import main
from qefpn.commands import predict as command
from qefpn.errors import UserError
from qefpn.inference.files import plan


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return many(tmp_path / "in", 3)


@pytest.fixture(autouse=True)
def _own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEFPN_CACHE", str(tmp_path / "cache"))


def many(folder: Path, count: int, side: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(number, side, side)).save(folder / f"{number:04d}.jpg")
    return folder


def words(run: Path, *more: str) -> list[str]:
    return ["predict", f"checkpoint={run}/checkpoints/best.ckpt", "image_size=32", *more]


def predict(run: Path, *more: str) -> int:
    return main(words(run, *more))


def made(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".gif", ".pgm", ".jp2", ".PNG"])
def test_a_name_of_a_picture_is_a_file_of_that_kind(
    suffix: str, pictures: Path, tiny_run: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"mask{suffix}"
    for _ in range(2):  # the second takes the first one's place
        assert predict(tiny_run, f"input={pictures}/0001.jpg", f"output={target}") == 0
    assert target.is_file() and Image.open(target).size == (40, 40)
    expected = Predictor(tiny_run / "checkpoints" / "best.ckpt", image_size=32)(pictures / "0001.jpg")
    exact = suffix not in (".jpg", ".jpeg", ".jfif")
    assert np.abs(np.asarray(Image.open(target).convert("L"), int) - expected).max() <= (0 if exact else 8)


@pytest.mark.parametrize(
    ("output", "kind", "said"),
    [
        ("cut.jpg", "rgba", "no transparency"),
        ("cut.bmp", "rgba", "no transparency"),
        ("mask.pfm", "map", ".pfm is not written"),
        ("mask.pdf", "map", ".pdf is not written; name a .png or .jpg file, or a folder"),
        ("mask.heic", "map", ".heic is not written"),
        ("folder.png", "map", "is a folder, though it is called as a file"),
        ("file", "map", "is a file: name a folder"),
        ("file/", "map", "is a file: name a folder"),
        ("-", "map", None),
    ],
)
def test_outputs_that_cannot_be_are_one_line(
    output: str,
    kind: str,
    said: str | None,
    pictures: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("kept")
    before = made(tmp_path)
    source = pictures / "0000.jpg" if said else pictures  # several into one pipe
    assert predict(tiny_run, f"input={source}", f"output={output}", f"output_type={kind}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (said or "one file, but there are 3 pictures") in line
    assert made(tmp_path) == before and (tmp_path / "file").read_text() == "kept"
    assert predict(tiny_run, f"input={pictures}/0000.jpg", "output=folder.png/") == 0
    assert made(tmp_path / "folder.png") == ["0000.png"]


@pytest.mark.parametrize("kind", ["map", "rgba"])
def test_a_pipe_carries_the_picture_and_nothing_else(
    kind: str, pictures: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (pictures / "0000.jpg").read_bytes()
    streams = [io.TextIOWrapper(io.BytesIO(content)) for content in (data, b"", b"")]
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)
    assert predict(tiny_run, "input=-", "output=-", f"output_type={kind}") == 0
    piped = streams[1].buffer.getvalue()
    assert streams[2].buffer.getvalue() == b""
    streams[0].buffer.seek(0)
    assert predict(tiny_run, "input=-", f"output={tmp_path}/out", f"output_type={kind}") == 0
    assert predict(tiny_run, f"input={pictures}/0000.jpg", f"output={tmp_path}/a.png", f"output_type={kind}") == 0
    assert piped == (tmp_path / "a.png").read_bytes() == (tmp_path / "out" / "stdin.png").read_bytes()


def test_a_pipe_that_brings_no_picture(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(content)) for content in (b"", b"", b"")]
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)
    assert predict(tiny_run, "input=-", "output=-") == 1
    streams[2].flush()
    assert streams[1].buffer.getvalue() == b""
    assert streams[2].buffer.getvalue() == b"qefpn predict: standard input: cannot read the picture: an empty file\n"


def test_a_named_pipe_is_a_picture(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", str(pictures / "0000.jpg"), str(tmp_path / "pipe")]):
        assert predict(tiny_run, f"input={tmp_path}/pipe", f"output={tmp_path}/a.png") == 0
    assert Image.open(tmp_path / "a.png").size == (40, 40)


def test_folders_below_links_and_the_output_inside_the_input(
    pictures: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many(tmp_path / "elsewhere", 1)
    (pictures / "link").symlink_to("../elsewhere")
    (pictures / "loop").symlink_to(".")
    (pictures / "notes.txt").write_text("x")
    for _ in range(2):
        assert predict(tiny_run, f"input={pictures}", f"output={pictures}/out", "recursive=true") == 0
        assert made(pictures / "out") == ["0000.png", "0001.png", "0002.png", "link/0000.png"]
        assert capsys.readouterr().err == "qefpn predict: passed over a file that is no picture: notes.txt\n"
    for _ in range(2):  # results beside the pictures are no pictures of the next run
        assert predict(tiny_run, f"input={pictures}", f"output={pictures}") == 0
        assert sorted(path.name for path in pictures.glob("*.png")) == ["0000.png", "0001.png", "0002.png"]


def targets(*sources: str, base: str | None = None) -> list[str]:
    jobs = plan([Path(one) for one in sources], base and Path(base), "out", Path("out"), ["map"])
    return [str(job.targets["map"]) for job in jobs]


def test_no_two_results_share_a_name() -> None:
    assert targets("in/a.jpg", "in/b.jpg", base="in") == ["out/a.png", "out/b.png"]
    assert targets("in/a.jpg", "in/A.png", base="in") == ["out/a.jpg.png", "out/A.png.png"]
    assert targets("in/é.jpg", "in/e\u0301.jpg", base="in") == ["out/é.jpg.png", "out/e\u0301.jpg_1.png"]
    assert targets("in/x/a.jpg", "in/y/a.jpg", base="in") == ["out/x/a.png", "out/y/a.png"]
    assert targets("in/x/a.jpg", "in/y/a.jpg", "in/y/b.jpg") == ["out/x/a.png", "out/y/a.png", "out/b.png"]
    many_names = ["in/a.jpg", "in/a.png", "in/a.jpg.jpg", "in/a.jpg.png", "in/a.png.png", "in/A.JPG"]
    found = targets(*many_names, base="in")
    assert len({one.lower() for one in found}) == len(many_names)
    with pytest.raises(UserError, match="would overwrite"):
        plan([Path("in/a.png")], Path("in"), "in", Path("in"), ["map"])


def test_alpha_of_the_picture_is_alpha_of_the_cut_out(tiny_run: Path, tmp_path: Path) -> None:
    colours, alpha = picture(1), picture(2)[..., 0].copy()
    alpha[:10] = 0
    (tmp_path / "a.png").write_bytes(saved(Image.fromarray(np.dstack([colours, alpha]))))
    for kind in ("map", "rgba"):
        tokens_of = [f"input={tmp_path}/a.png", f"output={tmp_path}/{kind}.png", f"output_type={kind}", "matting=false"]
        assert predict(tiny_run, *tokens_of) == 0
    saliency = np.asarray(Image.open(tmp_path / "map.png")).astype(int)
    cut = np.asarray(Image.open(tmp_path / "rgba.png"))
    assert np.array_equal(cut[..., :3], colours)  # not laid on white
    assert np.array_equal(cut[..., 3], np.round(saliency * alpha / 255 + 1e-9).astype(int))
    page = np.asarray(Image.open(tmp_path / "a.png"))
    predictor = Predictor(tiny_run / "checkpoints" / "best.ckpt", image_size=32)
    assert np.array_equal(predictor(page), saliency)


@pytest.mark.slow
def test_a_second_run_makes_what_is_missing_or_changed(
    pictures: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def again(*more: str, kept: int, run: Path = tiny_run) -> None:
        before = {path.name: path.stat().st_ino for path in out.glob("*")}
        assert predict(run, f"input={pictures}", f"output={out}", *more) == 0
        said = capsys.readouterr().out
        assert "3 of 3 pictures" in said and (f"({kept} of them from an earlier run)" in said) == bool(kept)
        assert sum(before.get(path.name) == path.stat().st_ino for path in out.glob("*")) == kept

    again(kept=0)
    again(kept=3)
    again("batch_size=1", "device=cpu", "threshold=0.3", kept=3)  # none of which changes a map
    again("overwrite=true", kept=0)
    (out / "0001.png").unlink()
    again(kept=2)
    (out / "0001.png").write_bytes((out / "0000.png").read_bytes())  # somebody else's
    again(kept=2)
    old = pictures / "0002.jpg"
    old.write_bytes((pictures / "0000.jpg").read_bytes())
    os.utime(old, (1, 1))  # another picture, older than its result
    again(kept=2)
    again("output_type=binary", kept=0)
    again("output_type=binary", kept=3)
    again("output_type=binary", "threshold=0.3", kept=0)
    again("image_size=64", kept=0)
    again(kept=0)
    copy = tmp_path / "run" / "checkpoints"
    copy.mkdir(parents=True)
    (copy / "best.ckpt").write_bytes((tiny_run / "checkpoints" / "best.ckpt").read_bytes())
    again(kept=3, run=tmp_path / "run")  # the same weights, elsewhere
    (copy / "best.ckpt").write_bytes((tiny_run / "checkpoints" / "last.ckpt").read_bytes())
    again(kept=0, run=tmp_path / "run")


def test_a_full_disk_ends_it_with_a_line(
    pictures: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, asked = Path.write_bytes, []

    def full(path: Path, data: bytes) -> int:
        asked.append(path)
        if len(asked) > 1:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/out") == 1
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert "0001.png is not written: no space is left on the disk" in line and "1 of 3 are done" in line
    assert "make room there" in line
    assert made(tmp_path / "out") == ["0000.png"] and len(asked) == 2
    monkeypatch.undo()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_finished_stays_when_it_is_stopped(
    number: int,
    pictures: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    many(pictures, 5)
    read = command.read_layers

    def stop(file: Path, **options: float) -> object:
        if file.name == "0003.jpg" and number:
            signal.raise_signal(number)
        return read(file, **options)

    monkeypatch.setattr(command, "read_layers", stop)
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/out", "batch_size=1") == 130
    (line,) = capsys.readouterr().err.splitlines()
    finished = made(tmp_path / "out")  # pictures are read ahead of what is written
    assert line == f"qefpn predict: interrupted; run it again to go on ({len(finished)} of 5 are done)"
    assert len(finished) < 5
    monkeypatch.setattr(command, "read_layers", read)
    assert predict(tiny_run, f"input={pictures}", f"output={tmp_path}/out") == 0
    said = capsys.readouterr().out
    assert (f"{len(finished)} of them from an earlier run" in said) or not finished


def test_the_limit_of_megapixels_is_an_option(
    pictures: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [f"input={pictures}/0000.jpg", f"output={tmp_path}/out"]
    assert predict(tiny_run, *source, "max_megapixels=0.001") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "40x40 = 0 megapixels are more than 0.001" in line and "allow more by max_megapixels=1" in line
    assert predict(tiny_run, *source, "max_megapixels=1") == 0
    assert predict(tiny_run, *source, "max_megapixels=0") == 2


def test_the_predictor_takes_what_is_a_picture(pictures: Path, tiny_run: Path) -> None:
    predictor = Predictor(tiny_run / "checkpoints" / "best.ckpt", image_size=32, batch_size=2)
    path = pictures / "0000.jpg"
    expected, data = predictor(path), path.read_bytes()
    with open(path, "rb") as stream, Image.open(path) as image:
        alike = [str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), stream, image]
        for one in [*alike, np.asarray(Image.open(path))]:
            assert np.array_equal(predictor(one), expected), type(one)
    grey = picture(3)[..., 0]
    assert np.array_equal(predictor(grey), predictor(np.dstack([grey] * 3)))
    assert np.array_equal(predictor(np.dstack([picture(3), np.full_like(grey, 255)])), predictor(picture(3)))
    listed = predictor([path, grey, data])
    assert [one.shape for one in listed] == [(40, 40), (40, 56), (40, 40)]
    assert np.abs(listed[0].astype(int) - expected).max() <= 1
    assert predictor(()) == []


def test_the_predictor_says_what_it_takes(pictures: Path, tiny_run: Path) -> None:
    predictor = Predictor(tiny_run / "checkpoints" / "best.ckpt")
    for wrong in (None, 7, 1.5, {"a": 1}, {1}, object(), [[pictures / "0000.jpg"]], iter([])):
        with pytest.raises(
            TypeError, match=r"a picture is a path, a PIL picture, a NumPy array.*or a list of these; not"
        ):
            predictor(wrong)
    with open(pictures / "0000.jpg", encoding="latin-1") as text, pytest.raises(TypeError, match="open it in binary"):
        predictor(text)
    with pytest.raises(UserError, match="is an address: download"):
        predictor("https://example.org/a.jpg")
    for shape in ((2, 5, 7, 3), (5,), (0, 5, 3), (5, 7, 2)):
        with pytest.raises(UserError, match=r"uint8 \(H, W, 3\) RGB, \(H, W\) or \(H, W, 4\) is needed, not"):
            predictor(np.zeros(shape, np.uint8))
    for wrong in (b"", b"letters", io.BytesIO(b"letters"), pictures / "gone.jpg"):
        with pytest.raises(UserError, match="cannot read"):
            predictor(wrong)
    half = Image.open(io.BytesIO((pictures / "0000.jpg").read_bytes()[:-90]))
    with pytest.raises(UserError, match="PIL picture cannot be read"):
        predictor(half)
