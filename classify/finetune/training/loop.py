"""The training of one network, as each worker runs it."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.classify.finetune.options import AUTO, Recipe
from headstart.classify.finetune.training.inputs import Inputs, inputs_for
from headstart.classify.finetune.training.job import Session, TrainingJob
from headstart.classify.finetune.training.optimization import (
    MIXES,
    assign,
    choose_parameters,
    copies,
    mixed,
    optimizer,
    set_rates,
    temporarily,
)
from headstart.data.common.errors import ExtractionError
from headstart.export.networks.trainable.opening import open_trainable

STATE, ABOUT, OUTCOME, HEAD = "state.pt", "state.json", "outcome.json", "head.safetensors"
ANSWERS = "answers.npz"
PROBE_C = 0.01  # of the logistic regression that the head starts from
EVALUATED = 64  # examples that go through the network at once without gradients


def train(job: TrainingJob, session: Session, readers: int, device: Any) -> None:
    """Train, and report each epoch; the last report has a checkpoint with the finished weights.

    Parameters
    ----------
    readers
        Processes that read and decode photographs beside this one.

    Raises
    ------
    ExtractionError
        If the loss is not a number, or a photograph cannot be read.
    """
    import torch

    if job.threads and str(device) == "cpu":
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.recipe.seed)
    _Run(job, session, readers, device).run()


@dataclass
class _Progress:
    """What a checkpoint holds besides weights."""

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: int = 0  # epoch with the lowest validation loss so far


class _Run:
    def __init__(self, job: TrainingJob, session: Session, readers: int, device: Any) -> None:
        import torch

        self.job, self.session, self.device, self.torch = job, session, device, torch
        self.recipe: Recipe = job.recipe
        self.examples = job.examples
        network = open_trainable(job.network, job.options)
        network.prepare()
        network.to(device)
        self.network = network
        self.cut = job.first if job.cache is not None else 0
        self.inputs: Inputs = inputs_for(job, network, readers)
        trained = choose_parameters(network, job.first, job.convolutions)
        self.head = torch.nn.Linear(network.dim, len(self.examples.classes)).to(device)
        self.parameters = [*(p for block in trained for p in block), *self.head.parameters()]
        self.optimizer = optimizer(trained, self.head, self.recipe)
        self.labels = torch.from_numpy(self.examples.labels)
        self.progress = _Progress()
        self.start: list[Any] = []
        self.best: list[Any] = []
        self.average: list[Any] = []

    def run(self) -> None:
        with self.session.restored() as folder:
            if folder is not None:
                self._restore(folder)
            else:
                self._start_head()
        self.model = self.session.wrapped(self._model())
        if not self.start:
            self.start = copies(self.parameters)
            self.best, self.average = copies(self.parameters), copies(self.parameters)
        until = self.recipe.epochs if self.job.until is None else self.job.until
        while self.progress.epoch < until and not self._stopped():
            self._epoch(self.progress.epoch)
        if self.job.until is None:
            self._finish()

    def _model(self) -> Any:
        features, head, recipe = self.network.module, self.head, self.recipe
        torch = self.torch

        class Model(torch.nn.Module):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                self.features, self.head = features, head

            def forward(self, values: Any, cut: int) -> Any:
                found = self.features(values, cut)
                return self.head(torch.nn.functional.dropout(found, recipe.dropout, self.training))

        model = Model().eval()
        model.training = True  # of the dropout above alone: statistics and dropout inside stay off
        return model

    def _autocast(self) -> Any:
        """For steps of training; what answers computes in float32, as the exported network does."""
        torch, kind, asked = self.torch, self.torch.device(self.device).type, self.recipe.precision
        able = kind == "cuda" and torch.cuda.is_bf16_supported()
        on = asked == "bf16" or (asked == AUTO and able)
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=on)

    def _start_head(self) -> None:
        """Start from a logistic regression on the features as they are (arXiv:2202.10054)."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        rows, torch = self.examples.train, self.torch
        features = self._gathered(rows, self._features(self._share(rows)))
        scaler = StandardScaler().fit(features)
        labels = self.examples.labels[rows]
        probe = LogisticRegression(
            C=PROBE_C, max_iter=1000, class_weight=self.recipe.class_weight or None
        ).fit(scaler.transform(features), labels)
        weight = probe.coef_ / scaler.scale_
        offset = probe.intercept_ - weight @ scaler.mean_
        if len(weight) == 1:  # of two classes, one row of coefficients
            weight = np.concatenate([-weight, weight]) / 2
            offset = np.concatenate([-offset, offset]) / 2
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.fill_(float(offset.min()) - 10)  # classes without training examples
            known = torch.from_numpy(probe.classes_)
            self.head.weight[known] = torch.from_numpy(weight).float().to(self.device)
            self.head.bias[known] = torch.from_numpy(offset).float().to(self.device)

    def _share(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.session.rank :: self.session.world]

    def _gathered(self, rows: np.ndarray, mine: np.ndarray) -> np.ndarray:
        """The results of all workers, in the order of `rows`."""
        if self.session.world == 1:
            return mine
        parts: list[Any] = [None] * self.session.world
        self.torch.distributed.all_gather_object(parts, mine)
        whole = np.empty((len(rows), *mine.shape[1:]), mine.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.session.world] = part
        return whole

    def _features(self, rows: np.ndarray) -> np.ndarray:
        """Float32 `[rows, dim]`, of the pictures as they are."""
        found = [np.empty((0, self.network.dim), np.float32)]
        some = [rows[n : n + EVALUATED] for n in range(0, len(rows), EVALUATED)]
        with self.torch.no_grad():
            for values in self.inputs.batches(some, None, self.device):
                found.append(self.network.module(values, self.cut).cpu().numpy())
        return np.concatenate(found)

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """The head's scores, float32 `[rows, classes]`, computed by all workers."""
        features = self.torch.from_numpy(self._features(self._share(rows))).to(self.device)
        with self.torch.no_grad():
            mine = self.head(features).float().cpu().numpy()
        return self._gathered(rows, mine)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """This worker's rows of each step; all workers have as many, and the last few wait."""
        rows, world = self.examples.train, self.session.world
        order = np.random.default_rng([self.recipe.seed, epoch, 0]).permutation(rows)
        size = min(self.recipe.batch, len(order)) // world * world
        steps = max(1, len(order) // max(size, 1))
        return [
            order[step * size : (step + 1) * size][self.session.rank :: world]
            for step in range(steps)
        ]

    def _epoch(self, epoch: int) -> None:
        torch, recipe = self.torch, self.recipe
        batches, began = self._batches(epoch), time.monotonic()
        torch.manual_seed(hash((recipe.seed, epoch, self.session.rank)) % 2**31)
        weights = self._class_weights()
        total = right = seen = 0.0
        for number, values in enumerate(self.inputs.batches(batches, epoch, self.device)):
            set_rates(
                self.optimizer,
                epoch * len(batches) + number,
                recipe.epochs * len(batches),
                recipe,
            )
            labels = self.labels[batches[number]].to(self.device)
            with self._autocast():
                scores = self.model(values, self.cut)
                loss = torch.nn.functional.cross_entropy(
                    scores.float(), labels, weights, label_smoothing=recipe.label_smoothing
                )
            if not bool(torch.isfinite(loss)):
                raise ExtractionError(
                    f"the loss is not a number at step {number + 1} of epoch {epoch + 1}",
                    f"The checkpoint of epoch {epoch} is kept. Lower the rates (--learning-rate, "
                    "--head-rate) and start anew with --overwrite.",
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if recipe.average:
                for mean, parameter in zip(self.average, self.parameters, strict=True):
                    mean.lerp_(parameter.detach(), 1 - recipe.average)
            total += float(loss.detach()) * len(labels)
            right += float((scores.argmax(1) == labels).sum())
            seen += len(labels)
            self.session.advance(epoch, len(labels) * self.session.world)
        seconds = time.monotonic() - began
        about = {
            "epoch": epoch + 1,
            "loss": total / seen,
            "accuracy": right / seen,
            "seconds": seconds,
            "rate": seen * self.session.world / seconds,
        }
        if len(self.examples.validation):
            with temporarily(self.parameters, self._candidate()):
                about |= self._validated()
        self.progress.epoch = epoch + 1
        self.progress.history.append(about)
        self._note_best(about)
        self._report(about)

    def _class_weights(self) -> Any:
        if not self.recipe.class_weight:
            return None
        labels = self.examples.labels[self.examples.train]
        counts = np.bincount(labels, minlength=len(self.examples.classes))
        weights = len(labels) / np.maximum(counts, 1) / max(1, (counts > 0).sum())
        return self.torch.from_numpy(weights).float().to(self.device)

    def _candidate(self) -> list[Any]:
        """The weights that would be used if training ended now."""
        return self.average if self.recipe.average else self.parameters

    def _validated(self) -> dict[str, float]:
        rows = self.examples.validation
        scores = self.torch.from_numpy(self._scores(rows))
        labels = self.labels[rows]
        loss = float(self.torch.nn.functional.cross_entropy(scores, labels))
        accuracy = float((scores.argmax(1) == labels).float().mean())
        return {"validation_loss": loss, "validation_accuracy": accuracy}

    def _note_best(self, about: dict[str, Any]) -> None:
        """With early stopping the weights of the best epoch count, otherwise those of the last."""
        losses = [each.get("validation_loss", 0.0) for each in self.progress.history]
        if not self.recipe.early_stop or losses[-1] <= min(losses):
            self.best, self.progress.best = copies(self._candidate()), about["epoch"]

    def _stopped(self) -> bool:
        waited = self.progress.epoch - self.progress.best
        return bool(self.recipe.early_stop) and waited >= self.recipe.early_stop

    def _report(self, about: dict[str, Any]) -> None:
        if self.session.rank:
            self.session.report(about, None)
            return
        with tempfile.TemporaryDirectory() as name:
            self._save(Path(name))
            self.session.report(about, Path(name))

    def _save(self, folder: Path) -> None:
        state = {
            "weights": copies(self.parameters),
            "start": self.start,
            "best": self.best,
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        self.torch.save(state, folder / STATE)
        about = {
            "epoch": self.progress.epoch,
            "history": self.progress.history,
            "best": self.progress.best,
        }
        (folder / ABOUT).write_text(json.dumps(about))

    def _restore(self, folder: Path) -> None:
        state = self.torch.load(folder / STATE, map_location=self.device, weights_only=True)
        assign(self.parameters, state["weights"])
        self.start, self.best, self.average = state["start"], state["best"], state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = _Progress(**json.loads((folder / ABOUT).read_text()))

    def _finish(self) -> None:
        """Choose how far to go from the start, by validation examples; answer the test examples."""
        share, tried = self._choose_mix()
        assign(self.parameters, mixed(self.start, self.best, share))
        hashes = self._hashes()
        if len(set(hashes)) > 1:
            raise ExtractionError(
                "the workers' weights differ at the end",
                "This should not happen: report it, with the output of `pip list`.",
            )
        rows = self.examples.test
        scores = self._scores(rows)
        validation = self._scores(self.examples.validation)
        about = {
            "epoch": self.progress.epoch,
            "finished": True,
            "mix": share,
            "mixes": tried,
            "best": self.progress.best,
            "weights": hashes,
            "history": self.progress.history,
        }
        if self.session.rank:
            self.session.report(about, None)
            return
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self._save(folder)
            self.network.to("cpu")
            about["file"] = self.network.save(folder)
            self._save_head(folder)
            np.savez(folder / ANSWERS, test=scores, validation=validation)
            (folder / OUTCOME).write_text(json.dumps(about))
            self.session.report(about, folder)

    def _save_head(self, folder: Path) -> None:
        from safetensors.torch import save_file

        tensors = {"weight": self.head.weight, "bias": self.head.bias}
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / HEAD
        )

    def _choose_mix(self) -> tuple[float, list[dict[str, float]]]:
        if not self.recipe.interpolate or not len(self.examples.validation):
            return 1.0, []
        tried = []
        for share in MIXES:
            with temporarily(self.parameters, mixed(self.start, self.best, share)):
                tried.append({"mix": share, **self._validated()})
        best = min(tried, key=lambda each: (each["validation_loss"], -each["mix"]))
        return best["mix"], tried

    def _hashes(self) -> list[str]:
        """A hash of the trained weights of each worker."""
        state = hashlib.sha256()
        for parameter in self.parameters:
            state.update(parameter.detach().cpu().numpy().tobytes())
        mine: Sequence[str] = [state.hexdigest()]
        if self.session.world == 1:
            return list(mine)
        every: list[Any] = [None] * self.session.world
        self.torch.distributed.all_gather_object(every, mine[0])
        return every
