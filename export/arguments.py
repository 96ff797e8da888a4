"""Options of exports as they are typed, for the commands here and for `headstart build`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from headstart.export.options import (
        BackboneOptions,
        EdgeOptions,
        FeatureOptions,
        GateOptions,
        PrecisionOptions,
        SoundOptions,
    )

Size = Annotated[int | None, typer.Option(help="Input height and width in pixels.")]
Weights = Annotated[
    str,
    typer.Option(help="imagenet, none, or a file (.h5, .pth, .safetensors) for a named network."),
]
Scaling = Annotated[
    str | None,
    typer.Option(
        help="How pixels are scaled, if a file does not say: tf, torch, caffe, unit, none ..."
    ),
]
Input = Annotated[str | None, typer.Option(help="Which input of an ONNX file is the image.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run code that a file contains.")]


@dataclass(frozen=True, kw_only=True)
class NetworkArguments:
    """Which network, its input, and which of its layers, as they are typed."""

    heading: ClassVar[str] = "Network"

    weights: Weights = "imagenet"
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer to pool, by its name in `export layers`; repeat to concatenate several. "
            "NAME=avg+max sets the pooling of this layer."
        ),
    ] = None
    pool: Annotated[
        list[str] | None,
        typer.Option(help="avg, max, std, gem, flatten or token; repeat to concatenate several."),
    ] = None
    power: Annotated[bool, typer.Option("--power", help="Signed square root of the embedding.")] = (
        False
    )
    views: Annotated[
        str, typer.Option(help="Mean over copies: none, mirror (2 passes) or flips (4 passes).")
    ] = "none"
    size: Size = None
    resize: Annotated[
        str | None, typer.Option(help="squash or crop; the network's own if not given.")
    ] = None
    interpolation: Annotated[
        str | None,
        typer.Option(help="bilinear, bicubic or lanczos; the network's own if not given."),
    ] = None
    crop_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the resized height and width that is kept (timm's crop_pct); the "
            "network's own if neither this nor --resize is given."
        ),
    ] = None
    include_top: Annotated[
        bool, typer.Option("--include-top", help="Keep the ImageNet classifier: 1,000 logits.")
    ] = False
    scaling: Scaling = None
    input: Input = None
    trust: Trust = False
    words: Annotated[
        str | None,
        typer.Option(help="File of word vectors, instead of a network: GloVe or Word2Vec."),
    ] = None
    tokens: Annotated[
        int | None, typer.Option(help="Texts are cut at this many tokens; the encoder's own.")
    ] = None
    most_words: Annotated[
        int | None, typer.Option(help="Words taken from --words, the first ones; default: 100000.")
    ] = None
    calibrate: Annotated[
        str | None, typer.Option(help="Source of photographs to calibrate int8 on.")
    ] = None

    @property
    def network(self) -> BackboneOptions:
        """The network and its input."""
        from headstart.export.options import BackboneOptions

        return BackboneOptions(
            weights=self.weights,
            size=self.size,
            resize=self.resize,
            interpolation=self.interpolation,
            crop_fraction=self.crop_fraction,
            include_top=self.include_top,
            scaling=self.scaling,
            input=self.input,
            trust=self.trust,
            tokens=self.tokens,
            most_words=self.most_words,
        )

    @property
    def embedding(self) -> FeatureOptions:
        """Which layers, and how they are pooled."""
        from headstart.export.options import FeatureOptions

        layers, pools = tuple(self.layer or ()), tuple(self.pool or ())
        return FeatureOptions(layers, pools, self.power, self.views)

    def lower(self, precision: str) -> PrecisionOptions:
        """The precision of the backbone file, and what it is calibrated on."""
        from headstart.export.options import PrecisionOptions

        return PrecisionOptions(precision, self.calibrate)

    def named(self, name: str | None, what: str, default: str = "") -> str:
        """The network's name, or `words:FILE`; raises `InputError` if both or none are given."""
        from headstart.data.common.errors import InputError

        if (name and self.words) or not (name or self.words or default):
            raise InputError(f"give either {what} or --words FILE", "`export list` has names.")
        return name or (f"words:{self.words}" if self.words else default)


@dataclass(frozen=True, kw_only=True)
class SoundArguments:
    """How a network takes recordings, as it is typed."""

    heading: ClassVar[str] = "Recordings"

    sound: Annotated[
        str | None,
        typer.Option(
            help="For recordings: logmel or stft (the network sees a spectrogram), or raw (an ONNX "
            "file that takes samples itself, or openwakeword:FOLDER)."
        ),
    ] = None
    rate: Annotated[int | None, typer.Option(help="Sound: samples per second; 16000.")] = None
    window: Annotated[float | None, typer.Option(help="Sound: seconds of a window; 1.")] = None
    hop: Annotated[
        float | None,
        typer.Option(help="Sound: seconds between windows' starts; default: a window."),
    ] = None
    short: Annotated[
        str | None,
        typer.Option(help="Sound: recordings shorter than a window: pad (zeros) or repeat."),
    ] = None
    silence: Annotated[
        float | None,
        typer.Option(help="Sound: decibels below which a window is silent, an error; -80."),
    ] = None
    frame: Annotated[
        float | None, typer.Option(help="Sound: seconds of a spectrogram's frame; 0.032.")
    ] = None
    step: Annotated[
        float | None, typer.Option(help="Sound: seconds between frames' starts; 0.01.")
    ] = None
    bands: Annotated[int | None, typer.Option(help="Sound: mel bands of logmel; 64.")] = None

    def options(self) -> SoundOptions | None:
        """None for a network that takes none; raises `InputError` for options without `--sound`."""
        from headstart.data.common.errors import BackboneError
        from headstart.export.options import SoundOptions

        given = {flag: value for flag, value in asdict(self).items() if value is not None}
        kind = given.pop("sound", None)
        if given and kind is None:
            raise BackboneError(
                f"{' and '.join(f'--{flag}' for flag in given)} can only be used with --sound",
                "Add --sound logmel for recordings.",
            )
        return None if kind is None else SoundOptions(kind, **given)


@dataclass(frozen=True, kw_only=True)
class EdgeArguments:
    """What an edge model takes and gives, and how it is compared with training, as it is typed."""

    heading: ClassVar[str] = "Edge model"

    any_size: Annotated[
        bool,
        typer.Option(
            "--any-size", help="The edge model takes photographs of any size; resizes inside."
        ),
    ] = False
    top: Annotated[
        int, typer.Option(help="The edge model also gives this many classes, best first.")
    ] = 0
    examples: Annotated[
        int, typer.Option(help="Examples on which edge model and training are compared.")
    ] = 128
    tolerance: Annotated[
        float, typer.Option(help="Largest accepted difference in a probability.")
    ] = 1e-3
    most_changed: Annotated[
        int, typer.Option(help="Largest accepted number of changed labels.")
    ] = 0

    def edge(self, overwrite: bool = False) -> EdgeOptions:
        """Inputs and outputs."""
        from headstart.export.options import EdgeOptions

        return EdgeOptions(self.any_size, self.top, overwrite)

    def gate(self, source: str | None = None) -> GateOptions:
        """How closely it must match; raises `InputError` with all that is wrong with it."""
        from headstart.export.options import GateOptions

        return GateOptions(self.examples, self.tolerance, self.most_changed, source)
