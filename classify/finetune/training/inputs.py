"""Batches for training: photographs, read and changed, or cached outputs of the frozen blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from headstart.classify.finetune.activations import take
from headstart.classify.finetune.examples import TuningExamples
from headstart.classify.finetune.options import Recipe
from headstart.classify.finetune.training.augmentation import VIEWS, changed, view
from headstart.classify.finetune.training.job import TrainingJob
from headstart.data.common.errors import ExtractionError
from headstart.data.examples.reading import Reader
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.files import digest
from headstart.export.networks.trainable.trainable import Trainable


class Inputs(ABC):
    """Examples as the values that training starts from."""

    @abstractmethod
    def batches(self, rows: list[np.ndarray], epoch: int | None, device: Any) -> Iterator[Any]:
        """The values of some batches of rows, as tensors.

        Parameters
        ----------
        epoch
            Of training, whose changes of the pictures are drawn by it; None for pictures as they
            are.
        """


def inputs_for(job: TrainingJob, network: Trainable, readers: int) -> Inputs:
    """The inputs of a training; `readers` are processes that read and decode beside it."""
    if job.cache is not None:
        return FromCache(job)
    return FromPhotographs(job, network, readers)


def drawn_views(recipe: Recipe, epoch: int, rows: np.ndarray) -> np.ndarray:
    """The view of each row in an epoch, `[rows]`; the same whichever worker asks."""
    random = np.random.default_rng([recipe.seed, epoch, 1])
    return random.integers(0, VIEWS[recipe.augmentation], int(rows.max(initial=0)) + 1)[rows]


class FromCache(Inputs):
    """The cached output of the frozen blocks."""

    def __init__(self, job: TrainingJob) -> None:
        if job.cache is None:
            raise ValueError("the training has no cache")
        self.recipe, self.parts = job.recipe, job.cache.open()

    def batches(self, rows: list[np.ndarray], epoch: int | None, device: Any) -> Iterator[Any]:
        """Float32, `[batch, ...]`."""
        import torch

        for some in rows:
            views = np.zeros(len(some), int)
            if epoch is not None:
                views = drawn_views(self.recipe, epoch, some)
            values = torch.from_numpy(take(self.parts, some, views))
            if values.ndim == 4:
                values = values.contiguous(memory_format=torch.channels_last)
            yield values.to(device, non_blocking=True)


class FromPhotographs(Inputs):
    """Photographs from their files, as scaled pixels."""

    def __init__(self, job: TrainingJob, network: Trainable, readers: int) -> None:
        self.files = Photographs(job.examples, network.preprocessing, job.recipe)
        self.scaling, self.first = network.scaling, network.channels_first
        self.readers = readers

    def batches(self, rows: list[np.ndarray], epoch: int | None, device: Any) -> Iterator[Any]:
        """Float32, `[batch, 3, height, width]` or with the channels last."""
        import torch
        from torch.utils.data import DataLoader

        scale, offset = (torch.from_numpy(each).to(device) for each in self.scaling.affine)
        files: Any = self.files
        loader: Any = DataLoader(
            files,
            batch_sampler=[[(int(row), epoch) for row in some] for some in rows],
            num_workers=self.readers,
            pin_memory=str(device).startswith("cuda"),
        )
        for pictures in loader:
            pixels = pictures.to(device, non_blocking=True)  # uint8 [batch, height, width, 3]
            if self.scaling.reverse:
                pixels = pixels.flip(-1)
            pixels = pixels.float() * scale + offset
            yield pixels.permute(0, 3, 1, 2) if self.first else pixels


class Photographs:
    """A data set of PyTorch: `(row, epoch)` to a picture, uint8 `[height, width, 3]`."""

    def __init__(
        self, examples: TuningExamples, preprocessing: Preprocessing, recipe: Recipe
    ) -> None:
        self.examples, self.preprocessing, self.recipe = examples, preprocessing, recipe
        self.reader: Reader | None = None  # made in the process that reads

    def __getitem__(self, place: tuple[int, int | None]) -> Any:
        import torch

        row, epoch = place
        picture = self._read(row)
        if epoch is None:
            return torch.from_numpy(np.ascontiguousarray(picture))
        recipe = self.recipe
        (number,) = drawn_views(recipe, epoch, np.array([row]))
        picture = np.ascontiguousarray(view(picture[None], int(number), recipe.augmentation)[0])
        values = torch.from_numpy(picture)
        if recipe.augmentation == "photo":
            random = np.random.default_rng([recipe.seed, epoch, row, 2])
            values = changed(values.permute(2, 0, 1), random, recipe.strength).permute(1, 2, 0)
        return values.contiguous()

    def _read(self, row: int) -> np.ndarray:
        if self.reader is None:
            self.reader = Reader(self.examples.folder)
            self.reader.start()
        path = self.examples.paths[row]
        try:
            content, _ = self.reader.read_stamped(path)
            if digest(content) != self.examples.contents[row]:
                raise ExtractionError(
                    f"{path} has changed since its features were made",
                    "Put it back as it was, or extract again and train the model again.",
                )
            return self.preprocessing.decode(content)
        except (OSError, DecodeError) as error:
            raise ExtractionError(
                f"{path} can no longer be read: {error}",
                "Put it back as it was, or extract again and train the model again.",
            ) from None
