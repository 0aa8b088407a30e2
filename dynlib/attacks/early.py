"""The Early Attack of the paper (RQ3): every early exit changes its answer, the final exit keeps its own.

The static network is unharmed, the dynamic one errs. ``EarlyAttack`` is the published objective, from the authors' public script;
``EarlyPGD`` pursues the same goal inside an L-infinity ball.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from dynlib.attacks.base import AttackResult, check_batch, evaluating, from_tanh_space, to_tanh_space, uniform_noise
from dynlib.attacks.losses import TowardsEarly, early_objective, get_loss
from dynlib.attacks.pgd import PGD
from dynlib.mechanisms import Answers, ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork


class EarlyResult(NamedTuple):
    """What the Early Attack made of a batch; ``[batch]`` each, but for ``adversarial`` float32 ``[batch, 3, 32, 32]`` in [0, 1].

    ``strict``: every early exit answers otherwise than the final exit did, which still answers the same. ``deployed``: the network
    as deployed does, while its final exit does not. ``iterations`` int64, and ``macs`` int64 of all forward and backward passes.
    """

    adversarial: Tensor
    strict: Tensor
    deployed: Tensor
    iterations: Tensor
    macs: Tensor


@dataclass(frozen=True, kw_only=True)
class EarlyAttack:
    """Minimise distance plus ``c`` times the early exits' probabilities of the label, less ``alpha`` times the final exit's lead.

        ``|n(x') - n(x)|^2 + c * (sum over early k of p_k(y) - alpha * sum over j != y of relu(p_N(y) - p_N(j)))``

    with ``x' = (tanh(w) + 1) / 2``, Adam on ``w``, ``n`` the network's normalisation, ``p_k`` the softmax of exit k, N the final
    exit. By default as published, but for its sum over j, which runs to 10 whatever the number of classes.

    Args:
        alpha: weight of the final exit's lead, at least 0.
        c: weight of everything but the distance, at least 0.
        iterations: at most so many.
        learning_rate: of Adam.
        floor: iterations before an image may be done; it is when it succeeds strictly.
        classes: j runs over the first so many; by default all. The published script has 10, also for 100 classes.
        relu: whether a class that has overtaken y is left alone, as published, or still pushed down.
        random_start: whether w starts in U(0, 1), as published, or at the image.
        mechanism: the exit rule of the network as deployed.
        seed: of the random start. Each image has its own stream, derived from its content.
    Raises:
        ValueError: a setting out of range.
    """

    alpha: float = 1.0
    c: float = 50.0
    iterations: int = 1000
    learning_rate: float = 0.01
    floor: int = 200
    classes: int | None = None
    relu: bool = True
    random_start: bool = True
    mechanism: Mechanism = field(default_factory=ConfidenceExit)
    seed: int = 0

    def __post_init__(self):
        for name in ("alpha", "c"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        if self.iterations < 1 or not self.learning_rate > 0:
            raise ValueError(f"{self.iterations} iterations at rate {self.learning_rate}: need at least 1, and a positive rate")

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> EarlyResult:
        """Attack a batch.

        Args:
            net: with early exits; on the images' device.
            images: float32 ``[batch, 3, 32, 32]`` in [0, 1].
            labels: what the final exit says of each image, int64 ``[batch]``.
        Raises:
            ValueError: wrong shape, type or range; no early exits; or labels that are not the final exit's.
        """
        check_batch(net, images, labels)
        if net.n_exits < 2:
            raise ValueError("the network has no early exits")
        with evaluating(net):
            check_own(net, images, labels)
            adversarial, iterations = self._run(net, images, labels)
            with torch.no_grad():
                logits = net(adversarial)
        strict, deployed = strictly(logits, labels), as_deployed(logits, labels, self.mechanism)
        return EarlyResult(adversarial, strict, deployed, iterations, 2 * net.macs[-1].to(labels.device) * iterations)

    def _run(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        start = (uniform_noise(images, self.seed) + 1) / 2 if self.random_start else to_tanh_space(images)
        w = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([w], self.learning_rate)
        active, iterations = torch.arange(len(images), device=images.device), torch.zeros_like(labels)
        for iteration in range(1, self.iterations + 1):
            with torch.enable_grad():
                moved = w[active]
                logits = net(from_tanh_space(moved))
                loss = self.objective(net, logits, from_tanh_space(moved), images[active], labels[active])
                (gradient,) = torch.autograd.grad(loss.sum(), moved)
            iterations[active] += 1
            if iteration > self.floor:  # these logits belong to the result of the previous iteration
                going = ~strictly(logits, labels[active])
                active, gradient = active[going], gradient[going]
            if len(active) == 0:
                break
            # Adam works on each number apart, so images do not disturb each other; those that are done stay where they are.
            before = w.detach().clone()
            w.grad = torch.zeros_like(w).index_copy(0, active, gradient)
            optimiser.step()
            with torch.no_grad():
                w.copy_(before.index_copy(0, active, w[active]))
        return from_tanh_space(w.detach()), iterations

    def objective(self, net: MultiExitNetwork, logits: Tensor, adversarial: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """What is minimised, ``[batch]``, from logits ``[exits, batch, classes]`` of the adversarial images."""
        distance = (net.normalise(adversarial) - net.normalise(images)).square().sum(dim=(1, 2, 3))
        return distance + self.c * early_objective(logits, labels, self.alpha, self.relu, self.classes)


@dataclass(frozen=True, kw_only=True)
class EarlyPGD(PGD):
    """The Early Attack inside an L-infinity ball: PGD whose images are done once they reach the goal. Settings of ``PGD``, and:

    Args:
        loss: ``"early"``, the published objective, or one of ``dynlib.attacks.losses.EARLY_VARIANTS``.
        goal: a key of ``GOALS``.
    Raises:
        ValueError: a setting out of range.
    """

    name, display, marker = "early_pgd", "Early PGD", "*"

    loss: str = "early=log-probability/equal"
    goal: str = "deployed"

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(get_loss(self.loss), TowardsEarly):
            raise ValueError(f"loss {self.loss!r} does not pursue the Early Attack's goal")
        if self.goal not in GOALS:
            raise ValueError(f"unknown goal {self.goal!r}: choose one of {', '.join(GOALS)}")

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """As for ``Attack``; the labels are what the final exit says of the images, else ValueError."""
        check_batch(net, images, labels)
        with evaluating(net):
            check_own(net, images, labels)
        return super().__call__(net, images, labels)

    def stops(self, logits: Tensor, labels: Tensor, complete: bool) -> Tensor:
        return GOALS[self.goal](logits, labels, self.mechanism)


@torch.no_grad()
def check_own(net: MultiExitNetwork, images: Tensor, labels: Tensor) -> None:
    """Raises ValueError where labels are not what the final exit says of the images."""
    if not net(images)[-1].argmax(dim=-1).equal(labels):
        raise ValueError("labels are not what the final exit says of these images")


def strictly(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether every early exit differs from the label and the final exit does not: bool ``[batch]``."""
    answers = logits.argmax(dim=-1)
    return (answers[:-1] != labels).all(dim=0) & (answers[-1] == labels)


def as_deployed(logits: Tensor, labels: Tensor, mechanism: Mechanism) -> Tensor:
    """Whether the network as deployed differs from the label and its final exit does not: bool ``[batch]``."""
    answers = Answers.of(logits)
    exit, _ = mechanism.answering(answers)
    return (answers.label.gather(0, exit[None])[0] != labels) & (answers.label[-1] == labels)


# When an image is done, from logits, labels and mechanism.
GOALS = {"strict": lambda logits, labels, mechanism: strictly(logits, labels), "deployed": as_deployed}
