"""Engines that run the backbone's graph on one core of a CPU, or on a GPU.

The precision is part of an embedding's fingerprint, the engine is not: two engines at one precision
agree to within a cosine distance of `AGREE`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from headstart.data.common.errors import InputError
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.ray_session import GPU_ENGINE
from headstart.data.contracts.backbone import OUTPUT, BackboneSpec

# The precisions of each engine. A file runs in its own, or in bf16 if that is fp32.
ENGINES = {
    "onnxruntime": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "int8"),
    GPU_ENGINE: ("fp32", "fp16", "int8"),
}
PROVIDER = "CUDAExecutionProvider"  # of ONNX Runtime, for GPUs
# Trying all of cuDNN's algorithms takes up to twice as long, and finds no faster ones.
CUDA = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
OUT_OF_MEMORY = ("Failed to allocate memory", "Available memory of", "out of memory")
AGREE = 1e-3  # cosine distance
THREADS = 1  # per worker: there is a worker for each core
# Pictures that OpenVINO runs at once, so that what layers hand on stays in a core's cache: as many
# bytes of them in every precision, see docs/speed.md.
CACHED = {"fp32": 2, "bf16": 4, "int8": 8}


class EngineError(InputError):
    """An engine that is not installed, or cannot run the backbone as requested."""


class Engine(Protocol):
    """A backbone that is ready to run."""

    name: str

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        """Rows of the backbone's input `[batch, ...]` to embeddings, float32 `[batch, dim]`."""


@dataclass(frozen=True)
class EngineConfig:
    """How a backbone is run.

    Parameters
    ----------
    precision
        `fp32`, `fp16`, `bf16` or `int8`.
    engine
        One of `ENGINES`; by default, the fastest of those for CPUs.
    batch
        Pictures that go through the backbone at once.
    faster
        The engine that was the fastest before, if `engine` is not given: the only one that is
        opened, if it runs.
    """

    precision: str = "fp32"
    engine: str | None = None
    batch: int = 16
    faster: str | None = None

    @property
    def on_gpu(self) -> bool:
        """Whether it needs a GPU."""
        return self.engine == GPU_ENGINE


class OnnxRuntimeEngine:
    """ONNX Runtime on one core of a CPU.

    Parameters
    ----------
    content
        The bytes of the backbone file.
    """

    name = "onnxruntime"

    def __init__(self, content: bytes, spec: BackboneSpec) -> None:
        self.feed = spec.preprocessing.feed
        self.session = open_session(content, THREADS)

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        """Rows of the backbone's input `[batch, ...]` to embeddings, float32 `[batch, dim]`."""
        (embeddings,) = self.session.run([OUTPUT], self.feed(inputs))
        return embeddings


class GpuEngine:
    """ONNX Runtime on a GPU that workers share, in batches of one size.

    A batch that is not full is padded with earlier pictures: for every new size cuDNN would select
    algorithms again, which takes a second or more (docs/speed.md). Batches of texts, which differ
    in length anyway, are run as they are.

    Parameters
    ----------
    content
        The bytes of the backbone file.
    config
        Its batch is the size of every batch.

    Raises
    ------
    EngineError
        If the provider is not available (ONNX Runtime itself would fall back to the CPU), or the
        GPU's memory is too small.
    """

    name = GPU_ENGINE

    def __init__(self, content: bytes, spec: BackboneSpec, config: EngineConfig) -> None:
        import onnxruntime

        if PROVIDER not in onnxruntime.get_available_providers():
            raise EngineError(
                f"the installed ONNX Runtime has no {PROVIDER}",
                "Replace onnxruntime by onnxruntime-gpu where the workers run, or choose "
                "another --engine.",
            )
        onnxruntime.preload_dlls()
        with _memory_of_gpu(config.batch):
            self.session = open_session(content, THREADS, PROVIDER, CUDA)
        if PROVIDER not in self.session.get_providers():
            raise EngineError(
                f"{PROVIDER} does not start on this machine",
                "Check its GPU (memory, driver) and CUDA libraries, or choose another --engine.",
            )
        self.batch, self.rule = config.batch, spec.preprocessing
        self.inputs = np.zeros((config.batch, *self.rule.shape), self.rule.dtype)

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        """Rows of the backbone's input `[batch, ...]` to embeddings, float32 `[batch, dim]`.

        Raises
        ------
        EngineError
            If the GPU's memory is too small.
        """
        size, found = self.batch, []
        for start in range(0, len(inputs), size):
            piece = given = inputs[start : start + size]
            if not self.rule.ragged:
                given = self.inputs
                given[: len(piece)] = piece
            with _memory_of_gpu(size):
                (embeddings,) = self.session.run([OUTPUT], self.rule.feed(given))
            found.append(embeddings[: len(piece)])
        return np.concatenate(found)


