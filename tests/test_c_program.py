"""The program in C: pixels to the number, words, output as Python's, and nothing leaked."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import compiled as toolchain
import numpy as np
import pytest
from compiled import SANITIZED, SOURCES, compiled
from PIL import Image

from headstart.classify.heads.calibration import AnswerOptions
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.training import RunOptions, train
from headstart.data.modalities.image.preprocessing import decode
from headstart.data.modalities.modality import DecodeError
from headstart.export.edge.classifier import export_classifier
from headstart.export.edge.ready_code import write_code
from headstart.export.options import EdgeOptions

HEIGHT, WIDTH = 37, 53
PASSES = (  # of an interlaced PNG (PNG, 8.2): first row, first column, and the steps
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)


def interlaced(pixels: np.ndarray) -> bytes:
    """A PNG as Pillow writes none: uint8 or uint16 `[height, width, channels]`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, channels = pixels.shape
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    parts = [big[y::down, x::right] for y, x, down, right in PASSES]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    colours = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colours, 0, 0, 1)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def without_adobe(content: bytes) -> bytes:
    """A JPEG without the marker by which Adobe's files are known."""
    start = content.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", content, start + 2)
    return content[:start] + content[start + 2 + length :]


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def photographs() -> dict[str, bytes]:
    """Files of every kind that the program reads: noise, so that each pixel counts."""
    noise = np.random.default_rng(0)
    picture = Image.fromarray(noise.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    grey, few = picture.convert("L"), picture.quantize(16)
    clear = Image.fromarray(noise.integers(0, 256, (HEIGHT, WIDTH, 4), np.uint8))
    deep = Image.fromarray(noise.integers(0, 1 << 16, (HEIGHT, WIDTH), np.uint16))
    inks = saved(picture.convert("CMYK"), "JPEG")
    files = {
        "grey.jpg": saved(grey, "JPEG"),
        "progressive.jpg": saved(picture, "JPEG", progressive=True),
        "inks.jpg": inks,
        "other inks.jpg": without_adobe(inks),
        "grey.png": saved(grey, "PNG"),
        "grey, one clear.png": saved(grey, "PNG", transparency=100),
        "colours, one clear.png": saved(picture, "PNG", transparency=picture.getpixel((5, 5))),
        "bits.png": saved(picture.convert("1"), "PNG"),
        "palette.png": saved(few, "PNG"),
        "palette, one clear.png": saved(few, "PNG", transparency=3),
        "palette, more or less clear.png": saved(few, "PNG", transparency=bytes(range(0, 256, 16))),
        "clear.png": saved(clear, "PNG"),
        "grey, clear.png": saved(clear.convert("LA"), "PNG"),
        "deep.png": saved(deep, "PNG"),
    }
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        files[f"turned {turned}.jpg"] = saved(picture, "JPEG", exif=exif)
        files[f"turned {turned}.png"] = saved(picture, "PNG", exif=exif)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        files[f"{subsampling}.jpg"] = saved(picture, "JPEG", subsampling=subsampling)
    for dtype in (np.uint8, np.uint16):
        for channels in range(1, 5):
            for shape in ((HEIGHT, WIDTH), (1, 1), (3, 2)):
                most = np.iinfo(dtype).max
                pixels = noise.integers(0, most, (*shape, channels), dtype, endpoint=True)
                name = f"interlaced {np.dtype(dtype)} {channels} {shape[0]}.png"
                files[name] = interlaced(pixels)
    return files


def read(contents: dict[str, bytes], folder: Path) -> dict[str, np.ndarray | str]:
    """Pixels, or why there are none, by the program with the sanitizers in it."""
    write_program(folder)
    program = compiled(SOURCES / "pixels.c", folder / "pixels", *SANITIZED)
    files = [folder / name for name in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
    answer = subprocess.run([program, *files], capture_output=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, b"")
    found, stream = {}, BytesIO(answer.stdout)
    for name in contents:
        line = stream.readline().decode(errors="replace").rstrip("\n")
        if line.startswith("- "):
            found[name] = line[2:]
        else:
            height, width = map(int, line.split())
            pixels = np.frombuffer(stream.read(3 * height * width), np.uint8)
            found[name] = pixels.reshape(height, width, 3)
    assert not stream.read()
    return found


def write_program(folder: Path) -> Path:
    """The source as it is in this package; `export code` needs an edge model to write it."""
    code = toolchain.ROOT / "data" / "modalities" / "image" / "code"
    return Path(shutil.copy(code / "classify_photo.c", folder))


def test_pixels_are_those_of_training(tmp_path: Path) -> None:
    contents = photographs()
    for name, pixels in read(contents, tmp_path).items():
        np.testing.assert_array_equal(pixels, decode(contents[name], None), name)


def test_damaged_photographs_are_refused_or_whole(tmp_path: Path) -> None:
    chance, contents = random.Random(0), {}  # noqa: S311
    for name, content in photographs().items():
        for number in range(6):
            bytes_ = bytearray(content)
            if number < 2:
                del bytes_[chance.randrange(len(bytes_)) :]
            else:
                for _ in range(chance.randrange(1, 6)):
                    bytes_[chance.randrange(len(bytes_))] = chance.randrange(256)
            contents[f"{number} {name}"] = bytes(bytes_)
    kept = 0
    for name, pixels in read(contents, tmp_path).items():
        try:
            expected = decode(contents[name], None)
        except DecodeError:
            assert isinstance(pixels, str), name
        else:
            if not isinstance(pixels, str):  # where only what follows the pixels is damaged
                np.testing.assert_array_equal(pixels, expected, name)
                kept += 1
    assert 20 < kept < len(contents)


def test_what_is_said_of_files_that_cannot_be_read(tmp_path: Path) -> None:
    whole = photographs()
    large = bytearray(whole["clear.png"])
    large[16:24] = struct.pack(">II", 900_000, 900_000)
    large[29:33] = struct.pack(">I", zlib.crc32(large[12:29]))
    contents = {
        "nothing": b"",
        "words": b"no photograph at all",
        "cut.png": whole["clear.png"][:-3000],
        "cut.jpg": whole["4:4:4.jpg"][:-500],
        "large.png": bytes(large),
    }
    assert read(contents, tmp_path) == {
        "nothing": "it is neither a JPEG nor a PNG file",
        "words": "it is neither a JPEG nor a PNG file",
        "cut.png": "the file ends too early",
        "cut.jpg": "Premature end of JPEG file",
        "large.png": "it is too large: 900000 x 900000 pixels",
    }


def answered(program: list[object], *arguments: object) -> tuple[int, str, str]:
    command = [str(word) for word in (*program, *arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.returncode, answer.stdout, answer.stderr


def test_prints_what_python_prints(
    features: Path, tiny_backbone: Path, photos: Path, tmp_path: Path
) -> None:
    """A class, "unknown" below the threshold, what cannot be read, and the exit code."""
    options = FitOptions(answers=AnswerOptions(coverage=0.5))
    train(features, tmp_path / "sure", options, run=RunOptions(report=False))
    edge = tmp_path / "edge.onnx"
    export_classifier(tmp_path / "sure", tiny_backbone, edge, EdgeOptions(any_size=True))
    python, _, source = write_code(edge, None, overwrite=False)
    program = compiled(source, tmp_path / "classify_photo")
    files = sorted(photos.rglob("*.png"))
    expected = answered([sys.executable, python], edge, *files)
    assert expected[0] == 0
    assert 0 < expected[1].count("  unknown  ") < len(files)
    assert answered([program], edge, *files) == expected
    code, out, err = answered([program], edge, tmp_path / "no.png", *files)
    assert (code, out) == (1, expected[1])
    assert err == f"{tmp_path / 'no.png'} cannot be read: No such file or directory\n"


def test_says_what_it_cannot_use(model: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    """A model of one size takes photographs of that size, and resizes none."""
    edge, missing = tmp_path / "edge.onnx", tmp_path / "missing.onnx"
    export_classifier(model, tiny_backbone, edge, EdgeOptions())
    python, _, source = write_code(edge, None, overwrite=False)
    program = compiled(source, tmp_path / "classify_photo")
    fitting, other = tmp_path / "fitting.png", tmp_path / "other.png"
    Image.new("RGB", (8, 8), "red").save(fitting)
    Image.new("RGB", (9, 8), "red").save(other)
    assert answered([program], edge) == (
        1,
        "",
        "usage: classify_photo edge.onnx photo.jpg [photo.jpg ...]\n",
    )
    code, out, err = answered([program], edge, other, fitting)
    assert code == 1
    assert err == (
        f"{other} cannot be classified: it is 9 x 8 pixels large, and the model takes only 8 x 8: "
        "export the classifier with --any-size\n"
    )
    assert out == answered([sys.executable, python], edge, fitting)[1]
    assert out.startswith(f"{fitting}  red  ")
    assert answered([program], tiny_backbone, fitting) == (
        1,
        "",
        f"{tiny_backbone} cannot be used: it is not an edge model: python -m export classifier "
        "writes "
        "one\n",
    )
    code, out, err = answered([program], missing, fitting)
    assert (code, out) == (1, "")
    assert err.startswith(f"{missing} cannot be used: ")
    assert "doesn't exist" in err


def leaked(program: Path, *arguments: Path) -> int:
    """Bytes that the sanitizer counted at the end."""
    _, _, err = answered([program], *arguments)
    assert "runtime error" not in err, err
    return int((re.search(r"SUMMARY: AddressSanitizer: (\d+) byte", err) or ("", 0))[1])


def test_nothing_is_leaked(model: Path, tiny_backbone: Path, photos: Path, tmp_path: Path) -> None:
    """ONNX Runtime 1.30 keeps 14 bytes whoever starts it; nothing may come to these."""
    edge = tmp_path / "edge.onnx"
    export_classifier(model, tiny_backbone, edge, EdgeOptions(any_size=True))
    source = write_code(edge, None, overwrite=False)[2]
    program = compiled(source, tmp_path / "classify_photo", *SANITIZED)
    files = [*sorted(photos.rglob("*.png"))[:5], tmp_path, tmp_path / "no.png"]
    own = leaked(program, tmp_path / "missing.onnx", *files)
    assert leaked(program, edge, *files) == own
    assert leaked(program, tiny_backbone, *files) == own


def test_a_missing_header_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "PLACES", (tmp_path / "a", tmp_path / "b"))
    words = (
        f"no onnxruntime_c_api.h in {tmp_path / 'a'} or {tmp_path / 'b'}: run "
        "tests/setup/onnxruntime-header"
    )
    with pytest.raises(AssertionError, match=f"^{re.escape(words)}$"):
        compiled(write_program(tmp_path), tmp_path / "classify_photo")
