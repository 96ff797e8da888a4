"""The whole job: photographs in; backbone, features, model, report, edge model and page out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from headstart.backbones import (
    CHOSEN,
    backbone_file,
    calibrated_on,
    made_from,
    write_backbone,
)
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.splits.splitting import SplitOptions
from headstart.classify.training import RunOptions, train
from headstart.data.common import console
from headstart.data.common.console import counted
from headstart.data.common.errors import Checklist, HeadstartError, InputError
from headstart.data.common.intervals import Interval
from headstart.data.contracts.backbone import Backbone
from headstart.data.contracts.edge import LABELS
from headstart.data.contracts.model import EXAMPLES, HEAD, REPORT, Model
from headstart.data.contracts.model import MODEL as MODEL_CARD
from headstart.data.contracts.store import MANIFEST, FeatureStore
from headstart.data.examples.opening import Source, open_source
from headstart.data.modalities.known import MODALITIES
from headstart.data.source_options import same_examples, split_address
from headstart.export.demo.site import write_demo
from headstart.export.edge.classifier import export_classifier
from headstart.export.options import EdgeOptions, ExportOptions, GateOptions
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions
from headstart.extract.planning.plan import Update
from headstart.work_folder import WorkFolder, digest_of

BACKBONE, FEATURES, MODEL, EDGE, PAGE = (
    *("backbone.onnx", "features", "model"),
    *("edge.onnx", "page"),
)
PARTS = ("backbone", "features", "model", "edge model", "page")
BUILT, UNCHANGED, SKIPPED = "built", "unchanged", "skipped"


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """The options of all parts.

    Parameters
    ----------
    backbone
        A backbone file, or a network as `export backbone` takes it.
    export
        How the network is exported; not for a backbone file. int8 is calibrated on the source if
        nothing else is named.
    extraction, update
        Of `extract`.
    max_bad
        Share of failed examples above which the job stops.
    head, splits, training
        Of `classify train`.
    edge, gate
        Of `export classifier`; the source of `gate` is that of the job.
    page, page_examples
        Whether the page is written, and shows held-out photographs to try.
    title
        Its heading; the name of the source if empty.
    runtime
        An unpacked npm package onnxruntime-web for it; downloaded by npm if not given.
    """

    backbone: str = CHOSEN
    export: ExportOptions = ExportOptions()
    extraction: ExtractOptions = ExtractOptions()
    update: Update = Update()
    max_bad: float = 0.05
    head: FitOptions = FitOptions()
    splits: SplitOptions = SplitOptions()
    training: RunOptions = RunOptions()
    edge: EdgeOptions = EdgeOptions()
    gate: GateOptions = GateOptions()
    page: bool = True
    page_examples: bool = False
    title: str = ""
    runtime: str | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the job made.

    Parameters
    ----------
    examples, failed
        Embedded examples, and those that could not be read.
    accuracy
        On `tested_on` held-out examples, with its 95 % interval.
    repeats
        Scores over further random splits, as in `model.json`, if they were asked for.
    page
        Empty if it was not written; `no_page` says why.
    parts
        What became of each part: `built`, `unchanged` or `skipped`.
    seconds
        By part.
    """

    work: str
    source: str
    examples: int
    failed: int
    classes: tuple[str, ...]
    accuracy: Interval
    repeats: dict[str, Any] | None
    tested_on: int
    network: str
    head: str
    backbone: str
    features: str
    model: str
    report: str
    edge: str
    page: str
    no_page: str
    parts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def build(source: str | Path, output: str | Path, options: BuildOptions = BuildOptions()) -> Built:
    """Do the whole job in a folder; a second run does what is new or was changed, and no more.

    Every part is recognized by what it was made from and by its contents.

    Raises
    ------
    InputError
        With everything that is wrong with source, options and folder, before any work.
    TooManyBadError
        If too many examples could not be read; the features are kept.
    HeadstartError
        What the parts raise; what was done is kept.
    """
    job = _Job(source, output, options)
    job.work.begin(job.source.path)
    backbone = job.backbone()
    store = job.features(backbone)
    model = job.model(store, backbone)
    edge = job.edge(backbone, model)
    no_page = job.page(edge, model)
    card = model.card
    test = card.metrics["test"]
    work = job.work.path
    has_report = (work / MODEL / REPORT).exists()
    return Built(
        work=str(work),
        source=job.source.path,
        examples=store.manifest.rows,
        failed=store.manifest.errors,
        classes=card.classes,
        accuracy=Interval(**test["accuracy_interval"]),
        repeats=card.metrics["repeats"],
        tested_on=test["examples"],
        network=backbone.spec.name,
        head=card.head["name"],
        backbone=str(work / BACKBONE),
        features=str(work / FEATURES),
        model=str(work / MODEL),
        report=str(work / MODEL / REPORT) if has_report else "",
        edge=str(edge),
        page="" if no_page else str(work / PAGE),
        no_page=no_page,
        parts=job.parts,
        seconds=job.seconds,
    )


