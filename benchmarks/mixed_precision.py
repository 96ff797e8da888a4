"""Training in bf16 (mixed precision) against float32 on CPUs, by network.

    python -m benchmarks.mixed_precision NETWORK ... [--train-blocks 3]

Photographs a second, forwards and backwards, of the whole network and of its last blocks, as
`classify finetune` measures them before it chooses; weights are random. The precisions take turns,
`ROUNDS` times; medians. Needs the extra `torch`, and `keras` for networks of Keras.
"""

from __future__ import annotations

import argparse
import statistics

from headstart.classify.finetune.planning import random_photographs, seconds_of_step, to_input
from headstart.export.networks.trainable.opening import open_trainable
from headstart.export.options import BackboneOptions

ROUNDS = 3


def main() -> None:
    """Print the table as Markdown."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--train-blocks", type=int, default=3)
    options = parser.parse_args()
    print("| network | trained | fp32, images/s | bf16, images/s | times |\n|---|---|---|---|---|")
    for name in options.networks:
        network = open_trainable(name, BackboneOptions(weights="none"))
        network.prepare()
        network.to("cpu")
        pixels = to_input(network, random_photographs(network))
        for first in (0, network.first_trained(options.train_blocks)):
            values = pixels
            if first:
                with torch.no_grad():
                    values = network.front(pixels, first)
            seconds: list[list[float]] = [[], []]
            for _ in range(ROUNDS):
                for mixed in (False, True):
                    taken = seconds_of_step(network, values, (first, first), mixed)
                    seconds[mixed].append(taken)
            fp32, bf16 = (1 / statistics.median(taken) for taken in seconds)
            what = f"the last {options.train_blocks} blocks" if first else "all"
            print(f"| {name} | {what} | {fp32:.1f} | {bf16:.1f} | {bf16 / fp32:.2f} |", flush=True)


if __name__ == "__main__":
    main()
