"""Engines and precisions: the same embeddings, the fastest, and messages if one is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from conftest import Outcome, as_if_no_ray_were_there, write_tiny_backbone
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from sklearn.linear_model import LogisticRegression

from headstart.data.common.cosine import cosines
from headstart.data.common.errors import BackboneError, InputError
from headstart.data.contracts.backbone import Backbone, load_backbone
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.examples.opening import open_source
from headstart.extract import job
from headstart.extract.engines import memory, precision, race
from headstart.extract.engines import runtimes as engines
from headstart.extract.engines.memory import Memory
from headstart.extract.engines.precision import (
    LEAST_COSINE,
    Measured,
    centred_cosines,
    check_precision,
    choose,
    explain,
    measure,
)
from headstart.extract.engines.race import ROUNDS, FastestEngine
from headstart.extract.engines.runtimes import (
    AGREE,
    EngineConfig,
    EngineError,
    GpuEngine,
    OnnxRuntimeEngine,
    OpenVinoEngine,
    check_config,
    engines_here,
    has_bf16,
    open_engines,
)
from headstart.extract.options import ExtractOptions

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), dtype=np.uint8)


def lower(path: Path, to: str) -> Backbone:
    """The tiny backbone as a file whose metadata has another precision."""
    backbone = write_tiny_backbone(path)
    model = onnx.load_model_from_string(backbone.content)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, replace(backbone.spec, precision=to).to_metadata())
    path.write_bytes(model.SerializeToString())
    return load_backbone(path)


@pytest.mark.parametrize("batch", [1, 7, 8, 16])
def test_engines_agree_whatever_the_batch_and_the_rest_of_it(
    tiny_backbone: Path, batch: int
) -> None:
    backbone = load_backbone(tiny_backbone)
    config = EngineConfig("fp32", None, batch)
    opened = open_engines(backbone.content, backbone.spec, config)
    assert [engine.name for engine in opened] == ["onnxruntime", "openvino"]
    for count in (1, 2, 8, 9, 16, 21):
        first, second = (engine.embed(IMAGES[:count]) for engine in opened)
        assert first.shape == second.shape == (count, 12)
        assert first.dtype == second.dtype == np.float32
        assert np.allclose(first, second, rtol=1e-4, atol=1e-3)
        assert (1 - cosines(first, second)).max() <= AGREE


def test_what_an_engine_gives_is_not_changed_by_its_next_call(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)
    engine = OpenVinoEngine(backbone.content, backbone.spec, EngineConfig())
    first = engine.embed(IMAGES[:8])
    kept = first.copy()
    engine.embed(IMAGES[8:16])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(
    ("made_in", "batch", "piece"), [("fp32", 16, 2), ("int8", 16, 8), ("fp32", 1, 1)]
)
def test_openvino_runs_few_pictures_at_once(
    made_in: str, batch: int, piece: int, tmp_path: Path
) -> None:
    backbone = lower(tmp_path / "b.onnx", made_in)
    engine = OpenVinoEngine(backbone.content, backbone.spec, EngineConfig(made_in, batch=batch))
    assert engine.request.input_tensors[0].shape[0] == piece
    assert engine.embed(IMAGES[:5]).shape == (5, 12)


class Timed:
    """An engine that is slow, by a simulated clock, or disagrees."""

    now = 0.0

    def __init__(self, name: str, seconds: float = 0.0, sign: float = 1.0) -> None:
        self.name, self.seconds, self.sign, self.calls = name, seconds, sign, 0

    def embed(self, images: np.ndarray) -> np.ndarray:
        Timed.now += self.seconds
        self.calls += 1
        return self.sign * images.reshape(len(images), -1)[:, :12].astype(np.float32)


@pytest.mark.parametrize(("slower", "rounds"), [(1.01, ROUNDS), (1.4, ROUNDS), (1.6, 1), (3.0, 1)])
def test_the_faster_engine_wins_and_the_other_is_not_called_again(
    slower: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: Timed.now))
    slow, fast = Timed("slow", slower), Timed("fast", 1.0)
    runners = FastestEngine([slow, fast], 16)
    assert runners.names == ("slow", "fast")
    expected = Timed("any").embed(IMAGES[:16])
    for _ in range(12):
        images = IMAGES[: runners.batch]
        assert np.array_equal(runners.embed(images), expected[: len(images)])
    assert (runners.names, runners.batch) == (("fast",), 16)
    assert slow.calls == 1 + rounds  # both embed the first piece
    assert fast.calls == 12 - rounds


def test_texts_of_different_lengths_are_embedded_by_all_engines_until_one_has_won(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Short pieces would make the engine win that had its turn with them."""
    monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: Timed.now))
    slow, fast = Timed("slow", 1.3), Timed("fast", 1.0)
    runners = FastestEngine([slow, fast], 16, ragged=True)
    for length in (1.0, 0.9, 0.1, 0.8, 0.7):
        slow.seconds, fast.seconds = 1.3 * length, length
        runners.embed(IMAGES[: runners.batch])
    assert runners.names == ("fast",)
    assert (slow.calls, fast.calls) == (1 + ROUNDS, 5)


