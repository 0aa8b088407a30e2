"""Images that stand for many: what every exit predicts for them, and where they leave."""

import pandas as pd
import torch
from torch import Tensor

from dynlib.analysis.exits import leaving_places
from dynlib.analysis.measured import Seen
from dynlib.mechanisms import Answers, ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.identity import KINDS

DEPLOYED = ConfidenceExit()


def first_to_leave(seen: Seen, mechanism: Mechanism, n: int) -> pd.DataFrame:
    """The first ``n`` images that leave at each exit, from the first exit on; images that no exit lets go are left out.

    Of each ``image``, counted from 0: the name of its ``exit``, the ``label`` it gets there, and whether that is ``right``.
    """
    label, last = mechanism.answer(seen.answers), len(seen.answers)
    table = pd.DataFrame({"number": leaving_places(mechanism, seen.answers), "label": label, "right": label == seen.truth})
    table = table.rename_axis("image").reset_index()
    first = table[table.number > 0].sort_values(["number", "image"]).groupby("number").head(n)
    names = [f"exit {number}" if number < last else "final exit" for number in first.number]
    return first.assign(exit=names)[["image", "exit", "label", "right"]]


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
            answers = Answers.of(net(images))
            exits, _ = mechanism.answering(answers)
            for k in range(net.n_exits):
                name = f"exit {k + 1}" if net.n_exits > 1 else KINDS[kind].display
                for i, truth in enumerate(labels.tolist()):
                    label, confidence = answers.label[k, i].item(), answers.confidence[k, i].item()
                    rows.append((i, version, name, label, confidence, label == truth, exits[i].item() == k))
    return pd.DataFrame(rows, columns=["image", "version", "classifier", "label", "confidence", "right", "answers"])
