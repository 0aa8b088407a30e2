"""What every exit predicts for a few images: the data behind the galleries."""

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from dynlib import data
from dynlib.mechanisms import Answers, ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.identity import KINDS

DEPLOYED = ConfidenceExit()


@torch.no_grad()
def both_right(nets: Iterable[MultiExitNetwork], n: int, mechanism: Mechanism = DEPLOYED) -> tuple[Tensor, Tensor]:
    """The first ``n`` CIFAR-10 test images, of 100, that every network classifies correctly as deployed.

    Returns:
        Images ``[n, 3, side, side]`` in [0, 1] and labels ``[n]``.
    Raises:
        ValueError: there are fewer than ``n``.
    """
    test = data.load("cifar10", "test", 100)
    right = torch.stack([mechanism.run(net, test.inputs).label == test.labels for net in nets]).all(dim=0)
    if right.sum() < n:
        raise ValueError(f"only {right.sum()} of 100 images are classified correctly by all networks, not {n}")
    return test.inputs[right][:n], test.labels[right][:n]


@torch.no_grad()
def exit_answers(
    nets: dict[str, MultiExitNetwork], pictures: dict[str, Tensor], labels: Tensor, mechanism: Mechanism = DEPLOYED
) -> pd.DataFrame:
    """A row for each image, version of it and classifier: the exits of the DyNN and the SDNN's only one.

    Args:
        nets: networks in evaluation mode; the key names the kind.
        pictures: for each version of the images ``[n, 3, side, side]``.
        labels: ``[n]``.
        mechanism: of the networks as deployed.
    """
    rows = []
    for kind, net in sorted(nets.items()):  # the DyNN first
        for version, images in pictures.items():
            logits = net(images)
            exits, _ = mechanism.answering(Answers.of(logits))
            confidence, predicted = logits.softmax(dim=-1).max(dim=-1)
            for k in range(net.n_exits):
                name = f"exit {k + 1}" if net.n_exits > 1 else KINDS[kind].display
                for i, label in enumerate(labels.tolist()):
                    answer = predicted[k, i].item()
                    rows.append((i, version, name, answer, confidence[k, i].item(), answer == label, exits[i].item() == k))
    return pd.DataFrame(rows, columns=["image", "version", "classifier", "label", "confidence", "right", "answers"])
