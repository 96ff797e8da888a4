"""The spectrogram in the graph, and audio encoders: numbers of scipy's, words for what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import scipy.signal
from onnx import TensorProto, helper, numpy_helper
from sounds import SOUND, say, write_picture_network

from headstart.data.common.errors import BackboneError, InputError
from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.backbone import load_backbone
from headstart.export.backbone.build import export_backbone
from headstart.export.backbone.spectrogram import RANGE, Spectrogram, mel_filters, resizing
from headstart.export.options import (
    BackboneOptions,
    FeatureOptions,
    PrecisionOptions,
    SoundOptions,
)


def in_graph(spectrogram: Spectrogram, waveform: np.ndarray) -> np.ndarray:
    graph = GraphBuilder("spectrogram/")
    shape = ["batch", spectrogram.window]
    graph.input("waveform", TensorProto.FLOAT, shape)
    pixels = ["batch", spectrogram.height, spectrogram.width, 3]
    graph.output(graph_nodes := spectrogram._nodes(graph), "image", TensorProto.FLOAT, pixels)
    assert graph_nodes
    (found,) = open_session(graph.to_bytes("s")).run(None, {"waveform": waveform})
    return found


def scipys(spectrogram: Spectrogram, waveform: np.ndarray) -> np.ndarray:
    """Levels in decibels below the loudest by scipy: float64 `[batch, rows, frames]`."""
    window = scipy.signal.get_window("hann", spectrogram.frame)
    found = scipy.signal.ShortTimeFFT(window, spectrogram.step, fs=1)
    first = spectrogram.frame // 2  # frames lie within the window, by their middles
    power = []
    for samples in waveform.astype(np.float64):
        frames = range(spectrogram.frames)
        starts = [frame * spectrogram.step for frame in frames]
        cut = [samples[start : start + spectrogram.frame] for start in starts]
        each = [found.stft(part, p0=0, p1=1, k_offset=first)[:, 0] for part in cut]
        power.append(np.abs(np.stack(each, axis=1)) ** 2)
    stacked = np.stack(power)
    if spectrogram.kind == "logmel":
        stacked = mel_filters(spectrogram.rate, spectrogram.frame, spectrogram.bands) @ stacked
    level = 10 * np.log10(np.maximum(stacked, 1e-10))
    return np.minimum(level.max(axis=(1, 2), keepdims=True) - level, RANGE)


@pytest.mark.parametrize("kind", ["stft", "logmel"])
def test_the_graph_has_scipys_spectrogram(kind: str) -> None:
    """Of a voice and of noise; not resized, so that each number is compared."""
    options = SoundOptions(kind, rate=16_000, window=0.5)
    rows = options.bands if kind == "logmel" else 257
    spectrogram = Spectrogram.of(options, rows, 1 + (8_000 - 512) // 160)
    noise = np.random.default_rng(0).normal(0, 0.1, 8_000)
    waveform = np.stack([say("bob", 3, 16_000)[:8_000], noise]).astype(np.float32)
    found = in_graph(spectrogram, waveform)[..., 0][:, ::-1]
    expected = 255 * (1 - scipys(spectrogram, waveform) / RANGE)
    assert found.shape == expected.shape
    relative = np.abs(found - expected).max() / np.abs(expected).max()
    assert relative < 1e-3
    assert np.abs(in_graph(spectrogram, waveform) - spectrogram.pictures(waveform)).max() < 0.05


def test_silence_has_a_picture() -> None:
    spectrogram = Spectrogram.of(SOUND, 32, 32)
    assert np.isfinite(in_graph(spectrogram, np.zeros((1, 4_000), np.float32))).all()


def test_loudness_does_not_count() -> None:
    spectrogram = Spectrogram.of(SOUND, 32, 32)
    voice = say("cat", 2, 8_000)[None, :4_000]
    assert np.abs(in_graph(spectrogram, voice) - in_graph(spectrogram, voice / 8)).max() < 0.05


def test_resizing_is_pillows() -> None:
    from PIL import Image

    picture = np.random.default_rng(0).uniform(0, 255, (30, 41)).astype(np.float32)
    for wanted in ((12, 50), (64, 20)):
        resized = resizing(30, wanted[0]) @ picture @ resizing(41, wanted[1]).T
        size = wanted[::-1]
        pillows = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
        assert np.abs(resized - np.asarray(pillows)).max() < 1e-2


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_backbone_describes_its_windows(precision: str, tmp_path: Path) -> None:
    network = write_picture_network(tmp_path / "net.onnx")
    options, lower = BackboneOptions(scaling="unit"), PrecisionOptions(precision)
    path = tmp_path / "b.onnx"
    written = export_backbone(path, str(network), options, precision=lower, sound=SOUND)
    assert written.parity < 1e-4
    spec = load_backbone(path).spec
    assert (spec.preprocessing, spec.modality.name) == (SOUND.windows, "sound")
    assert spec.scaling == ("logmel: frames of 256 samples every 80, 32 mel bands, 80 dB; unit")
    model = onnx.load(path)
    assert not {node.op_type for node in model.graph.node} & {"STFT", "DFT", "Resize"}


def encoder(path: Path, shape: list, axes: int = 3, batch: str | int = "batch") -> Path:
    """An audio encoder: strides of 100 samples, 6 channels, over time or not."""
    weights = np.random.default_rng(0).normal(0, 0.1, (6, 1, 200)).astype(np.float32)
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["channel"]),
        helper.make_node("Conv", ["channel", "weights"], ["map"], strides=[100]),
        helper.make_node("Transpose", ["map"], ["y"], perm=[0, 2, 1]),
    ]
    if axes == 2:
        nodes[-1] = helper.make_node("ReduceMean", ["map", "two"], ["y"], keepdims=0)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [("one", [1], np.int64), ("two", [2], np.int64), ("weights", weights, np.float32)]
    tensors = [numpy_helper.from_array(np.array(v, t), n) for n, v, t in constants]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "encoder", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


RAW = SoundOptions("raw", rate=8_000, window=0.5)


@pytest.mark.parametrize(
    ("axes", "pools", "dim"), [(3, (), 6), (3, ("avg", "max"), 12), (2, (), 6)]
)
def test_an_encoder_of_samples(axes: int, pools: tuple, dim: int, tmp_path: Path) -> None:
    path = encoder(tmp_path / "encoder.onnx", ["batch", "samples"], axes)
    features, options = FeatureOptions(pools=pools), BackboneOptions(scaling="int16")
    written = export_backbone(tmp_path / "b.onnx", str(path), options, features, sound=RAW)
    spec = written.backbone.spec
    assert (spec.dim, spec.preprocessing, spec.scaling) == (dim, RAW.windows, "int16")
    assert written.parity < 1e-5
    waveform = np.random.default_rng(1).normal(0, 0.1, (2, 4_000)).astype(np.float32)
    (found,) = open_session(written.backbone.content).run(None, {"waveform": waveform})
    (own,) = open_session(path.read_bytes()).run(None, {"x": waveform * 32_768})
    expected = own if axes == 2 else own.mean(axis=1)
    assert np.abs(found[:, :6] - expected).max() / np.abs(expected).max() < 1e-5


def graph_file(path: Path, nodes: list, shape: list, arrays: dict[str, np.ndarray]) -> Path:
    """A graph from `x` to `y`."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    graph = helper.make_graph(nodes, "encoder", [given], [found], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def levels(path: Path) -> Path:
    """A spectrogram as openWakeWord has it: its floor is below the loudest of the whole batch."""
    make = helper.make_node
    nodes = [
        make("Unsqueeze", ["x", "one"], ["channel"]),
        make("Conv", ["channel", "weights"], ["map"], strides=[160]),
        make("Transpose", ["map"], ["frames"], perm=[0, 2, 1]),
        make("Unsqueeze", ["frames", "one"], ["four"]),
        make("Abs", ["four"], ["size"]),
        make("Log", ["size"], ["level"]),
        make("ReduceMax", ["level"], ["loudest"], keepdims=0),
        make("Sub", ["loudest", "range"], ["floor"]),
        make("Clip", ["level", "floor"], ["y"]),
    ]
    weights = np.random.default_rng(1).normal(0, 0.1, (32, 1, 512)).astype(np.float32)
    own = {"one": np.array([1]), "weights": weights, "range": np.array(5, np.float32)}
    return graph_file(path, nodes, ["batch_size", "samples"], own)


