"""What a page shows of a recording: its spectrogram as PNG, and a player with it as MP3."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image

from headstart.data.common.packages import import_packages
from headstart.data.modalities.modality import Preview
from headstart.data.modalities.sound.reading import read_stretch

RATE = 16_000
LONGEST = 8.0  # seconds that are shown and played
FRAME = 512  # samples
WIDTH, HEIGHT = 192, 96
RANGE = 80.0  # decibels from black to white


def of(content: bytes, start: float, length: float | None) -> Preview:
    """The preview of a stretch of a recording; raises `DecodeError`."""
    seconds = LONGEST if length is None else min(length, LONGEST)
    samples = read_stretch(content, RATE, round(start * RATE), round(seconds * RATE))
    return Preview("image/png", _picture(samples), _played(samples))


def _picture(samples: np.ndarray) -> bytes:
    """Time to the right, frequency upwards, dark where it is loud."""
    samples = np.pad(samples, (0, max(0, FRAME - len(samples))))
    starts = np.linspace(0, len(samples) - FRAME, WIDTH).round().astype(int)
    frames = samples[starts[:, None] + np.arange(FRAME)] * np.hanning(FRAME)
    level = 20 * np.log10(np.maximum(np.abs(np.fft.rfft(frames)), 1e-10))[:, : FRAME // 2].T
    grey = np.clip((level.max() - level) / RANGE, 0, 1) * 255
    picture = Image.fromarray(grey[::-1].astype(np.uint8))
    buffer = BytesIO()
    picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _played(samples: np.ndarray) -> bytes:
    (soundfile,) = import_packages(("soundfile",), "a player needs soundfile", "sound")
    buffer = BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), RATE, format="MP3")
    return buffer.getvalue()
