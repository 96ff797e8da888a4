"""A contact sheet: some examples of a source in one picture or page, with their labels."""

from __future__ import annotations

import base64
import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from headstart.data.common.errors import InputError
from headstart.data.examples.opening import Source, open_source
from headstart.data.examples.reading import Reader, why_unread
from headstart.data.modalities.modality import DecodeError, Preview
from headstart.data.storage.files import check_output, local_path, write_whole

KINDS = (".png", ".html")
MOST = 400
SIDE, GAP, LINE = 160, 12, 20  # pixels of a picture, around it, and of the label below it
LETTERS = 22  # of a line of text or a label
INK, PAPER, MUTED = "#1f2328", "white", "#59636e"
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.4 system-ui, sans-serif; margin: 2em; color: #1f2328; background: #fff }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 1em }}
figure {{ margin: 0 }}
img {{ width: 160px; height: 160px; object-fit: contain; background: #f6f8fa }}
p {{ height: 160px; margin: 0; overflow: hidden; overflow-wrap: anywhere; white-space: pre-line }}
audio {{ width: 160px }}
small {{ color: #59636e; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
<main>
{figures}
</main>
</html>
"""


@dataclass(frozen=True)
class _Shown:
    """An example on the sheet: its preview, or why there is none."""

    id: str
    label: str
    preview: Preview | None
    reason: str = ""


def write_contact_sheet(
    source: str | Path, output: str | Path, count: int = 9, seed: int = 0, overwrite: bool = False
) -> int:
    """Write some examples with their labels, drawn by the seed, the classes by turns.

    Parameters
    ----------
    output
        A `.png`, or an `.html` that opens without a network; sounds can be played in it.

    Returns
    -------
    How many examples are shown: fewer than `count` if the source has fewer.

    Raises
    ------
    InputError
        If the count is not possible, or the file cannot be written.
    SourceError
        As `open_source`.
    """
    path = local_path(output)
    if not 1 <= count <= MOST:
        raise InputError(f"--show {count} is not possible", f"Give 1 to {MOST}.")
    if path.suffix.lower() not in KINDS:
        raise InputError(
            f"{output} is not a contact sheet that can be written",
            f"Choose from {', '.join(KINDS)}.",
        )
    check_output(path, overwrite)
    opened = open_source(source, allow_unlabelled=True)
    shown = [_shown(opened, row) for row in _drawn(opened, count, seed)]
    if path.suffix.lower() == ".html":
        write_whole(path, _page(str(source), shown).encode())
    else:
        buffer = BytesIO()
        _sheet(shown).save(buffer, "PNG")
        write_whole(path, buffer.getvalue())
    return len(shown)


def _drawn(source: Source, count: int, seed: int) -> list[int]:
    """Rows, one of each class after the other until there are enough."""
    order = np.random.default_rng(seed).permutation(len(source))
    labels = source.examples["label"].to_pylist()
    by_class: dict[str, list[int]] = {}
    for row in order.tolist():
        by_class.setdefault(labels[row] or "", []).append(row)
    classes = sorted(by_class)
    rounds = max(map(len, by_class.values()))
    turns = ((by_class[name], at) for at in range(rounds) for name in classes)
    return [rows[at] for rows, at in turns if at < len(rows)][:count]


def _shown(source: Source, row: int) -> _Shown:
    example = source.examples.slice(row, 1).to_pylist()[0]
    id_, label, path = example["id"], example["label"] or "(no label)", example["path"]
    try:
        preview = source.modality.preview_at(path, Reader(source.folder).read(path))
    except DecodeError as error:
        return _Shown(id_, label, None, error.message)
    except OSError as error:
        return _Shown(id_, label, None, why_unread(error)[1])
    return _Shown(id_, label, preview)


def _sheet(shown: Sequence[_Shown]) -> Image.Image:
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    width, height = SIDE + GAP, SIDE + LINE + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, each in enumerate(shown):
        x, y = GAP + number % columns * width, GAP + number // columns * height
        text = each.reason
        if each.preview is None or each.preview.media_type == "text/plain":
            text = text or (each.preview.content.decode() if each.preview else "")
            lines = textwrap.wrap(text, LETTERS)[: SIDE // LINE]
            draw.rectangle((x, y, x + SIDE, y + SIDE), outline=MUTED)
            draw.multiline_text((x + 4, y + 4), "\n".join(lines), MUTED, font)
        else:
            picture = Image.open(BytesIO(each.preview.content)).convert("RGB")
            factor = SIDE / max(picture.size)
            size = tuple(max(1, round(factor * side)) for side in picture.size)
            picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
            sheet.paste(picture, (x + (SIDE - size[0]) // 2, y + (SIDE - size[1]) // 2))
        draw.text((x, y + SIDE + 2), textwrap.shorten(each.label, LETTERS), INK, font)
    return sheet


def _page(title: str, shown: Sequence[_Shown]) -> str:
    figures = "\n".join(map(_figure, shown))
    return PAGE.format(title=html.escape(title), figures=figures)


def _figure(each: _Shown) -> str:
    preview = each.preview
    if preview is None:
        what = f"<p>{html.escape(each.reason)}</p>"
    elif preview.media_type == "text/plain":
        what = f"<p>{html.escape(preview.content.decode())}</p>"
    else:
        what = f'<img alt="" src="{_uri(preview.media_type, preview.content)}">'
        if preview.sound:
            what += f'<audio controls src="{_uri("audio/mpeg", preview.sound)}"></audio>'
    label, id_ = html.escape(each.label), html.escape(each.id)
    return f"<figure>{what}<figcaption>{label}<br><small>{id_}</small></figcaption></figure>"


def _uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
