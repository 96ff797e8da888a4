"""What an export of a backbone returns, whatever its modality."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.data.contracts.backbone import Backbone
from headstart.export.backbone.quantize import Quantized


@dataclass(frozen=True)
class BackboneExport:
    """A backbone file that was written, and how it compares with its original.

    Parameters
    ----------
    backbone
        The file.
    parity
        Largest relative difference from the original, of the fp32 form.
    quantized
        How the lower precision compares with fp32; none for fp32 itself.
    warnings
        What a user should know before using it.
    """

    backbone: Backbone
    parity: float
    quantized: Quantized | None
    warnings: tuple[str, ...] = ()