def test_an_encoder_that_mixes_its_batch_runs_window_by_window(tmp_path: Path) -> None:
    path = levels(tmp_path / "levels.onnx")
    sound = SoundOptions("raw", rate=8_000, window=0.5)
    written = export_backbone(
        tmp_path / "b.onnx", str(path), features=FeatureOptions(pools=("max",)), sound=sound
    )
    assert written.backbone.spec.dim == 32
    assert "runs them one by one" in written.warnings[0]
    named = onnx.compose.add_prefix(onnx.load(tmp_path / "b.onnx"), "x/")  # as an edge model has it
    onnx.checker.check_model(named, full_check=True)
    loud = np.random.default_rng(2).normal(0, 0.1, (2, 4_000)).astype(np.float32)
    loud[1] *= 1e-4
    (found,) = open_session(written.backbone.content).run(None, {"waveform": loud})
    own = [open_session(path.read_bytes()).run(None, {"x": row[None]})[0] for row in loud]
    assert np.abs(found - np.concatenate(own).max(axis=(1, 2))).max() < 1e-4


def test_the_two_files_of_openwakeword(tmp_path: Path) -> None:
    mel = levels(tmp_path / "models" / "melspectrogram.onnx")
    make = helper.make_node
    nodes = [
        make("ReduceMean", ["x"], ["mean"], axes=[1, 3], keepdims=0),
        make("MatMul", ["mean", "weights"], ["flat"]),
        make("Unsqueeze", ["flat", "axes"], ["y"]),
    ]
    weights = np.random.default_rng(3).normal(size=(32, 6)).astype(np.float32)
    arrays = {"weights": weights, "axes": np.array([1, 2])}
    folder, name = mel.parent, f"openwakeword:{mel.parent}"
    sound = SoundOptions("raw")
    with pytest.raises(BackboneError, match=r"has no embedding_model\.onnx"):
        export_backbone(tmp_path / "b.onnx", name, sound=sound)
    encoder = graph_file(folder / "embedding_model.onnx", nodes, ["n", 76, 32, 1], arrays)
    with pytest.raises(BackboneError, match=r"has 47 frames, and openwakeword:.* takes 76"):
        export_backbone(tmp_path / "b.onnx", name, sound=SoundOptions("raw", window=0.5))
    with pytest.raises(BackboneError, match="takes 16,000 samples a second"):
        export_backbone(tmp_path / "b.onnx", name, sound=SoundOptions("raw", rate=8_000))
    written = export_backbone(tmp_path / "b.onnx", name, sound=sound)
    assert (written.backbone.spec.name, written.backbone.spec.dim) == ("openwakeword", 6)
    waveform = np.random.default_rng(4).normal(0, 0.1, (2, 16_000)).astype(np.float32)
    (found,) = open_session(written.backbone.content).run(None, {"waveform": waveform})
    for row, embedding in zip(waveform, found, strict=True):  # as its own program computes it
        level = np.squeeze(open_session(mel.read_bytes()).run(None, {"x": 32_768 * row[None]})[0])
        pieces = np.stack([level[at : at + 76] / 10 + 2 for at in range(0, len(level) - 75, 8)])
        (own,) = open_session(encoder.read_bytes()).run(None, {"x": pieces[..., None]})
        assert len(pieces) == 3
        assert np.abs(embedding - own[:, 0, 0].mean(axis=0)).max() < 1e-4


