"""Runs a training on Ray, restarted from its last checkpoint if a process dies.

Several workers are a group of Ray Train's. One worker is a task of Ray: a group of one would take
half a minute more, for the processes that watch over it.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from headstart.classify.finetune.board import Board
from headstart.classify.finetune.options import MachineOptions
from headstart.classify.finetune.training.job import TrainingJob
from headstart.data.common import console
from headstart.data.common.errors import (
    ExtractionError,
    HeadstartError,
    InputError,
    first_line,
    last_line,
)
from headstart.data.common.packages import import_packages
from headstart.data.workers.tasks import result_of

EVENTS = "events"  # of TensorBoard
RUN, GROUP = "run", "group"  # folders in that of the checkpoints, of one worker and of several
NEW, OLD = ".new", ".old"  # endings of a checkpoint that is being replaced
RESTARTS = 3  # of the workers, before the training fails
KEPT = 2  # checkpoints
POLL = 0.5  # seconds
PROBE = ".reachable"
SHUTDOWN = 60.0  # seconds for the last messages


class TrainSession:
    """A worker of Ray Train."""

    def __init__(self, board: Any) -> None:
        import ray.train

        self.train, self.board = ray.train, board
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.done = 0
        self.last = 0.0

    def restored(self) -> Any:
        """The folder of the last checkpoint, if there is one."""
        checkpoint = self.train.get_checkpoint()
        return nullcontext(None) if checkpoint is None else _opened(checkpoint)

    def report(self, epoch: dict[str, Any], checkpoint: Path | None) -> None:
        """Give Ray the checkpoint, which it copies, and tell the driver."""
        from ray.train import Checkpoint

        kept = None if checkpoint is None else Checkpoint.from_directory(checkpoint)
        self.train.report({"epoch": epoch["epoch"]}, checkpoint=kept)
        if not self.rank and "finished" not in epoch:
            self.board.report.remote(epoch)
        self.done = 0

    def advance(self, epoch: int, examples: int) -> None:
        """Tell the driver, twice a second at most."""
        self.done += examples
        if not self.rank and time.monotonic() - self.last > POLL:
            self.last = time.monotonic()
            self.board.advance.remote(epoch, self.done)

    def wrapped(self, model: Any) -> Any:
        """With gradients shared by all workers, where there are several."""
        from ray.train.torch import prepare_model

        return prepare_model(model) if self.world > 1 else model


class FolderSession:
    """The only worker of a training, whose checkpoints are in a folder."""

    rank, world = 0, 1

    def __init__(self, folder: Path, board: Any = None) -> None:
        self.folder, self.board = folder, board
        self.done, self.last = 0, 0.0
        old = folder.with_suffix(OLD)
        if not folder.exists() and old.exists():
            os.rename(old, folder)  # it was stopped between two renames

    def restored(self) -> Any:
        """The last checkpoint, if there is one."""
        return nullcontext(self.folder if self.folder.exists() else None)

    def report(self, epoch: dict[str, Any], checkpoint: Path | None) -> None:
        """Replace the last checkpoint; one that is not whole is never seen."""
        if checkpoint is None:
            return
        new, old = self.folder.with_suffix(NEW), self.folder.with_suffix(OLD)
        for each in (new, old):
            shutil.rmtree(each, ignore_errors=True)
        shutil.copytree(checkpoint, new)
        if self.folder.exists():
            os.rename(self.folder, old)
        os.rename(new, self.folder)
        shutil.rmtree(old, ignore_errors=True)
        if self.board is not None and "finished" not in epoch:
            self.board.report.remote(epoch)
        self.done = 0

    def advance(self, epoch: int, examples: int) -> None:
        """Tell the driver, twice a second at most."""
        self.done += examples
        if self.board is not None and time.monotonic() - self.last > POLL:
            self.last = time.monotonic()
            self.board.advance.remote(epoch, self.done)

    def wrapped(self, model: Any) -> Any:
        """As it is."""
        return model


def _work_alone(job: TrainingJob, folder: str, board: Any = None, readers: int = 0) -> None:
    """What a task of Ray runs."""
    import torch

    from headstart.classify.finetune.training.loop import train

    on_gpu = torch.cuda.is_available() and os.environ.get("CUDA_VISIBLE_DEVICES")
    train(job, FolderSession(Path(folder), board), readers, "cuda" if on_gpu else "cpu")


def task_of_one(cpus: int, gpus: float) -> Any:
    """A task that trains alone: `remote(job, folder, board, readers)`."""
    import ray

    remote: Any = ray.remote(_work_alone)
    return remote.options(num_cpus=cpus, num_gpus=gpus, max_retries=RESTARTS)


@contextmanager
def _opened(checkpoint: Any) -> Iterator[Path]:
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _work(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    import ray
    from ray.train.torch import get_device

    from headstart.classify.finetune.training.loop import train

    board, job = config["board"], config["job"]
    if ray.get(board.failed.remote()):
        raise RuntimeError("the training cannot go on")
    try:
        train(job, TrainSession(board), config["readers"], get_device())
    except HeadstartError as error:
        ray.get(board.fail.remote(error.message, error.fix))
        raise


def run_training(job: TrainingJob, machine: MachineOptions, folder: Path, cpus: int) -> Path:
    """Train, or go on; the session with Ray must be open. Returns the folder with the outcome.

    Parameters
    ----------
    folder
        For checkpoints; it must be reachable from all nodes.
    cpus
        That the workers have together.

    Raises
    ------
    InputError
        If there are too few GPUs or CPUs, or a node does not reach the folder.
    ExtractionError
        If the training fails.
    MissingPackageError
        If tensorboardX is not installed.
    """
    import ray

    (tensorboard,) = import_packages(["tensorboardX"], "the curves need tensorboardX", "torch")
    each = max(1, cpus // machine.workers)
    actor: Any = ray.remote(Board)
    board = actor.options(num_cpus=0).remote()
    readers = max(1, each - 1) if machine.gpus else 0
    stop = threading.Event()
    writer = tensorboard.SummaryWriter(str(folder.parent / EVENTS), write_to_disk=True)
    watch = threading.Thread(target=_show, args=(board, job, writer, stop), daemon=True)
    watch.start()
    place = folder.resolve() / RUN
    try:
        if machine.workers > 1:
            return _group(job, machine, folder.resolve(), board, readers, each)
        task = task_of_one(each, machine.gpus)
        result_of(task.remote(job, str(place), board, readers), "the training", ExtractionError)
        return place
    finally:
        stop.set()
        watch.join(SHUTDOWN)


def _group(
    job: TrainingJob, machine: MachineOptions, folder: Path, board: Any, readers: int, cpus: int
) -> Path:
    """Train with several workers; returns the folder with the outcome."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if machine.address is None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "board": board, "readers": readers},
        scaling_config=ScalingConfig(
            num_workers=machine.workers,
            use_gpu=bool(machine.gpus),
            resources_per_worker={"CPU": float(cpus)}
            | ({"GPU": machine.gpus} if machine.gpus else {}),
        ),
        run_config=RunConfig(
            name=GROUP,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
        ),
    )
    try:
        result = _fit(trainer)
    except Exception as error:  # Ray Train's own, of several classes
        if told := ray.get(board.failed.remote()):
            raise ExtractionError(*told) from None
        raise ExtractionError(
            f"the training failed {RESTARTS + 1} times: {first_line(error)}",
            "What is done is kept. Run the same command again to go on from the last checkpoint.",
        ) from error
    if result.checkpoint is None:
        raise ExtractionError(
            "the training ended without a checkpoint", "Run the same command again."
        )
    return Path(result.checkpoint.path)