def test_of_three_engines_one_far_behind_is_left_out_and_two_equally_fast_ones_continue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: Timed.now))
    runners = FastestEngine([Timed("slow", 9.0), Timed("one", 1.0), Timed("other", 1.0)], 16)
    for names in [("slow", "one", "other")] * 4 + [("one", "other")] * 4 + [("one",)]:
        assert runners.names == names
        runners.embed(IMAGES[: runners.batch])


def test_batches_that_are_not_full_decide_nothing() -> None:
    runners = FastestEngine([Timed("slow", 0.001), Timed("fast")], 16)
    for _ in range(12):
        runners.embed(IMAGES[:5])
    assert (runners.names, runners.batch) == (("slow", "fast"), 8)


def test_an_engine_that_disagrees_is_left_out() -> None:
    runners = FastestEngine([Timed("first"), Timed("other", sign=-1)], 16)
    for _ in range(2):
        got = runners.embed(IMAGES[:16])
        assert runners.names == ("first",)
        assert np.array_equal(got, Timed("first").embed(IMAGES[:16]))


def test_cosines_of_zeros_and_of_what_is_not_finite() -> None:
    a = np.array([[0, 0], [3, 4], [np.nan, 1], [0, 0]], np.float32)
    b = np.array([[0, 0], [6, 8], [np.nan, 1], [1, 0]], np.float32)
    found = cosines(a, b)
    assert found.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_a_graph_that_openvino_cannot_run_is_left_to_onnx_runtime(
    tiny_backbone: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "SECONDS", 0.1)
    backbone = load_backbone(tiny_backbone)
    model = onnx.load_model_from_string(backbone.content)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights.T.copy(), "points"))
    domain = "com.microsoft"  # ONNX Runtime's own operators
    distance = onnx.helper.make_node(
        "CDist", ["flat", "points"], ["embedding"], domain=domain, metric="sqeuclidean"
    )
    del model.graph.node[2:]
    model.graph.node.append(distance)
    model.opset_import.add(domain=domain, version=1)
    content = model.SerializeToString()
    opened = open_engines(content, backbone.spec, EngineConfig())
    assert [engine.name for engine in opened] == ["onnxruntime"]
    source = open_source(photos)
    paths = source.examples["path"].to_pylist()
    found = measure(content, backbone.spec, EngineConfig(), source.folder, paths)
    assert [each.config.engine for each in found] == ["onnxruntime"]
    with pytest.raises(EngineError):
        measure(content, backbone.spec, EngineConfig("fp32", "openvino"), source.folder, paths)
    assert opened[0].embed(IMAGES).shape == (21, 12)
    with pytest.raises(EngineError) as caught:
        open_engines(content, backbone.spec, EngineConfig("fp32", "openvino"))
    assert str(caught.value).startswith("OpenVINO cannot run the backbone: ")
    assert str(caught.value).endswith("Choose --engine onnxruntime.")


def test_a_provider_that_is_not_there_is_said_and_not_replaced(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)
    with pytest.raises(EngineError) as caught:
        open_engines(backbone.content, backbone.spec, EngineConfig("fp32", "cuda"))
    assert str(caught.value) == (
        "the installed ONNX Runtime has no CUDAExecutionProvider\n"
        "  Replace onnxruntime by onnxruntime-gpu where the workers run, or choose "
        "another --engine."
    )


