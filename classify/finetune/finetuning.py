"""Fine-tuning as a whole: check, plan, cache, train, compare with the frozen model, write."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.classify.finetune.activation_worker import ActivationJob
from headstart.classify.finetune.activations import compute, rows_to_compute
from headstart.classify.finetune.examples import TuningExamples, find_examples
from headstart.classify.finetune.options import (
    FinetuneOptions,
    NetworkOptions,
    Recipe,
    ScopeOptions,
)
from headstart.classify.finetune.planning import Work, make_plan, parameters_of
from headstart.classify.finetune.running import check_machines, run_training
from headstart.classify.finetune.sweep import Trial, sweep
from headstart.classify.finetune.training.augmentation import VIEWS
from headstart.classify.finetune.training.job import TrainingJob
from headstart.classify.finetune.training.loop import ANSWERS, HEAD, OUTCOME
from headstart.classify.heads.calibration import fit_calibration
from headstart.classify.scores.comparison import Comparison, compare_examples
from headstart.classify.scores.metrics import Scores, reliability, score
from headstart.data.common import console
from headstart.data.common.errors import Checklist, InputError, ModelError, StoppedError
from headstart.data.common.ray_session import ray_session
from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.calibration import softmax
from headstart.data.contracts.model import Model
from headstart.data.contracts.tuned import EXAMPLES, REPORT, TUNED, Tuned, TunedCard
from headstart.data.storage.files import check_writable, local_path
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.lock import LOCK, sole_writer
from headstart.export.networks.catalogue import LITE
from headstart.export.networks.trainable.opening import CAN_BE_TRAINED, open_trainable
from headstart.export.networks.trainable.trainable import Trainable
from headstart.export.options import BackboneOptions

SETTINGS, CHECKPOINTS, CACHE, SWEEP = "settings.json", "checkpoints", "cache", "sweep"
PLANNED = "planned"  # in the settings: what was chosen by measuring
FEW = 50  # labels of a class, below which a frozen head is the safer choice (docs/finetune.md)
IMAGE = "image"  # the modality whose networks can be trained
PACKAGES = ("headstart", "torch", "ray", "numpy")


@dataclass(frozen=True)
class Finetuned:
    """A tuned network, and how it compares with the frozen model.

    Parameters
    ----------
    comparison
        A is the frozen model, B the tuned network, on the same test examples.
    trials
        Of a sweep, best first.
    seconds
        By stage: `start Ray`, `plan`, `cache`, `train`.
    """

    tuned: Tuned
    scores: Scores
    comparison: Comparison
    trials: tuple[Trial, ...]
    seconds: dict[str, float]

    @property
    def verdict(self) -> str:
        """Whether it was worth it, as a sentence."""
        gained = self.comparison.difference
        minutes = sum(self.seconds.values()) / 60
        what = (
            f"{100 * gained.value:+.1f} points of accuracy (95 %: {100 * gained.low:+.1f} to "
            f"{100 * gained.high:+.1f}) for {minutes:.1f} minutes"
        )
        better = self.comparison.verdict.startswith("B is better")
        return f"worth it: {what}" if better else f"not worth it: {what}"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return self.tuned.card.metrics | {
            "verdict": self.verdict,
            "history": list(self.tuned.card.history),
        }


def finetune(
    source: str | Path,
    backbone: str | Path,
    model: str | Path,
    output: str | Path,
    options: FinetuneOptions = FinetuneOptions(),
) -> Finetuned:
    """Train the last blocks of a network, or all, on the training examples of a frozen model.

    The model gives the split and the baseline. Whatever chooses something (when to stop, how far
    to go from the start) uses training examples alone; the test examples are answered once, by the
    finished network. A run that was stopped goes on from its last checkpoint.

    Parameters
    ----------
    source
        The photographs that the model's features were made from.
    backbone
        The backbone file that they were made with, or the name of a network.
    model
        A model folder of the frozen features.
    output
        Folder to write; cache and checkpoints are in it as well.

    Raises
    ------
    InputError
        With everything that is wrong with the arguments, before any work.
    ExtractionError
        If the work cannot go on; what was done is kept.
    """
    recipe = options.recipe
    checks = Checklist()
    with checks.item():
        frozen = Model.open(model)
        reference, opening = _network(backbone, frozen, options.network)
    with checks.item():
        folder = LocalFolder.at(output)
        _check_output(folder, output, options.overwrite)
    checks.finish()
    examples = find_examples(
        source, frozen, recipe.validation, options.samples_per_class, recipe.seed
    )
    _warn_of_few(examples)
    with console.status(f"opening {reference}"):
        network = open_trainable(reference, opening)
    settings = _settings(reference, opening, options, examples)
    with _kept_if_stopped(), sole_writer(folder):
        _begin(folder, settings, options.overwrite)
        done = _train(folder, settings, _Opened(reference, opening, network), examples, options)
        return _write(folder, frozen, network, done)


@dataclass(frozen=True)
class _Opened:
    """The network, and what opens it again in a worker."""

    reference: str
    options: BackboneOptions
    network: Trainable


@dataclass(frozen=True)
class _Done:
    """A finished training: the folder with its outcome, and seconds by stage."""

    job: TrainingJob
    outcome: Path
    trials: tuple[Trial, ...]
    seconds: dict[str, float]


def _train(
    folder: LocalFolder,
    settings: dict[str, Any],
    opened: _Opened,
    examples: TuningExamples,
    options: FinetuneOptions,
) -> _Done:
    """Plan, cache, sweep and train."""
    machine = options.machine
    scope, recipe = _as_planned(folder, options)
    network, place = opened.network, Path(folder.path())
    clock, count = console.Clock(), len(examples.paths)
    with ray_session(machine.address, None) as workers:
        cpus = min(check_machines(machine, place), workers)
        clock.stage("start Ray")
        caches = Path(scope.folder or place / CACHE)
        front = _activation_job(network, recipe, examples)
        work = Work(
            count,
            len(examples.train),
            cpus,
            lambda first: open_trainable(opened.reference, opened.options).front_to_onnx(first),
            lambda content: rows_to_compute(caches, front, content, examples),
            gpu=machine.gpus > 0,
        )
        with console.status("measuring the network"):
            network.prepare()
            network.to("cpu")
            plan = make_plan(network, scope, recipe, work)
        recipe = replace(recipe, precision=plan.precision)
        for line in plan.words:
            console.note(line)
        trained, whole = parameters_of(network, plan.first, scope.convolutions)
        head = (network.dim + 1) * len(examples.classes)
        console.note(
            f"{trained + head:,} of {whole + head:,} parameters are trained, {head:,} of them the "
            "head's"
        )
        clock.stage("plan")
        chosen = {
            "blocks": len(network.blocks) - plan.first,
            "cache": "no" if plan.front is None else "yes",
            "precision": plan.precision,
        }
        folder.write(SETTINGS, json.dumps(settings | {PLANNED: chosen}, indent=1).encode())
        cache = None
        if plan.front is not None:
            cache = compute(caches, front, plan.front, examples, plan.shape, cpus)
        clock.stage("cache")
        job = TrainingJob(
            network=opened.reference,
            options=opened.options,
            first=plan.first,
            convolutions=scope.convolutions,
            recipe=recipe,
            examples=examples,
            cache=cache,
            threads=max(1, cpus // machine.workers),
        )
        trials: tuple[Trial, ...] = ()
        if options.sweep:
            best, trials = sweep(job, options.sweep, place / SWEEP, machine)
            job = replace(job, recipe=best)
            clock.stage("sweep")
        outcome = run_training(job, machine, place / CHECKPOINTS, cpus)
        clock.stage("train")
    return _Done(job, outcome, trials, clock.seconds)


def _as_planned(folder: LocalFolder, options: FinetuneOptions) -> tuple[ScopeOptions, Recipe]:
    """What the run that was stopped had chosen by measuring, which goes for one that goes on."""
    scope, recipe = options.scope, options.recipe
    before = json.loads(folder.read(SETTINGS)) if folder.exists(SETTINGS) else {}
    if PLANNED not in before:
        return scope, recipe
    chosen = before[PLANNED]
    blocks = scope.blocks if scope.convolutions is not None else str(chosen["blocks"])
    scope = replace(scope, blocks=blocks, cache=chosen["cache"])
    return scope, replace(recipe, precision=chosen["precision"])


def _network(
    backbone: str | Path, frozen: Model, asked: NetworkOptions
) -> tuple[str, BackboneOptions]:
    """The network to open, and how."""
    options = BackboneOptions(weights=asked.weights, trust=asked.trust)
    path = local_path(str(backbone))
    if path.suffix.lower() != ".onnx":
        return asked.name or str(backbone), options
    loaded = load_backbone(backbone)
    if frozen.card.fingerprint not in loaded.makes:
        frozen.require(
            loaded.fingerprint,
            str(backbone),
            "Give the backbone file that the model's features were made with.",
        )
    spec = loaded.spec
    if spec.modality.name != IMAGE:
        raise InputError(
            f"{backbone} is a backbone for {spec.modality.plural}; fine-tuning is for photographs",
            "Choose another head (`--head auto`) or another encoder.",
        )
    known = spec.name in LITE and spec.weights.startswith("imagenet")
    if asked.name is None and not known:
        raise InputError(
            f"{backbone} is a graph for inference and cannot be trained by itself",
            "Name the network that it was exported from, and its weights: --network NAME "
            f"--weights FILE. Networks that can be trained: {CAN_BE_TRAINED}.",
        )
    height = getattr(spec.preprocessing, "height", None)
    return asked.name or spec.name, replace(options, size=height)


def _check_output(folder: LocalFolder, output: str | Path, overwrite: bool) -> None:
    folder.check()
    if folder.exists(TUNED) and not overwrite:
        raise ModelError(
            f"{output} holds a tuned network already", "Pass --overwrite to replace it."
        )
    foreign = [name for name in folder.names() if name != LOCK] if folder.exists() else []
    if foreign and not folder.exists(SETTINGS):
        raise ModelError(
            f"{output} is in use by something else (it holds {foreign[0]})",
            "Choose an empty or new folder with -o.",
        )
    check_writable(folder.path())


def _settings(
    reference: str,
    opening: BackboneOptions,
    options: FinetuneOptions,
    examples: TuningExamples,
) -> dict[str, Any]:
    """What a run that goes on must have in common with the one that was stopped."""
    state = hashlib.sha256()
    for rows in (examples.train, examples.validation, examples.test):
        for row in rows.tolist():
            state.update(f"{examples.contents[row]} {examples.labels[row]}\n".encode())
        state.update(b"\0")
    return {
        "network": {"name": reference} | asdict(opening),
        "recipe": options.recipe.to_json(),
        "scope": asdict(replace(options.scope, folder=None)),
        "sweep": dict(options.sweep),
        "examples": state.hexdigest(),
    }


def _begin(folder: LocalFolder, settings: dict[str, Any], overwrite: bool) -> None:
    """Check that the settings of a run that was stopped are the same; remove what is replaced."""
    if overwrite and folder.exists(TUNED):
        folder.path(TUNED).unlink()
        _start_anew(folder, settings)
    elif folder.exists(SETTINGS):
        before = json.loads(folder.read(SETTINGS))
        before.pop(PLANNED, None)
        other = sorted(_differences(before, json.loads(json.dumps(settings))))
        if other and not overwrite:
            raise ModelError(
                f"{folder} holds checkpoints of another fine-tuning: "
                f"{console.first_few(other, 4, separator='; ')}",
                "Run it with the same options to go on, or pass --overwrite to start anew.",
            )
        if other:
            _start_anew(folder, settings)
        else:
            console.note("going on from the last checkpoint, if there is one")


def _start_anew(folder: LocalFolder, settings: dict[str, Any]) -> None:
    """Remove checkpoints and what was planned; the settings stay, which say whose folder it is."""
    for name in (CHECKPOINTS, SWEEP):
        shutil.rmtree(folder.path(name), ignore_errors=True)
    folder.write(SETTINGS, json.dumps(settings, indent=1).encode())


def _differences(one: dict[str, Any], other: dict[str, Any], name: str = "") -> Iterator[str]:
    for key in sorted(one.keys() | other.keys()):
        before, now = one.get(key), other.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _differences(before, now, key)
        elif before != now:
            yield f"its {key} are others" if key == "examples" else f"{key} was {before}, is {now}"


def _warn_of_few(examples: TuningExamples) -> None:
    counts = np.bincount(examples.labels[examples.train], minlength=len(examples.classes))
    few = int(counts.min())
    if few < FEW:
        console.note(
            f"warning: {examples.classes[int(counts.argmin())]!r} has "
            f"{console.counted(few, 'training example')}; below some {FEW} a class the frozen head "
            "is the safer choice (docs/finetune.md)"
        )


@contextmanager
def _kept_if_stopped() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped; cache and checkpoints are kept", "Run the same command again to go on."
        ) from None


def _activation_job(network: Trainable, recipe: Recipe, examples: TuningExamples) -> ActivationJob:
    return ActivationJob(
        root=examples.folder,
        spec=network.preprocessing,
        scaling=network.scaling,
        channels_first=network.channels_first,
        augmentation=recipe.augmentation,
        views=VIEWS[recipe.augmentation],
    )


def _write(folder: LocalFolder, frozen: Model, network: Trainable, done: _Done) -> Finetuned:
    job, outcome = done.job, done.outcome
    about = json.loads((outcome / OUTCOME).read_text())
    examples = job.examples
    answers = np.load(outcome / ANSWERS)
    labels = examples.labels[examples.test]
    temperature = fit_calibration(
        "temperature" if len(examples.validation) else "none",
        answers["validation"],
        examples.labels[examples.validation],
        "decision_function",
    ).temperature
    probabilities = softmax(answers["test"] / temperature).astype(np.float32)
    groups = None if examples.groups is None else examples.groups[examples.test]
    scores = score(labels, probabilities, examples.classes, None, groups)
    before = reliability(labels, softmax(answers["test"])).expected_calibration_error
    scores = replace(scores, uncalibrated_error=before)
    table = _examples_table(frozen, examples, probabilities)
    comparison = compare_examples(("frozen", "tuned"), (frozen.examples(), table))
    for name in (about["file"], HEAD):
        folder.write(name, (outcome / name).read_bytes())
    sink = BytesIO()
    pq.write_table(table, sink, compression="zstd")
    folder.write(EXAMPLES, sink.getvalue())
    card = TunedCard(
        network=job.network,
        name=f"{network.name}_tuned",
        weights=about["file"],
        origin=network.weights.origin,
        licence=network.weights.licence,
        size=network.height,
        resize=network.resize,
        crop_fraction=network.crop_fraction,
        crop_offset=network.crop_offset,
        interpolation=network.interpolation,
        scaling=job.options.scaling,
        classes=examples.classes,
        blocks=tuple(block.name for block in network.blocks[job.first :]),
        root=str(examples.folder),
        recipe=job.recipe.to_json() | {"retrained_conv_layers": job.convolutions},
        history=tuple(about["history"]),
        metrics={
            "test": scores.to_json(),
            "comparison": comparison.to_json() | {"changes": len(comparison.changes)},
            "mix": about["mix"],
            "mixes": about["mixes"],
            "best_epoch": about["best"],
            "temperature": temperature,
            "weights_of_workers": about["weights"],
            "seconds": done.seconds,
            "sweep": [trial.to_json() for trial in done.trials],
        },
        versions={package: version(package) for package in PACKAGES},
    )
    from headstart.classify.finetune.page import report  # matplotlib takes a second to import

    folder.write(REPORT, report(card, comparison).encode())
    folder.write(TUNED, card.to_bytes())
    return Finetuned(Tuned.open(folder.path()), scores, comparison, done.trials, done.seconds)


def _examples_table(frozen: Model, examples: TuningExamples, probabilities: np.ndarray) -> pa.Table:
    """The model's table of examples, with the answers of the tuned network."""
    table = frozen.examples()
    place = {id_: row for row, id_ in enumerate(table["id"].to_pylist())}
    rows = [place[examples.ids[row]] for row in examples.test]
    columns: dict[str, list[Any]] = {
        name: [None] * table.num_rows for name in ("prediction", "confidence", "probability")
    }
    best = probabilities.argmax(1)
    for number, row in enumerate(rows):
        columns["prediction"][row] = examples.classes[best[number]]
        columns["confidence"][row] = float(probabilities[number, best[number]])
        own = examples.labels[examples.test[number]]
        columns["probability"][row] = float(probabilities[number, own])
    for name, values in columns.items():
        kind = table.schema.field(name).type
        table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    return table
