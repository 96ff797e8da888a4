"""Mutated photographs through the decoder: no crash, no hang, no memory beyond the stated limit.

    python tests/fuzz_decoding.py --files 100000 --seed 0

Every file follows from the seed and its number alone, so that a finding can be made again. The
decoder runs in child processes, so that even a segmentation fault is caught and named. What broke
the decoder is written to `--findings` as `SEED-NUMBER.bin`, and what it did is printed.

Mutations come from a seeded NumPy generator that follows the structure of the formats and fixes the
checksums of PNGs. Atheris, which works on Python 3.11, was left out: it is guided by the coverage
of instrumented code, which Pillow's compiled decoders are not, and stops at its first crash.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import memory
import numpy as np
from odd_files import broken, whole

from headstart.data.common import console
from headstart.data.modalities.image import decoding
from headstart.data.modalities.image.preprocessing import Preprocessing, decode

TIME_LIMIT = 60.0  # seconds a file; one of the most pixels that are decoded takes ten
CHUNK = 2_000  # files that one child process decodes
RULES = (
    Preprocessing(24, 32),
    Preprocessing(16, 16, "crop", "bicubic"),
    Preprocessing(40, 20, "squash", "lanczos"),
)
NUMBERS = (0, 1, 2, 255, 256, 0x7FFF, 0xFFFF, 60_000, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Decode = Callable[[bytes, Preprocessing], np.ndarray]


@dataclass
class Report:
    """The results of a run: outcomes by name, files that broke the decoder, and the extremes."""

    seed: int
    folder: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, 0)
    most_memory: tuple[int, int] = (0, 0)
    seconds: float = 0.0

    def count(self, number: int, outcome: str, took: float, grown: int) -> None:
        """Record the outcome of a file: `decoded`, a reason code, or `!` and what was wrong."""
        if outcome.startswith("!"):
            self.found(number, outcome[1:])
        else:
            self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, (took, number))
        if grown > self.most_memory[0]:  # the most of the child so far: it never shrinks
            self.most_memory = (grown, number)

    def found(self, number: int, what: str) -> None:
        """Keep a file that broke the decoder."""
        path = self.folder / f"{self.seed}-{number}.bin"
        path.write_bytes(mutated(corpus(), self.seed, number))
        self.outcomes["FOUND"] += 1
        self.findings.append(f"seed {self.seed}, file {number}: {what}; kept as {path}")

    def __str__(self) -> str:
        outcomes = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.most_common())
        (took, slowest), (most, largest) = self.slowest, self.most_memory
        return "\n".join(
            [
                f"files     {self.outcomes.total():,} in {self.seconds:.0f} s",
                f"outcomes  {outcomes}",
                f"slowest   {took:.2f} s, file {slowest}",
                f"memory    {most / 1e6:,.0f} MB at most, file {largest}",
                f"findings  {len(self.findings)}",
                *self.findings,
            ]
        )


# --- Mutations


def pieces(content: bytes) -> list[bytes]:
    """A file cut at its structures: JPEG segments, PNG and RIFF chunks, TIFF entries, or lines."""
    cuts, offset = [0], 0
    if content[:2] == b"\xff\xd8":
        offset = 2
        while offset + 4 < len(content) and content[offset] == 0xFF:
            cuts.append(offset)
            last = content[offset + 1] == 0xDA
            offset += 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
            if last:
                cuts += [offset, len(content) - 2]
                break
    elif content[:4] == b"\x89PNG":
        offset = 8
        while offset + 8 < len(content):
            cuts.append(offset)
            offset += 12 + int.from_bytes(content[offset : offset + 4], "big")
    elif content[:4] == b"RIFF":
        offset = 12
        while offset + 8 < len(content):
            cuts.append(offset)
            size = int.from_bytes(content[offset + 4 : offset + 8], "little")
            offset += 8 + size + size % 2
    elif content[:4] in (b"II*\0", b"MM\0*"):
        order = "little" if content[:1] == b"I" else "big"
        start = int.from_bytes(content[4:8], order)  # type: ignore[arg-type]
        entries = int.from_bytes(content[start : start + 2], order)  # type: ignore[arg-type]
        cuts += [start + 2 + 12 * entry for entry in range(entries + 1)]
    else:
        cuts += range(8, min(len(content), 64), 8)
    cuts = sorted({cut for cut in cuts if 0 <= cut <= len(content)} | {len(content)})
    return [content[start:end] for start, end in pairwise(cuts)]


def fixed(content: bytes) -> bytes:
    """A PNG with correct checksums, without which decoding stops at a changed header."""
    made, offset = bytearray(content), 8
    while content[:4] == b"\x89PNG" and offset + 12 <= len(content):
        end = offset + 8 + int.from_bytes(content[offset : offset + 4], "big")
        if end + 4 > len(content):
            break
        made[end : end + 4] = zlib.crc32(content[offset + 4 : end]).to_bytes(4, "big")
        offset = end + 4
    return bytes(made)


def flip_bits(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    made = bytearray(content)
    for position in random.integers(0, len(made), random.integers(1, 9)):
        made[position] ^= 1 << int(random.integers(0, 8))
    return bytes(made)


def change_header(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    made = bytearray(content)
    start = min(8, len(made) - 1)
    for position in random.integers(start, min(len(made), 120), random.integers(1, 5)):
        made[position] = random.choice([0, 1, 2, 3, 8, 16, 32, 127, 128, 255])
    return bytes(made)


def change_number(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """A number at the beginning of a structure: a length, a size, a count, an offset."""
    parts = pieces(content)
    start = sum(map(len, parts[: random.integers(0, len(parts))])) + int(random.integers(0, 12))
    size, order = ((1, "big"), (2, "big"), (4, "big"), (2, "little"), (4, "little"))[
        random.integers(0, 5)
    ]
    number = int(random.choice(NUMBERS)) + int(random.integers(-1, 2))
    if random.random() < 0.3:
        number = int.from_bytes(content[start : start + size], order) + int(random.integers(-4, 5))
    field_ = (number % (1 << 8 * size)).to_bytes(size, order)
    return content[:start] + field_ + content[start + size :]


def truncate(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    return content[: random.integers(0, len(content))]


def remove(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    start, length = random.integers(0, len(content)), random.integers(1, 64)
    return content[:start] + content[start + length :]


def insert(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    start = random.integers(0, len(content))
    return content[:start] + random.bytes(int(random.integers(1, 64))) + content[start:]


def rearrange(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    """Structures doubled, left out, exchanged, or taken from another file."""
    parts = pieces(content)
    one, two = random.integers(0, len(parts), 2)
    match random.integers(0, 4):
        case 0:
            parts.insert(two, parts[one] * int(random.choice([1, 1, 2, 100])))
        case 1:
            del parts[one]
        case 2:
            parts[one], parts[two] = parts[two], parts[one]
        case _:
            theirs = pieces(other)
            parts.insert(one, theirs[random.integers(0, len(theirs))])
    return b"".join(parts)


def splice(random: np.random.Generator, content: bytes, other: bytes) -> bytes:
    cut = random.integers(0, len(content))
    return content[:cut] + other[int(cut * random.choice([0, 0.5, 1])) :]


MUTATIONS = (
    flip_bits,
    change_header,
    change_number,
    change_number,
    truncate,
    remove,
    insert,
    rearrange,
    rearrange,
    splice,
)


def corpus() -> list[bytes]:
    """Small files of every kind, whole and broken ones."""
    files = [case.content for case in whole().values()]
    files += [content for content, _ in broken().values()]
    return [content for content in files if 0 < len(content) < 20_000]


def mutated(files: list[bytes], seed: int, number: int) -> bytes:
    """The file of a number: the same for the same seed, whatever ran before."""
    random = np.random.default_rng([seed, number])
    content, other = (files[i] for i in random.integers(0, len(files), 2))
    for _ in range(min(random.geometric(0.6), 6)):
        mutate = MUTATIONS[random.integers(0, len(MUTATIONS))]
        content = mutate(random, content, other) or b"\0"
    return fixed(content) if random.random() < 0.5 else content


# --- Runs


def look(decode: Decode, content: bytes, rule: Preprocessing) -> str:
    """`decoded` or the reason code; raises whatever must not be."""
    try:
        pixels = decode(content, rule)
    except decoding.DecodeError as error:
        if error.reason not in decoding.REASONS or not error.message:
            raise ValueError(
                f"{error.reason!r}: {error.message!r} is not a documented error"
            ) from None
        return error.reason
    if (pixels.shape, pixels.dtype) != ((rule.height, rule.width, 3), np.uint8):
        raise ValueError(f"decoded to {pixels.dtype} {pixels.shape}")
    return "decoded"


def _child(decode: Decode, seed: int, numbers: range, answers, stderr: str) -> None:  # type: ignore[no-untyped-def]
    """Decode the files of some numbers: reports the start and the outcome of each."""
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    files, at_rest = corpus(), memory.peak()
    for number in numbers:
        content = mutated(files, seed, number)
        answers.send(("", 0.0, 0))
        start = time.monotonic()
        try:
            outcome = look(decode, content, RULES[number % len(RULES)])
        except Exception as error:
            outcome = f"!{type(error).__name__}: {error}"
        took, grown = time.monotonic() - start, memory.peak() - at_rest
        if grown > decoding.MOST_MEMORY:
            outcome = f"!took {grown:,} bytes of memory"
        answers.send((outcome, took, grown))


def run(
    files: int,
    seed: int,
    findings: Path,
    decode: Decode = decode,
    time_limit: float = TIME_LIMIT,
) -> Report:
    """Decode as many mutated files, in child processes; what breaks the decoder is kept."""
    findings.mkdir(parents=True, exist_ok=True)
    stderr = findings / "stderr.txt"
    stderr.unlink(missing_ok=True)
    report, start, number = Report(seed, findings), time.monotonic(), 0
    with console.progress("fuzzing", files) as advance:
        while number < files:
            numbers = range(number, min(number + CHUNK, files))
            number = _run_child(report, numbers, decode, time_limit, stderr)
            advance(number - numbers.start)
    said = stderr.read_bytes() if stderr.exists() else b""
    if said:
        report.findings.append(f"on stderr: {said[:1000]!r}")
    report.seconds = time.monotonic() - start
    return report


def _run_child(
    report: Report, numbers: range, decode: Decode, time_limit: float, stderr: Path
) -> int:
    """Let one child decode the files of some numbers; the number after the last that was done."""
    spawn = multiprocessing.get_context("spawn")
    answers, end = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_child, args=(decode, report.seed, numbers, end, str(stderr)))
    child.start()
    end.close()
    number, begun = numbers.start, False
    while number < numbers.stop:
        if begun and not answers.poll(time_limit):
            report.found(number, f"no end after {time_limit:g} s")
            child.kill()
            break
        try:
            outcome, took, grown = answers.recv()
        except EOFError:
            child.join()
            report.found(number, f"the process ended with {child.exitcode}")
            break
        begun = not outcome
        if outcome:
            report.count(number, outcome, took, grown)
            number += 1
    child.join()
    answers.close()
    return min(number + 1, numbers.stop)  # the one that was found is not tried again


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    report = run(options.files, options.seed, options.findings)
    print(report)
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()
