"""The report: one HTML file that needs no network and runs no script."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from headstart.classify.report.content import ReportContent
from headstart.classify.report.parts import INTERVAL, Section, count, percent
from headstart.classify.report.sections.confidence import calibration, rejection
from headstart.classify.report.sections.confusion import confusion
from headstart.classify.report.sections.curves import ranking
from headstart.classify.report.sections.embedding_map import embedding_map
from headstart.classify.report.sections.galleries import label_errors, mistakes, near_duplicates
from headstart.classify.report.sections.learning import learning
from headstart.classify.report.sections.scores import headlines, made_with, per_class, tried
from headstart.classify.report.thumbnails import Thumbnails


def render(content: ReportContent) -> str:
    """The report as the text of one HTML file.

    All text of the user's is escaped, and the page's Content Security Policy (Level 3) forbids
    loading anything and running scripts. For a photograph that cannot be read, the reason is shown;
    sections without data are left out or say why.
    """
    about, accuracy = content.about, content.summary.accuracy
    lead = (
        f"{percent(accuracy.value)} of {count(about.held_out, 'held-out example')} are classified "
        f"correctly ({INTERVAL} {percent(accuracy.low)} to {percent(accuracy.high)}): "
        f"{len(about.classes):,} classes, head {about.head}, trained on "
        f"{count(about.training, 'example')}."
    )
    return render_sections("How good is this classifier?", lead, _sections(content))


def render_sections(heading: str, lead: str, sections: Sequence[Section]) -> str:
    """Sections as the text of one HTML file, under a heading and a sentence that sums them up."""
    environment = Environment(
        loader=PackageLoader("headstart.classify.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [each for s in sections for card in s.cards for each in card.thumbnails]
    media = any(each.sound for each in shown)  # the policy allows no more than is there
    page = environment.get_template("template.html")
    return page.render(heading=heading, lead=lead, sections=sections, media=media)


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
        sections.append(learning(content.learning_curve))
    if content.sample is not None:
        sections.append(embedding_map(content.sample, classes))
    sections.append(mistakes(held_out, classes, thumbnails))
    if content.suspects is not None:
        sections.append(label_errors(content.suspects, classes, thumbnails))
    if content.near_duplicates is not None:
        sections.append(near_duplicates(content.near_duplicates, thumbnails))
    if content.trials:
        sections.append(tried(content.trials))
    return [*sections, made_with(content.about)]
