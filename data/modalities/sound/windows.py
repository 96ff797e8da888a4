"""How a recording becomes windows, each a row of the backbone's input, as the file describes it.

A recording of several windows has one every `hop` samples from its start on; the last one ends with
the recording, so that no sample is left out. One that is shorter than a window is a single window,
filled with zeros or repeated. A window in which no 10 ms are louder than the limit of silence has
no embedding: it is an error with the reason `silent`, and does not count in a recording's answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np

from headstart.data.common.errors import InputError
from headstart.data.modalities.modality import DecodeError, InputSpec
from headstart.data.modalities.sound.reading import read_header, read_stretch, samples_at
from headstart.data.modalities.stretches import stretch, stretch_of

SHORT = ("pad", "repeat")
MOST_SAMPLES = 1 << 22  # of a window
PIECES = 100  # a second: what silence is measured in


@dataclass(frozen=True)
class Windows(InputSpec):
    """Rate, length and hop of a backbone's windows.

    Parameters
    ----------
    rate
        Samples per second.
    window, hop
        Length of a window and distance of the starts of two, in samples.
    short
        What becomes of a recording shorter than a window: `pad` puts zeros behind it, `repeat`
        repeats it until the window is full.
    silence
        Decibels of the loudest 10 ms (root of the mean square; 0 is a square wave of full scale)
        below which a window is silent.
    start, length
        The stretch of a recording that is decoded, in samples; a window from its start by default.
    """

    modality = "sound"
    input = "waveform"
    dtype = np.float32

    rate: int
    window: int
    hop: int
    short: str = "pad"
    silence: float = -80.0
    start: int = field(default=0, repr=False)
    length: int | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 1_000 <= self.rate <= 192_000:
            raise InputError(
                f"--rate {self.rate} is not possible", "Give 1,000 to 192,000 samples per second."
            )
        if not self.rate // PIECES <= self.window <= MOST_SAMPLES:
            raise InputError(
                f"a window of {self.window:,} samples is not possible",
                f"Give 0.01 to {MOST_SAMPLES / self.rate:g} seconds.",
            )
        if not self.rate // PIECES <= self.hop <= self.window:
            raise InputError(
                f"windows that start every {self.hop:,} samples are not possible",
                "Give a --hop of 0.01 seconds to the length of a window.",
            )
        if self.short not in SHORT:
            raise InputError(f"unknown --short {self.short!r}", f"Choose from {', '.join(SHORT)}.")
        if not -200 <= self.silence <= 0:
            raise InputError(
                f"--silence {self.silence:g} is not possible", "Give -200 to 0 decibels."
            )

    @property
    def shape(self) -> tuple[int]:
        """The samples of a window."""
        return (self.window,)

    def at(self, path: str) -> Windows:
        """The rule for the stretch that a path names."""
        found = stretch_of(path)
        if found is None:
            return self
        _, start, length = found
        return replace(self, start=round(start * self.rate), length=round(length * self.rate))

    def parts(self, file: BinaryIO, start: float = 0.0, end: float | None = None) -> list[str]:
        """The windows of a recording, or of a stretch of it, by its header."""
        header = read_header(file)
        whole = start == 0 and end is None
        total = samples_at(header.frames, header.rate, self.rate)
        first = round(start * self.rate)
        stop = total if end is None else min(total, round(end * self.rate))
        count = stop - first
        if first >= total or count < 1:
            length = self.window / self.rate if end is None else end - start
            return [stretch(start, length)]
        if count <= self.window:
            return [""] if whole else [stretch(start, count / self.rate)]
        starts = [*range(first, stop - self.window, self.hop), stop - self.window]
        return [stretch(at / self.rate, self.window / self.rate) for at in starts]

    def decode(self, content: bytes, fast: bool = True) -> np.ndarray:
        """The first window of a recording, or the one that a path named: float32 `[window]`."""
        count = self.window if self.length is None else min(self.length, self.window)
        samples = read_stretch(content, self.rate, self.start, count)
        if loudness(samples, self.rate) < self.silence:
            raise DecodeError("silent", f"nothing in it is louder than {self.silence:g} dB")
        missing = self.window - len(samples)
        return np.pad(samples, (0, missing), "constant" if self.short == "pad" else "wrap")

    def to_metadata(self) -> dict[str, str]:
        """As entries of the backbone file's metadata."""
        return {name: str(value) for name, value in self.to_json().items()}

    def to_json(self) -> dict[str, Any]:
        """For programs that use an edge model."""
        names = ("rate", "window", "hop", "short", "silence")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        own = f"{self.rate} Hz, {self.window} samples every {self.hop}, {self.short}"
        return f"{own}, silent below {self.silence:g} dB"


def loudness(samples: np.ndarray, rate: int) -> float:
    """Decibels of the loudest 10 ms; minus infinity for zeros or no samples."""
    size = rate // PIECES
    whole = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size).astype(np.float64)
    loudest = float((whole**2).mean(axis=1).max(initial=0))
    return 10 * float(np.log10(loudest)) if loudest else -np.inf
