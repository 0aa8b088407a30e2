"""How much faster the batched Early Attack is, per image and iteration, than the plain loop that it is tested against.

A benchmark, not a test: run `python -m tests.benchmark_early` where nothing else runs.
"""

import time

import torch

import dynlib
from dynlib import data
from dynlib.attacks import EarlyAttack
from tests.test_early import own_labels, plain_loop

BATCH, ITERATIONS, ROUNDS = 64, 10, 3


def main() -> None:
    net = dynlib.load("resnet56", "cifar10", "dynn")
    images = data.load("cifar10", "test", BATCH).inputs
    labels = own_labels(net, images)
    objective = {"alpha": 1.0, "c": 50.0, "relu": True, "classes": 10}
    for number in range(ROUNDS):
        start = time.perf_counter()
        plain_loop(net, images[0], labels[0].item(), torch.zeros_like(images[0]), ITERATIONS, **objective)
        plain = (time.perf_counter() - start) / ITERATIONS
        start = time.perf_counter()
        EarlyAttack(iterations=ITERATIONS)(net, images, labels)
        batched = (time.perf_counter() - start) / ITERATIONS / BATCH
        shown = f"{1000 * plain:.1f} ms alone, {1000 * batched:.1f} ms among {BATCH}"
        print(f"round {number + 1}: {shown}, {plain / batched:.1f} times as fast")


if __name__ == "__main__":
    main()
