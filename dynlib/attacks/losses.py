"""What an attack on a multi-exit network maximises, by name: losses over the whole output.

Beside those of ``placed`` here are those of two goals that only a dynamic network can fall to: an answer or a cost of its own.
"""

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from dynlib.attacks.placed import (
    Answering,
    AtExit,
    Average,
    Ensemble,
    Loss,
    MaxAverage,
    Placed,
    Taken,
    everywhere,
    margin,
)
from dynlib.mechanisms import Answers, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.gated import GatedNetwork


@dataclass(frozen=True)
class Uniform(Loss):
    """Slows the network down: every early exit is pushed to the uniform distribution, so that none is sure enough to answer.

    What is maximised is the negative cross-entropy to that distribution, the mean over early exits, as in DeepSloth (Hong et al.,
    ICLR 2021), where it is their sum. The final exit plays no part, and is not run.
    """

    display, colour, dash = "early exits to uniform", "C9", "-"

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        check_early_exits(net)
        return everywhere(net.n_exits - 2, images), everywhere(0, images)

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return logits.log_softmax(dim=-1).mean(dim=(0, 2))


@dataclass(frozen=True)
class SlowAndWrong(Uniform):
    """Both at once: ``Uniform`` plus the lead of another class at the final exit, which then is usually the surest.

    A lead of 1 is enough: more of it would drown the other term.
    """

    display, colour, dash = "slow and wrong", "C9", ":"  # in the hue of attacks on speed

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        check_early_exits(net)
        return everywhere(net.n_exits - 1, images), everywhere(0, images)

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return super().__call__(logits[:-1], labels, mechanism) - margin(logits[-1:], labels)[0].clamp(min=-1)


