"""The edge model: what its file says about itself.

Format version 1. One ONNX file: input `image` as the backbone's, outputs `label` (int64 index of
the class, `[batch]`) and `probabilities` (float32 `[batch, classes]`). The metadata is the
backbone's with kind `classifier`, and `headstart.classes` (a JSON list, in order),
`headstart.threshold` (empty for none) and `headstart.fingerprint` (JSON). The version is bumped
when a reader of the old version would read a new file wrongly.
"""

from __future__ import annotations

import json

from data.backbone import PREFIX, BackboneSpec
from data.model import ModelCard

FORMAT_VERSION = 1
KIND = "classifier"


def edge_metadata(spec: BackboneSpec, card: ModelCard) -> dict[str, str]:
    """The `metadata_props` of an edge model."""
    own = {
        "kind": KIND,
        "format_version": str(FORMAT_VERSION),
        "classes": json.dumps(card.classes, ensure_ascii=False),
        "threshold": "" if card.threshold is None else str(card.threshold),
        "fingerprint": json.dumps(card.fingerprint.to_json()),
    }
    return spec.to_metadata() | {PREFIX + key: value for key, value in own.items()}
