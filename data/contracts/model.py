"""The model folder: a trained head, its training examples, and its scores.

Format version 1:

- `head.onnx`: input `embedding` float32 `[batch, dim]`; outputs `label` (int64 index of the class,
  -1 for "unknown", `[batch]`) and `probabilities` (float32 `[batch, classes]`). Calibration and
  threshold are inside.
- `head.skops` or `head.keras`: the trained estimator, without them.
- `examples.parquet`: `id`, `path`, `content`, `label`, `split` of every example; for test examples
  and those without a label also `prediction` (null for "unknown"), `confidence` and the
  `probability` of the true class. Optional: `group`; examples of one group depend on each other.
- `report.html`: for people. `suspects.csv`: all probable label errors. `corrections.csv`: the
  corrections that the labels were trained with. All three are optional.
- `model.json`, written last: classes in order, fingerprint, parameters, calibration, threshold,
  metrics, versions.

The version is bumped when a reader of the old version would read a new model wrongly; a new
optional key does not bump it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.data.common.errors import ModelError
from headstart.data.contracts.backbone import parse_onnx, refuse_files
from headstart.data.contracts.calibration import Calibration
from headstart.data.contracts.corrections import Corrections, trusted
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.json_reader import format_version, read_json
from headstart.data.storage.files import check_writable
from headstart.data.storage.local import LocalFolder

FORMAT_VERSION = 1
MODEL, HEAD, EXAMPLES, REPORT = "model.json", "head.onnx", "examples.parquet", "report.html"
SUSPECTS, CORRECTIONS = "suspects.csv", "corrections.csv"
SKOPS, KERAS = "head.skops", "head.keras"
NAMES = (MODEL, HEAD, EXAMPLES, REPORT, SUSPECTS, CORRECTIONS, SKOPS, KERAS)
NEW, OLD = ".new", ".old"  # endings of the folders beside a model that is being replaced
INPUT, LABEL, PROBABILITIES, SCORES = "embedding", "label", "probabilities", "scores"
# In an ONNX file's bytes: the key of an external tensor's place (onnx.proto), a foreign domain.
MAY_OPEN_FILES = (b"location", b"com.", b"custom")
TRAIN_COMMAND = "Train one with: python -m classify train FEATURES -o MODEL"


@dataclass(frozen=True)
class ModelCard:
    """What `model.json` says.

    Parameters
    ----------
    classes
        In the order of the head's outputs.
    features, root
        The feature store, and the folder that the examples' paths are relative to.
    head
        Name and parameters of the head.
    split
        How the examples were divided, as text.
    metrics
        By the name of what was measured: `test`, `repeats`.
    versions
        Of the packages that trained the head.
    threshold
        Probability below which the answer is "unknown"; None for never.
    calibration
        How the estimator's scores become probabilities. Older models have logistic heads without
        calibration: the softmax of the scores, which is the default.
    corrections
        How many labels were `changed` and examples `removed` by `corrections.csv`.
    """

    classes: tuple[str, ...]
    fingerprint: Fingerprint
    features: str
    root: str
    head: dict[str, Any]
    split: str
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    threshold: float | None = None
    calibration: Calibration = Calibration()
    corrections: dict[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As the bytes of `model.json`."""
        value = {"format_version": FORMAT_VERSION} | asdict(self)
        return json.dumps(value, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> ModelCard:
        """From the bytes of `model.json`; raises `ValueError`, in words, if damaged."""
        card = read_json(content, cls)
        if len(set(card.classes)) < max(2, len(card.classes)):
            raise ValueError(f"its classes are {list(card.classes)}")
        return card


@dataclass(frozen=True)
class Model:
    """A model folder opened for reading."""

    folder: LocalFolder
    card: ModelCard

    @classmethod
    def open(cls, path: str | Path) -> Model:
        """Open a model folder.

        Raises
        ------
        ModelError
            If it is missing, damaged, or of another format version.
        """
        folder = LocalFolder.at(path)
        if not folder.exists() and (old := _beside(folder, OLD)).exists(MODEL):
            folder = old  # its replacement was interrupted between two renames
        if not folder.exists(MODEL):
            what = f" is not a model folder (it has no {MODEL})"
            what = what if folder.exists() else ": no such model folder"
            raise ModelError(f"{path}{what}", TRAIN_COMMAND)
        content = folder.read(MODEL)
        try:
            version = format_version(content)
            card = ModelCard.from_bytes(content) if version == FORMAT_VERSION else None
        except ValueError as error:
            raise ModelError(f"{folder.path(MODEL)} is damaged: {error}", TRAIN_COMMAND) from None
        if card is None:
            raise ModelError(
                f"{path} is a model of format {version}; this headstart reads {FORMAT_VERSION}",
                "Update headstart, or train again.",
            )
        missing = [name for name in (HEAD, EXAMPLES) if not folder.exists(name)]
        if not any(folder.exists(name) for name in (SKOPS, KERAS)):
            missing.insert(1, f"{SKOPS} or {KERAS}")
        if missing:
            raise ModelError(f"{path} lacks {', '.join(missing)}", TRAIN_COMMAND)
        return cls(folder, card)

    @property
    def head(self) -> bytes:
        """The bytes of `head.onnx`; raises `ModelError` if it is not one file by itself."""
        content, path = self.folder.read(HEAD), self.folder.path(HEAD)
        # Only what may open another file is parsed: prediction needs onnxruntime alone.
        if any(mark in content for mark in MAY_OPEN_FILES):
            refuse_files(path, parse_onnx(path, content, TRAIN_COMMAND, ModelError), ModelError)
        return content

    @property
    def estimator_file(self) -> str:
        """The name of the file with the trained estimator."""
        return SKOPS if self.folder.exists(SKOPS) else KERAS

    @property
    def estimator(self) -> bytes:
        """The bytes of `head.skops` or `head.keras`."""
        return self.folder.read(self.estimator_file)

    def examples(self) -> pa.Table:
        """The examples, as in `examples.parquet`."""
        try:
            return self.folder.table(EXAMPLES)
        except pa.ArrowException as error:
            raise ModelError(
                f"{self.folder.path(EXAMPLES)} is damaged: {error}", TRAIN_COMMAND
            ) from None

    def corrections(self) -> Corrections:
        """Those that the labels were trained with, as in `corrections.csv`."""
        if not self.folder.exists(CORRECTIONS):
            return ()
        return trusted(self.folder.path(CORRECTIONS))

    def require(self, fingerprint: Fingerprint, what: str, fix: str) -> None:
        """Check that something was made with the backbone that this head was trained on.

        Raises
        ------
        ModelError
            With both fingerprints, and `fix`, if it was not.
        """
        if fingerprint != self.card.fingerprint:
            raise ModelError(
                f"{what} and the model {self.folder} do not match:\n"
                f"  {what}: {fingerprint}\n  the model was trained on: {self.card.fingerprint}",
                fix,
            )


def prepare_model_folder(path: str | Path, overwrite: bool) -> LocalFolder:
    """The folder that a model is to be written to; completes a replacement that was interrupted.

    Raises
    ------
    ModelError
        If it contains other files, or a model and `overwrite` is not set, or if a model in it
        cannot be replaced by renaming folders.
    """
    folder = LocalFolder.at(path)
    folder.check()
    _settle(folder)
    if folder.exists(MODEL):
        if not overwrite:
            raise ModelError(f"{path} holds a model already", "Pass --overwrite to replace it.")
        if not _can_move(folder):
            raise ModelError(
                f"the model {path} cannot be replaced: its folder cannot be renamed, since it is a "
                "mount point or the folder above it is read-only",
                "Choose another folder with -o.",
            )
    elif names := folder.names():
        raise ModelError(
            f"{path} is in use by something else (it holds {names[0]})",
            "Choose an empty or new folder with -o.",
        )
    check_writable(folder.path())
    return folder


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model folder besides `model.json`.

    Parameters
    ----------
    estimator_file
        `head.skops` or `head.keras`, and its bytes.
    report, suspects, corrections
        `report.html`, `suspects.csv` and `corrections.csv`, if there are any.
    """

    head: bytes
    estimator_file: str
    estimator: bytes
    examples: pa.Table
    report: bytes | None = None
    suspects: bytes | None = None
    corrections: bytes | None = None


def write_model(folder: LocalFolder, card: ModelCard, files: ModelFiles) -> Model:
    """Write a model folder, whole or not at all.

    It is written to a folder beside, and renamed when it is complete; until then, an older model
    stays as it is. Between the two renames that replace one, `Model.open` reads the older one under
    its other name. Other files in the folder are kept.
    """
    beside = _can_move(folder)
    new = _beside(folder, NEW) if beside else folder
    if beside:
        new.remove_all("")
    new.write(HEAD, files.head)
    new.write(files.estimator_file, files.estimator)
    sink = BytesIO()
    pq.write_table(files.examples, sink, compression="zstd")
    new.write(EXAMPLES, sink.getvalue())
    for name in (REPORT, SUSPECTS, CORRECTIONS):
        content = getattr(files, name.partition(".")[0])
        if content is not None:
            new.write(name, content)
    new.write(MODEL, card.to_bytes())
    if beside:
        if folder.exists():
            os.rename(_real(folder), _beside(folder, OLD).path())
        os.rename(new.path(), _real(folder))
        _settle(folder)
    return Model(folder, card)


def _real(folder: LocalFolder) -> Path:
    """The folder itself, where its path is a link to it."""
    return Path(os.path.realpath(folder.path()))


def _can_move(folder: LocalFolder) -> bool:
    place = _real(folder)
    return not place.exists() or (not os.path.ismount(place) and os.access(place.parent, os.W_OK))


def _beside(folder: LocalFolder, ending: str) -> LocalFolder:
    """A hidden folder next to the model folder, for its replacement."""
    place = _real(folder)
    return LocalFolder(str(place.with_name(f".{place.name}{ending}")))


def _settle(folder: LocalFolder) -> None:
    """Finish a replacement, at whichever point it was interrupted; does nothing without one."""
    old = _beside(folder, OLD)
    if old.exists() and not folder.exists():
        os.rename(old.path(), _real(folder))
    elif old.exists():
        for name in sorted(os.listdir(old.path())):
            if name not in NAMES and not folder.exists(name):
                os.rename(old.path(name), folder.path(name))
        old.remove_all("")
    _beside(folder, NEW).remove_all("")
