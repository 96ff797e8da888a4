"""Classes for the examples of a source by an edge model, on the workers that extraction has.

Rows and paths go to the workers, answers come back. The answers do not depend on the number of
workers: shards and batches are cut from the source alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import pyarrow as pa

from headstart.classify.prediction.answers import (
    answers_table,
    check_predictions_file,
    write_answers,
)
from headstart.classify.prediction.edge_worker import Answers, EdgeJob, EdgeSession
from headstart.classify.prediction.wholes import Wholes, labels_of
from headstart.data.common.errors import Checklist, InputError, StoppedError, TerminatedError
from headstart.data.common.ray_session import ray_session, room_for, stopped_by_sigterm
from headstart.data.contracts.edge import Edge, load_edge
from headstart.data.contracts.store import is_store
from headstart.data.examples.opening import Source, open_source, split_source
from headstart.data.examples.parts import in_parts
from headstart.data.modalities.modality import Modality
from headstart.data.storage.places import folder_at
from headstart.data.workers.nodes import check_shared
from headstart.data.workers.pool import WorkerPool
from headstart.data.workers.process import Ahead
from headstart.data.workers.processes import Processes
from headstart.data.workers.shards import Shard, cut
from headstart.data.workers.small import SMALL, without_ray

SMALLEST_SHARD, LARGEST_SHARD, SHARDS = 64, 512, 64  # examples; how many shards are enough
MODULES = ("headstart.classify.prediction.edge_worker",)  # that processes import as they start
PATIENCE = 600.0  # seconds without an example after which a worker is replaced


@dataclass(frozen=True)
class PredictOptions:
    """How the examples of a source are to be predicted.

    Parameters
    ----------
    address
        Of a Ray cluster; where none is given, up to `SMALL` examples are classified by processes of
        this machine, and more on a local Ray.
    workers
        Number of workers, one CPU each; all free CPUs where none is given.
    batch
        Examples that go through the edge model at once.
    spreadsheet_safe
        As in `answers.write_answers`.
    """

    address: str | None = None
    workers: int | None = None
    batch: int = 16
    spreadsheet_safe: bool = False

    def __post_init__(self) -> None:
        checks = Checklist()
        for name, most in (("workers", 100_000), ("batch", 1024)):
            value = getattr(self, name)
            with checks.item():
                if value is not None and not 1 <= value <= most:
                    raise InputError(f"--{name} {value} is not possible", f"Give 1 to {most:,}.")
        checks.finish()


def predict_examples(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    overwrite: bool = False,
    options: PredictOptions = PredictOptions(),
) -> pa.Table:
    """Predict a class for every example of a source and write it to a file.

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
        `REASON: MESSAGE` for an example without an answer.

    Raises
    ------
    InputError
        What is wrong with model, source and output: everything at once, before any work.
    PredictionError, StorageError, StoppedError
        If the work cannot go on, or the user stopped it; nothing is written.
    """
    checks = Checklist()
    modality: Modality | None = None
    with checks.item():
        edge = load_edge(model)
        modality = edge.spec.modality
        EdgeSession(edge.path, edge.content, edge.input_spec)  # tried here, without Ray
    with checks.item():
        examples = _open_source(source, output, modality)
    with checks.item():
        path = check_predictions_file(output, overwrite, options.spreadsheet_safe)
    checks.finish()
    table = answer_source(edge, examples, options)
    write_answers(path, table, options.spreadsheet_safe)
    return table


def answer_source(
    edge: Edge, source: Source, options: PredictOptions = PredictOptions(), here: bool = False
) -> pa.Table:
    """The predictions for all examples of a source: what `predict_examples` returns.

    Parameters
    ----------
    here
        Classify in this process, without Ray: faster for a few hundred examples.

    Raises
    ------
    InputError
        If a node of the cluster does not see the source.
    PredictionError, StorageError, StoppedError
        If the work cannot go on, or the user stopped it.
    """
    divided = in_parts(source, edge.input_spec)
    predict = _predict_here if here else _predict
    try:
        answers = predict(edge, divided.source, options)
    except KeyboardInterrupt:
        raise StoppedError("stopped; no predictions were written") from None
    except TerminatedError:
        raise TerminatedError("stopped by SIGTERM; no predictions were written") from None
    if len(divided.rows) > len(source):
        answers = _of_wholes(answers, divided.rows, edge)
    failed = np.array([error is not None for error in answers.errors], bool)
    return answers_table(
        source.examples, answers.labels, answers.probabilities, edge.classes, failed
    ).append_column("error", pa.array(answers.errors, pa.string()))


def _of_wholes(parts: Answers, rows: np.ndarray, edge: Edge) -> Answers:
    """The mean over the parts of each example; an error of one is the example's."""
    first = np.unique(rows, return_index=True)[1]
    wholes = Wholes(rows, [], first)
    good = np.array([error is None for error in parts.errors], bool)
    probabilities = wholes.mean(parts.probabilities, good)
    answered = np.bincount(rows[good], minlength=len(first)) > 0
    errors: list[str | None] = [None] * len(first)
    skipped = edge.spec.modality.skipped
    for row in np.flatnonzero(~good)[::-1]:  # the first of an example is the last that is written
        error, whole = parts.errors[row], rows[row]
        if not answered[whole] or str(error).partition(":")[0] not in skipped:
            errors[whole] = error
    labels = labels_of(probabilities, edge.threshold)
    return Answers(np.arange(len(first)), labels, probabilities, errors)