def _fit(trainer: Any) -> Any:
    """Its result. In the main thread Ray Train would make an exit with code 0 of Ctrl-C."""
    outcome: Future[Any] = Future()

    def fit() -> None:
        try:
            outcome.set_result(trainer.fit())
        except Exception as error:  # raised again where the result is read
            outcome.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    return outcome.result()


def _show(board: Any, job: TrainingJob, writer: Any, stop: threading.Event) -> None:
    """Progress of the steps, a line and TensorBoard's events for each epoch, until the end."""
    import ray

    total = job.recipe.epochs * len(job.examples.train)
    with writer, console.progress("training", total) as advance:
        shown, lines = 0, 0
        while True:
            ended = stop.wait(POLL)
            try:
                done, epochs = ray.get(board.read.remote(), timeout=SHUTDOWN)
            except ray.exceptions.RayError as error:
                console.note(f"progress is no longer shown: {last_line(error)}")
                return
            count = len(job.examples.train)
            before = max(done, default=0) * count + done.get(max(done, default=0), 0)
            if before > shown:
                advance(before - shown)
                shown = before
            for epoch in epochs[lines:]:
                console.note(in_words(epoch, job.recipe.epochs))
                for name, value in epoch.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, epoch["epoch"])
            lines = len(epochs)
            if ended:
                return


def in_words(epoch: dict[str, Any], epochs: int) -> str:
    """An epoch as a line for people."""
    text = f"epoch {epoch['epoch']} of {epochs}: loss {epoch['loss']:.4f}"
    text += f", accuracy {epoch['accuracy']:.1%}"
    if "validation_accuracy" in epoch:
        text += f"; validation loss {epoch['validation_loss']:.4f}"
        text += f", accuracy {epoch['validation_accuracy']:.1%}"
    return f"{text}; {epoch['rate']:.0f}/s"


def check_machines(machine: MachineOptions, folder: Path) -> int:
    """The CPUs for the workers; raises `InputError` if the cluster cannot run them."""
    import ray

    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0.0), int(resources.get("CPU", 0))
    if machine.gpus * machine.workers > gpus:
        raise InputError(
            f"{machine.workers} x {machine.gpus:g} GPUs are asked for, but the cluster has "
            f"{gpus:g}",
            "Leave --gpus-per-worker out to train on CPUs, or start Ray where there are GPUs.",
        )
    if machine.workers > cpus:
        raise InputError(
            f"{machine.workers} workers need as many CPUs, but the cluster has {cpus}",
            f"Ask for --workers {max(1, cpus)} or fewer.",
        )
    _check_reachable(folder)
    return cpus


def _check_reachable(folder: Path) -> None:
    """Raise `InputError` if a node does not see what is written to a folder here."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    probe = folder / PROBE
    probe.write_text("")
    try:
        look: Any = ray.remote(_sees)
        answers = {
            node["NodeManagerAddress"]: look.options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False),
            ).remote(str(probe.resolve()))
            for node in nodes
        }
        blind = [name for name, answer in answers.items() if not ray.get(answer)]
    finally:
        probe.unlink()
    if blind:
        raise InputError(
            f"{folder} cannot be reached from {console.first_few(blind)}: checkpoints and cache "
            "would be lost",
            "Choose an output folder on a disk that all nodes share.",
        )


def _sees(path: str) -> bool:
    return Path(path).exists()
