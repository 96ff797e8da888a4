"""Recordings become windows: formats, rates, stretches, silence, and why some do not."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from sounds import OWN_RATE, encoded, odd, say

from headstart.data.common.errors import InputError, SourceError
from headstart.data.examples.opening import open_source
from headstart.data.examples.parts import in_parts
from headstart.data.examples.reading import Reader
from headstart.data.modalities.modality import DecodeError
from headstart.data.modalities.sound.modality import Recordings
from headstart.data.modalities.sound.reading import read_stretch
from headstart.data.modalities.sound.windows import Windows
from headstart.data.modalities.stretches import named, stretch_of, whole_of

HALF = Windows(8_000, 4_000, 2_000)
ODD = odd()


def reasons(content: bytes, name: str) -> set[str]:
    """Of all windows; the empty one for a window that is there."""
    found = set()
    try:
        parts = HALF.parts(BytesIO(content))
    except DecodeError:
        parts = [""]
    for part in parts:
        try:
            samples = HALF.at(named(name, part)).decode(content)
        except DecodeError as error:
            assert error.message
            found.add(error.reason)
        else:
            assert (samples.dtype, samples.shape) == (np.float32, (4_000,))
            assert np.isfinite(samples).all()
            found.add("")
    return found


def test_there_are_forty_odd_files() -> None:
    assert len(ODD) >= 40


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_has_windows_or_a_reason(name: str) -> None:
    content, reason = ODD[name]
    found = reasons(content, name)
    assert reason in found
    if name not in ("cut.mp3", "cut.flac", "nan.wav", "infinite.wav"):  # others are whole
        assert len(found - {"silent"} or found) == 1
    try:
        size = Recordings().size_of(content)
    except DecodeError as error:
        assert error.reason == reason
    else:
        assert " Hz " in size
        assert reason in ("", "silent")


def test_a_stretch_is_that_of_the_whole_recording() -> None:
    """Whatever the rates: to the last bits of float32."""
    for rate in (44_100, 22_050, 11_025, 8_000, 7_919):
        samples = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
        content = encoded(samples, rate, subtype="FLOAT")
        whole = read_stretch(content, 8_000)
        assert len(whole) == 16_000
        assert np.abs(whole - soxr.resample(samples, rate, 8_000)[:16_000]).max() < 1e-6
        for start in (0, 1, 5_000, 15_000):
            found = read_stretch(content, 8_000, start, 1_000)
            assert np.abs(found - whole[start : start + 1_000]).max() < 1e-6


def test_channels_are_averaged() -> None:
    left, right = say("ann", 1), say("bob", 1)
    both = np.stack([left, right], axis=1)
    found = read_stretch(encoded(both, OWN_RATE, subtype="FLOAT"), OWN_RATE)
    assert np.abs(found - (left + right) / 2).max() < 1e-6


def test_windows_cover_a_recording() -> None:
    def parts(count: int, start: float = 0, end: float | None = None) -> list[str]:
        return HALF.parts(BytesIO(encoded(np.ones(count, np.float32))), start, end)

    assert parts(100) == parts(4_000) == [""]
    assert parts(4_001) == ["0+0.5", "0.000125+0.5"]
    assert parts(9_000) == ["0+0.5", "0.25+0.5", "0.5+0.5", "0.625+0.5"]
    assert parts(9_000, 0.25, 0.5) == ["0.25+0.25"]
    assert parts(9_000, 0.5) == ["0.5+0.5", "0.625+0.5"]
    assert parts(9_000, 2, 3) == ["2+1"]  # behind the end: an error of its own
    with pytest.raises(DecodeError, match=r"it ends after 1\.12 s, before 2\.00 s"):
        HALF.at("a.wav#t=2+1").decode(encoded(np.ones(9_000, np.float32)))


def test_what_becomes_of_short_ones() -> None:
    ramp = np.linspace(0.1, 0.2, 1_500, dtype=np.float32)
    content = encoded(ramp, subtype="FLOAT")
    padded = HALF.decode(content)
    assert np.array_equal(padded, np.pad(ramp, (0, 2_500)))
    repeated = Windows(8_000, 4_000, 2_000, "repeat").decode(content)
    assert np.array_equal(repeated, np.concatenate([ramp, ramp, ramp[:1_000]]))
    cut = HALF.at("a.wav#t=0.1+0.05").decode(content)
    assert np.array_equal(cut, np.pad(ramp[800:1_200], (0, 3_600)))


def test_impossible_windows() -> None:
    for given in (
        (999, 1_000, 500),
        (8_000, 10, 10),
        (8_000, 8_000, 9_000),
        (8_000, 8_000, 8_000, "stretch"),
        (8_000, 8_000, 8_000, "pad", 3.0),
    ):
        with pytest.raises(InputError):
            Windows(*given)
    metadata = HALF.to_metadata()
    assert Recordings().input_spec(metadata) == HALF
    assert str(HALF) == "8000 Hz, 4000 samples every 2000, pad, silent below -80 dB"


def test_names_of_stretches() -> None:
    assert named("a.wav", "") == "a.wav"
    assert stretch_of("a#t=b.wav#t=0.5+1") == ("a#t=b.wav", 0.5, 1.0)
    assert whole_of("a.tar#bytes=3+4") == "a.tar#bytes=3+4"
    assert whole_of("a.tar#bytes=3+4#t=0+1") == "a.tar#bytes=3+4"


def manifest(folder: Path, text: str) -> Path:
    soundfile.write(folder / "a.wav", np.ones(9_600), 8_000)
    soundfile.write(folder / "b.wav", np.ones(3_000), 8_000)
    path = folder / "parts.csv"
    path.write_text(text)
    return path


def test_labelled_stretches_of_long_recordings(tmp_path: Path) -> None:
    text = "path,label,start,end\na.wav,x,0,0.3\na.wav,y,0.3,\nb.wav,x,,\n"
    source = open_source(manifest(tmp_path, text))
    assert source.examples["id"].to_pylist() == ["a.wav#0.0-0.3", "a.wav#0.3-", "b.wav"]
    found = in_parts(source, HALF)
    rows = found.source.examples.to_pylist()
    assert [row["path"] for row in rows] == [
        "a.wav#t=0+0.3",
        *(f"a.wav#t={start}+0.5" for start in (0.3, 0.55, 0.7)),
        "b.wav",
    ]
    assert [row["id"] for row in rows][:2] == [
        "a.wav#0.0-0.3#t=0+0.3",
        "a.wav#0.3-#t=0.3+0.5",
    ]
    assert [row["group"] for row in rows] == [*4 * ["a.wav"], None]
    assert found.rows.tolist() == [0, 1, 1, 1, 2]


def test_windows_of_recordings_in_a_zip_archive(tmp_path: Path) -> None:
    samples = np.linspace(-0.5, 0.5, 9_600, dtype=np.float32)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("x/1.wav", "y/2.wav"):
            archive.writestr(name, encoded(samples, subtype="FLOAT"))
        archive.writestr("y/broken.wav", b"no sound")
    parts = in_parts(open_source(tmp_path / "a.zip"), HALF).source
    rows = parts.examples.select(["id", "path", "label", "group"]).to_pylist()
    starts = ("0", "0.25", "0.5", "0.7")
    assert [row["id"] for row in rows[:4]] == [f"x/1.wav#t={start}+0.5" for start in starts]
    assert [row["label"] for row in rows] == 4 * ["x"] + 5 * ["y"]
    assert [row["id"] for row in rows[8:]] == ["y/broken.wav"]
    last = rows[3]["path"]
    content = Reader(parts.folder).read(last)
    assert np.array_equal(HALF.at(last).decode(content), samples[5_600:])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,start,end\na.wav,2,1\n", "1 row with a 'start' below 0 or an 'end' that is not"),
        ("path,start,end\na.wav,-1,1\n", "1 row with a 'start' below 0"),
        ("path,start,end\na.wav,soon,later\n", "column 'start' is not of numbers"),
        ("path,group,start\na.wav,x,0\na.wav,y,1\n", "have several groups, 'x' and 'y'"),
    ],
)
def test_wrong_stretches(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=words):
        in_parts(open_source(manifest(tmp_path, text)), HALF)
