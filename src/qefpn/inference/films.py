"""Films in and out, by PyAV: frames in order and upright, at their own times, with the sound beside them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from qefpn.data.files import is_picture
from qefpn.data.reading import read_image
from qefpn.errors import UserError
from qefpn.inference.output import encode
from qefpn.text import one_line

Frame = tuple[np.ndarray, int]
"""A frame (H, W, 3), uint8 RGB, and its time in units of the film's ``time_base``."""

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
OPAQUE = {"mp4": "libx264", "mov": "libx264", "matroska": "libx264", "webm": "libvpx-vp9"}
WITH_ALPHA = {"mov": ("prores_ks", "yuva444p10le"), "webm": ("libvpx-vp9", "yuva420p")}
"""Container → codec and pixel format that keep transparency."""
SOUND = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "opus"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"),
    "matroska": ("aac", "mp3", "ac3", "eac3", "opus", "vorbis", "flac", "pcm_s16le"),
    "webm": ("opus", "vorbis"),
}
"""Container → codecs of sound that are copied as they are; others are encoded anew."""
OPTIONS = {
    "libx264": {"crf": "18", "preset": "medium"},
    "libvpx-vp9": {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4"},
    "prores_ks": {"profile": "4444", "alpha_bits": "16"},
}


def _av() -> Any:
    if importlib.util.find_spec("av") is None:
        raise UserError("films need PyAV: pip install 'qefpn[video]'")
    import av

    return av


def is_film_name(path: Path) -> bool:
    """Whether a file is written as a film, by its name."""
    return path.suffix.lower() in CONTAINERS


class Film:
    """A film, or a folder of frames in the order of the numbers in their names, as an iterator of :data:`Frame`.

    Args:
        path: a file that FFmpeg reads, or a folder of pictures.
        rate: frames a second of a folder.

    Attributes:
        rate: frames a second on average.
        time_base: seconds of one unit of a frame's time.
        count: of frames, as far as the file says; None where it does not.

    Raises:
        UserError: it is no film, has no frame, or cannot be read.
    """

    def __init__(self, path: Path, rate: float = 25.0) -> None:
        self.path = path
        self._files: list[Path] = []
        self.count: int | None
        if path.is_dir():
            self._files = sorted((one for one in path.iterdir() if is_picture(one.name)), key=_by_numbers)
            if not self._files:
                raise UserError(f"input={path} has no frames: no file there is a picture")
            self.rate, self.count = Fraction(rate).limit_denominator(1001), len(self._files)
            self.time_base = 1 / self.rate
            return
        if not path.exists():
            raise UserError(f"input={path} is not there")
        self._container = self._opened()
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        self.time_base = Fraction(stream.time_base or 1 / self.rate)
        self.count = stream.frames or None

    def _opened(self) -> Any:
        av = _av()
        try:
            container = av.open(str(self.path))
        except (av.error.FFmpegError, OSError) as error:
            raise UserError(f"input={self.path}: is no film that FFmpeg reads ({_reason(error)})") from None
        if not container.streams.video:
            container.close()
            raise UserError(f"input={self.path}: has no pictures, only sound")
        return container

    @property
    def sound(self) -> Any:
        """The first stream of sound, or None."""
        return None if self._files or not self._container.streams.audio else self._container.streams.audio[0]

    def __iter__(self) -> Iterator[Frame | Any]:
        """Frames, and between them packets of :attr:`sound`, in the order of the file."""
        if self._files:
            for number, file in enumerate(self._files):
                yield read_image(file), number
            return
        av = _av()
        video, sound = self._container.streams.video[0], self.sound
        found = 0
        try:
            for packet in self._container.demux([video] if sound is None else [video, sound]):
                if packet.stream is sound:
                    if packet.dts is not None:
                        yield packet
                    continue
                for frame in packet.decode():
                    time = found if frame.pts is None else frame.pts
                    found += 1
                    yield _upright(frame), time
        except av.error.FFmpegError as error:
            if not found:
                raise UserError(f"input={self.path}: not one frame can be read ({_reason(error)})") from None
            raise UserError(f"input={self.path}: is damaged after {found} frames ({_reason(error)})") from None
        finally:
            self._container.close()
        if not found:
            raise UserError(f"input={self.path} has no frames")


def _upright(frame: Any) -> np.ndarray:
    """RGB, turned as the file says that it is to be shown."""
    picture = frame.to_ndarray(format="rgb24")
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns))


