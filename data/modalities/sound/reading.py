"""Recordings: the bytes of a file to mono samples at the backbone's rate.

WAV, FLAC, Ogg (Vorbis, Opus) and MP3 are read by libsndfile (soundfile), whatever the file's name
says, and resampled by soxr at its quality "HQ". Channels are averaged. Only the asked stretch is
decoded and resampled, with `MARGIN` around it, so that it is the same as in the whole recording.

Reason codes of a `DecodeError`:

- `empty`: no bytes, or no samples
- `not_sound`: not a file that libsndfile recognizes
- `truncated`: it ends before its header says
- `damaged`: it cannot be decoded for another reason
- `unsupported`: a sample rate that no recording has, or more than two days
- `not_finite`: samples that are NaN or infinite
- `beyond_end`: the asked stretch lies behind the end
- `silent`: nothing in it is louder than the backbone's limit (`windows`)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from threading import Lock
from typing import Any, BinaryIO

import numpy as np

from headstart.data.common.packages import import_packages, quiet
from headstart.data.modalities.modality import DecodeError

EXTENSIONS = frozenset({".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3"})
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
LONGEST = 48 * 3600  # seconds
MARGIN = 0.1  # seconds on both sides of a stretch, more than soxr's filter reaches
BLOCK = 1 << 18  # frames that are looked at together
ONE_AT_A_TIME = Lock()
UNKNOWN_LENGTH = 0x7FFFF000  # bytes; what streams write for a length is no less


@dataclass(frozen=True)
class Header:
    """What a recording's header says; `frames` are samples of one channel."""

    rate: int
    frames: int
    channels: int

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.frames / self.rate


def read_header(file: BinaryIO) -> Header:
    """The header of a recording; the beginning and, for some formats, the end of it are read."""
    with _opened(file) as sound:
        return _header(sound)


def samples_at(frames: int, rate: int, wanted: int) -> int:
    """How many samples `frames` become at another rate: to the nearest, a half upwards."""
    return (2 * frames * wanted + rate) // (2 * rate)


def read_stretch(content: bytes, rate: int, start: int = 0, count: int | None = None) -> np.ndarray:
    """A stretch of a recording, float32 `[samples]`, mono: its own rate may be another.

    Parameters
    ----------
    rate
        Of the result, in Hz.
    start, count
        In samples of that rate; fewer are returned where the recording ends before.

    Raises
    ------
    DecodeError
        With a reason code.
    """
    _refuse_cut_wav(content)
    with _opened(BytesIO(content)) as sound:
        header = _header(sound)
        total = samples_at(header.frames, header.rate, rate)
        if start and start >= total:
            message = f"it ends after {header.seconds:.2f} s, before {start / rate:.2f} s"
            raise DecodeError("beyond_end", message)
        stop = total if count is None else min(total, start + count)
        if rate == header.rate:
            return _mono(sound, start, stop)
        common = math.gcd(rate, header.rate)
        up, down = rate // common, header.rate // common
        margin = math.ceil(MARGIN * rate)
        # Both rates have a sample at a multiple of `up`: the phase is that of the whole recording.
        first = max(0, start - margin) // up * up
        last = min(header.frames, -(-(stop + margin) * down // up))
        native = _mono(sound, first // up * down, last)
        (soxr,) = import_packages(("soxr",), "resampling recordings needs soxr", "sound")
        resampled = soxr.resample(native, header.rate, rate)[start - first : stop - first]
        return np.pad(resampled, (0, stop - start - len(resampled)))


def check_whole(content: bytes) -> Header:
    """Decode a whole recording, block by block; raises `DecodeError` if anything is wrong."""
    _refuse_cut_wav(content)
    with _opened(BytesIO(content)) as sound:
        header = _header(sound)
        for start in range(0, header.frames, BLOCK):
            _mono(sound, start, min(header.frames, start + BLOCK))
    return header


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Any]:
    (soundfile,) = import_packages(("soundfile",), "reading recordings needs soundfile", "sound")
    file.seek(0, 2)
    if not file.tell():
        raise DecodeError("empty", "the file is empty")
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless formats
        why = f"not a recording that can be read: {_words(error)}"
        raise DecodeError("not_sound", why) from None
    with sound:
        try:
            yield sound
        except soundfile.LibsndfileError as error:
            raise DecodeError("damaged", f"it cannot be decoded: {_words(error)}") from None


def _words(error: Exception) -> str:
    text = str(getattr(error, "error_string", error))
    return text.strip().rstrip(".") or type(error).__name__


def _header(sound: Any) -> Header:
    header = Header(sound.samplerate, sound.frames, sound.channels)
    if not LOWEST_RATE <= header.rate <= HIGHEST_RATE:
        raise DecodeError("unsupported", f"a sample rate of {header.rate:,} Hz")
    if header.frames <= 0:
        raise DecodeError("empty", "it has no samples")
    if header.seconds > LONGEST:
        hours = f"{header.seconds / 3600:,.0f} hours; at most {LONGEST // 3600} are read"
        raise DecodeError("unsupported", hours)
    return header


@contextmanager
def _quietly(sound: Any, start: int) -> Iterator[None]:
    """Behind a place that was sought, the decoder of MP3 complains of bits that it skips."""
    if sound.format != "MP3" or sound.tell() == start:
        yield
        return
    with ONE_AT_A_TIME, quiet():  # stderr is the process's
        yield


def _mono(sound: Any, start: int, stop: int) -> np.ndarray:
    """Frames `start` to `stop`, the mean of all channels, float32."""
    with _quietly(sound, start):
        if sound.tell() != start:
            sound.seek(start)
        frames = sound.read(stop - start, dtype="float32", always_2d=True)
    if len(frames) < stop - start:
        at = (start + len(frames)) / sound.samplerate
        raise DecodeError("truncated", f"it ends after {at:.2f} s, before its header says")
    if not np.isfinite(frames).all():
        raise DecodeError("not_finite", "it has samples that are NaN or infinite")
    return frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1, dtype=np.float32)


def _refuse_cut_wav(content: bytes) -> None:
    """Raise `DecodeError` for a WAV whose data ends early; libsndfile reads it as a shorter one."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        at += 8
        if kind == b"data":
            left = len(content) - at
            if left < size < UNKNOWN_LENGTH:
                raise DecodeError("truncated", f"it has {left:,} of {size:,} bytes of samples")
            return
        at += size + size % 2
