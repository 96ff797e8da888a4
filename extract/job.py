"""Extraction as a whole: check, plan, run the workers, write the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.compute as pc

from headstart.data.common import console
from headstart.data.common.errors import (
    Checklist,
    ExtractionError,
    StoppedError,
    StorageError,
    TooManyBadError,
)
from headstart.data.common.ray_session import ray_session
from headstart.data.contracts.backbone import Backbone, load_backbone
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import finish
from headstart.data.contracts.store import (
    FeatureStore,
    StoreManifest,
    columns_for,
    read_part,
)
from headstart.data.examples.folder import Containers
from headstart.data.examples.opening import Source, open_found, open_or_find, open_source
from headstart.data.examples.parts import in_parts
from headstart.data.examples.source import describe_left_out
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import Folder
from headstart.data.storage.lock import Held, sole_writer
from headstart.data.storage.places import folder_at
from headstart.data.workers.nodes import check_shared
from headstart.data.workers.process import Ahead
from headstart.extract.corrections import corrected, corrections_of
from headstart.extract.engines.precision import check_precision
from headstart.extract.engines.runtimes import EngineConfig, check_config
from headstart.extract.options import ExtractOptions
from headstart.extract.planning.by_file import (
    FileSource,
    InMemoryError,
    PlanByFile,
    plan_by_file,
)
from headstart.extract.planning.files import MANY, Files, files_of
from headstart.extract.planning.plan import Counts, Plan, Update, plan, state
from headstart.extract.working import Done, Work


@dataclass(frozen=True)
class Summary:
    """What an extraction did and wrote, and how long it took.

    Parameters
    ----------
    examples
        In the source.
    counts
        How the examples that were already in the store were handled.
    embedded, failed
        By this run.
    pruned
        Dropped by this run, since the source no longer has them.
    inferences
        Examples that went through the backbone in this run; all examples of a shard whose worker
        died are counted.
    all_inferences
        In all runs on this store.
    errors
        All errors in the store by `stage/reason`, including those of earlier runs.
    such_as
        An example of each, and what is wrong with it.
    precision
        Of the embeddings.
    engines
        That ran the backbone; empty if nothing was embedded.
    first_embedding
        Seconds from when the workers were asked for (of a job on Ray, it had started before) to the
        first embedding; None if nothing was embedded.
    remembered
        Whether the engine was the fastest one in an earlier run, and not compared again.
    tally
        What the modality counts of the examples embedded by this run, such as texts that were cut.
    seconds
        By stage: `plan`, `start Ray`, `list files` (of a source in very many), `choose precision`,
        `start workers`, `embed`, `stop Ray`. Small jobs on this machine run without Ray.
    """

    store: str
    examples: int
    counts: Counts
    embedded: int
    failed: int
    pruned: int
    inferences: int
    all_inferences: int
    rows: int
    errors: dict[str, int]
    workers: int
    precision: str
    engines: tuple[str, ...]
    first_embedding: float | None
    remembered: bool = False
    tally: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    such_as: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """The errors in the store, in words: a line for each reason."""
        return [
            f"{count:,} failed with {kind}, such as {self.such_as[kind]}"
            for kind, count in self.errors.items()
        ]

    @property
    def bad_share(self) -> float:
        """Share of the examples in the store that failed, 0 to 1."""
        bad = sum(self.errors.values())
        return bad / max(1, bad + self.rows)

    def check(self, max_bad: float) -> None:
        """Raise `TooManyBadError` if a larger share than `max_bad` failed."""
        if self.bad_share > max_bad:
            raise TooManyBadError(
                f"{self.bad_share:.1%} of the examples failed, more than --max-bad {max_bad:.1%}",
                f"Show the reasons with: python -m data errors {console.place(self.store)}",
            )

    @property
    def rate(self) -> float:
        """Examples per second, without start-up and shut-down."""
        return (self.embedded + self.failed) / max(self.seconds.get("embed", 0.0), 1e-9)


def extract(
    source: str | Path | Source,
    backbone: str | Path,
    output: str | Path,
    options: ExtractOptions = ExtractOptions(),
    update: Update = Update(),
    ahead: Ahead | None = None,
) -> Summary:
    """Update a feature store to match a source, by its path or opened; no inference is made twice.

    Running it again continues where the last run stopped, embeds what is new or was changed,
    copies new labels, or does nothing on a finished store.

    Parameters
    ----------
    ahead
        Processes that were started ahead, for a small job.

    Raises
    ------
    InputError
        With everything that is wrong with source, backbone and store, before any work.
    ExtractionError
        If the work cannot continue; what was done is kept.
    """
    clock = console.Clock()
    checks = Checklist()
    modality: Modality | None = None
    files: Files | None = None
    with checks.item():
        loaded = load_backbone(backbone)
        modality = loaded.spec.modality
        precision = check_precision(options.precision, options.engine, loaded)
        if options.local:
            check_config(EngineConfig(precision, options.engine))
    with checks.item():
        if isinstance(source, Source):
            examples = source
        else:
            found = open_or_find(source, modality)
            if isinstance(found, Containers) and len(found.stamps) >= MANY and modality:
                files = files_of(found, loaded.spec.preprocessing)
            else:
                examples = open_found(source, found, options.allow_unlabelled)
    with checks.item():
        store = folder_at(output)
        store.check()
    checks.finish()
    asked = _Asked(loaded, loaded.fingerprint.run_in(precision), store, options, update, clock)
    before = corrections_of(store)
    if files and not isinstance(source, Source):
        try:
            if before or options.corrections:
                raise InMemoryError("there are corrections of examples")
            return _by_file(files, asked)
        except InMemoryError as error:
            console.note(f"the examples are planned in memory: {error.message}")
        examples = open_source(source, options.allow_unlabelled, modality)
    examples = in_parts(examples, loaded.spec.preprocessing).source
    _note_what_is_left_out(examples)
    examples, corrections = corrected(examples, before, options.corrections)

    def planned() -> Plan:
        found = plan(examples, store, asked.wanted, update, options.any_precision)
        leftovers = found.leftovers or corrections != before
        return replace(found, corrections=corrections, leftovers=leftovers)

    seen, todo = state(store), planned()
    clock.stage("plan")
    if todo.finished:
        return _summary(asked, examples, todo, Done(todo.fingerprint.precision))
    columns = columns_for(examples.columns, loaded.spec.dim)
    with _readable_errors(), sole_writer(store, columns) as held:
        if state(store) != seen:  # another run has just finished
            todo = planned()
        done = _work_and_finish(asked, examples, todo, held, ahead)
    return _summary(asked, examples, todo, done)


@dataclass(frozen=True)
class _Asked:
    """What an extraction is asked for, once it is checked, and the clock that it goes by."""

    backbone: Backbone
    wanted: Fingerprint
    store: Folder
    options: ExtractOptions
    update: Update
    clock: console.Clock


def _by_file(files: Files, asked: _Asked) -> Summary:
    """The same for a source in very many files, which workers list."""
    store, options, clock = asked.store, asked.options, asked.clock

    def planned(on_ray: bool) -> PlanByFile | None:
        return plan_by_file(
            files,
            store,
            asked.wanted,
            asked.update,
            any_precision=options.any_precision,
            allow_unlabelled=options.allow_unlabelled,
            on_ray=on_ray,
        )

    todo = planned(on_ray=False)
    clock.stage("plan")
    if todo and todo.finished:
        _note_what_is_left_out(todo.source)
        return _summary(asked, todo.source, todo, Done(todo.fingerprint.precision))
    columns = columns_for(files.listing.nothing().columns, asked.backbone.spec.dim)
    with (
        _readable_errors(),
        sole_writer(store, columns) as held,
        ray_session(options.address, None),
    ):
        clock.stage("start Ray")
        check_shared(files.listing.folder, files.stamps, store)
        todo = planned(on_ray=True)
        assert todo is not None  # noqa: S101 - only without Ray
        clock.stage("list files")
        _note_what_is_left_out(todo.source)
        done = _work_and_finish(asked, todo.source, todo, held)
    clock.stage("stop Ray")
    return _summary(asked, todo.source, todo, done)


def _work_and_finish(
    asked: _Asked,
    source: Source | FileSource,
    todo: Plan,
    held: Held,
    ahead: Ahead | None = None,
) -> Done:
    backbone, store = asked.backbone, asked.store
    done = Work(
        source=source,
        backbone=backbone.run_in(todo.fingerprint.precision),
        store=store,
        todo=todo,
        options=asked.options,
        clock=asked.clock,
        held=held,
        ahead=ahead,
    ).done()
    fingerprint = backbone.fingerprint.run_in(done.precision)
    manifest = _manifest(source, fingerprint, store, todo, asked.update, done)
    used = backbone.spec.preprocessing.to_metadata()
    finish(store, replace(manifest, input=used, corrections=todo.corrections), held)
    return done


def _note_what_is_left_out(source: Source | FileSource) -> None:
    if source.left_out:
        console.note(f"left out: {describe_left_out(source.left_out)}")
    unlabelled = (
        source.unlabelled if isinstance(source, FileSource) else source.examples["label"].null_count
    )
    if unlabelled == len(source):
        console.note(f"none of the {len(source):,} examples has a label")


@contextmanager
def _readable_errors() -> Iterator[None]:
    """Turn what stopped the work into errors of ours."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped; the parts that are done are kept", "Run the same command again to continue."
        ) from None
    except StorageError as error:
        raise StorageError(error.message, f"What is done is kept. {error.fix}") from None
    except OSError as error:  # not of the store, whose own are `StorageError`
        raise ExtractionError(
            f"the extraction stopped: {error!r}",
            "What is done is kept. Run the same command again to continue.",
        ) from None


