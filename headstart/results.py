"""What the Python API returns: rows, scores and a confusion matrix, as a notebook shows them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.classify.scores.confusion import confusion_table
from headstart.data.common.errors import MissingPackageError
from headstart.data.common.intervals import Interval

WIDTH, SHOWN = 80, 10  # columns of a terminal; rows of answers
HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")


def _title(name: str) -> str:
    return name.replace("_", " ").replace("f1", "F1")


def _html(header: list[str], rows: list[list[Any]]) -> str:
    def line(tag: str, cells: list[Any]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table>"


class Rows(ABC):
    """Rows for other libraries: Arrow's, pandas', Polars' and datasets' own tables.

    Whatever reads Arrow's C interface (`pl.DataFrame(rows)`, `pa.table(rows)`, DuckDB) takes them
    as they are.
    """

    @abstractmethod
    def to_arrow(self) -> pa.Table:
        """All rows as an Arrow table."""

    def to_pandas(self) -> Any:
        """All rows as a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """All rows as a Polars DataFrame; raises `MissingPackageError` without Polars."""
        return _package("polars").from_arrow(self.to_arrow())

    def to_dataset(self) -> Any:
        """All rows as a `datasets.Dataset`; raises `MissingPackageError` without datasets."""
        table = _package("datasets").table.InMemoryTable(self.to_arrow())
        return _package("datasets").Dataset(table)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """All rows, by Arrow's C interface."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise MissingPackageError(
            f"the package {name} is not installed", f"Install it with: pip install {name}"
        ) from None


class Predictions(Rows):
    """The answers for examples, in their order.

    The columns are `id`, `prediction` (none for "unknown"), `confidence`, `probabilities` (a struct
    with a float32 field for each class), `label` (if the source has any) and, for files, `error`
    (none, or why there is no answer).
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def to_arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        return self._table

    def to_pylist(self) -> list[dict[str, Any]]:
        """All rows as dictionaries."""
        return self._table.to_pylist()

    @property
    def column_names(self) -> list[str]:
        """Their names, in order."""
        return self._table.column_names

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        """A column by its name, as Arrow has it."""
        return self._table[column]

    def __len__(self) -> int:
        """How many examples."""
        return self._table.num_rows

    def _shown(self) -> tuple[list[str], list[list[Any]]]:
        names = [each for each in self.column_names if each != "probabilities"]
        rows = self._table.select(names).slice(0, SHOWN).to_pylist()
        return names, [["" if v is None else _short(v) for v in row.values()] for row in rows]

    def __repr__(self) -> str:
        """The first rows."""
        header, rows = self._shown()
        more = len(self) - len(rows)
        return _columns([header, *rows]) + (f"\n... and {more:,} more" if more else "")

    def _repr_html_(self) -> str:
        more = len(self) - SHOWN
        return _html(*self._shown()) + (f"<p>... and {more:,} more</p>" if more > 0 else "")


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _columns(texts: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Lines of aligned columns; all but the first column are aligned to the right for numbers."""
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:>{wide}}" if place and numbers else f"{cell:<{wide}}"
            for place, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )


@dataclass(frozen=True, repr=False)
class Scores:
    """Scores on the held-out examples, which no choice in training has seen.

    Parameters
    ----------
    accuracy, balanced_accuracy, macro_f1, log_loss, calibration_error
        See `docs/heads.md`.
    interval
        95 % interval of the accuracy: `low`, `high`.
    examples
        How many were held out.
    per_class
        `name`, `precision`, `recall`, `f1` and `support` of each class.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    interval: Interval
    examples: int
    per_class: tuple[dict[str, Any], ...]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scores:
        """From what `model.json` has."""
        return cls(
            **{name: value[name] for name in HEADLINES},
            interval=Interval(**value["accuracy_interval"]),
            examples=value["examples"],
            per_class=tuple(value["per_class"]),
        )

    def _rows(self) -> list[list[str]]:
        rows = [[_title(name), f"{getattr(self, name):.4f}"] for name in HEADLINES]
        rows[0][1] += f"  (95 %: {self.interval.low:.4f} to {self.interval.high:.4f})"
        return [*rows, ["tested on", f"{self.examples:,}"]]

    def __repr__(self) -> str:
        """One score a line."""
        return "\n".join(f"{name:<17}  {value}" for name, value in self._rows())

    def _repr_html_(self) -> str:
        numbers = ("precision", "recall", "f1")
        classes = [
            [each["name"], *(f"{each[name]:.3f}" for name in numbers), f"{each['support']:,}"]
            for each in self.per_class
        ]
        header = ["class", "precision", "recall", "F1", "examples"]
        return _html(["score", "held-out examples"], self._rows()) + _html(header, classes)


@dataclass(frozen=True, repr=False, eq=False)
class Confusion:
    """The confusion matrix on the held-out examples.

    Parameters
    ----------
    classes
        In the order of rows and columns.
    counts
        Rows are true classes, columns predictions: int64 `[classes, classes]`; `[0, 0]` for more
        than 1,000 classes.
    """

    classes: tuple[str, ...]
    counts: np.ndarray

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The counts."""
        return np.array(self.counts, dtype=dtype)

    def _table(self) -> tuple[list[str], list[list[Any]]]:
        return confusion_table(self.classes, self.counts.tolist(), WIDTH)

    def __repr__(self) -> str:
        """The matrix, or the worst confusions where it would be wider than 80 columns."""
        header, rows = self._table()
        return _columns([[str(cell) for cell in row] for row in (header, *rows)], numbers=True)

    def _repr_html_(self) -> str:
        return _html(*self._table())

    def plot(self) -> Any:
        """A matplotlib `Figure`: shares of each true class, with the counts."""
        from matplotlib.figure import Figure

        class Plot(Figure):
            def _repr_png_(self) -> bytes:  # a notebook shows it without pyplot
                content = BytesIO()
                self.savefig(content, format="png")
                return content.getvalue()

        size = max(3.0, 0.5 * len(self.classes))
        figure = Plot(figsize=(size + 1.5, size), layout="constrained")
        axes = figure.subplots()
        shares = self.counts / np.maximum(1, self.counts.sum(axis=1, keepdims=True))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(self.classes))
        axes.set_xticks(places, self.classes, rotation=45, ha="right")
        axes.set_yticks(places, self.classes)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        for (row, column), count in np.ndenumerate(self.counts):
            dark = shares[row, column] > 0.5
            colour = "white" if dark else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
        return figure
