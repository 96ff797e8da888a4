"""Classify recordings with an edge model: needs only onnxruntime, numpy, soundfile and soxr.

    pip install onnxruntime numpy soundfile soxr
    python classify_sound.py edge.onnx recording.wav [recording.mp3 ...]

Prints a line for each recording: its name, the class, and the probability. Copy this file into
your own program; it does not import headstart.
"""

import json
import sys

import numpy as np
import onnxruntime
import soundfile
import soxr


class EdgeModel:
    """An edge model and its metadata."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        if about.get("headstart.kind") != "classifier":
            raise ValueError(f"{path} is not an edge model: python -m export classifier writes one")
        if about.get("headstart.modality") != "sound":
            raise ValueError(f"{path} is not for recordings")
        self.classes = json.loads(about["headstart.classes"])
        self.threshold = float(about["headstart.threshold"] or 0)
        self.rate, self.window, self.hop = (
            int(about[f"headstart.{name}"]) for name in ("rate", "window", "hop")
        )
        self.repeat = about["headstart.short"] == "repeat"
        self.silence = float(about["headstart.silence"])

    def read(self, path: str) -> np.ndarray:
        """A recording, mono, at the model's rate: float32 [samples]."""
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
        samples = channels.mean(axis=1)
        count = (2 * len(samples) * self.rate + rate) // (2 * rate)
        if rate != self.rate:
            samples = soxr.resample(samples, rate, self.rate)[:count]
        if not count or not np.isfinite(samples).all():
            raise ValueError("it has no samples, or some that are NaN or infinite")
        return np.pad(samples, (0, count - len(samples)))

    def is_silent(self, samples: np.ndarray) -> bool:
        """Whether the loudest 10 ms are below the model's limit."""
        size = self.rate // 100
        parts = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size).astype(np.float64)
        loudest = (parts**2).mean(axis=1).max()
        return loudest == 0 or 10 * np.log10(loudest) < self.silence

    def windows(self, samples: np.ndarray) -> list[np.ndarray]:
        """The windows that are not silent; the last one ends with the recording."""
        last = max(0, len(samples) - self.window)
        starts = (*range(0, last, self.hop), last)
        parts = [samples[start : start + self.window] for start in starts]
        missing = max(0, self.window - len(samples))
        return [
            np.pad(part, (0, missing), "wrap" if self.repeat else "constant")
            for part in parts
            if not self.is_silent(part)
        ]

    def classify(self, path: str) -> tuple[str, np.ndarray]:
        """The class of a recording ("unknown" if unsure), and the probability of every class."""
        windows = self.windows(self.read(path))
        if not windows:
            raise ValueError(f"nothing in it is louder than {self.silence:g} dB")
        found = [
            self.session.run(["probabilities"], {"waveform": window[np.newaxis]})[0][0]
            for window in windows
        ]
        probabilities = np.mean(found, axis=0)
        unsure = probabilities.max() < self.threshold
        return "unknown" if unsure else self.classes[probabilities.argmax()], probabilities


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python classify_sound.py edge.onnx recording.wav [recording.mp3 ...]")
    try:
        model = EdgeModel(sys.argv[1])
    except Exception as error:
        sys.exit(f"{sys.argv[1]} cannot be used: {error}")
    failed = 0
    for recording in sys.argv[2:]:
        try:
            name, probabilities = model.classify(recording)
        except (OSError, ValueError, RuntimeError) as error:
            print(f"{recording} cannot be read: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{recording}  {name}  {probabilities.max():.3f}")
    sys.exit(1 if failed else 0)
