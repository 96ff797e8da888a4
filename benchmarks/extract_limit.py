"""`python -m extract` against the machine's limit, measured beside it in every round.

A machine that others share is faster in one minute than in the next, so that here each run is
divided by the limit of its own round, and the median of the rounds counts. `benchmarks.extract` has
the peers beside it, and takes the best limit of all rounds.

    python -m benchmarks.extract_limit OUT [--rounds 3] [--only NAME] [--work FOLDER]

Writes OUT/limit.md. Exits with 1 below 85 %.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.extract import CASES, LEAST_OF_LIMIT, Case, export, run, ways_of
from benchmarks.extract_report import OURS
from benchmarks.limit import limits
from benchmarks.photographs import write_photographs


def shares(case: Case, work: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """By precision, of each round: photographs a second, and the limit."""
    kind = f"{case.pixels[0]}x{case.pixels[1]}-{case.photographs}"
    photographs = write_photographs(work / kind, case.photographs, case.pixels)
    ways = ways_of(case, export(case, work, photographs))
    ours = {name.split()[1]: arguments for name, arguments in ways.items() if OURS in name}
    found: dict[str, list[tuple[float, float]]] = {precision: [] for precision in ours}
    for number in range(rounds):
        bounds = limits(photographs, {each: arguments[0] for each, arguments in ours.items()})
        for each, arguments in ours.items():
            rate = run(f"{OURS} {each}", arguments, photographs, work / "out").steady
            found[each].append((rate, bounds[each]))
            print(
                f"{case.name}: round {number + 1}, {each} {rate:.1f} of {bounds[each]:.1f}/s, "
                f"decoding alone {bounds['decode']:.0f}/s",
                flush=True,
            )
    return found


def main() -> None:
    """Measure, write the table, and fail below `LEAST_OF_LIMIT`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--work", type=Path, help="keep photographs and backbones here")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ["| | precision | img/s | limit | of the limit | rounds |", "|---|---|---|---|---|---|"]
    short = []
    with tempfile.TemporaryDirectory(prefix="extract-") as name:
        work = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        for case in (case for case in CASES if options.only in case.name):
            for precision, pairs in shares(case, work, options.rounds).items():
                rate, limit = (statistics.median(each) for each in zip(*pairs, strict=True))
                parts = [rate / limit for rate, limit in pairs]
                share = statistics.median(parts)
                lines.append(
                    f"| {case.name} | {precision} | {rate:,.0f} | {limit:,.0f} | {share:.0%} | "
                    f"{', '.join(f'{part:.0%}' for part in parts)} |"
                )
                if share < LEAST_OF_LIMIT:
                    short.append(f"{case.name}, {precision}: {share:.0%}, not {LEAST_OF_LIMIT:.0%}")
    (options.out / "limit.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if short:
        sys.exit("below what is wanted:\n  " + "\n  ".join(short))


if __name__ == "__main__":
    main()
