"""C&W: the smallest L2 distortion that fools with a given confidence (Carlini and Wagner, IEEE S&P 2017)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dynlib.attacks.losses import get_loss
from dynlib.attacks.placed import OfExits, margin
from dynlib.attacks.result import AttackResult
from dynlib.attacks.tools import are_finite, check_batch, check_finite, from_tanh_space, reaches, to_tanh_space
from dynlib.mechanisms import ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import evaluating
from dynlib.settings import settle


@dataclass(frozen=True, kw_only=True)
class CarliniWagner:
    """Minimise ``|x' - x|^2 + c * f(x')`` over ``w``, with ``x' = (tanh(w) + 1) / 2`` and a binary search for each image's ``c``.

    ``f`` is ``max(0, margin + confidence)``, the margin being the label's logit less the largest other one. A loss that looks at
    several exits takes the mean of their ``f``. An image is fooled once its ``f`` is 0: every exit that the loss looks at errs with
    the asked confidence. Of all fooled ones the nearest is returned, and the image itself where there is none.

    It has no ``precision``: the nearest lie on the border, where bfloat16 errs.

    Args:
        loss: ``"final"``, ``"taken"``, ``"average"`` or ``"exit=k"``.
        confidence: in logits, at least 0. The more, the farther the examples, and the more of them transfer.
        steps: of Adam, in each round of the search.
        searches: rounds of the search for ``c``, which starts at 0.01.
        learning_rate: of Adam.
        mechanism: the exit rule of the network as deployed.
    Raises:
        ValueError: a setting out of range, or a loss that chooses among several attacks.
    """

    name: ClassVar[str] = "cw"
    display: ClassVar[str] = "C&W (L2)"
    marker: ClassVar[str] = "P"
    eps: ClassVar[int] = 0  # no ball
    seed: ClassVar[int] = 0  # nothing is drawn
    goal: ClassVar[str] = "misclassify"  # what is reported
    own_labels: ClassVar[bool] = False

    loss: str = "average"
    confidence: float = 0.0
    steps: int = 100
    searches: int = 5
    learning_rate: float = 0.01
    mechanism: Mechanism = field(default_factory=ConfidenceExit)

    def __post_init__(self) -> None:
        settle(self)
        if not isinstance(get_loss(self.loss), OfExits) or self.loss.endswith("/margin"):  # it has a criterion of its own
            raise ValueError(f"C&W has no loss {self.loss!r}: choose final, taken, average or exit=k")
        if not self.confidence >= 0:
            raise ValueError(f"confidence {self.confidence} is negative")
        if self.steps < 1 or self.searches < 1 or not self.learning_rate > 0:
            raise ValueError(f"steps {self.steps}, searches {self.searches}, rate {self.learning_rate}: need positive numbers")

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """Attack a batch; arguments, result and errors as for ``Attack``."""
        loss = get_loss(self.loss)
        assert isinstance(loss, OfExits)  # see above
        with evaluating(net):
            images, labels = check_batch(net, images, labels)
            adversarial, stuck = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
            depth, macs = loss.depth(net, self.mechanism, images)
            for d in depth.unique().tolist():
                group = depth == d
                adversarial[group], stuck[group] = self._search(net, images[group], labels[group], loss, d)
            reached = reaches(self, net, adversarial, labels)
        steps = torch.full_like(labels, self.steps * self.searches)
        macs = macs + 2 * net.macs.to(images.device)[depth] * steps
        return AttackResult(adversarial, reached, steps, macs, stuck).warned()

    def _search(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, loss: OfExits, depth: int) -> tuple[Tensor, Tensor]:
        """The nearest images that fool the exits looked at, and which were stuck, for images that are run to one depth."""
        pulled = torch.zeros_like(labels, dtype=torch.bool)
        best, distance = images.clone(), torch.full((len(images),), torch.inf, device=images.device)
        c, low, high = torch.full_like(distance, 0.01), torch.zeros_like(distance), distance.clone()
        for _ in range(self.searches):
            fooled = torch.zeros_like(labels, dtype=torch.bool)
            w = to_tanh_space(images).requires_grad_()
            optimiser = torch.optim.Adam([w], self.learning_rate)
            for _ in range(self.steps):
                with torch.enable_grad():
                    adversarial = from_tanh_space(w)
                    square = (adversarial - images).square().sum(dim=(1, 2, 3))
                    shown = adversarial.view_as(adversarial)  # its gradient is that of f alone, without the distance
                    logits = net(shown, depth)
                    f = self._f(logits, labels, loss)
                    w.grad, pull = torch.autograd.grad((square + c * f).sum(), (w, shown))
                check_finite(are_finite(logits, f, w.grad))
                pulled |= (f == 0) | pull.flatten(1).any(dim=1)  # once fooled there is nothing to pull at
                nearer = (f == 0) & (square < distance)
                best = torch.where(nearer[:, None, None, None], adversarial.detach(), best)
                distance = torch.where(nearer, square.detach(), distance)
                fooled |= f == 0
                optimiser.step()
            high, low = torch.where(fooled, high.minimum(c), high), torch.where(fooled, low, low.maximum(c))
            c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
        return best, ~pulled

    def _f(self, logits: Tensor, labels: Tensor, loss: OfExits) -> Tensor:
        return loss.of_exits((margin(logits, labels) + self.confidence).relu())
