"""A spectrogram as the picture of a network for photographs, from the waveform on in the graph.

Frames lie within the window, without padding; each is weighted by a periodic Hann window and
transformed. The transform is one convolution, whose weights are the window times cosines and
sines: ONNX's operator `STFT` is missing in some runtimes, `Conv` in none. `logmel` sums the power
by mel bands (Slaney's scale and norm, as librosa's by default). Decibels below the loudest of the
window, 80 at most, become levels of 0 to 255, so that how loud a recording is does not count. The
picture is resized as Pillow's bilinear filter does, by two products with constant matrices;
frequency rises upwards, time runs to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_graphs import BATCH, rename_values
from headstart.data.contracts.backbone import INPUT
from headstart.export.backbone.embedding import FLOAT, SPECTROGRAM, UINT8, WAVEFORM
from headstart.export.options import SoundOptions

FLOOR = 1e-10  # of power: -100 dB, below what 16 bits hold
RANGE = 80.0  # decibels from black to white


@dataclass(frozen=True)
class Spectrogram:
    """The settings in samples, and the size of the picture in pixels."""

    kind: str
    rate: int
    window: int
    frame: int
    step: int
    bands: int
    height: int
    width: int

    @classmethod
    def of(cls, options: SoundOptions, height: int, width: int) -> Spectrogram:
        """From seconds."""
        frame, step = (round(each * options.rate) for each in (options.frame, options.step))
        return cls(
            kind=options.kind,
            rate=options.rate,
            window=options.windows.window,
            frame=frame,
            step=step,
            bands=options.bands,
            height=height,
            width=width,
        )

    @property
    def frames(self) -> int:
        """How many frames a window has."""
        return 1 + (self.window - self.frame) // self.step

    @property
    def bins(self) -> int:
        """Frequencies of the transform, from 0 to half the rate."""
        return self.frame // 2 + 1

    @property
    def rows(self) -> int:
        """Rows of the spectrogram: bands or frequencies."""
        return self.bands if self.kind == "logmel" else self.bins

    def __str__(self) -> str:
        mel = f", {self.bands} mel bands" if self.kind == "logmel" else ""
        return f"{self.kind}: frames of {self.frame} samples every {self.step}{mel}, {RANGE:g} dB"

    def hann(self) -> np.ndarray:
        """The periodic window of a frame, float64 `[frame]`."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frame) / self.frame)

    def power(self, waveform: np.ndarray) -> np.ndarray:
        """Of float `[batch, samples]`, by numpy: float64 `[batch, rows, frames]`."""
        starts = np.arange(self.frames) * self.step
        cut = waveform.astype(np.float64)[:, starts[:, None] + np.arange(self.frame)]
        power = np.abs(np.fft.rfft(cut * self.hann())) ** 2
        if self.kind == "logmel":
            power = power @ mel_filters(self.rate, self.frame, self.bands).T
        return power.transpose(0, 2, 1)

    def pictures(self, waveform: np.ndarray) -> np.ndarray:
        """What the network sees, computed by numpy: float64 `[batch, height, width, 3]`."""
        level = 10 * np.log10(np.maximum(self.power(waveform), FLOOR))
        below = level.max(axis=(1, 2), keepdims=True) - level
        shades = 255 * (1 - np.minimum(below, RANGE) / RANGE)
        rows, columns = self._resizing()
        return np.repeat((rows @ shades @ columns.T)[..., None], 3, axis=3)

    def _resizing(self) -> tuple[np.ndarray, np.ndarray]:
        return resizing(self.rows, self.height)[::-1], resizing(self.frames, self.width)

    def prepend(self, proto: Any, element: int) -> None:
        """Put the spectrogram before a graph from `image`, which becomes one from `waveform`.

        Parameters
        ----------
        proto
            Changed in place.
        element
            What the network takes: if uint8, levels are rounded.
        """
        import onnx

        graph = GraphBuilder(SPECTROGRAM)
        picture = self._nodes(graph)
        if element == UINT8:
            picture = graph.add("Cast", graph.add("Round", picture), to=UINT8)
        rename_values(proto, {INPUT: picture})
        nodes = [*graph.nodes, *proto.graph.node]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        proto.graph.initializer.extend(graph.constants)
        del proto.graph.input[:]
        value = onnx.helper.make_tensor_value_info(WAVEFORM, FLOAT, [BATCH, self.window])
        proto.graph.input.append(value)

    def _nodes(self, graph: GraphBuilder) -> str:
        turns = 2 * np.pi / self.frame * np.outer(np.arange(self.bins), np.arange(self.frame))
        weights = np.concatenate([np.cos(turns), -np.sin(turns)]) * self.hann()
        channel = graph.add("Unsqueeze", WAVEFORM, graph.integers(1))
        parts = graph.add("Conv", channel, graph.constant(weights[:, None]), strides=[self.step])
        squares = graph.add("Mul", parts, parts)
        real, imaginary = graph.add_multiple(
            "Split", 2, squares, graph.integers(self.bins, self.bins), axis=1
        )
        power = graph.add("Add", real, imaginary)
        if self.kind == "logmel":
            filters = mel_filters(self.rate, self.frame, self.bands)
            power = graph.add("MatMul", graph.constant(filters), power)
        power = graph.add("Max", power, graph.constant(FLOOR))
        level = graph.add("Mul", graph.add("Log", power), graph.constant(10 / np.log(10)))
        loudest = graph.add("ReduceMax", level, graph.integers(1, 2), keepdims=1)
        below = graph.add("Min", graph.add("Sub", loudest, level), graph.constant(RANGE))
        shade = graph.add("Mul", below, graph.constant(-255 / RANGE))
        shade = graph.add("Add", shade, graph.constant(255))
        rows, columns = self._resizing()
        picture = graph.add("MatMul", graph.constant(rows), shade)
        picture = graph.add("MatMul", picture, graph.constant(columns.T))
        picture = graph.add("Unsqueeze", picture, graph.integers(3))
        return graph.add("Concat", picture, picture, picture, axis=3)


def mel_filters(rate: int, frame: int, bands: int) -> np.ndarray:
    """Triangles of equal area, evenly spaced in mel from 0 to half the rate: `[bands, bins]`.

    Slaney's mel (Auditory Toolbox, 1998): linear below 1000 Hz, 3 a 200 Hz; logarithmic above.
    """

    def mel(hertz: np.ndarray) -> np.ndarray:
        high = 15 + 27 * np.log(np.maximum(hertz, 1000) / 1000) / np.log(6.4)
        return np.where(hertz < 1000, 3 * hertz / 200, high)

    def hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, 200 * mel / 3, 1000 * np.exp(np.log(6.4) * (mel - 15) / 27))

    bins = np.arange(frame // 2 + 1) * rate / frame
    edges = hertz(np.linspace(0, mel(np.array(rate / 2)), bands + 2))
    low, peak, high = (edges[start : start + bands, None] for start in range(3))
    rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def resizing(size: int, wanted: int) -> np.ndarray:
    """The matrix `[wanted, size]` of Pillow's bilinear filter, antialiased when it shrinks."""
    scale = size / wanted
    reach = max(1.0, scale)
    centres = (np.arange(wanted)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(size) + 0.5 - centres) / reach)
    return weights / weights.sum(axis=1, keepdims=True)
