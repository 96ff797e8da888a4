"""Runs a training on Ray Train: one group of workers, restarted from its last checkpoint."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from headstart.classify.finetune.options import MachineOptions
from headstart.classify.finetune.training.job import TrainingJob
from headstart.data.common import console
from headstart.data.common.errors import ExtractionError, HeadstartError, InputError, first_line

EVENTS = "events"  # of TensorBoard
RUN = "run"  # Ray's folder in that of the checkpoints
RESTARTS = 3  # of the workers, before the training fails
KEPT = 2  # checkpoints
POLL = 0.5  # seconds
PROBE = ".reachable"
SHUTDOWN = 60.0  # seconds for the last messages


class Board:
    """What workers tell the driver; a Ray actor."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}
        self.epochs: list[dict[str, Any]] = []
        self.error: tuple[str, str] | None = None

    def advance(self, epoch: int, examples: int) -> None:
        """So many examples of an epoch are done in all."""
        self.done[epoch] = examples

    def report(self, epoch: dict[str, Any]) -> None:
        """An epoch has ended."""
        self.epochs.append(epoch)

    def fail(self, message: str, fix: str) -> None:
        """The training cannot go on."""
        self.error = (message, fix)

    def failed(self) -> tuple[str, str] | None:
        """Why the training cannot go on, if it cannot."""
        return self.error

    def read(self) -> tuple[dict[int, int], list[dict[str, Any]]]:
        """Examples done by epoch, and the epochs that have ended."""
        return self.done, self.epochs


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
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    each = max(1, cpus // machine.workers)
    actor: Any = ray.remote(Board)
    board = actor.options(num_cpus=0).remote()
    readers = max(1, each - 1) if machine.gpus else 0
    resources = {"CPU": float(each)} | ({"GPU": machine.gpus} if machine.gpus else {})
    if machine.address is None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job, "board": board, "readers": readers},
        scaling_config=ScalingConfig(
            num_workers=machine.workers, use_gpu=bool(machine.gpus), resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=RUN,
            storage_path=str(folder.resolve()),
            failure_config=FailureConfig(max_failures=RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
        ),
    )
    stop = threading.Event()
    events = folder.parent / EVENTS
    watch = threading.Thread(target=_show, args=(board, job, events, stop), daemon=True)
    watch.start()
    try:
        result = trainer.fit()
    except Exception as error:  # Ray Train's own, of several classes
        if told := ray.get(board.failed.remote()):
            raise ExtractionError(*told) from None
        raise ExtractionError(
            f"the training failed {RESTARTS + 1} times: {first_line(error)}",
            "What is done is kept. Run the same command again to go on from the last checkpoint.",
        ) from error
    finally:
        stop.set()
        watch.join(SHUTDOWN)
    if result.checkpoint is None:
        raise ExtractionError(
            "the training ended without a checkpoint", "Run the same command again."
        )
    return Path(result.checkpoint.path)


def _show(board: Any, job: TrainingJob, events: Path, stop: threading.Event) -> None:
    """Progress of the steps, a line and TensorBoard's events for each epoch, until the end."""
    import ray
    from tensorboardX import SummaryWriter

    total = job.recipe.epochs * len(job.examples.train)
    with (
        SummaryWriter(str(events), write_to_disk=True) as writer,
        console.progress("training", total) as advance,
    ):
        shown, lines = 0, 0
        while True:
            ended = stop.wait(POLL)
            try:
                done, epochs = ray.get(board.read.remote(), timeout=SHUTDOWN)
            except Exception:  # the session ends with an error, which is told by who raised it
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
