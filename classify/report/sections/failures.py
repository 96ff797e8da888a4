"""The files that could not be embedded, and why."""

from __future__ import annotations

from headstart.classify.report.content import Failed
from headstart.classify.report.parts import Section, Table, count


def failures(failed: Failed) -> Section:
    """What the head never saw: files that failed in extraction, by reason."""
    text = (
        f"{count(failed.total, 'file')} could not be embedded, and "
        f"{'is' if failed.total == 1 else 'are'} neither trained on nor tested."
    )
    shown = len(failed.rows)
    if shown < failed.total:
        text += f" The first {shown} are shown; all are in the folder _errors of the features."
    table = Table(("file", "reason", "what is wrong"), tuple(failed.rows), 3)
    return Section(name="failed", title="Files that failed", text=text, tables=(table,))
