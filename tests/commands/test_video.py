"""`qefpn video`: frames, times, sound and size of what comes out, the state of the former frame, and mistakes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data as photographs

av = pytest.importorskip("av")

from qefpn import Predictor  # noqa: E402
from qefpn.cli import main  # noqa: E402
from qefpn.inference.films import Film  # noqa: E402
from qefpn.inference.follow import Flicker, Follower  # noqa: E402

HEIGHT, WIDTH, FRAMES, RATE = 96, 128, 10, 12


def pictures(count: int = FRAMES, *, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    """A photograph (public domain) that moves, and then stands still."""
    whole = cv2.resize(photographs.astronaut(), (2 * width, 2 * width), interpolation=cv2.INTER_AREA)
    places = [min(number, count // 2) * 3 for number in range(count)]
    return [np.ascontiguousarray(whole[:height, x : x + width]) for x in places]


def film(
    path: Path,
    frames: list[np.ndarray],
    *,
    times: list[int] | None = None,
    sound: str | None = None,
    codec: str = "libx264",
) -> Path:
    """A film of frames at ``RATE`` a second, or at ``times`` in thousandths of a second."""
    base = Fraction(1, 1000) if times else Fraction(1, RATE)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=RATE, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p" if frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0 else "yuv444p"
        stream.codec_context.time_base = base
        heard = out.add_stream(sound, rate=48_000) if sound else None
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (times or range(len(frames)))[number], base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if heard is not None:
            wave = np.sin(np.arange(48_000 * len(frames) // RATE) / 20).astype(np.float32)[None]
            resample = av.AudioResampler(format=heard.codec_context.format, layout="mono", rate=48_000)
            for start in range(0, wave.shape[1], 960):
                block = av.AudioFrame.from_ndarray(wave[:, start : start + 960], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 48_000, start, Fraction(1, 48_000)
                for part in resample.resample(block):
                    out.mux(heard.encode(part))
            out.mux(heard.encode(None))
    return path


def read(path: Path, kind: str = "rgb24", decoder: str | None = None) -> tuple[list[np.ndarray], list[float], Any]:
    """Frames, their times in seconds, and (codec, seconds) of the sound."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context if decoder is None else av.CodecContext.create(decoder, "r")
        found, times = [], []
        for packet in container.demux(stream):
            for frame in context.decode(packet if packet.size else None):
                found.append(frame.to_ndarray(format=kind))
                times.append(float((frame.pts or 0) * stream.time_base))
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return found, times, None
        sound = container.streams.audio[0]
        length = sum(frame.samples for frame in container.decode(sound)) / sound.codec_context.sample_rate
        return found, times, (sound.codec_context.name, length)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("film") / "in.mp4", pictures(), sound="aac")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_frames_rate_length_and_sound_are_kept(moving: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    assert main(["video", f"input={moving}", f"output={out}", "output_type=map", "image_size=64"]) == 0
    frames, times, sound = read(out)
    assert len(frames) == FRAMES and frames[0].shape == (HEIGHT, WIDTH, 3)
    assert times[0] < 0.03  # Matroska has no time before 0, where the sound of MP4 begins: both are moved
    np.testing.assert_allclose(np.array(times) - times[0], np.arange(FRAMES) / RATE, atol=2e-3)
    codec, length = sound
    assert codec == ("opus" if suffix == ".webm" else "aac") and length == pytest.approx(FRAMES / RATE, abs=0.15)
    follower = Follower(Predictor(image_size=64))
    expected = [follower(picture) for picture in read(moving)[0]]
    off = [np.abs(a[..., 0].astype(int) - b).mean() for a, b in zip(frames, expected, strict=True)]
    assert max(off) < 4  # what compression costs
    assert not list(tmp_path.glob(".*"))


def test_times_between_frames_may_differ(tmp_path: Path) -> None:
    times = [0, 40, 200, 210, 700]
    source = film(tmp_path / "in.mkv", pictures(5), times=times)
    out = tmp_path / "out.mkv"
    assert main(["video", f"input={source}", f"output={out}", "image_size=64"]) == 0
    np.testing.assert_allclose(read(out)[1], np.array(times) / 1000, atol=2e-3)


@pytest.mark.parametrize(("suffix", "decoder"), [(".webm", "libvpx-vp9"), (".mov", None)])
def test_a_cut_out_is_transparent(moving: Path, tmp_path: Path, suffix: str, decoder: str | None) -> None:
    out = tmp_path / f"cut{suffix}"
    assert main(["video", f"input={moving}", f"output={out}", "output_type=rgba", "image_size=96"]) == 0
    frames = read(out, "rgba", decoder)[0]
    follower = Follower(Predictor(image_size=96))
    expected = [follower(picture) for picture in read(moving)[0]]
    off = [np.abs(a[..., 3].astype(int) - b).mean() for a, b in zip(frames, expected, strict=True)]
    assert len(frames) == FRAMES and max(off) < 4 and np.ptp(frames[0][..., 3]) > 100


def test_a_folder_of_frames_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    made = pictures(11, height=95, width=127)  # odd sides, and frame 10 after frame 9
    for number, picture in enumerate(made):
        cv2.imwrite(str(folder / f"f{number}.png"), picture[..., ::-1])
    (folder / "notes.txt").write_text("no frame")
    out = tmp_path / "out.mp4"
    assert main(["video", f"input={folder}", f"output={out}", "rate=5", "image_size=64", "output_type=binary"]) == 0
    frames, times, sound = read(out)
    assert len(frames) == 11 and sound is None and frames[0].shape == (95, 127, 3)
    np.testing.assert_allclose(times, np.arange(11) / 5, atol=2e-3)
    again = tmp_path / "again"
    assert main(["video", f"input={out}", f"output={again}", "image_size=64", "output_type=overlay"]) == 0
    assert [path.name for path in sorted(again.iterdir())] == [f"{number:06d}.png" for number in range(11)]
    given = [picture for picture, _ in Film(folder)]
    assert all(np.array_equal(a, b) for a, b in zip(given, made, strict=True))


def test_another_background(moving: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["output_type=background", "background=#00ff00", "image_size=96"]
    assert main(["video", f"input={moving}", f"output={out}", *words]) == 0
    first = cv2.imread(str(out / "000000.png"))
    assert (np.abs(first.astype(int) - [0, 255, 0]).max(axis=2) < 3).mean() > 0.2


def test_the_former_state_saves_steps_and_a_new_scene_does_without(
    moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictor = Predictor(image_size=64)
    warm, cold = Follower(predictor), Follower(predictor, warm=False)
    still = [pictures()[-1]] * 8
    for picture in still:
        warm(picture)
        last = cold(picture)
    assert warm.evaluations < cold.evaluations == 8 * 5 and warm.scenes == cold.scenes == 1
    assert np.array_equal(last, predictor(still[0])) and cold.flicker.mean == 0 < warm.flicker.mean
    other = Follower(predictor)
    for picture in (still[0], 255 - still[0]):
        found = other(picture)
    assert other.scenes == 2 and np.array_equal(found, predictor(255 - still[0]))
    out = tmp_path / "out.mp4"
    assert main(["video", f"input={moving}", f"output={out}", "image_size=64", "compare=true"]) == 0
    told = capsys.readouterr().out
    assert "10 frames" in told and "the former frame's state" in told and "from zero: 5.00 evaluations" in told


def test_flicker_is_of_what_stands_still() -> None:
    flicker = Flicker()
    still, moved = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    moved[0] = 200
    flicker.add(still, np.zeros((4, 4), np.uint8))
    flicker.add(moved, np.full((4, 4), 51, np.uint8))
    assert (flicker.pixels, flicker.mean) == (12, pytest.approx(0.2))


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["video", *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    return line


def test_mistakes_are_one_line(moving: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, silent, empty = tmp_path / "text.mp4", tmp_path / "sound.mp4", tmp_path / "empty"
    text.write_text("no film")
    empty.mkdir()
    with av.open(str(silent), "w") as out:
        stream = out.add_stream("aac", rate=48_000)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate = 48_000
        out.mux(stream.encode(block))
        out.mux(stream.encode(None))
    to = f"output={tmp_path / 'o.mp4'}"
    given = f"input={moving}"
    cases = {
        "is not there": (f"input={tmp_path / 'none.mp4'}", to),
        "is no film": (f"input={text}", to),
        "only sound": (f"input={silent}", to),
        "has no frames": (f"input={empty}", to),
        "input is not set": (to,),
        "output is not set": (given,),
        "no transparency": (given, to, "output_type=rgba"),
        "frames go into a folder": (given, f"output={tmp_path / 'o.gif'}"),
        "is a file: name a folder": (given, f"output={_made(tmp_path / 'plain')}"),
        "exists: overwrite=true": (given, f"output={_made(tmp_path / 'there.mp4')}"),
        "did you mean overlay": (given, to, "output_type=overlai"),
        "belong together": (given, to, "output_type=background"),
        "rate must be": (given, to, "rate=0"),
        "did you mean balanced": (given, to, "budget=balancd"),
    }
    for expected, words in cases.items():
        assert expected in error_of(capsys, *words), expected
        assert not (tmp_path / "o.mp4").exists()
    assert (tmp_path / "there.mp4").read_text() == "mine"
    frames = tmp_path / "sizes"
    frames.mkdir()
    for number, side in enumerate((40, 50)):
        cv2.imwrite(str(frames / f"{number}.png"), np.zeros((side, side, 3), np.uint8))
    assert "frame 2 is 50x50, the first 40x40" in error_of(capsys, f"input={frames}", to, "image_size=32")
    half = tmp_path / "half.mp4"
    half.write_bytes(moving.read_bytes()[: moving.stat().st_size // 2])
    error_of(capsys, f"input={half}", to, "image_size=32")
    assert not (tmp_path / "o.mp4").exists() and not list(tmp_path.glob(".*"))


def _made(path: Path) -> Path:
    path.write_text("mine")
    return path


@pytest.mark.slow
def test_ctrl_c_leaves_no_half_a_film(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mp4", pictures(4) * 100)
    out = tmp_path / "out.mp4"
    words = [sys.executable, "-m", "qefpn.cli", "video", f"input={source}", f"output={out}", "image_size=64"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not list(tmp_path.glob(".*.part")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2 and "interrupted after" in told and "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
