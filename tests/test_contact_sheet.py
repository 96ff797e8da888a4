"""`data inspect --show`: a contact sheet as a picture and as a page."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import sounds
from conftest import Outcome
from PIL import Image


def test_nine_photographs_with_labels_as_a_picture(
    command: Callable[..., Outcome], photos: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    (photos / "red" / "00.png").write_bytes(b"broken")
    made = command("data", "inspect", photos, "--show", 9, "-o", sheet)
    assert (made.code, made.out) == (0, f"wrote {sheet}, 9 examples\n")
    pixels = np.asarray(Image.open(sheet)).astype(int)
    assert pixels.shape == (3 * 192 + 12, 3 * 172 + 12, 3)
    # A class after the other: the columns are blue, green and red.
    for row in range(3):
        for column, channel in enumerate((2, 1, 0)):
            middle = pixels[92 + 192 * row, 92 + 172 * column]
            assert middle.argmax() == channel
            label = pixels[174 + 192 * row : 190 + 192 * row, 12 + 172 * column : 60 + 172 * column]
            assert label.min() < 100
    before = sheet.read_bytes()
    assert "exists already" in command("data", "inspect", photos, "--show", 9, "-o", sheet).err
    other = command("data", "inspect", photos, "--show", 9, "-o", sheet, "--overwrite", "--seed", 1)
    assert other.code == 0
    assert sheet.read_bytes() != before


def test_a_page_with_photographs_texts_and_sounds(
    command: Callable[..., Outcome], photos: Path, tmp_path: Path
) -> None:
    (photos / "red" / "00.png").write_bytes(b"broken")
    page = tmp_path / "sheet.html"
    assert command("data", "inspect", photos, "--show", 100, "-o", page).code == 0
    text = page.read_text()
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(found) == 59
    assert Image.open(BytesIO(base64.b64decode(found[0]))).size == (216, 216)
    assert "<p>" in text  # why the broken one cannot be read
    table = tmp_path / "texts.csv"
    table.write_text("text,label\n<script>alert(1)</script>,a&b\nfine,c\n")
    assert command("data", "inspect", table, "--show", 9, "-o", page, "--overwrite").code == 0
    assert "&lt;script&gt;" in page.read_text()
    assert "a&amp;b" in page.read_text()
    drawn = tmp_path / "texts.png"
    assert command("data", "inspect", table, "--show", 2, "-o", drawn).code == 0
    assert np.asarray(Image.open(drawn)).min() < 100
    voices = sounds.write_voices(tmp_path / "voices", 1)
    assert command("data", "inspect", voices, "--show", 3, "-o", page, "--overwrite").code == 0
    assert page.read_text().count("<audio") == 3


def test_what_cannot_be_shown_is_said(
    command: Callable[..., Outcome], photos: Path, tmp_path: Path
) -> None:
    wrong = command("data", "inspect", photos, "--show", 9, "-o", tmp_path / "sheet.pdf")
    assert wrong.code == 2
    assert "is not a contact sheet that can be written" in wrong.err
    wrong = command("data", "inspect", photos, "--show", 1000, "-o", tmp_path / "sheet.png")
    assert "--show 1000 is not possible" in wrong.err
