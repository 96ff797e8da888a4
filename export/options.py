"""Options of an export: network, features, precision, edge model, measurement."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from headstart.data.common.errors import BackboneError, Checklist, InputError
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.modalities.sound.windows import Windows
from headstart.export.networks.scaling import find_rule

LARGEST = 2048  # pixels of height and width; beyond it converters run out of memory
POOLS = ("avg", "max", "std", "gem", "flatten", "token", "none")
VIEWS = {"none": 1, "mirror": 2, "flips": 4}  # and the passes of the network
PRECISIONS = ("fp32", "fp16", "int8")
SOUNDS = ("logmel", "stft", "raw")
FEWEST_RUNS = 20  # for a 95th percentile: one of them is above it


def _known(option: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        raise BackboneError(
            f"unknown {option} {name!r}",
            f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(known)}.",
        )


@dataclass(frozen=True)
class BackboneOptions:
    """Which network to export, and its input.

    Parameters
    ----------
    weights
        `imagenet`, `none` (random, for tests) or a file of weights.
    size
        Height and width of the input in pixels; the network's own if not given.
    resize, interpolation, crop_fraction, crop_offset
        How a photograph is resized, see `Preprocessing`; as the network was trained if not given.
        A resize rule without a crop fraction has none.
    include_top
        Keep the ImageNet classifier: the embedding is then its 1,000 logits.
    scaling
        How pixels are scaled, see `networks.scaling`; needed only if a file does not say.
    input
        Which input of a file is the image, if it has several.
    trust
        Run code that a file contains (a Keras Lambda layer, file operations of a SavedModel).
    tokens
        The most tokens of a text, which is cut there; the encoder's own if not given.
    most_words
        How many words of a file of word vectors are taken, from its beginning.
    """

    weights: str = "imagenet"
    size: int | None = None
    resize: str | None = None
    interpolation: str | None = None
    crop_fraction: float | None = None
    crop_offset: str | None = None
    include_top: bool = False
    scaling: str | None = None
    input: str | None = None
    trust: bool = False
    tokens: int | None = None
    most_words: int | None = None

    @property
    def weights_file(self) -> Path | None:
        """The file of weights, if they are neither `imagenet` nor `none`."""
        return None if self.weights in ("imagenet", "none") else Path(self.weights)

    def check(self) -> None:
        """Raise `InputError` with everything that is wrong with the options themselves."""
        checks = Checklist()
        with checks.item():
            if self.weights_file and not self.weights_file.is_file():
                raise BackboneError(
                    f"{self.weights}: no such weights file",
                    "--weights takes imagenet, none, or a file.",
                )
        with checks.item():
            if self.scaling is not None:
                find_rule(self.scaling)
        with checks.item():
            if self.size is not None and not 8 <= self.size <= LARGEST:
                raise BackboneError(
                    f"--size {self.size} is out of range", f"Give 8 to {LARGEST} pixels."
                )
        with checks.item():
            if self.tokens is not None or self.most_words is not None:
                raise BackboneError(
                    "--tokens and --most-words are for texts alone", "Leave them out."
                )
        with checks.item():
            Preprocessing(
                *(8, 8, self.resize or "squash", self.interpolation or "bilinear"),
                crop_fraction=self.crop_fraction,
            )
        checks.finish()


@dataclass(frozen=True)
class SoundOptions:
    """How a network takes recordings.

    Parameters
    ----------
    kind
        `logmel` or `stft`: the picture of a network for photographs is a spectrogram; `raw`: the
        network takes samples itself.
    rate
        Samples per second.
    window, hop
        Seconds of a window, and between the starts of two; a window's length if not given.
    short, silence
        See `data.modalities.sound.windows`.
    frame, step
        Seconds of a frame of the spectrogram, and between the starts of two.
    bands
        Mel bands of `logmel`.
    """

    kind: str
    rate: int = 16_000
    window: float = 1.0
    hop: float | None = None
    short: str = "pad"
    silence: float = -80.0
    frame: float = 0.032
    step: float = 0.010
    bands: int = 64

    @property
    def windows(self) -> Windows:
        """The rule of the backbone file; raises `InputError` if it is impossible."""
        samples = round(self.window * self.rate)
        hop = samples if self.hop is None else round(self.hop * self.rate)
        return Windows(self.rate, samples, hop, self.short, self.silence)

    def check(self) -> None:
        """Raise `InputError` with everything that is wrong with the options themselves."""
        checks = Checklist()
        with checks.item():
            _known("--sound", self.kind, SOUNDS)
        with checks.item():
            _ = self.windows
        with checks.item():
            if not 16 <= round(self.frame * self.rate) <= round(self.window * self.rate):
                raise BackboneError(
                    f"--frame {self.frame:g} is not possible",
                    f"Give seconds, from 16 samples to a window ({self.window:g}).",
                )
            if not 1 <= round(self.step * self.rate) <= round(self.frame * self.rate):
                raise BackboneError(
                    f"--step {self.step:g} is not possible",
                    f"Give seconds, up to those of a frame ({self.frame:g}).",
                )
        with checks.item():
            if not 8 <= self.bands <= 512:
                raise BackboneError(f"--bands {self.bands} is not possible", "Give 8 to 512.")
        checks.finish()


@dataclass(frozen=True)
class FeatureOptions:
    """How an embedding is made from a network.

    Parameters
    ----------
    layers
        Names of the layers whose pooled outputs are concatenated to the embedding; `NAME=avg+max`
        sets the pooling of one of them. By default the last one, or for EfficientNet-Lite four
        depths. Deeper layers respond to objects, shallower ones to textures. Layers after the last
        of them are removed.
    pools
        How a layer with height and width is pooled, concatenated if there are several: `avg`,
        `max`, `std`, `gem` (generalized mean, power 3), `flatten` (no pooling), `token` (the class
        token of a transformer), `none` (the layer has no height and width). The network's own if
        not given.
    power
        Take the signed square root of the embedding, so that rare strong features weigh less.
    views
        Average the embedding over copies of the image: `mirror` (two: original, mirrored) or
        `flips` (four: original, mirrored, upside down, rotated by 90 degrees). The network runs
        once for each copy.
    """

    layers: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    power: bool = False
    views: str = "none"

    def check(self) -> None:
        """Raise `InputError` with everything that is wrong with the options themselves."""
        checks = Checklist()
        pools = [*self.pools, *(pool for layer in self.layers for pool in split_layer(layer)[1])]
        for pool in dict.fromkeys(pools):
            with checks.item():
                _known("--pool", pool, POOLS)
        with checks.item():
            _known("--views", self.views, tuple(VIEWS))
        checks.finish()


def split_layer(text: str) -> tuple[str, tuple[str, ...]]:
    """Split `NAME=avg+max` into the name and its pools; a plain name has none of its own."""
    name, mark, pools = text.rpartition("=")
    return (name, tuple(pools.split("+"))) if mark else (text, ())


@dataclass(frozen=True)
class PrecisionOptions:
    """The precision that a backbone runs in; chosen before extraction, since heads depend on it.

    Parameters
    ----------
    precision
        `fp32`, `fp16` (half the size; for GPUs) or `int8` (a quarter).
    calibrate
        The source of photographs that int8 is calibrated on; that of texts needs none.
    """

    precision: str = "fp32"
    calibrate: str | None = None

    def check_name(self) -> None:
        """Raise `InputError` if there is no such precision."""
        _known("--precision", self.precision, PRECISIONS)

    def check(self) -> None:
        """Raise `InputError` with everything that is wrong with the options themselves."""
        checks = Checklist()
        with checks.item():
            self.check_name()
        with checks.item():
            if self.precision == "int8" and self.calibrate is None:
                raise BackboneError(
                    "--precision int8 needs photographs to calibrate on",
                    "Name some, ideally those that you will extract: --calibrate SOURCE",
                )
            if self.precision != "int8" and self.calibrate is not None:
                raise BackboneError(
                    f"--calibrate has no effect with --precision {self.precision}",
                    "Leave it out, or pass --precision int8.",
                )
        checks.finish()


@dataclass(frozen=True)
class ExportOptions:
    """All that is said of a backbone file besides the network's name.

    Parameters
    ----------
    network, features, precision
        See there.
    sound
        How recordings become the network's input; none for a backbone for photographs or texts.
    """

    network: BackboneOptions = BackboneOptions()
    features: FeatureOptions = FeatureOptions()
    precision: PrecisionOptions = PrecisionOptions()
    sound: SoundOptions | None = None


@dataclass(frozen=True)
class EdgeOptions:
    """Inputs and outputs of an edge model.

    Parameters
    ----------
    any_size
        Accept photographs of any height and width, and resize them in the graph.
    top
        Also output this many of the most probable classes, best first; 0 for none.
    overwrite
        Replace an existing edge model.
    """

    any_size: bool = False
    top: int = 0
    overwrite: bool = False

    def check_top(self, classes: int) -> None:
        """Raise `InputError` if there are fewer classes."""
        if not 0 <= self.top <= classes:
            raise InputError(
                f"--top {self.top} is out of range: the model has {classes} classes",
                f"Give 1 to {classes}.",
            )


@dataclass(frozen=True)
class GateOptions:
    """How closely an edge model must match training before it is written.

    Parameters
    ----------
    examples
        How many photographs are compared, held-out ones first.
    tolerance
        The largest accepted difference in a probability.
    most_changed
        The largest accepted number of changed labels.
    source
        The folder with the photographs, if it is not the one recorded in the features.
    """

    examples: int = 128
    tolerance: float = 1e-3
    most_changed: int = 0
    source: str | Path | None = None

    def __post_init__(self) -> None:
        checks = Checklist()
        with checks.item():
            if self.examples < 1:
                raise InputError(
                    f"--examples {self.examples} would compare nothing", "Give 1 or more."
                )
        with checks.item():
            if not 0 < self.tolerance < 1:
                raise InputError(
                    f"--tolerance {self.tolerance} is not a possible difference of probabilities",
                    "Give a number between 0 and 1, such as 0.001.",
                )
        with checks.item():
            if self.most_changed < 0:
                raise InputError(
                    f"--most-changed {self.most_changed} is negative", "Give 0 or more."
                )
        checks.finish()


@dataclass(frozen=True)
class MeasureOptions:
    """How edge models are measured.

    Parameters
    ----------
    runs
        Runs of each model with each number of threads, for its latency.
    source
        Labelled photographs to measure the accuracy on, if any.
    model
        The model folder whose held-out photographs are used instead; `source` is then where they
        are now, if they were moved.
    most_loss
        Percentage points of accuracy that a model may lose against the first one, if limited.
    """

    runs: int = 100
    source: str | Path | None = None
    model: str | Path | None = None
    most_loss: float | None = None

    def __post_init__(self) -> None:
        if self.runs < FEWEST_RUNS:
            raise InputError(
                f"--runs {self.runs} is too few for a 95th percentile",
                f"Give {FEWEST_RUNS} or more.",
            )
        if self.most_loss is not None and self.source is None and self.model is None:
            raise InputError(
                "--most-loss needs photographs to measure the accuracy on",
                "Name the model folder with --model, or labelled photographs with --source.",
            )
