"""What embeddings were made with; features, heads and backbones must agree in it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Fingerprint:
    """What made an embedding. Embeddings can be compared only if their fingerprints are equal.

    Parameters
    ----------
    backbone
        Name of the backbone, for people.
    sha256
        Of the backbone file: its identity.
    preprocessing
        Size and resize rule of the input, as text.
    precision
        `fp32`, `fp16`, `bf16` or `int8`.
    dim
        Width of the embedding.
    """

    backbone: str
    sha256: str
    preprocessing: str
    precision: str
    dim: int

    def __str__(self) -> str:
        return f"{self.backbone} {self.sha256[:12]} ({self.preprocessing}, {self.precision})"

    def run_in(self, precision: str) -> Fingerprint:
        """The fingerprint of the same backbone file, run in a precision."""
        return replace(self, precision=precision)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)