@dataclass(frozen=True)
class Gates(Loss):
    """Slows a network with gates down: the mean over its gates of the logarithm of the probability that one is open.

    As ILFO (Haque et al., CVPR 2020) raises what intermediate outputs decide on; in the logarithm, open gates weigh little.
    """

    display, colour, dash = "gates open", "C9", "--"  # in the hue of attacks on speed

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        if not isinstance(net, GatedNetwork):
            raise ValueError("the network has no gates, which loss 'gates' needs")
        return everywhere(0, images), everywhere(0, images)

    def run(self, net: MultiExitNetwork, images: Tensor, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(net, GatedNetwork)  # see ``depth``
        features, gates, _ = net.walk(images)
        return gates, net.classify(depth, features)[None], features

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        """From the gates' logits ``[gates, batch]``."""
        return F.logsigmoid(logits).mean(dim=0)


def check_early_exits(net: MultiExitNetwork) -> None:
    """Raises ValueError for a static network."""
    if net.n_exits < 2:
        raise ValueError("the network has no early exits")


def early_objective(logits: Tensor, labels: Tensor, alpha: float, relu: bool = True, classes: int | None = None) -> Tensor:
    """What the Early Attack minimises beside the distance, ``[batch]``: see ``dynlib.attacks.early`` for the formula.

    Args:
        logits: ``[exits, batch, classes]``.
        labels: what the final exit predicts for the clean images, ``[batch]``.
        alpha, relu, classes: as in ``EarlyAttack``.
    """
    p = logits.softmax(dim=-1)
    own = p.gather(-1, labels.expand(len(p), -1)[..., None])  # [exits, batch, 1]
    lead = own[-1] - p[-1, :, :classes]  # zero for j = y, so y may stay in the sum
    return own[:-1].sum(dim=(0, 2)) - alpha * (lead.relu() if relu else lead).sum(dim=-1)


class TowardsEarly(Loss):
    """Base of what pursues the Early Attack's goal: early exits leave the label, the final exit keeps it.

    Labels are what the final exit predicts for the clean images.
    """

    def depth(self, net: MultiExitNetwork, mechanism: Mechanism, images: Tensor) -> tuple[Tensor, Tensor]:
        check_early_exits(net)
        return everywhere(net.n_exits - 1, images), everywhere(0, images)


@dataclass(frozen=True)
class Early(TowardsEarly):
    """The published objective, with as much weight on the final exit's lead as on the early exits' probabilities."""

    display, colour, dash = "as published", "C8", "-"

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return -early_objective(logits, labels, alpha=1.0)


# What speaks for the label at an exit, and the bounds that are enough: early exits are not pushed below the lower one, the final
# exit not above the upper one.
EVIDENCE = {"probability": (0.0, 1.0), "log-probability": (-5.0, 0.0), "margin": (-2.0, 2.0)}
WEIGHTS = ("equal", "confidence", "answering")


@dataclass(frozen=True)
class EarlyVariant(TowardsEarly):
    """The evidence for the label at the final exit, less that at the early exits, which share the final exit's weight.

    Args:
        evidence: in ``EVIDENCE``; the margin is the label's logit less the largest other one.
        weights: of the early exits: ``"equal"``; ``"confidence"``, their largest probability; or ``"answering"``, only the exit
            that answers for the network as deployed (the last early one where the final exit does).
    """

    colour, dash = "C3", "-"

    evidence: str
    weights: str

    @property
    def display(self) -> str:  # type: ignore[override] # by its fields
        return f"{self.evidence}, {self.weights}"

    def __call__(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        low, high = EVIDENCE[self.evidence]
        evidence, weights = self._for(logits, labels), self._weights(logits.detach(), mechanism)
        return weights.sum(dim=0) * evidence[-1].clamp(max=high) - (weights * evidence[:-1].clamp(min=low)).sum(dim=0)

    def _for(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Evidence ``[exits, batch]``."""
        if self.evidence == "margin":
            return margin(logits, labels)
        scores = logits.softmax(dim=-1) if self.evidence == "probability" else logits.log_softmax(dim=-1)
        return scores.gather(-1, labels.expand(len(logits), -1)[..., None])[..., 0]

    def _weights(self, logits: Tensor, mechanism: Mechanism) -> Tensor:
        """Of the early exits, ``[exits - 1, batch]``."""
        if self.weights == "answering":
            last_early = len(logits) - 2
            return F.one_hot(mechanism.answering(Answers.of(logits))[0].clamp(max=last_early), last_early + 1).T.float()
        confidence = logits[:-1].softmax(dim=-1).amax(dim=-1)
        return confidence if self.weights == "confidence" else torch.ones_like(confidence)


LOSSES = {
    "final": AtExit(-1),
    "taken": Taken(),
    "answering": Answering(),
    "average": Average(),
    "ensemble": Ensemble(),
    "max_average": MaxAverage(),
    "early": Early(),
    "uniform": Uniform(),
    "slow_and_wrong": SlowAndWrong(),
}
GATE_LOSSES = {"gates": Gates()}  # of networks with gates alone
EARLY_VARIANTS = {f"early={e}/{w}": EarlyVariant(e, w) for e, w in product(EVIDENCE, WEIGHTS)}


def get_loss(name: str) -> Loss:
    """A loss by name: of ``LOSSES``, ``GATE_LOSSES`` or ``EARLY_VARIANTS``, or ``"exit=k"`` for the exit with index k.

    What has a place may have another criterion: ``"final/margin"``.

    Raises:
        ValueError: unknown name.
    """
    known = LOSSES | GATE_LOSSES | EARLY_VARIANTS
    place, slash, criterion = name.partition("/")
    start, _, number = place.partition("=")
    placed = AtExit(int(number)) if start == "exit" and number.isdecimal() else LOSSES.get(place)
    if slash and criterion == "margin" and isinstance(placed, Placed):
        return replace(placed, criterion=criterion)
    found = known.get(name, None if slash else placed)
    if found is None:
        raise ValueError(f"unknown loss {name!r}: choose one of {', '.join(known)} or exit=k, or a place with /margin")
    return found


def on_one_exit(name: str) -> str:
    """The name of what a loss is on a static network, where all places are one."""
    return "final/margin" if name.endswith("/margin") else "final"