def test_a_gpu_sees_batches_of_one_size(
    tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU engine's own logic, with ONNX Runtime on the CPU instead of a GPU."""
    monkeypatch.setattr(engines, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(engines, "CUDA", {})
    backbone = load_backbone(tiny_backbone)
    (engine,) = open_engines(backbone.content, backbone.spec, EngineConfig("fp32", "cuda", 8))
    assert isinstance(engine, GpuEngine)
    seen, run = [], engine.session.run
    session = SimpleNamespace(run=lambda names, given: seen.append(given) or run(names, given))
    monkeypatch.setattr(engine, "session", session)
    want = OnnxRuntimeEngine(backbone.content, backbone.spec).embed(IMAGES)
    for count in (1, 8, 9, 21):
        assert np.allclose(engine.embed(IMAGES[:count]), want[:count], rtol=1e-5, atol=1e-5)
    assert {len(given["image"]) for given in seen} == {8}


def test_a_gpu_without_memory_is_said(tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(engines, "CUDA", {})
    backbone = load_backbone(tiny_backbone)
    (engine,) = open_engines(backbone.content, backbone.spec, EngineConfig("fp32", "cuda", 8))

    def fail(*given: object) -> None:
        raise Fail(reason)

    monkeypatch.setattr(engine, "session", SimpleNamespace(run=fail))
    monkeypatch.setattr(engines, "open_session", fail)
    # Seen with a limited arena, on an H200.
    reason = "Available memory of 21239040 is smaller than requested bytes of 78643200"
    for step in (
        lambda: engine.embed(IMAGES),
        lambda: open_engines(backbone.content, backbone.spec, EngineConfig("fp32", "cuda", 8)),
    ):
        with pytest.raises(EngineError) as caught:
            step()
        assert str(caught.value) == (
            "the GPU's memory is too small for 8 pictures at once in each of its workers\n"
            "  Ask for a smaller --batch-size, or for fewer --workers, which share it."
        )
    reason = "CUDNN_STATUS_EXECUTION_FAILED"
    with pytest.raises(Fail, match="CUDNN"):
        engine.embed(IMAGES)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else 1)
    with pytest.raises(EngineError) as caught:
        check_config(EngineConfig("fp32", "openvino"))
    assert str(caught.value) == (
        "OpenVINO is not installed\n"
        "  Install it where the workers run: pip install 'headstart[openvino]'."
    )
    with pytest.raises(EngineError) as caught:
        check_config(EngineConfig("bf16"))
    assert str(caught.value) == (
        "no engine here computes in bf16\n"
        "  bf16 needs OpenVINO (pip install 'headstart[openvino]') and a CPU with AVX-512-BF16 or "
        "AMX. Choose --precision fp32."
    )
    assert engines_here("fp32") == ["onnxruntime"]


def test_a_cpu_without_bf16_is_not_given_fp32_instead(
    monkeypatch: pytest.MonkeyPatch, tiny_backbone: Path
) -> None:
    backbone = load_backbone(tiny_backbone)
    monkeypatch.setattr(engines, "has_bf16", lambda: False)
    assert engines_here("bf16") == []
    with pytest.raises(EngineError) as caught:
        OpenVinoEngine(backbone.content, backbone.spec, EngineConfig("bf16", "openvino"))
    assert str(caught.value) == (
        "the CPU here does not compute in bf16 (it has neither AVX-512-BF16 nor AMX)\n"
        "  Choose --precision fp32."
    )


def test_a_file_runs_in_its_own_precision_and_fp32_in_bf16_too(tmp_path: Path) -> None:
    plain, int8 = write_tiny_backbone(tmp_path / "b.onnx"), lower(tmp_path / "b8.onnx", "int8")
    for asked, expected in ((None, "fp32"), ("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")):
        assert check_precision(asked, None, plain) == expected
    for asked in (None, "auto", "int8"):
        assert check_precision(asked, None, int8) == "int8"
    with pytest.raises(BackboneError) as caught:
        check_precision("int8", None, plain)
    assert str(caught.value) == (
        f"{plain.path} is a backbone in fp32, which does not run in int8\n"
        "  Export one that does: python -m export backbone tiny --precision int8 "
        "--calibrate SOURCE -o tiny-int8.onnx"
    )
    with pytest.raises(BackboneError) as caught:
        check_precision("bf16", None, int8)
    assert str(caught.value) == (
        f"{int8.path} is a backbone in int8, which does not run in bf16\n"
        "  Leave --precision out, or name a backbone file in bf16."
    )
    with pytest.raises(InputError) as caught_engine:
        check_precision("bf16", "onnxruntime", plain)
    assert str(caught_engine.value) == (
        "--engine onnxruntime does not run in bf16\n  These do: openvino."
    )


def test_unknown_options_are_all_reported_at_once() -> None:
    with pytest.raises(InputError) as caught:
        ExtractOptions(precision="fp8", engine="tvm", batch_size=0)
    assert str(caught.value) == (
        "1. --batch-size 0 is not possible\n  Give 1 to 1,024.\n"
        "2. --precision fp8 is not known\n  Choose from fp32, fp16, bf16, int8, auto.\n"
        "3. --engine tvm is not known\n  Choose from onnxruntime, openvino, cuda."
    )


def test_the_fastest_that_is_near_enough_is_chosen() -> None:
    plain = Measured(EngineConfig("fp32", "onnxruntime"), 100, 1.0, 1.0)
    quick = Measured(EngineConfig("fp32", "openvino"), 110, 1.0, 1.0)
    near = Measured(EngineConfig("bf16", "openvino"), 200, 0.9901, 0.9)
    far = Measured(EngineConfig("bf16", "openvino"), 300, 0.9899, 0.9)
    unlike = Measured(EngineConfig("bf16", "openvino"), 300, float("nan"), float("nan"))
    assert choose([plain, quick, near]) is near
    assert choose([plain, quick, far]) is quick
    assert choose([plain, unlike]) is plain
    assert explain([plain, near], near) == [
        "precision bf16: the fastest of 2 settings with a mean centred cosine of at least 0.99 to "
        "fp32",
        "  fp32 by onnxruntime 100/s a core, cosine 1.0000",
        "  bf16 by openvino 200/s a core, cosine 0.9901, chosen",
    ]
    assert explain([plain], plain)[0] == "precision fp32: it is the only one that runs here"


@pytest.mark.parametrize(("noise", "near"), [(0.1, True), (2.0, False)])
def test_the_centred_cosine_finds_what_a_head_would_feel(noise: float, near: bool) -> None:
    """Three classes that differ little beside what all embeddings have in common.

    Both precisions have a plain cosine above 0.995. The worse one costs its head a tenth of the
    answers or more, though it is trained on it; the better one costs nothing.
    """
    random = np.random.default_rng(0)
    classes = random.integers(3, size=2400)
    centres, common = random.normal(0, 0.5, (3, 64)), random.uniform(20, 40, 64)
    exact = common + centres[classes] + random.normal(0, 1, (2400, 64))
    rounded = exact + random.normal(0, noise, exact.shape)
    assert cosines(rounded[:48], exact[:48]).mean() > 0.995
    assert (centred_cosines(rounded[:48], exact[:48]).mean() >= LEAST_COSINE) == near
    accuracy = [
        LogisticRegression(C=0.01, max_iter=1000)
        .fit(embeddings[:1200], classes[:1200])
        .score(embeddings[1200:], classes[1200:])
        for embeddings in (exact, rounded)
    ]
    assert (accuracy[0] - accuracy[1] < 0.01) == near
    assert near or accuracy[0] - accuracy[1] > 0.1
    moved = 3 * exact + 5  # a head does not feel this
    assert centred_cosines(moved[:48], exact[:48]).min() == pytest.approx(1)
    assert centred_cosines(exact[:1], exact[:1]).tolist() == [0]  # nothing can be seen of one


def test_settings_are_measured_on_the_photographs(
    photos: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "SECONDS", 0.1)
    backbone, source = load_backbone(tiny_backbone), open_source(photos)
    (photos / "red" / "00.png").write_bytes(b"no photograph")
    paths = source.examples["path"].to_pylist()
    found = measure(backbone.content, backbone.spec, EngineConfig(), source.folder, paths)
    expected = [("fp32", "onnxruntime"), ("fp32", "openvino")]
    if has_bf16():
        expected.append(("bf16", "openvino"))
    assert [(each.config.precision, each.config.engine) for each in found] == expected
    assert all(each.rate > 0 and each.worst > 0.99 for each in found)
    with pytest.raises(InputError) as caught:
        measure(
            backbone.content,
            backbone.spec,
            EngineConfig(),
            source.folder,
            ["gone.png", "red/00.png"],
        )
    assert str(caught.value) == (
        "none of 2 examples can be read, so --precision auto has nothing to measure with\n"
        "  Name a precision, or see what is wrong with them: python -m data inspect SOURCE"
    )


@pytest.mark.usefixtures("local_ray")
def test_auto_is_measured_once_and_kept(
    photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    out = tmp_path / "f"
    arguments = ("extract", photos, "--backbone", tiny_backbone, "-o", out)
    answer = command(*arguments, "--precision", "auto")
    assert answer.code == 0, answer.err
    assert "settings with a mean centred cosine of at least 0.99 to fp32" in answer.err
    made = FeatureStore.open(out).fingerprint.precision
    assert made in ("fp32", "bf16")
    assert f", {made}\n" in answer.out
    (photos / "red" / "more.png").write_bytes((photos / "red" / "01.png").read_bytes())
    for more in ((), ("--precision", "auto")):
        again = command(*arguments, *more)
        assert again.code == 0, again.err
        assert "settings with" not in again.err
        assert FeatureStore.open(out).fingerprint.precision == made
    other = "bf16" if made == "fp32" and has_bf16() else "fp32"
    if other != made:
        refused = command(*arguments, "--precision", other)
        assert refused.code == 2
        assert f"holds features in {made}, not in {other}" in refused.err
        assert "Leave --precision out to continue in that" in refused.err


@pytest.fixture
def memory_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and work in processes of this machine, whose results are remembered."""
    as_if_no_ray_were_there(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "headstart" / "engines"


def test_what_auto_measured_is_remembered(
    photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable, memory_here: Path
) -> None:
    def run(name: str, *more: str) -> Outcome:
        answer = command(
            *("extract", photos, "--backbone", tiny_backbone, "-o", tmp_path / name, *more)
        )
        assert answer.code == 0, answer.err
        return answer

    measured, again = "settings with a mean centred cosine", "as measured here before; remove"
    first = run("first", "--precision", "auto")
    assert measured in first.err
    assert again not in first.err
    assert "in an earlier run" not in first.out
    (file,) = memory_here.iterdir()
    second = run("second", "--precision", "auto")
    assert f"{again} {file} to measure again\n" in second.err
    assert re.search(
        r"engine +(onnxruntime|openvino), .*, the fastest in an earlier run", second.out
    )
    made = [FeatureStore.open(tmp_path / name).fingerprint for name in ("first", "second")]
    assert made[0] == made[1]
    file.write_bytes(file.read_bytes()[:-20])
    third = run("third", "--precision", "auto")
    assert f"{file} is damaged and is not used: " in third.err
    assert measured in third.err
    assert again not in third.err
    assert again in run("fourth", "--precision", "auto").err  # it was replaced
    named = run("fifth", "--precision", "auto", "--engine", "onnxruntime")
    assert again not in named.err
    assert "in an earlier run" not in named.out


def test_a_memory_counts_as_long_as_everything_is_the_same(
    tiny_backbone: Path, tmp_path: Path, memory_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = load_backbone(tiny_backbone).fingerprint
    found = {"int8": "onnxruntime"}
    Memory(fingerprint, 16).add(fastest=found)
    assert Memory(fingerprint, 16).found.fastest == found
    assert Memory(fingerprint.run_in("bf16"), 16).found.fastest == found  # one file for all
    assert Memory(fingerprint, 8).found.fastest == {}
    assert Memory(replace(fingerprint, sha256="0" * 64), 16).found.fastest == {}
    (file,) = memory_here.iterdir()
    with monkeypatch.context() as newer:
        newer.setattr(memory, "version", lambda package: "99" if package == "openvino" else "1")
        assert Memory(fingerprint, 16).found.fastest == {}
    with monkeypatch.context() as moved:
        moved.setattr(memory, "CPUINFO", tmp_path / "cpuinfo")
        (tmp_path / "cpuinfo").write_text("model name : Other\nflags : sse\n\nmodel name : x\n")
        assert Memory(fingerprint, 16).found.fastest == {}
    for wrong in (b"{}", b"[", b'{"made_from": {}, "fastest": {"int8": "cuda-next"}}'):
        file.write_bytes(wrong)
        assert Memory(fingerprint, 16).found.fastest == {}
    Memory(fingerprint, 16).add(fastest=found)
    assert Memory(fingerprint, 16).found.fastest == found
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny_backbone))  # a file, so that nothing can be made
    Memory(fingerprint, 16).add(fastest=found)
    assert Memory(fingerprint, 16).found.fastest == {}


def test_an_engine_that_was_the_fastest_is_the_only_one_opened(tiny_backbone: Path) -> None:
    backbone = load_backbone(tiny_backbone)

    def opened(config: EngineConfig) -> list[str]:
        return [each.name for each in open_engines(backbone.content, backbone.spec, config)]

    assert opened(EngineConfig(faster="openvino")) == ["openvino"]
    assert opened(EngineConfig(faster="openvino", engine="onnxruntime")) == ["onnxruntime"]
    assert opened(EngineConfig(faster="cuda")) == ["onnxruntime", "openvino"]  # it does not run


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_named_engine_is_the_one_that_runs(
    photos: Path, tiny_backbone: Path, tmp_path: Path, engine: str, features: Path
) -> None:
    done = job.extract(
        photos, tiny_backbone, tmp_path / "f", ExtractOptions(engine=engine, workers=1)
    )
    assert (done.engines, done.precision, done.embedded) == ((engine,), "fp32", 60)
    assert done.first_embedding is not None
    assert 0 < done.first_embedding < sum(done.seconds.values())
    assert {"plan", "start Ray", "start workers", "embed", "stop Ray"} == set(done.seconds)
    rows = [FeatureStore.open(store).read() for store in (tmp_path / "f", features)]
    mine, theirs = (
        dict(zip(table["id"].to_pylist(), embeddings_of(table), strict=True)) for table in rows
    )
    assert mine.keys() == theirs.keys()
    for id_, row in mine.items():
        assert np.allclose(row, theirs[id_], rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("local_ray")
def test_an_engine_without_its_gpu_stops_before_any_work(
    photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    answer = command(
        "extract", photos, "--backbone", tiny_backbone, "-o", tmp_path / "f", "--engine", "cuda"
    )
    assert answer.code == 2
    assert "no machine of the cluster has a GPU and a CPU beside it" in answer.err
    assert not (tmp_path / "f").exists() or not list((tmp_path / "f").glob("part-*"))


def test_openvino_is_not_loaded_where_another_engine_is_named(
    photos: Path, tiny_backbone: Path
) -> None:
    script = (
        "import sys; from headstart.data.contracts.backbone import load_backbone; "
        "from headstart.extract.engines.runtimes import *; "
        f"b = load_backbone({str(tiny_backbone)!r}); "
        "open_engines(b.content, b.spec, EngineConfig('fp32', 'onnxruntime')); "
        "sys.exit('openvino' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_stores_of_two_precisions_are_two(tmp_path: Path) -> None:
    fingerprint = write_tiny_backbone(tmp_path / "b.onnx").fingerprint
    assert fingerprint.run_in("bf16") != fingerprint
    assert fingerprint.run_in("bf16").run_in("fp32") == fingerprint


@pytest.mark.usefixtures("local_ray")
def test_a_job_in_which_nothing_was_embedded(
    photos: Path, tiny_backbone: Path, tmp_path: Path, command: Callable
) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no photograph")
    arguments = ("--backbone", tiny_backbone, "-o", tmp_path / "f", "--max-bad", "1", "--json")
    answer = command("extract", photos, *arguments)
    assert answer.code == 0, answer.err
    summary = json.loads(answer.out, parse_constant=pytest.fail)  # no Infinity, which is not JSON
    assert (summary["embedded"], summary["first_embedding"]) == (0, None)
    assert summary["engines"] == ["onnxruntime", "openvino"]
