"""Whether gradients in bfloat16 make attacks as strong as those in float32."""

import torch

import dynlib
from benchmarks.rounds import MODELS, Scale, Table
from dynlib import data
from dynlib.attacks import PGD
from dynlib.craft import BATCH
from dynlib.networks.backbones import MODELS as BACKBONES
from dynlib.networks.folding import folded

RADII = (0.5, 1, 2, 8)  # in 255ths
LOSSES = {"sdnn": ("final",), "dynn": ("final", "average")}


def tables(scale: Scale) -> list[Table]:
    test, rows = data.load("cifar10", "test", scale.images), []
    for model in MODELS:
        for kind, losses in LOSSES.items():
            net = folded(dynlib.load(model, "cifar10", kind))
            right = PGD().mechanism.run(net, test.inputs).label == test.labels
            x, y = test.inputs[right], test.labels[right]
            for loss in losses:
                for radius in RADII:
                    exact, rough = (
                        torch.cat([PGD(eps=radius / 255, loss=loss, precision=one)(net, *part).reached for part in batches(x, y)])
                        for one in ("float32", "bfloat16")
                    )
                    shares = [100 * one.double().mean().item() for one in (exact, rough)]
                    cells = (f"{shares[0]:.1f}", f"{shares[1]:.1f}", f"{shares[1] - shares[0]:+.1f}", int((exact != rough).sum()))
                    rows.append((BACKBONES[model].display, kind, loss, f"{radius}/255", len(y), *cells))
    text = (
        f"PGD with 10 steps on the networks of CIFAR-10. Of the first {scale.images} test images, the *n* that the network as"
        " deployed gets right: the share that the attack turns, in percent, with gradients in float32 and in bfloat16. What is"
        " turned is always found out in float32. The last column counts images that only one of the two turns."
    )
    columns = ("network", "kind", "loss", "radius", "n", "float32, %", "bfloat16, %", "difference, points", "differ")
    return [Table("Strength in bfloat16", text, columns, rows)]


def batches(images: torch.Tensor, labels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