def _by_numbers(path: Path) -> list[tuple[int, int | str]]:
    """frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _reason(error: Exception) -> str:
    return one_line(str(getattr(error, "strerror", "") or error))[:80]


class FilmWriter:
    """Writes a film of frames and sound; to be used as a context.

    Args:
        path: where it is written.
        container: of :data:`CONTAINERS`' values.
        film: what the frames are of: its rate, its times and its sound.
        alpha: whether frames are RGBA.

    Raises:
        UserError: FFmpeg, as it is built, lacks the codec; frames of several sizes.
    """

    def __init__(self, path: Path, container: str, film: Film, *, alpha: bool) -> None:
        self._av, self._film, self._alpha, self._kind = _av(), film, alpha, container
        self._codec, self._format = WITH_ALPHA[container] if alpha else (OPAQUE[container], "yuv420p")
        self._stack = ExitStack()
        self._out = self._stack.enter_context(self._av.open(str(path), "w", format=container))
        self._video: Any = None
        self._audio: Any = None
        self._size: tuple[int, int] | None = None
        self._early: list[Any] = []  # sound that came before the first frame
        self._resampler: Any = None
        self.frames = 0

    def __enter__(self) -> FilmWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._stack.close()

    def _begin(self, height: int, width: int) -> None:
        try:
            self._video = self._out.add_stream(self._codec, rate=self._film.rate, options=OPTIONS.get(self._codec, {}))
        except (self._av.error.FFmpegError, ValueError, LookupError):
            raise UserError(
                f"FFmpeg, as PyAV has it, lacks the codec {self._codec}: name another kind of file"
            ) from None
        stream = self._video
        odd = height % 2 or width % 2
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if odd and self._format == "yuv420p" else self._format
        stream.codec_context.time_base = self._film.time_base
        sound = self._film.sound
        if sound is not None:
            if sound.codec_context.name in SOUND[self._kind]:
                self._audio = self._out.add_stream_from_template(sound)
            else:
                codec, rate = ("libopus", 48_000) if self._kind == "webm" else ("aac", sound.codec_context.sample_rate)
                self._audio = self._out.add_stream(codec, rate=rate)
                self._resampler = self._av.AudioResampler(
                    format=self._audio.codec_context.format, layout=sound.codec_context.layout, rate=rate
                )
        self._size = height, width

    def frame(self, picture: np.ndarray, time: int) -> None:
        """Add a frame, (H, W), RGB or RGBA, uint8."""
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], 3, axis=2)
        size = picture.shape[0], picture.shape[1]
        if self._size is None:
            self._begin(*size)
        elif size != self._size:
            own, first = (f"{width}x{height}" for height, width in (size, self._size))
            raise UserError(f"input={self._film.path}: frame {self.frames + 1} is {own}, the first {first}")
        kind = "rgba" if self._alpha else "rgb24"
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=kind)
        frame.pts, frame.time_base = time, self._film.time_base
        self._out.mux(self._video.encode(frame))
        self.frames += 1
        while self._early:
            self._sound(self._early.pop(0))

    def sound(self, packet: Any) -> None:
        """Add a packet of the film's sound."""
        if self._size is None:
            self._early.append(packet)
        else:
            self._sound(packet)

    def _sound(self, packet: Any) -> None:
        if self._resampler is None:
            packet.stream = self._audio
            self._out.mux(packet)
            return
        for decoded in packet.decode():
            for frame in self._resampler.resample(decoded):
                self._out.mux(self._audio.encode(frame))

    def _finish(self) -> None:
        if self._video is None:
            return
        self._out.mux(self._video.encode(None))
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                self._out.mux(self._audio.encode(frame))
            self._out.mux(self._audio.encode(None))


class FolderWriter:
    """Writes frames as 000000.png, 000001.png, ... into a folder; sound is left out."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.frames = folder, 0
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def frame(self, picture: np.ndarray, time: int) -> None:
        """Add a frame, (H, W), RGB or RGBA, uint8."""
        (self.folder / f"{self.frames:06d}.png").write_bytes(encode(picture))
        self.frames += 1

    def sound(self, packet: Any) -> None:
        """Sound has no place in a folder."""
