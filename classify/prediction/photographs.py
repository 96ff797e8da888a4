"""Classes for photographs by an edge model, in batches on Ray Data.

What goes in are rows and paths, what comes out are answers; pixels stay with the worker that read
them. The answers do not depend on the number of workers: blocks and batches are cut from the source
alone.

A photograph may end its worker, by a fault in a decoder or for want of memory. Ray Data starts the
worker anew and tries the block again; a block that was lost for good is left out, and its
photographs are tried once more, one at a time, so that only those that end their worker alone have
no answer, and an error instead.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.classify.prediction.answers import (
    answers_table,
    check_predictions_file,
    write_answers,
)
from headstart.classify.prediction.edge_worker import EdgeJob, EdgeSession, EdgeWorker
from headstart.data.common import console
from headstart.data.common.errors import (
    Checklist,
    HeadstartError,
    InputError,
    PredictionError,
    StoppedError,
    StorageError,
    first_line,
)
from headstart.data.common.packages import quiet
from headstart.data.common.ray_session import ray_session
from headstart.data.contracts.calibration import UNKNOWN
from headstart.data.contracts.edge import Edge, load_edge
from headstart.data.contracts.model import LABEL, PROBABILITIES
from headstart.data.contracts.store import MANIFEST, RECORDS
from headstart.data.examples.opening import Source, open_source
from headstart.data.storage.places import folder_at

SMALLEST_BLOCK, LARGEST_BLOCK, BLOCKS = 64, 512, 64  # photographs; how many blocks are enough
RETRIES = 2  # of a block whose worker was lost: a machine may be lost by chance
MOST_LOST = 16  # blocks, and then photographs, that may be lost with their workers
PATIENCE = 600.0  # seconds without any block
DIED = "died: its worker was killed or crashed at this photograph, also with it alone"


@dataclass(frozen=True)
class PhotographOptions:
    """How photographs are to be predicted.

    Parameters
    ----------
    address
        Of a Ray cluster; a local one is started where none is given.
    workers
        Number of workers, one CPU each; all free CPUs where none is given.
    batch
        Photographs that go through the edge model at once.
    """

    address: str | None = None
    workers: int | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        checks = Checklist()
        for name, most in (("workers", 100_000), ("batch", 1024)):
            value = getattr(self, name)
            with checks.item():
                if value is not None and not 1 <= value <= most:
                    raise InputError(f"--{name} {value} is not possible", f"Give 1 to {most:,}.")
        checks.finish()


def predict_photographs(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    overwrite: bool = False,
    options: PhotographOptions = PhotographOptions(),
) -> pa.Table:
    """Predict a class for every photograph of a source and write it to a file.

    Parameters
    ----------
    model
        An edge model, local or in object storage.
    source
        As `open_source` takes it; labels are carried along where there are any.
    output
        A `.parquet` or `.csv` file to write.

    Returns
    -------
    pa.Table
        In the source's order what `prediction.features.predict` returns, and `error`: none, or
        `REASON: MESSAGE` for a photograph without an answer.

    Raises
    ------
    InputError
        What is wrong with model, source and output: everything at once, before any work.
    PredictionError, StorageError, StoppedError
        If the work cannot go on, or the user stopped it; nothing is written.
    """
    checks = Checklist()
    with checks.item():
        edge = load_edge(model)
        EdgeSession(edge.path, edge.content)  # tried here, where it costs no Ray
    with checks.item():
        photographs = _open_photographs(source, output)
    with checks.item():
        path = check_predictions_file(output, overwrite)
    checks.finish()
    try:
        answers = _predict(edge, photographs, options)
    except KeyboardInterrupt:
        raise StoppedError("stopped; no predictions were written") from None
    failed = np.array([error is not None for error in answers.errors], bool)
    table = answers_table(
        photographs.examples, answers.labels, answers.probabilities, edge.classes, failed
    ).append_column("error", pa.array(answers.errors, pa.string()))
    write_answers(path, table, edge.classes)
    return table


def _open_photographs(source: str | Path, output: str | Path) -> Source:
    folder = folder_at(source)
    if folder.exists(MANIFEST) or folder.exists(RECORDS):
        raise InputError(
            f"{source} is a feature store; an edge model takes photographs",
            "Name the photographs, or the model folder: "
            f"python -m classify predict MODEL {source} -o {output}",
        )
    return open_source(source, allow_unlabelled=True)


class _Answers:
    """An answer or an error for each example of the source, once it is there."""

    def __init__(self, rows: int, classes: int) -> None:
        self.there = np.zeros(rows, bool)
        self.labels = np.full(rows, UNKNOWN)
        self.probabilities = np.zeros((rows, classes), np.float32)
        self.errors: list[str | None] = [None] * rows

    def add(self, block: pa.Table) -> None:
        rows = block["row"].to_numpy()
        self.there[rows] = True
        self.labels[rows] = block[LABEL].to_numpy()
        flat = block[PROBABILITIES].combine_chunks().flatten().to_numpy()
        self.probabilities[rows] = flat.reshape(len(rows), -1)
        for row, error in zip(rows, block["error"].to_pylist(), strict=True):
            self.errors[row] = error

    def lost(self) -> np.ndarray:
        """Rows without an answer or an error, int64."""
        return np.flatnonzero(~self.there)


def _predict(edge: Edge, source: Source, options: PhotographOptions) -> _Answers:
    total = len(source)
    job = EdgeJob(source.folder, edge.preprocessing, len(edge.classes), options.batch)
    answers = _Answers(total, len(edge.classes))
    with ray_session(options.address, options.workers) as workers:
        import ray  # not sooner: the session sets what Ray reads when it is imported

        crew = _Crew(job, edge.path, ray.put(edge.content), workers)
        with console.progress("predicting", total) as advance:
            for size in (_block_size(total, options.batch), 1):
                rows = answers.lost()
                if len(rows) and size == 1:
                    console.note(
                        f"workers were lost over {len(rows):,} photographs; these are tried one at "
                        "a time"
                    )
                for block in crew.run(_blocks(source, rows, size), careful=size == 1):
                    answers.add(block)
                    advance(len(block))
    for row in answers.lost():
        answers.errors[row] = DIED
    return answers


def _block_size(total: int, batch: int) -> int:
    """Photographs in a block: whole batches, and so many blocks that no worker is idle for long."""
    size = min(max(total // BLOCKS, SMALLEST_BLOCK), LARGEST_BLOCK)
    return -(-size // batch) * batch


def _blocks(source: Source, rows: np.ndarray, size: int) -> list[pa.Table]:
    taken = pa.array(rows)
    paths = source.examples["path"].take(taken)
    table = pa.table({"row": taken, "path": paths})
    return [table.slice(start, size) for start in range(0, len(rows), size)]


class _Crew:
    """Workers on Ray Data, that turn blocks of examples into blocks of answers.

    Parameters
    ----------
    job
        What all workers share.
    path
        Of the edge model, for people.
    edge
        The bytes of the edge model, in Ray's object store.
    size
        Number of workers.
    """

    def __init__(self, job: EdgeJob, path: str, edge: Any, size: int) -> None:
        self.job, self.path, self.size = job, path, size
        self.edge = [edge]  # in a list, so that Ray does not unpack it

    def run(self, blocks: list[pa.Table], careful: bool) -> Iterator[pa.Table]:
        """Yield answers in the order in which they are done; those of lost workers never come.

        Parameters
        ----------
        careful
            Give a worker nothing before its last block is done: what waits at a worker that is
            lost is lost as well.

        Raises
        ------
        StorageError
            If the storage of the examples does not answer.
        PredictionError
            If too many workers are lost, or none gets on.
        """
        if not blocks:
            return
        import ray.data

        roll: Any = ray.remote(num_cpus=0)(_Roll).remote()
        with _quiet_data():
            strategy = ray.data.ActorPoolStrategy(
                size=min(self.size, len(blocks)), max_tasks_in_flight_per_actor=1 if careful else 2
            )
            answers = ray.data.from_arrow(blocks).map_batches(
                _actor_class(),
                batch_size=None,
                batch_format="pyarrow",
                compute=strategy,
                fn_constructor_args=[self.job, self.path, self.edge, roll],
                num_cpus=1,
                # By itself Ray Data tries a block for ever, and a photograph may end every worker.
                max_task_retries=0 if careful else RETRIES,
            )
            coming = iter(
                answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            )
            try:
                with quiet():  # Ray's core has a remark on every pool of actors
                    block = next(coming, None)
                while block is not None:
                    if stop := block["stop"][0].as_py():
                        raise StorageError(f"{stop}\n  No predictions were written.")
                    yield block
                    block = next(coming, None)
            except HeadstartError:
                raise
            except Exception as error:  # Ray Data has no one class for what ends its work
                raise _in_words(error) from error
            finally:
                coming.close()  # type: ignore[attr-defined]
                for worker in ray.get(roll.signed.remote()):
                    ray.kill(worker)
                ray.kill(roll)


class _Roll:
    """Knows the workers of a run, so that they can be ended with it.

    Ray Data just forgets them; one that was being started anew at that moment would stay, and keep
    its CPU, until our process ends.
    """

    def __init__(self) -> None:
        self.workers: list[Any] = []

    def sign(self, worker: Any) -> None:
        self.workers.append(worker)

    def signed(self) -> list[Any]:
        return self.workers


def _actor_class() -> type:
    class EdgeActor:
        def __init__(self, job: EdgeJob, path: str, edge: list[Any], roll: Any) -> None:
            import ray

            roll.sign.remote(ray.get_runtime_context().current_actor)
            self.worker = EdgeWorker(job, EdgeSession(path, ray.get(edge[0])))

        def __call__(self, examples: pa.Table) -> pa.Table:
            return self.worker.answer(examples)

    return EdgeActor


def _in_words(error: Exception) -> PredictionError:
    import ray
    from ray.data.exceptions import ExecutionTimeoutError

    if isinstance(error, ExecutionTimeoutError):
        return PredictionError(
            f"no block of photographs was done in {PATIENCE:g} s",
            "Check the cluster's free CPUs, and the photographs: python -m data inspect SOURCE.",
        )
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return PredictionError(
            f"more than {MOST_LOST} workers were lost, killed or crashed",
            "Short memory is the usual cause: ask for fewer with --workers, or for a smaller "
            "--batch.",
        )
    return PredictionError(
        f"Ray Data cannot go on: {first_line(error)}", "Ray's logs, in /tmp/ray, say more."
    )


@contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data as we need it, for a while: no bars and no log of its own, lost blocks let pass."""
    import ray.data

    handlers = [each for each in logging.getLogger("ray.data").handlers if each.name == "console"]
    with warnings.catch_warnings():
        # Ray 2.64 takes `max_task_retries` away; until then there is nothing in its place.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.data")
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = MOST_LOST
        context.execution_no_progress_timeout_s = PATIENCE
        levels = [handler.level for handler in handlers]
        for handler in handlers:
            handler.setLevel(logging.CRITICAL + 1)
        try:
            with ray.data.DataContext.current(context):
                yield
        finally:
            for handler, level in zip(handlers, levels, strict=True):
                handler.setLevel(level)