def _manifest(
    source: Source | FileSource,
    fingerprint: Fingerprint,
    store: Folder,
    todo: Plan,
    update: Update,
    done: Done,
) -> StoreManifest:
    replaced = {part.replaces for part in done.rewritten}
    kept = (part for part in todo.parts if part.name not in replaced)
    parts = [part for part in (*kept, *done.rewritten, *done.embedded) if part.rows + part.errors]
    classes = set(source.classes)
    # The classes of a source in files include those of the manifest before.
    if todo.counts.vanished and not update.prune and isinstance(source, Source):
        for part in parts:
            if part.rows_file:
                labels = read_part(store, part.rows_file, ["label"])["label"]
                classes |= set(pc.unique(labels.drop_null()).to_pylist())
    return StoreManifest(
        fingerprint=fingerprint,
        source=source.path,
        root=str(source.folder),
        classes=tuple(sorted(classes)),
        parts=tuple(sorted(parts, key=lambda part: part.name)),
        inferences=todo.inferences + done.inferences,
        modality=source.modality.name,
    )


def _summary(asked: _Asked, source: Source | FileSource, todo: Plan, done: Done) -> Summary:
    finished = FeatureStore.open(str(asked.store))
    errors, such_as = finished.errors_by_kind()
    return Summary(
        store=str(asked.store),
        examples=len(source),
        counts=todo.counts,
        embedded=sum(part.rows for part in done.embedded),
        failed=sum(part.errors for part in done.embedded),
        pruned=todo.counts.vanished if asked.update.prune else 0,
        inferences=done.inferences,
        all_inferences=finished.manifest.inferences,
        rows=finished.manifest.rows,
        errors=errors,
        workers=done.workers,
        precision=done.precision,
        engines=done.engines,
        remembered=done.remembered,
        first_embedding=done.first,
        tally=dict(sorted(done.tally.items())),
        seconds=asked.clock.seconds,
        such_as=such_as,
    )
