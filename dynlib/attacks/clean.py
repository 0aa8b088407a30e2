"""No attack: the images as they are, so that clean images are measured and read like all others."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dynlib.attacks.result import AttackResult
from dynlib.attacks.tools import check_batch, reaches
from dynlib.mechanisms import ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import evaluating
from dynlib.settings import settle


@dataclass(frozen=True, kw_only=True)
class Clean:
    """The identity; ``reached`` says where the network as deployed errs on the clean image."""

    name, display, marker = "none", "clean", "o"
    goal: ClassVar[str] = "misclassify"
    own_labels: ClassVar[bool] = False

    mechanism: Mechanism = field(default_factory=ConfidenceExit)

    def __post_init__(self) -> None:
        settle(self)

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """Attack a batch; arguments, result and errors as for ``Attack``."""
        with evaluating(net):
            images, labels = check_batch(net, images, labels)
            reached = reaches(self, net, images, labels)
        nothing = torch.zeros_like(labels)
        return AttackResult(images, reached, nothing, nothing, torch.zeros_like(reached))
