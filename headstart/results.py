"""Scores and confusion matrix of a model, as a person and a notebook see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

from headstart.classify.scores.confusion import confusion_table
from headstart.data.common.intervals import Interval

WIDTH = 80
HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "calibration_error")


def _title(name: str) -> str:
    return name.replace("_", " ").replace("f1", "F1")


def _html(header: list[str], rows: list[list[Any]]) -> str:
    def line(tag: str, cells: list[Any]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', header)}</thead><tbody>{body}</tbody></table>"


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
        texts = [[str(cell) for cell in row] for row in (header, *rows)]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        return "\n".join(
            "  ".join(
                f"{cell:>{wide}}" if place else f"{cell:<{wide}}"
                for place, (cell, wide) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in texts
        )

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