def _open_source(source: str | Path, output: str | Path, modality: Modality | None) -> Source:
    if is_store(folder_at(split_source(source)[0])):
        takes = modality.plural if modality else "files"
        raise InputError(
            f"{source} is a feature store; an edge model takes {takes}",
            f"Name the {takes}, or the model folder: "
            f"python -m classify predict MODEL {source} -o {output}",
        )
    return open_source(source, allow_unlabelled=True, modality=modality)


def _job(edge: Edge, source: Source, options: PredictOptions) -> EdgeJob:
    return EdgeJob(
        root=source.folder,
        spec=edge.input_spec,
        path=edge.path,
        classes=len(edge.classes),
        batch=options.batch,
    )


def _predict_here(edge: Edge, source: Source, options: PredictOptions) -> Answers:
    worker = _job(edge, source, options).worker(edge.content)
    answers = Answers.unknown(np.arange(len(source)), len(edge.classes))
    for shard in _shards(source, options.batch):
        _take(worker.work(shard), answers)
    return answers


def _predict(edge: Edge, source: Source, options: PredictOptions) -> Answers:
    """By processes of this machine, or on Ray; what a lost process leaves is done on Ray."""
    job, shards = _job(edge, source, options), _shards(source, options.batch)
    answers = Answers.unknown(np.arange(len(source)), job.classes)
    size = min(without_ray(options.address, options.workers), len(shards))
    if size and len(source) <= SMALL:
        with stopped_by_sigterm(), Processes(Ahead(size, MODULES), PATIENCE) as processes:
            for done in processes.run(job, edge.content, shards, "predicting"):
                _take(done.value, answers)
        shards = processes.left
    if shards:
        _predict_on_ray(job, edge.content, shards, options, answers)
    return answers


def _predict_on_ray(
    job: EdgeJob, content: bytes, shards: list[Shard], options: PredictOptions, answers: Answers
) -> None:
    with ray_session(options.address, options.workers) as workers:
        import ray  # not sooner: the session sets what Ray reads when it is imported

        check_shared(job.root, shards[0].examples["path"].slice(0, 1).to_pylist())
        # Without a number, machines that join the cluster get workers as well.
        room = (lambda: room_for(0)) if options.workers is None else None
        pool = WorkerPool(job, ray.put(content), workers, PATIENCE, room)
        for done in pool.run(shards, "predicting"):
            _take(done.value, answers)


def _take(part: Answers, answers: Answers) -> None:
    """Put a shard's answers into those of the source."""
    answers.labels[part.rows] = part.labels
    answers.probabilities[part.rows] = part.probabilities
    for row, error in zip(part.rows, part.errors, strict=True):
        answers.errors[row] = error


def _shards(source: Source, batch: int) -> list[Shard]:
    """Whole batches, and so many shards that no worker is idle for long."""
    total = len(source)
    size = min(max(total // SHARDS, SMALLEST_SHARD), LARGEST_SHARD)
    examples = source.examples.select(["id", "path"]).append_column(
        "row", pa.array(np.arange(total))
    )
    return cut(examples, repeat(-(-size // batch) * batch))