class _Job:
    """The parts, one after the other; all cheap checks are made first."""

    def __init__(self, source: str | Path, output: str | Path, options: BuildOptions) -> None:
        self.options = options
        self.parts: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        checks = Checklist()
        given: Backbone | None = None
        with checks.item():
            self.export = calibrated_on(options.backbone, options.export, source)
            given = backbone_file(options.backbone, self.export)
        with checks.item():
            self.source = open_source(
                source,
                options.extraction.allow_unlabelled,
                given.spec.modality if given else None,
            )
            _check_source(source, self.source, options)
        with checks.item():
            self.work = WorkFolder(output)
            self._check_same(output)
        checks.finish()
        self.given = given

    def _check_same(self, output: str | Path) -> None:
        """Refuse a folder that was built from something else."""
        before = self.work.source
        same = not before or same_examples(before, self.source.path)
        if not same and not self.options.update.moved_from:
            raise InputError(
                f"{output} was built from {before}",
                "Choose another folder with -o, or say --moved-from if the source was moved.",
            )

    @contextmanager
    def _part(self, name: str, unchanged: bool) -> Iterator[bool]:
        """Say which part it is, and time it; yields whether there is something to do."""
        at = f"[{PARTS.index(name) + 1}/{len(PARTS)}] {name}"
        console.note(f"{at}: {UNCHANGED}" if unchanged else at)
        start = time.monotonic()
        yield not unchanged
        self.parts[name] = UNCHANGED if unchanged else BUILT
        self.seconds[name] = time.monotonic() - start

    def backbone(self) -> Backbone:
        """The backbone file, copied or exported."""
        options, path = self.options, self.work.path / BACKBONE
        source = made_from(options.backbone, options.export, self.given)
        with self._part("backbone", self.work.unchanged("backbone", source, path)) as todo:
            if todo:
                write_backbone(path, options.backbone, self.export, self.given)
                self.work.record("backbone", source, path)
        loaded = backbone_file(str(path))
        assert loaded is not None  # noqa: S101  it is what was written above
        return loaded

    def features(self, backbone: Backbone) -> FeatureStore:
        """The feature store; `extract` itself finds out what there is to do."""
        folder, options = self.work.path / FEATURES, self.options
        source = {"backbone": backbone.fingerprint.sha256}
        if options.extraction.precision:
            source["precision"] = options.extraction.precision
        if (before := self.work.made_from("features")) not in (None, source):
            same = before.get("backbone") == source["backbone"]
            what = "precision" if same else "backbone"
            console.note(f"the {what} is another one: all features are extracted again")
            shutil.rmtree(folder, ignore_errors=True)
        self.work.record("features", source)
        with self._part("features", False):
            done = extract(self.source, backbone.path, folder, options.extraction, options.update)
        worked = done.embedded + done.failed + done.pruned + done.counts.relabelled
        if not worked:
            self.parts["features"] = UNCHANGED
        for line in done.failures:
            console.note(f"  {line}")
        done.check(options.max_bad)
        return FeatureStore.open(folder)

    def model(self, store: FeatureStore, backbone: Backbone) -> Model:
        """The model folder with its report, which shows where the head looked in photographs."""
        folder, options = self.work.path / MODEL, self.options
        source = {
            "features": digest_of(self.work.path / FEATURES / MANIFEST),
            "options": [options.head, options.splits, options.training.report],
        }
        if options.training.corrections is not None:
            source["corrections"] = digest_of(Path(options.training.corrections))
        files = [folder / name for name in (MODEL_CARD, HEAD, EXAMPLES)]
        if options.training.report:
            files.append(folder / REPORT)
        with self._part("model", self.work.unchanged("model", source, *files)) as todo:
            if todo:
                looked = options.training.report and backbone.spec.modality is MODALITIES["image"]
                run = replace(
                    options.training, overwrite=True, backbone=backbone.path if looked else None
                )
                train(str(store.folder), folder, options.head, options.splits, run)
                self.work.record("model", source, *files)
        return Model.open(folder)

    def edge(self, backbone: Backbone, model: Model) -> Path:
        """The edge model, with its labels beside it."""
        path, options = self.work.path / EDGE, self.options
        files = (path, path.with_suffix(LABELS))
        source = {
            "backbone": backbone.fingerprint.sha256,
            "head": digest_of(model.folder.path(HEAD), model.folder.path(MODEL_CARD)),
            "options": replace(options.edge, overwrite=False),
        }
        if options.gate != GateOptions():
            source["gate"] = options.gate
        with self._part("edge model", self.work.unchanged("edge model", source, *files)) as todo:
            if todo:
                edge = replace(options.edge, overwrite=True)
                # Where the photographs are now, also if the store has not changed since they moved.
                gate = replace(options.gate, source=str(self.source.folder))
                export_classifier(model.folder.path(), backbone.path, path, edge, gate)
                self.work.record("edge model", source, *files)
        return path

    def page(self, edge: Path, model: Model) -> str:
        """The page; returns why there is none, or nothing. It is the one part that needs npm."""
        folder, options = self.work.path / PAGE, self.options
        if not options.page:
            self.parts["page"] = SKIPPED
            return "not asked for"
        title = options.title or Path(split_address(self.source.path)[0]).stem
        source = {"edge": digest_of(edge), "title": title, "runtime": options.runtime}
        examples = str(model.folder) if options.page_examples else None
        if examples:
            source["examples"] = digest_of(model.folder.path(EXAMPLES))
        try:
            with self._part("page", self.work.unchanged("page", source, folder)) as todo:
                if todo:
                    write_demo(edge, folder, title, options.runtime, True, examples)
                    self.work.record("page", source, folder)
        except HeadstartError as error:  # everything else is there, and is of use without it
            self.parts["page"] = SKIPPED
            return str(error)
        return ""


