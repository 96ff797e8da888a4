"""Feature stores beside each other, for people."""

from __future__ import annotations

from headstart.classify.pareto.candidates import Pareto
from headstart.data.common.console import human_bytes


def in_words(found: Pareto) -> str:
    """What was done, in a sentence or two."""
    done = (
        f"Logistic head on {found.examples:,} examples of {found.classes:,} classes: mean and "
        f"standard deviation of the accuracy over {found.repeats} splits ({found.split})."
    )
    if any(each.cost and each.fingerprint.precision == "bf16" for each in found.candidates):
        done += " Where features are in bf16, img/s is in fp32, as at the edge."
    return done


def table(found: Pareto) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people."""
    costs = any(each.cost for each in found.candidates)
    columns = ["store", "unbeaten", "accuracy", "backbone", "input", "precision"]
    columns += ["dim", "bytes an example"] + (["file", "img/s", "layers"] if costs else [])
    rows = []
    for each in found.candidates:
        made, cost = each.fingerprint, each.cost
        row = [each.store, "*" if each.best else "", f"{each.accuracy:.4f} +- {each.std:.4f}"]
        row += [made.backbone, made.preprocessing, made.precision]
        row += [f"{made.dim:,}", f"{each.bytes_per_example:,.0f}"]
        if cost:
            row += [human_bytes(cost.size), f"{cost.images_per_second:.1f}"]
            row.append(f"{' '.join(cost.layers)} ({cost.pooling})")
        rows.append(row)
    return columns, rows
