"""The edge model: its inputs, outputs and metadata.

Format version 2, or 1, as its backbone's. One ONNX file: inputs as the backbone's, or `image` uint8
`[batch, height, width, 3]` of any height and width; outputs `label` (int64 index of the class, -1
for "unknown", `[batch]`) and `probabilities` (float32 `[batch, classes]`), and where it was asked
for `top_labels` and `top_probabilities` (`[batch, count]`, best first). The metadata is the
backbone's with kind `classifier`, and `headstart.classes` (a JSON list, in order),
`headstart.threshold` (empty for none) and `headstart.fingerprint` (JSON). The version is bumped
when a reader of the old version would read a new file wrongly.

`NAME.labels.json` beside it contains the same for programs that cannot read ONNX metadata, and
`NAME.tokenizer.json` the tokenizer of texts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.data.common.errors import InputError, ModelError
from headstart.data.contracts.backbone import (
    PREFIX,
    READABLE,
    BackboneSpec,
    parse_onnx,
    read_content,
    read_metadata,
    refuse_files,
    width_of,
)
from headstart.data.contracts.calibration import UNKNOWN
from headstart.data.contracts.json_reader import read_json
from headstart.data.contracts.model import LABEL, PROBABILITIES, ModelCard
from headstart.data.modalities.modality import InputSpec

KIND = "classifier"
LABELS = ".labels.json"  # takes the place of .onnx
CLASSIFIER_COMMAND = (
    "Write one with: python -m export classifier MODEL --backbone backbone.onnx -o edge.onnx"
)


def edge_metadata(spec: BackboneSpec, card: ModelCard) -> dict[str, str]:
    """The `metadata_props` of an edge model."""
    own = {
        "kind": KIND,
        "classes": json.dumps(card.classes, ensure_ascii=False),
        "threshold": "" if card.threshold is None else str(card.threshold),
        "fingerprint": json.dumps(card.fingerprint.to_json()),
    }
    return spec.to_metadata() | {PREFIX + key: value for key, value in own.items()}


@dataclass(frozen=True)
class Edge:
    """An edge model that was read and checked.

    Parameters
    ----------
    classes
        In the order of the probabilities.
    threshold
        Probability below which the label is -1; None for never.
    any_size
        Whether it takes photographs of any size, and resizes them itself.
    """

    path: str
    content: bytes
    classes: tuple[str, ...]
    threshold: float | None
    spec: BackboneSpec
    any_size: bool

    @property
    def input_spec(self) -> InputSpec:
        """How an example becomes the model's input."""
        own = self.spec.preprocessing
        return own.unsized() if self.any_size else own

    def labels(self) -> bytes:
        """The bytes of `NAME.labels.json`."""
        own = self.spec.preprocessing
        value: dict[str, Any] = {
            "classes": self.classes,
            "unknown": UNKNOWN,
            "threshold": self.threshold,
            own.modality: own.to_json() | {"any_size": self.any_size},
            "backbone": self.spec.name,
            "weights": self.spec.weights,
            "licence": self.spec.licence,
        }
        return json.dumps(value, ensure_ascii=False, indent=1).encode()


def load_edge(path: str | Path) -> Edge:
    """Read an edge model.

    Raises
    ------
    ModelError
        If the file is missing, or is not an edge model that we can run.
    """
    return read_edge(*read_content(path, "edge model", CLASSIFIER_COMMAND, ModelError))


def read_edge(path: str, content: bytes) -> Edge:
    """The edge model in the bytes of a file; raises `ModelError` if there is none."""
    model = parse_onnx(path, content, CLASSIFIER_COMMAND, ModelError)
    metadata = read_metadata(model)
    kind = metadata.get(PREFIX + "kind", "")
    if kind != KIND:
        what = f"a headstart {kind}" if kind else "an ONNX file of another program"
        raise ModelError(f"{path} is {what}, not an edge model", CLASSIFIER_COMMAND)
    version = metadata.get(PREFIX + "format_version", "")
    if version not in READABLE:
        raise ModelError(
            f"{path} is an edge model of format {version}; this headstart reads "
            f"{' and '.join(READABLE)}",
            "Update headstart, or export the classifier again.",
        )
    refuse_files(path, model, ModelError)
    names = {value.name for value in (*model.graph.input, *model.graph.output)}
    try:
        classes = read_json(metadata[PREFIX + "classes"].encode(), tuple[str, ...])
        threshold = metadata[PREFIX + "threshold"]
        spec = BackboneSpec.from_metadata(metadata)
        if lacking := {*spec.preprocessing.signature, LABEL, PROBABILITIES} - names:
            raise ValueError(f"the graph lacks {', '.join(sorted(lacking))}")
        (output,) = (each for each in model.graph.output if each.name == PROBABILITIES)
        if (answers := width_of(output)) not in (None, len(classes)):
            raise ValueError(f"it names {len(classes)} classes, and the graph has {answers}")
        first = model.graph.input[0].type.tensor_type.shape.dim
        return Edge(
            path=path,
            content=content,
            classes=classes,
            threshold=float(threshold) if threshold else None,
            spec=spec,
            any_size=not spec.preprocessing.ragged and not first[1].HasField("dim_value"),
        )
    except (KeyError, ValueError, TypeError, IndexError, InputError) as error:
        raise ModelError(
            f"{path} has damaged headstart metadata: {error!r}", "Export the classifier again."
        ) from None
