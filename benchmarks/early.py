"""The published Early Attack: a batch of images beside the plain loop over one image that the tests compare it with."""

import torch

import dynlib
from benchmarks.rounds import Scale, Table, against, interleaved, ratios
from dynlib import data
from dynlib.attacks import EarlyAttack
from dynlib.networks.folding import folded
from tests.test_early import own_labels, plain_loop

BATCH, ITERATIONS = 64, 10
GOAL = 6


def tables(scale: Scale) -> list[Table]:
    net = dynlib.load("resnet56", "cifar10", "dynn")
    quick, images = folded(net), data.load("cifar10", "test", BATCH).inputs
    labels = own_labels(quick, images)
    objective = {"alpha": 1.0, "c": 50.0, "relu": True, "classes": 10}
    seconds = interleaved(
        {
            "alone": lambda: plain_loop(net, images[0], labels[0].item(), torch.zeros_like(images[0]), ITERATIONS, **objective),
            "batch": lambda: EarlyAttack(iterations=ITERATIONS)(quick, images, labels),
            "batch, bfloat16": lambda: EarlyAttack(iterations=ITERATIONS, precision="bfloat16")(quick, images, labels),
        },
        scale.rounds,
    )
    rows = [
        (f"alone / {run}", *against([BATCH * ratio for ratio in ratios(seconds, ["alone"], [run])], GOAL, at_least=True))
        for run in ("batch", "batch, bfloat16")
    ]
    text = (
        f"On the dynamic ResNet-56 of CIFAR-10: {ITERATIONS} iterations on one image by the plain loop, on the network as it is,"
        f" over what an image takes among {BATCH} in a batch on the folded network."
    )
    return [Table("The published Early Attack", text, ("ratio of times", "measured", "goal", "met"), rows)]
