"""A network and its mechanism as an ordinary classifier, for attack libraries."""

import torch
from torch import Tensor

from dynlib.mechanisms.base import Answers, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import InStep, check_images


class Deployed(InStep):
    """Images to the logits ``[n, classes]`` of the exit that answers. Its mode is the network's.

    It runs every exit so that the answer can be differentiated; ``Mechanism.run`` is the way to save computation.
    """

    def __init__(self, net: MultiExitNetwork, mechanism: Mechanism):
        super().__init__()
        if not isinstance(mechanism, Mechanism):
            raise ValueError(f"mechanism {mechanism!r}: need a Mechanism")
        self.net, self.mechanism = net, mechanism

    def forward(self, images: Tensor) -> Tensor:
        check_images(self.net, images)
        logits = self.net(images)
        exit, _ = self.mechanism.answering(Answers.of(logits))
        return logits[exit, torch.arange(logits.shape[1], device=logits.device)]
