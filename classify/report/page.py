"""The report: one HTML file that needs no network and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from headstart.classify.report.content import ReportContent
from headstart.classify.report.parts import INTERVAL, Section, count, percent
from headstart.classify.report.sections.confidence import calibration, rejection
from headstart.classify.report.sections.confusion import confusion
from headstart.classify.report.sections.curves import ranking
from headstart.classify.report.sections.embedding_map import embedding_map
from headstart.classify.report.sections.failures import failures
from headstart.classify.report.sections.galleries import (
    copies,
    label_errors,
    label_next,
    mistakes,
    near_duplicates,
)
from headstart.classify.report.sections.learning import learning
from headstart.classify.report.sections.scores import headlines, made_with, per_class, tried
from headstart.classify.report.thumbnails import Thumbnails


def render(content: ReportContent) -> str:
    """The report as the text of one HTML file.

    All text of the user's is escaped, and the page's Content Security Policy (Level 3) forbids
    loading anything, and running any script but the report's own, which it names by its hash. For a
    photograph that cannot be read, the reason is shown; sections without data are left out or say
    why.
    """
    about, accuracy = content.about, content.summary.accuracy
    lead = (
        f"{percent(accuracy.value)} of {count(about.held_out, 'held-out example')} are classified "
        f"correctly ({INTERVAL} {percent(accuracy.low)} to {percent(accuracy.high)}): "
        f"{len(about.classes):,} classes, head {about.head}, trained on "
        f"{count(about.training, 'example')}."
    )
    return render_sections(
        "How good is this classifier?",
        lead,
        _sections(content),
        subject=", ".join(filter(None, (about.data, about.date))),
        data={
            "classes": about.classes,
            "earlier": [(each.id, each.action, each.change_to) for each in content.corrections],
        },
    )


def render_sections(
    heading: str,
    lead: str,
    sections: Sequence[Section],
    subject: str = "",
    data: dict[str, Any] | None = None,
) -> str:
    """Sections as the text of one HTML file, under a heading and a sentence that sums them up.

    Parameters
    ----------
    subject
        What the page is about, such as a data set and a date.
    data
        For the script: the classes to choose from, and earlier corrections. Without it, the page
        has no script.
    """
    environment = Environment(
        loader=PackageLoader("headstart.classify.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [each for s in sections for card in s.cards for each in card.thumbnails]
    media = any(each.sound for each in shown)  # the policy allows no more than is there
    script = ""
    if data is not None:
        script = files("headstart.classify.report").joinpath("report.js").read_text("utf-8")
    page = environment.get_template("template.html")
    return page.render(
        heading=heading,
        lead=lead,
        sections=sections,
        media=media,
        subject=subject,
        data=data,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        asks=any(card.questions for section in sections for card in section.cards),
    )


def _sections(content: ReportContent) -> list[Section]:
    classes, held_out = content.about.classes, content.held_out
    thumbnails = Thumbnails(content.root, content.modality)
    sections = [
        headlines(content),
        confusion(held_out, classes),
        per_class(content.summary.scores, held_out),
        calibration(held_out),
        ranking(held_out, classes),
        rejection(held_out),
    ]
    if content.learning_curve is not None:
        sections.append(learning(content.learning_curve, content.summary.accuracy))
    if content.sample is not None:
        sections.append(embedding_map(content.sample, classes, thumbnails))
    sections.append(mistakes(held_out, classes, thumbnails, content.similar, content.looks))
    if content.can_look and sections[-1].cards:
        hint = "--backbone FILE shows where the head looked, in the worst of them."
        sections[-1] = replace(sections[-1], note=f"classify train with {hint}")
    if content.suspects is not None:
        train = f"python -m classify train {shlex.quote(content.about.features)}"
        command = f"{train} --corrections corrections.csv -o corrected-model"
        sections.append(label_errors(content.suspects, classes, thumbnails, command))
    if content.copies is not None:
        sections.append(copies(content.copies, thumbnails))
    if content.near_duplicates is not None:
        sections.append(near_duplicates(content.near_duplicates, thumbnails))
    if content.inside is not None:
        sections.append(near_duplicates(content.inside, thumbnails, inside=True))
    if content.label_next is not None:
        sections.append(label_next(content.label_next, classes, thumbnails))
    if content.failed is not None:
        sections.append(failures(content.failed))
    if content.trials:
        sections.append(tried(content.trials))
    return [*sections, made_with(content.about)]
