"""Goals: when an attack has succeeded. A new goal is one class with ``reached``, registered in ``GOALS``.

Labels are what the attacker wants the network to leave: true labels, or the answers that it gives to the clean images.
"""

from typing import ClassVar

import torch
from torch import Tensor

from dynlib.mechanisms import Answers, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.gated import GatedNetwork


class Goal:
    """Base of all goals.

    ``needs_early_exits``: whether a static network can never fall to it.
    """

    name: ClassVar[str]
    needs_early_exits: ClassVar[bool] = True

    def reached(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        """Whether each image has reached the goal, bool ``[batch]``.

        Args:
            logits: of every exit, ``[exits, batch, classes]``.
            labels: int64 ``[batch]``.
            mechanism: the exit rule of the network as deployed.
        """
        raise NotImplementedError

    def noticed(self, logits: Tensor, labels: Tensor, mechanism: Mechanism, n_exits: int) -> Tensor:
        """Whether each image has reached the goal for sure, from the first of ``n_exits`` exits alone: bool ``[batch]``.

        Arguments as for ``reached``. Here only all exits together tell.
        """
        if len(logits) < n_exits:
            return torch.zeros_like(labels, dtype=torch.bool)
        return self.reached(logits, labels, mechanism)

    @torch.no_grad()
    def holds(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        """The same for images ``[batch, 3, side, side]``, which are run through the network: bool ``[batch]``."""
        return self.reached(net(images), labels, mechanism)

    def check(self, net: MultiExitNetwork) -> None:
        """Raises ValueError where the network cannot have this goal."""
        if self.needs_early_exits and net.n_exits < 2:
            raise ValueError(f"the network has no early exits, which goal {self.name!r} needs")


class Misclassify(Goal):
    """The network as deployed answers otherwise than the label."""

    name = "misclassify"
    needs_early_exits = False

    def reached(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return self.noticed(logits, labels, mechanism, len(logits))

    def noticed(self, logits: Tensor, labels: Tensor, mechanism: Mechanism, n_exits: int) -> Tensor:
        answers = Answers.of(logits)
        exit, left = mechanism.answering(answers)
        known = left | (len(logits) == n_exits)  # the exits up to the one that lets an image go are enough
        return known & (answers.label.gather(0, exit[None])[0] != labels)

    def holds(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return mechanism.run(net, images).label != labels  # skips the exits that are not needed


class OpenSurface(Goal):
    """Only the network as deployed errs: its final exit keeps the label."""

    name = "open_surface"

    def reached(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return (mechanism.answer(Answers.of(logits)) != labels) & (logits[-1].argmax(dim=-1) == labels)


class Mirror(Goal):
    """Only the final exit errs: the network as deployed keeps the label."""

    name = "mirror"

    def reached(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return (mechanism.answer(Answers.of(logits)) == labels) & (logits[-1].argmax(dim=-1) != labels)


class Strict(Goal):
    """Every early exit changes the label, the final exit keeps it: the success of the published Early Attack."""

    name = "strict"

    def reached(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        answers = logits.argmax(dim=-1)
        return (answers[:-1] != labels).all(dim=0) & (answers[-1] == labels)


class SlowDown(Goal):
    """The network as deployed runs all its blocks, to its last exit, whatever it answers there: nothing is saved.

    Logits do not tell which gates were open: of a network with gates ``holds`` alone can tell, and nothing is noticed early.
    """

    name = "slow_down"

    def reached(self, logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return self.noticed(logits, labels, mechanism, len(logits))

    def noticed(self, logits: Tensor, labels: Tensor, mechanism: Mechanism, n_exits: int) -> Tensor:
        if len(logits) < n_exits - 1 or n_exits == 1:
            return torch.zeros_like(labels, dtype=torch.bool)
        _, left = mechanism.answering(Answers.of(logits[: n_exits - 1]))  # no early exit lets it go
        return ~left

    def holds(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        return mechanism.run(net, images).cost == net.macs[-1].to(labels.device)

    def check(self, net: MultiExitNetwork) -> None:
        if not isinstance(net, GatedNetwork):
            super().check(net)


class SlowAndWrong(SlowDown):
    """Both: the network as deployed runs to its last exit, and answers otherwise than the label."""

    name = "slow_and_wrong"

    def noticed(self, logits: Tensor, labels: Tensor, mechanism: Mechanism, n_exits: int) -> Tensor:
        wrong = Misclassify().noticed(logits, labels, mechanism, n_exits)
        return super().noticed(logits, labels, mechanism, n_exits) & wrong

    def holds(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
        decision = mechanism.run(net, images)
        return (decision.cost == net.macs[-1].to(labels.device)) & (decision.label != labels)


GOALS: dict[str, Goal] = {
    goal.name: goal for goal in (Misclassify(), OpenSurface(), Mirror(), Strict(), SlowDown(), SlowAndWrong())
}


def get_goal(name: str) -> Goal:
    """A goal by name, one of ``GOALS``.

    Raises:
        ValueError: unknown name.
    """
    if name not in GOALS:
        raise ValueError(f"unknown goal {name!r}: choose one of {', '.join(GOALS)}")
    return GOALS[name]
