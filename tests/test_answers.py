"""Predictions as CSV, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headstart.classify.prediction.answers import answers_table, write_answers

IDS = (
    "=1+1",
    "+a/b.png",
    "-2",
    "@x",
    "\tb",
    "\rc",
    "\nd",
    "\uff1de",
    "plain",
    "a=b",
    "'",
    "",
    "é-",
)
CLASSES = ('=HYPERLINK("http://x","y")', "-cat", "dog")


def written(tmp_path: Path, safe: bool) -> list[list[str]]:
    labels = np.arange(len(IDS)) % 4 - 1
    examples = pa.table({"id": list(IDS), "label": [None, "@me", *["dog"] * (len(IDS) - 2)]})
    probabilities = np.full((len(IDS), 3), 1 / 3, np.float32)
    table = answers_table(examples, labels, probabilities, CLASSES)
    table = table.append_column("error", pa.array(["=cmd", *[None] * (len(IDS) - 1)], pa.string()))
    write_answers(tmp_path / "p.csv", table, safe)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_cells_that_a_spreadsheet_would_run_are_escaped_if_asked(tmp_path: Path) -> None:
    plain, safe = written(tmp_path, False), written(tmp_path, True)
    assert plain[0] == safe[0]
    assert [row[0] for row in plain[1:]] == list(IDS)
    assert [row[0] for row in safe[1:]] == [f"'{name}" for name in IDS[:8]] + list(IDS[8:])
    assert {row[1] for row in safe[1:]} == {"", f"'{CLASSES[0]}", "'-cat", "dog"}
    assert [row[4] for row in safe[1:4]] == ["", "'@me", "dog"]
    assert [row[5] for row in safe[1:3]] == ["'=cmd", ""]
    for row, other in zip(safe[1:], plain[1:], strict=True):
        assert row[2:4] == other[2:4]
        assert set(json.loads(row[3])) == set(CLASSES)
        assert not any(cell[:1] in set("=+-@\t\r\n\uff1d") for cell in row if cell)


def test_the_command_takes_it_for_a_csv_only(
    model: Path, features: Path, tmp_path: Path, command: Callable
) -> None:
    asked = ("classify", "predict", model, features, "--spreadsheet-safe", "-o")
    assert command(*asked, tmp_path / "a.csv").code == 0
    command("classify", "predict", model, features, "-o", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    answer = command(*asked, tmp_path / "p.parquet")
    assert (answer.code, answer.err) == (
        2,
        f"error: --spreadsheet-safe has no effect on {tmp_path / 'p.parquet'}\n"
        "  Name a file that ends in .csv.\n",
    )


@pytest.mark.parametrize("safe", [False, True])
def test_no_answers_are_a_header(tmp_path: Path, safe: bool) -> None:
    examples = pa.table({"id": pa.array([], pa.string()), "label": pa.array([], pa.string())})
    none = answers_table(examples, np.zeros(0, int), np.zeros((0, 3), np.float32), CLASSES)
    write_answers(tmp_path / "p.csv", none, safe)
    assert (tmp_path / "p.csv").read_text().count("\n") == 1