@contextmanager
def _memory_of_gpu(batch: int) -> Iterator[None]:
    """Turn errors about a GPU's memory into an `EngineError`; other errors stay as they are."""
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

    try:
        yield
    except (Fail, EPFail, RuntimeException) as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise EngineError(
            f"the GPU's memory is too small for {batch} pictures at once in each of its workers",
            "Ask for a smaller --batch-size, or for fewer --workers, which share it.",
        ) from error


class OpenVinoEngine:
    """OpenVINO on one core of a CPU, in batches of a fixed size, which are faster.

    Batches of texts, which differ in length anyway, are run as they are.

    Parameters
    ----------
    content
        The bytes of the backbone file.
    config
        Its batch is cut into pieces of a fixed size. A piece that is not full is padded with
        earlier pictures.

    Raises
    ------
    EngineError
        If it cannot run the file, or this CPU has no bf16.
    """

    name = "openvino"

    def __init__(self, content: bytes, spec: BackboneSpec, config: EngineConfig) -> None:
        import openvino

        core, self.batch = openvino.Core(), min(config.batch, CACHED[config.precision])
        self.rule = spec.preprocessing
        if config.precision == "bf16" and not has_bf16():
            raise EngineError(
                "the CPU here does not compute in bf16 (it has neither AVX-512-BF16 nor AMX)",
                "Choose --precision fp32.",
            )
        if config.precision == "int8" and self.rule.ragged:
            raise EngineError(
                f"OpenVINO takes longer for {spec.modality.plural} in int8 than in fp32",
                "Choose --engine onnxruntime, or a backbone file in fp32.",
            )
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if config.precision == "bf16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,  # or all workers of a machine would be pinned to one core
        }
        try:
            model = core.read_model(content)
            if not self.rule.ragged:
                model.reshape({self.rule.input: (self.batch, *self.rule.shape)})
            self.request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot run the backbone: {error}", "Choose --engine onnxruntime."
            ) from error

    def embed(self, inputs: np.ndarray) -> np.ndarray:
        """Rows of the backbone's input `[batch, ...]` to embeddings, float32 `[batch, dim]`."""
        if self.rule.ragged:
            self.request.infer(self.rule.feed(inputs))
            return self.request.output_tensors[0].data.copy()
        given, made = self.request.input_tensors[0].data, self.request.output_tensors[0].data
        embeddings = np.empty((len(inputs), made.shape[1]), np.float32)
        for start in range(0, len(inputs), self.batch):
            piece = inputs[start : start + self.batch]
            given[: len(piece)] = piece
            self.request.infer()
            embeddings[start : start + len(piece)] = made[: len(piece)]
        return embeddings


def has_bf16() -> bool:
    """Whether this CPU computes in bf16; on others OpenVINO would silently use fp32."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def engines_here(precision: str) -> list[str]:
    """The engines for CPUs that are installed here and support a precision."""
    return [
        name
        for name, precisions in ENGINES.items()
        if precision in precisions
        and name != GPU_ENGINE
        and find_spec(name)
        and (precision != "bf16" or has_bf16())
    ]


def check_config(config: EngineConfig) -> None:
    """Raise `EngineError` if a setting cannot run here; checks only what is quick to check."""
    if config.engine == "openvino" and not find_spec("openvino"):
        raise EngineError(
            "OpenVINO is not installed",
            "Install it where the workers run: pip install 'headstart[openvino]'.",
        )
    if config.engine is None and not engines_here(config.precision):
        raise EngineError(
            f"no engine here computes in {config.precision}",
            "bf16 needs OpenVINO (pip install 'headstart[openvino]') and a CPU with AVX-512-BF16 "
            "or AMX. Choose --precision fp32.",
        )


def open_engines(content: bytes, spec: BackboneSpec, config: EngineConfig) -> list[Engine]:
    """Open a backbone in the engine that is asked for, or in all that are installed here.

    An engine that cannot run the backbone is left out if another one can.

    Raises
    ------
    EngineError
        If none can.
    """
    if config.faster and config.engine is None:
        with suppress(EngineError):
            return open_engines(content, spec, replace(config, engine=config.faster))
    check_config(config)
    opened: list[Engine] = []
    errors = []
    for name in [config.engine] if config.engine else engines_here(config.precision):
        try:
            if name == "openvino":
                opened.append(OpenVinoEngine(content, spec, config))
            elif name == GPU_ENGINE:
                opened.append(GpuEngine(content, spec, config))
            else:
                opened.append(OnnxRuntimeEngine(content, spec))
        except EngineError as error:
            errors.append(error)
    if not opened:
        raise errors[0]
    return opened
