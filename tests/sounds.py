"""Voices made by code, a small network for their spectrograms, and odd files of sound."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr
from onnx import TensorProto, helper, numpy_helper

from headstart.export.backbone.build import export_backbone
from headstart.export.options import BackboneOptions, FeatureOptions, SoundOptions

OWN_RATE = 22_050  # of the recordings: the backbone's is 8,000
# Of each voice: Hz, the length of the vocal tract, and how much weaker high tones are.
PITCHES = {"ann": (240.0, 1.3, 0.0), "bob": (95.0, 0.75, 1.6), "cat": (150.0, 1.0, 0.7)}
VOWELS = ((730, 1090), (270, 2290), (300, 870), (530, 1840), (570, 840))  # Hz, two formants


def say(voice: str, sentence: int, rate: int = OWN_RATE) -> np.ndarray:
    """A few vowels, which the number of a sentence chooses: float32 `[samples]`, 0.8 to 1.6 s."""
    random = np.random.default_rng(sentence)
    pitch, tract, tilt = PITCHES[voice]
    length = int(rate * 0.2)
    parts = []
    for vowel in random.integers(0, len(VOWELS), random.integers(4, 9)):
        times = np.arange(length) / rate
        number = np.arange(1, int(3800 / pitch))[:, None]
        tone = pitch * (1 + 0.03 * random.normal()) * number
        gains = sum(1 / (1 + ((tone - tract * at) / 120) ** 2) for at in VOWELS[vowel])
        gains = gains * (tone / 200) ** -tilt
        parts.append((gains * np.sin(2 * np.pi * tone * times)).sum(0) * np.hanning(length))
    spoken = np.concatenate(parts)
    noise = np.random.default_rng([sentence, len(voice)]).normal(0, 0.002, len(spoken))
    return (0.3 * spoken / np.abs(spoken).max() + noise).astype(np.float32)


def write_voices(folder: Path, each: int = 12) -> Path:
    """A folder for each voice; all say the same sentences."""
    for voice in PITCHES:
        (folder / voice).mkdir(parents=True)
        for number in range(each):
            kind = ("wav", "flac", "ogg", "mp3")[number % 4] if number < 8 else "wav"
            soundfile.write(folder / voice / f"{number:02d}.{kind}", say(voice, number), OWN_RATE)
    return folder


def write_picture_network(path: Path, size: int = 32, channels: int = 24) -> Path:
    """A network for pictures: one convolution with random weights, then ReLU."""
    random = np.random.default_rng(0)
    weights = random.normal(0, 0.2, (channels, 3, 5, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["pixels", "weights"], ["map"], strides=[2, 2], name="conv"),
        helper.make_node("Relu", ["map"], ["features"], name="relu"),
    ]
    side = (size - 5) // 2 + 1
    graph = helper.make_graph(
        nodes,
        "pictures",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, size, size])],
        [
            helper.make_tensor_value_info(
                "features", TensorProto.FLOAT, ["batch", channels, side, side]
            )
        ],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


SOUND = SoundOptions("logmel", rate=8_000, window=0.5, hop=0.25, bands=32)


def write_sound_backbone(path: Path, sound: SoundOptions = SOUND) -> None:
    """A backbone file of the network, for windows of half a second."""
    network = write_picture_network(path.with_name("pictures.onnx"))
    features, options = FeatureOptions(pools=("avg", "std", "max")), BackboneOptions(scaling="unit")
    export_backbone(path, str(network), options, features, sound=sound)


def encoded(samples: np.ndarray, rate: int = 8_000, **how: str) -> bytes:
    """Samples as a file of some format, WAV by default."""
    buffer = BytesIO()
    soundfile.write(buffer, samples, rate, **({"format": "WAV"} | how))
    return buffer.getvalue()


def wav(data: bytes, size: int | None = None, kind: int = 1, bits: int = 16, **how: int) -> bytes:
    """A WAV file by hand, whose header may say anything."""
    rate, channels = how.get("rate", 8_000), how.get("channels", 1)
    step = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * step & 0xFFFFFFFF, step, bits)
    size = len(data) if size is None else size
    head = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", (4 + len(head) + len(data)) & 0xFFFFFFFF) + head + data


def odd() -> dict[str, tuple[bytes, str]]:
    """Odd files by name, and the reason why each has no embedding; empty if it has one."""
    tone = 0.3 * np.sin(np.arange(8_000, dtype=np.float32) * 0.3)
    pcm = (tone * 32767).astype("<i2").tobytes()
    many = np.stack([tone] * 10, axis=1)
    flac, mp3 = encoded(tone, format="FLAC"), encoded(tone, format="MP3")
    ogg, opus = (encoded(tone, format="OGG", subtype=s) for s in ("VORBIS", "OPUS"))
    broken = tone.copy()
    broken[100] = np.nan
    endless = tone.copy()
    endless[100] = np.inf
    subtypes = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW")
    whole = {f"{kind.lower()}.wav": encoded(tone, subtype=kind) for kind in subtypes}
    whole |= {
        "extensible.wav": encoded(tone, format="WAVEX"),
        "rf64.wav": encoded(tone, format="RF64"),
        "flac.flac": flac,
        "vorbis.ogg": ogg,
        "opus.opus": opus,
        "mp3.mp3": mp3,
        "flac.wav": flac,
        "mp3.wav": mp3,
        "wav.mp3": encoded(tone),
        "aiff.wav": encoded(tone, format="AIFF"),
        "ten channels.wav": encoded(many),
        "stereo.flac": encoded(many[:, :2], format="FLAC"),
        "44100.wav": encoded(tone, 44_100),
        "odd rate.wav": encoded(tone, 7_919),
        "192000.wav": encoded(np.tile(tone, 4), 192_000),
        "loud.wav": encoded(1e3 * tone, subtype="FLOAT"),
        "quiet.wav": encoded(1e-3 * tone, subtype="FLOAT"),
        "offset.wav": encoded(tone + 0.5),
        "click.wav": encoded(np.eye(1, 4_000, 50, dtype=np.float32)[0]),
        "stream.wav": wav(pcm, 0xFFFFFFFF),
        "four gigabytes.wav": wav(pcm, 0xFFFFFFF0),
        "short.wav": encoded(tone[:100]),
        "junk behind.wav": encoded(tone) + b"junk" * 9,
        "cut vorbis.ogg": encoded(np.tile(tone, 9), format="OGG", subtype="VORBIS")[:9_000],
    }
    without = {
        "empty.wav": (b"", "empty"),
        "no samples.wav": (wav(b""), "empty"),
        "header.wav": (encoded(tone)[:30], "not_sound"),
        "cut.wav": (encoded(tone)[:9_000], "truncated"),
        "cut.flac": (flac[: len(flac) // 2], "damaged"),
        "cut.mp3": (mp3[: len(mp3) // 2], "truncated"),
        "cut.opus": (opus[:200], "not_sound"),
        "text.wav": (b"no sound at all, but text" * 20, "not_sound"),
        "zeros.wav": (bytes(5_000), "not_sound"),
        "picture.wav": (b"\x89PNG\r\n\x1a\n" + bytes(500), "not_sound"),
        "silent.wav": (encoded(np.zeros(9_000, np.float32)), "silent"),
        "one sample.wav": (encoded(np.zeros(1, np.float32)), "silent"),
        "whisper.wav": (encoded(1e-6 * tone, subtype="FLOAT"), "silent"),
        "nan.wav": (encoded(broken, subtype="FLOAT"), "not_finite"),
        "infinite.wav": (encoded(endless, subtype="DOUBLE"), "not_finite"),
        "one a second.wav": (wav(pcm, rate=1), "unsupported"),
        "every nanosecond.wav": (wav(pcm, rate=1_000_000_000), "unsupported"),
        "unknown codec.wav": (wav(pcm, kind=0x4242), "not_sound"),
        "no channels.wav": (wav(pcm, channels=0), "not_sound"),
        "a thousand bits.wav": (wav(pcm, bits=1_000), "not_sound"),
    }
    return {name: (content, "") for name, content in whole.items()} | without


def at_other_rate(samples: np.ndarray, rate: int, channels: int) -> bytes:
    """A recording at another rate, with some channels, as WAV of 16 bits."""
    other = soxr.resample(samples, OWN_RATE, rate)
    return encoded(np.stack([other] * channels, axis=1), rate)


Decode = Callable[[bytes], np.ndarray]
