"""The limit of the machine: decoding, then inference, each with all cores.

1 / limit = 1 / decode + 1 / inference, if nothing else takes time: no reading, no hash, no Python
between the calls, no Parquet. Each is as fast as known: libjpeg at the smallest scale that is not
below the backbone's input, by Pillow or by simplejpeg, whichever is faster; the fastest engine, one
session per core.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import simplejpeg
from PIL import Image

from headstart.data.common.speed import random_images
from headstart.data.contracts.backbone import BackboneSpec, load_backbone
from headstart.data.modalities.image.modality import Photographs
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.extract.engines.runtimes import EngineConfig, engines_here, open_engines

SECONDS = 2.0  # of each measurement


@dataclass(frozen=True)
class Limit:
    """What all cores could do, in photographs a second.

    Parameters
    ----------
    decoding, inference
        Each alone.
    """

    decoding: float
    inference: float

    @property
    def both(self) -> float:
        """One after the other."""
        return 1 / (1 / self.decoding + 1 / self.inference)

    def __str__(self) -> str:
        return f"{self.both:.1f}/s ({self.decoding:.1f} decoded, {self.inference:.1f} embedded)"


def limit_of(folder: Path, file: str, precision: str) -> Limit:
    """The limit of the photographs in a folder and a backbone file."""
    decoding = decoding_rate(folder, load_backbone(file).spec)
    configs = [EngineConfig(precision, engine) for engine in engines_here(precision)]
    return Limit(decoding, max(_on_all_cores(_inference, file, config) for config in configs))


def between(before: Limit, after: Limit) -> Limit:
    """The mean of the limits before and after a run."""
    return Limit((before.decoding + after.decoding) / 2, (before.inference + after.inference) / 2)


def decoding_rate(folder: Path, spec: BackboneSpec) -> float:
    """Photographs a second that all cores decode to a backbone's size."""
    size = Photographs().input_spec(spec.preprocessing.to_metadata())
    paths = sorted(folder.glob("*/*.jpg"))[:64]
    return max(_on_all_cores(_decoding, how, paths, size) for how in (decode, _by_simplejpeg))


def inference_rate(file: str, config: EngineConfig) -> float:
    """Pictures a second of one session."""
    step = _inference(file, config)
    step()  # to warm up
    return _rate(step)


def _on_all_cores(prepare: Callable, *arguments: object) -> float:
    """Rates of as many processes as there are cores, added up."""
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    barrier = context.Barrier(cores)
    answers = context.Queue()
    given = (prepare, arguments, barrier, answers)
    processes = [context.Process(target=_repeat, args=given) for _ in range(cores)]
    for process in processes:
        process.start()
    total = sum(answers.get() for _ in processes)
    for process in processes:
        process.join()
    return total


def _repeat(prepare: Callable, arguments: tuple, barrier: object, answers: object) -> None:
    step = prepare(*arguments)
    step()  # to warm up
    barrier.wait()  # type: ignore[attr-defined]
    answers.put(_rate(step))  # type: ignore[attr-defined]


def _rate(step: Callable[[], int]) -> float:
    done, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < SECONDS:
        done += step()
    return done / passed


def _decoding(how: Callable, paths: list[Path], size: Preprocessing) -> Callable[[], int]:
    contents = cycle([path.read_bytes() for path in paths])

    def step() -> int:
        how(next(contents), size)
        return 1

    return step


def _by_simplejpeg(content: bytes, size: Preprocessing) -> None:
    pixels = simplejpeg.decode_jpeg(
        content, "RGBX", min_height=size.height, min_width=size.width, min_factor=1
    )
    image = Image.frombytes("RGB", pixels.shape[1::-1], pixels, "raw", "RGBX")
    size.apply(image, fast=True)


def _inference(file: str, config: EngineConfig) -> Callable[[], int]:
    backbone = load_backbone(file)
    (engine,) = open_engines(backbone.content, backbone.spec, config)
    images = random_images(backbone.spec.preprocessing.shape[:2], config.batch)

    def step() -> int:
        engine.embed(images)
        return config.batch

    return step