@pytest.mark.parametrize(
    ("shape", "sound", "words"),
    [
        (["batch", 76, 32], RAW, "takes [batch, 76, 32], which is a spectrogram and no waveform"),
        (["samples"], RAW, "takes [samples]; a network of recordings takes float32"),
        (["batch", 8_000], RAW, "takes 8,000 samples; the window has 4,000"),
        (["batch", "n"], SoundOptions("raw", 8_000, 0.01), "does not run on 1 windows of 80"),
    ],
)
def test_what_an_encoder_lacks_is_said(
    shape: list, sound: SoundOptions, words: str, tmp_path: Path
) -> None:
    path = encoder(tmp_path / "encoder.onnx", shape)
    sound = SoundOptions("raw", sound.rate, sound.window, frame=0.005, step=0.005)
    with pytest.raises(BackboneError) as raised:
        export_backbone(tmp_path / "b.onnx", str(path), sound=sound)
    assert words in str(raised.value)
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--sound", "mel"), "unknown --sound 'mel'"),
        (("--window", 2), "--window can only be used with --sound"),
        (("--sound", "logmel", "--hop", 2), "windows that start every 32,000 samples"),
        (("--sound", "stft", "--frame", 2), "--frame 2 is not possible"),
        (("--sound", "stft", "--step", 1), "--step 1 is not possible"),
        (("--sound", "logmel", "--bands", 2), "--bands 2 is not possible"),
        (("--sound", "logmel", "--resize", "crop"), "--resize is for photographs"),
        (("--sound", "logmel", "--short", "x"), "unknown --short 'x'"),
        (("--sound", "raw"), "--sound raw is for an ONNX file that takes samples itself"),
    ],
)
def test_options_that_make_no_sense(given: tuple, words: str, tmp_path: Path, command) -> None:
    answer = command("export", "backbone", "efficientnet_lite0", "-o", tmp_path / "b.onnx", *given)
    assert answer.code == 2
    assert words in answer.err


def test_options_are_checked() -> None:
    with pytest.raises(InputError):
        SoundOptions("raw", rate=10).check()
