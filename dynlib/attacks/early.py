"""The Early Attack of the paper (RQ3): every early exit changes its answer, the final exit keeps its own.

The static network is unharmed, the dynamic one errs. ``EarlyAttack`` is the published objective, from the authors' public script;
``EarlyPGD`` pursues the same goal inside an L-infinity ball.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dynlib.attacks.goals import get_goal
from dynlib.attacks.losses import TowardsEarly, early_objective, get_loss
from dynlib.attacks.pgd import PGD
from dynlib.attacks.result import AttackResult
from dynlib.attacks.tools import (
    are_finite,
    check_batch,
    check_finite,
    check_seed,
    checked_precision,
    from_tanh_space,
    in_precision,
    reaches,
    to_tanh_space,
    uniform_noise,
)
from dynlib.mechanisms import ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import evaluating
from dynlib.settings import settle


@dataclass(frozen=True, kw_only=True)
class EarlyAttack:
    """Minimise distance plus ``c`` times the early exits' probabilities of the label, less ``alpha`` times the final exit's lead.

        ``|n(x') - n(x)|^2 + c * (sum over early k of p_k(y) - alpha * sum over j != y of relu(p_N(y) - p_N(j)))``

    with ``x' = (tanh(w) + 1) / 2``, Adam on ``w``, ``n`` the network's normalisation, ``p_k`` the softmax of exit k, N the final
    exit. By default as published, except for its sum over j, which runs to 10 whatever the number of classes.

    Args:
        alpha: weight of the final exit's lead, at least 0.
        c: weight of everything but the distance, at least 0.
        iterations: at most so many.
        learning_rate: of Adam.
        floor: iterations before an image may be done; it is when it reaches the goal, ``"strict"``.
        classes: j runs over the first so many; by default all. The published script has 10, also for 100 classes.
        relu: whether a class that has overtaken y is left alone, as published, or still pushed down.
        random_start: whether w starts in U(0, 1), as published, or at the image.
        mechanism: the exit rule of the network as deployed.
        precision: that the network is run in, as for ``Attack``. Whether an image is done is looked up there, too.
        seed: of the random start. Each image has its own stream, derived from its content.
    Raises:
        ValueError: a setting out of range.
    """

    name, display, marker = "early_attack", "Early Attack", "P"
    goal: ClassVar[str] = "strict"
    own_labels: ClassVar[bool] = True

    alpha: float = 1.0
    c: float = 50.0
    iterations: int = 1000
    learning_rate: float = 0.01
    floor: int = 200
    classes: int | None = None
    relu: bool = True
    random_start: bool = True
    mechanism: Mechanism = field(default_factory=ConfidenceExit)
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        settle(self)
        for name in ("alpha", "c", "floor"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        if self.iterations < 1 or not self.learning_rate > 0:
            raise ValueError(f"{self.iterations} iterations at rate {self.learning_rate}: need at least 1, and a positive rate")
        if self.classes is not None and self.classes < 1:
            raise ValueError(f"{self.classes} classes: need at least 1")
        checked_precision(self.precision)
        check_seed(self.seed)

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """Attack a batch.

        Args:
            net: with early exits; on the images' device.
            images: float32 ``[batch, 3, side, side]`` in [0, 1].
            labels: the final exit's answer to each image, int64 ``[batch]``.
        Returns:
            ``steps`` are iterations; ``stuck`` looks at the gradient without the distance.
        Raises:
            ValueError: wrong shape, type or range; no early exits; labels that are not the final exit's; or logits or gradients
                that are not finite.
        """
        with evaluating(net):
            images, labels = check_batch(net, images, labels)
            get_goal(self.goal).check(net)
            with in_precision("float32", images.device):
                check_own(net, images, labels)
                adversarial, steps, stuck = self._run(net, images, labels)
            reached = reaches(self, net, adversarial, labels)
        return AttackResult(adversarial, reached, steps, 2 * net.macs[-1].to(labels.device) * steps, stuck).warned()

    def _run(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        start = (uniform_noise(images, self.seed) + 1) / 2 if self.random_start else to_tanh_space(images)
        w = start.clone().requires_grad_()
        optimiser = torch.optim.Adam([w], self.learning_rate)
        active, iterations = torch.arange(len(images), device=images.device), torch.zeros_like(labels)
        pulled = torch.zeros_like(labels, dtype=torch.bool)
        for iteration in range(1, self.iterations + 1):
            with torch.enable_grad():
                moved = w[active]
                shown = from_tanh_space(moved)
                with in_precision(self.precision, images.device):
                    logits = net(shown)
                logits = logits.float()
                loss = self.objective(net, logits, from_tanh_space(moved), images[active], labels[active])
                gradient, pull = torch.autograd.grad(loss.sum(), (moved, shown))
            check_finite(are_finite(logits, loss, gradient))
            iterations[active] += 1
            pulled[active] |= pull.flatten(1).any(dim=1)
            if iteration > self.floor:  # these logits belong to the result of the previous iteration
                going = ~get_goal(self.goal).reached(logits, labels[active], self.mechanism)
                active, gradient = active[going], gradient[going]
            if len(active) == 0:
                break
            # Adam works on each number apart, so images do not disturb each other; those that are done stay where they are.
            before = w.detach().clone()
            w.grad = torch.zeros_like(w).index_copy(0, active, gradient)
            optimiser.step()
            with torch.no_grad():
                w.copy_(before.index_copy(0, active, w[active]))
        return from_tanh_space(w.detach()), iterations, ~pulled

    def objective(self, net: MultiExitNetwork, logits: Tensor, adversarial: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """What is minimised, ``[batch]``, from logits ``[exits, batch, classes]`` of the adversarial images."""
        distance = (net.normalise(adversarial) - net.normalise(images)).square().sum(dim=(1, 2, 3))
        return distance + self.c * early_objective(logits, labels, self.alpha, self.relu, self.classes)


@dataclass(frozen=True, kw_only=True)
class EarlyPGD(PGD):
    """The Early Attack inside an L-infinity ball: PGD whose images are done once they reach the goal. Settings of ``PGD``, and:

    Args:
        loss: ``"early"``, the published objective, or one of ``dynlib.attacks.losses.EARLY_VARIANTS``.
        goal: by default only the network as deployed errs.
        early_stop: by default images that reach the goal stay there.
    Raises:
        ValueError: a setting out of range.
    """

    name, display, marker = "early_pgd", "Early PGD", "*"
    own_labels = True

    loss: str = "early=log-probability/equal"
    goal: str = "open_surface"
    early_stop: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(get_loss(self.loss), TowardsEarly):
            raise ValueError(f"loss {self.loss!r} does not pursue the Early Attack's goal")

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """As for ``Attack``; the labels are what the final exit predicts for the images, else ValueError."""
        with evaluating(net):
            check_own(net, *check_batch(net, images, labels))
        return super().__call__(net, images, labels)


@torch.no_grad()
def check_own(net: MultiExitNetwork, images: Tensor, labels: Tensor) -> None:
    """Raises ValueError where labels are not what the final exit predicts for the images."""
    if not net(images)[-1].argmax(dim=-1).equal(labels):
        raise ValueError("labels are not what the final exit predicts for these images")