def _check_source(path: str | Path, source: Source, options: BuildOptions) -> None:
    classes = source.classes
    if len(classes) < 2:
        raise InputError(
            f"{path} has {f'one class ({classes[0]!r})' if classes else 'no labels'}; "
            "a classifier needs at least two",
            "Sort the files into a folder for each class, or give a manifest with a column "
            "'label'.",
        )
    group = options.splits.group
    if group and group not in source.examples.column_names:
        columns = ", ".join(source.examples.column_names)
        raise InputError(f"--group {group}: {path} has no such column", f"It has {columns}.")
    options.edge.check_top(len(classes))


def to_json(built: Built) -> dict[str, Any]:
    """As a JSON object, with the sizes of the files."""
    sizes = {name: Path(getattr(built, name)).stat().st_size for name in ("backbone", "edge")}
    return asdict(built) | {"bytes": sizes}


def show(built: Built, say: Callable[[dict[str, Any]], None] = console.show) -> None:
    """Print the summary."""
    place = console.place
    size = {
        name: console.human_bytes(Path(getattr(built, name)).stat().st_size)
        for name in ("backbone", "edge")
    }
    found = built.accuracy
    failed = (
        f", {built.failed:,} failed (see `data errors {place(built.features)}`)"
        if built.failed
        else ""
    )
    rows = {
        "accuracy": f"{found.value:.4f}  (95 %: {found.low:.4f} to {found.high:.4f}) on "
        f"{counted(built.tested_on, 'held-out example')}",
    }
    if over := built.repeats:
        mean, spread = over["mean"]["accuracy"], over["std"]["accuracy"]
        rows["repeats"] = f"{mean:.4f} +- {spread:.4f} over {over['repeats']} random splits"
    rows |= {
        "classes": console.first_few(built.classes, 10),
        "examples": f"{built.examples:,} embedded{failed}",
        "backbone": f"{place(built.backbone)} ({built.network}, {size['backbone']})",
        "features": place(built.features),
        "model": f"{place(built.model)} ({built.head})",
    }
    if built.report:
        rows["report"] = place(built.report)
    rows["edge model"] = f"{place(built.edge)} ({size['edge']})"
    if built.page:
        rows["page"] = place(built.page)
    rows["took"] = ", ".join(
        f"{name} {UNCHANGED if built.parts[name] == UNCHANGED else f'{took:.1f} s'}"
        for name, took in built.seconds.items()
    )
    rows["classify"] = f"{console.front_door()} predict {place(built.edge)} FILE ..."
    rows["try it"] = f"{console.front_door()} serve {place(built.edge)}"
    say(rows)
    if built.parts["page"] == SKIPPED and built.no_page != "not asked for":
        console.note(f"no page was written: {built.no_page}")
