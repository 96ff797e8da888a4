"""Is extraction's memory the same for 2,000 and for 20,000 photographs?

    python -m benchmarks.extract_memory BACKBONE FOLDER [--few 2000] [--many 20000]

FOLDER stores the photographs (500x375 JPEG). While a job runs, the resident memory of its workers
is read from the operating system every half second, and the used memory of the object store from
Ray. Exits with 1 if a worker's peak grows by more than 10 %, or the object store has more than the
backbone and a megabyte.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from benchmarks.photographs import write_photographs
from headstart.data.common.ray_session import ray_session
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions

MOST_GROWTH, SPARE, EVERY = 0.10, 1_000_000, 0.5
NAME = "ray::RayWorker"


class Watch(threading.Thread):
    """Records the largest values until it is stopped, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worker = self.store = 0
        self.done = threading.Event()

    def run(self) -> None:
        import ray

        total = ray.cluster_resources()["object_store_memory"]
        while not self.done.wait(EVERY):
            free = ray.available_resources().get("object_store_memory", total)
            self.store = max(self.store, int(total - free))
            for process in psutil.process_iter(["cmdline", "memory_info"]):
                if NAME in " ".join(process.info["cmdline"] or []):
                    self.worker = max(self.worker, process.info["memory_info"].rss)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("backbone", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--few", type=int, default=2000)
    parser.add_argument("--many", type=int, default=20_000)
    options = parser.parse_args()
    size = options.backbone.stat().st_size
    peaks = []
    print("| photographs | worker, MB | object store, MB | img/s |\n|---|---|---|---|")
    for count in (options.few, options.many):
        photographs = write_photographs(options.folder / f"500x375-{count}", count, (500, 375))
        with tempfile.TemporaryDirectory(prefix="memory-") as name, ray_session(None, None):
            watch = Watch()
            watch.start()
            done = extract(photographs, options.backbone, Path(name, "f"), ExtractOptions())
            watch.done.set()
            watch.join()
        peaks.append(watch)
        rate = f"{done.rate:,.0f}"
        print(f"| {count:,} | {watch.worker / 1e6:.0f} | {watch.store / 1e6:.1f} | {rate} |")
    growth = peaks[1].worker / peaks[0].worker - 1
    print(f"a worker's peak grows by {growth:+.1%}; the backbone has {size / 1e6:.1f} MB")
    if growth > MOST_GROWTH:
        sys.exit(f"over the limit of {MOST_GROWTH:.0%}")
    if max(each.store for each in peaks) > size + SPARE:
        sys.exit("the object store holds more than the backbone")


if __name__ == "__main__":
    main()
