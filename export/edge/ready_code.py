"""Ready code that classifies examples with an edge model, in several languages."""

from __future__ import annotations

from pathlib import Path

from headstart.data.common.errors import Checklist, InputError
from headstart.data.contracts.edge import load_edge
from headstart.data.storage.files import check_output, local_path, write_whole


def write_code(edge: str | Path, output: str | Path | None, overwrite: bool) -> list[Path]:
    """Write the code to a folder, by default to that of the edge model.

    Raises
    ------
    InputError
        If there is no such edge model, no code for its modality, or a file of such a name exists.
    """
    modality = load_edge(edge).spec.modality
    code = modality.ready_code()
    if not code:
        raise InputError(
            f"there is no ready code for {modality.plural}",
            "Run the model with ONNX Runtime: NAME.labels.json beside it describes its input.",
        )
    folder = local_path(output) if output is not None else local_path(edge).parent
    checks = Checklist()
    for name in code:
        with checks.item():
            check_output(folder / name, overwrite)
    checks.finish()
    for name, content in code.items():
        write_whole(folder / name, content)
    return [folder / name for name in code]
