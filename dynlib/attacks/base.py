"""The loop that all L-infinity attacks share; each attack overrides a hook or two."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from dynlib.attacks.goals import get_goal
from dynlib.attacks.losses import get_loss
from dynlib.attacks.placed import Average, Loss, Placed
from dynlib.attacks.result import AttackResult
from dynlib.attacks.tools import (
    are_finite,
    check_ball,
    check_batch,
    check_finite,
    check_seed,
    checked_precision,
    derived_seed,
    in_precision,
    reaches,
)
from dynlib.mechanisms import Answers, ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import evaluating
from dynlib.settings import settle

Run = tuple[Tensor, Tensor, Tensor, Tensor]  # adversarial images, steps, MACs, and who was stuck


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Untargeted gradient ascent on a loss inside an L-infinity ball. ``attack(net, images, labels)`` runs it.

    Args:
        eps: radius of the ball, in (0, 1].
        loss: name of a loss over the network's exits, see ``dynlib.attacks.losses``.
        mechanism: the exit rule of the network as deployed.
        goal: when an image counts as done, a key of ``dynlib.attacks.goals.GOALS``.
        restarts: at most so many starts, at least 1, each with its own random numbers. Of each image the first one that reaches
            the goal is kept, or the first of all if none does; steps and MACs are summed.
        early_stop: whether an image leaves the batch, and is not started again, once it reaches the goal. Between steps only the
            exits that the loss runs are looked at, so that the check costs nothing. A loss at a shallow exit therefore does not
            notice an error at a deeper one: such images go on to the last step. ``reached`` of the result is always exact.
        asks: with ``early_stop``, whether the network as deployed is asked before each step where those exits do not tell its
            answer. It goes on from them, and what it runs is counted. For the goal ``"misclassify"``.
        precision: ``"float32"``, or ``"bfloat16"``: the network is run for its gradients in mixed precision, which is as strong
            and, on a processor with bfloat16 of its own, about twice as fast; on others it works, only slower. Early stopping
            looks at these logits, so an image at the border may stop a step early or late. ``reached`` is always of float32.
        seed: an integer of any kind, for the random numbers. Each image has its own stream, derived from its content.
    Raises:
        ValueError: a setting out of range.
    """

    name: ClassVar[str]
    display: ClassVar[str]
    marker: ClassVar[str]

    eps: float = 8 / 255
    loss: str = "average"
    mechanism: Mechanism = field(default_factory=ConfidenceExit)
    goal: str = "misclassify"
    restarts: int = 1
    early_stop: bool = False
    asks: bool = False
    precision: str = "float32"
    seed: int = 0

    steps: ClassVar[int] = 1
    own_labels: ClassVar[bool] = False  # whether the labels are the final exit's own answers, not the true ones

    def __post_init__(self) -> None:
        settle(self)
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps {self.eps} is outside (0, 1]; images lie in [0, 1]")
        if self.steps < 1:
            raise ValueError(f"steps {self.steps}: need at least 1")
        if not self.rate > 0:
            raise ValueError(f"step size {self.rate}: need a positive number")
        if self.restarts < 1:
            raise ValueError(f"restarts {self.restarts}: need at least 1")
        if self.restarts > 1 and not self.random:
            raise ValueError(f"restarts {self.restarts}: {self.name} draws nothing at random here, so they would all be the same")
        get_loss(self.loss)
        get_goal(self.goal)
        checked_precision(self.precision)
        if self.asks and not (self.early_stop and self.goal == "misclassify"):
            raise ValueError("asks: only an attack that stops early, with the goal 'misclassify', has a question to ask")
        check_seed(self.seed)

    # The hooks.

    @property
    def random(self) -> bool:
        """Whether the seed matters."""
        return False

    @property
    def rate(self) -> float:
        """Step size, in the units of the images."""
        return self.eps

    def start(self, images: Tensor) -> Tensor:
        return images.clone()

    def view(self, adversarial: Tensor, step: int) -> Tensor:
        """What the network is shown in place of the images, ``[batch, 3, side, side]``; gradients flow through it."""
        return adversarial

    def accumulate(self, memory: Tensor, gradient: Tensor) -> Tensor:
        """What the step follows, from what it followed before (at first zeros) and the new gradient."""
        return gradient

    def step(self, adversarial: Tensor, direction: Tensor) -> Tensor:
        return adversarial + self.rate * direction.sign()

    def project(self, adversarial: Tensor, images: Tensor) -> Tensor:
        return (images + (adversarial - images).clamp(-self.eps, self.eps)).clamp(0, 1)

    def stops(self, net: MultiExitNetwork, features: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images that are done, bool ``[batch]``, and the MACs spent on asking, int64 ``[batch]``.

        ``logits`` ``[depth + 1, batch, classes]`` are of the exits that were run, ``features`` of the last of them.
        """
        asked = torch.zeros_like(labels)
        if not self.early_stop:
            return torch.zeros_like(labels, dtype=torch.bool), asked
        done = get_goal(self.goal).noticed(logits, labels, self.mechanism, net.n_exits)
        if self.asks and len(logits) < net.n_exits:
            seen = Answers.of(logits)
            _, left = self.mechanism.answering(seen)
            if not left.all():
                decision = self.mechanism.resume(net, features[~left], seen.images(~left))
                done[~left] = decision.label != labels[~left]
                asked[~left] = decision.cost - net.macs.to(labels.device)[len(logits) - 1]
        return done, asked

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """Attack a batch.

        Args:
            net: on the images' device; its mode and gradients are left as they were.
            images: float32 ``[batch, 3, side, side]`` in [0, 1].
            labels: int64 ``[batch]``.
        Raises:
            ValueError: wrong shape, type or range; a goal that the network cannot have; logits or gradients that are not finite.
        Warns:
            UserWarning: images whose gradient was zero on every pixel at every step.
        """
        with evaluating(net):
            images, labels = check_batch(net, images, labels)
            get_goal(self.goal).check(net)
            with in_precision("float32", images.device):  # except in the passes that ``precision`` is about
                result = self._once(net, images, labels)
                for restart in range(1, self.restarts):
                    again = torch.arange(len(labels), device=labels.device)
                    if self.early_stop:
                        again = again[~result.reached]
                    if len(again) == 0:
                        break
                    other = replace(self, seed=derived_seed(self.seed, restart))._once(net, images[again], labels[again])
                    result = result.merged(other, again)
        check_ball(result.adversarial, images, self.eps)
        return result.warned()

    def _once(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """The attack from one start."""
        runs = [self._run(net, images, labels, loss) for loss in get_loss(self.loss).candidates(net)]
        adversarial, steps, macs, stuck = runs[0] if len(runs) == 1 else self._best(net, labels, runs)
        return AttackResult(adversarial, reaches(self, net, adversarial, labels), steps, macs, stuck)

    def _run(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, loss: Loss) -> Run:
        """Images of one depth go together, so that no pass runs too deep."""
        depth, macs = loss.depth(net, self.mechanism, images)
        adversarial, steps, stuck = images.clone(), torch.zeros_like(labels), torch.zeros_like(labels, dtype=torch.bool)
        for d in depth.unique().tolist():
            group = depth == d
            adversarial[group], steps[group], spent, stuck[group] = self._climb(net, images[group], labels[group], loss, d)
            macs[group] += spent
        return adversarial, steps, macs, stuck

    def _climb(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, loss: Loss, depth: int) -> Run:
        """``_run`` for images of one depth. Until one is done all are a slice: nothing is gathered, and nothing waited for."""
        active: slice | Tensor = slice(None)
        adversarial, memory = self.start(images), torch.zeros_like(images)
        steps, macs, pulled = torch.zeros_like(labels), torch.zeros_like(labels), torch.zeros_like(labels, dtype=torch.bool)
        pass_macs, finite = 2 * int(net.macs[depth]), []
        for step in range(self.steps):
            gradient, done, asked, sound = self._gradient(net, adversarial[active], labels[active], loss, depth, step)
            finite.append(sound)
            macs[active] += pass_macs + asked
            if self.early_stop and done.any():
                if done.all():
                    break
                active, gradient = torch.arange(len(labels), device=labels.device)[active][~done], gradient[~done]
            memory[active] = self.accumulate(memory[active], gradient)
            adversarial[active] = self.project(self.step(adversarial[active], memory[active]), images[active])
            steps[active] += 1
            pulled[active] |= gradient.flatten(1).any(dim=1)
        check_finite(torch.stack(finite).all(dim=0))
        return adversarial, steps, macs, (steps > 0) & ~pulled

    def _gradient(
        self, net: MultiExitNetwork, images: Tensor, labels: Tensor, loss: Loss, depth: int, step: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss's gradient, which images are done, the MACs of asking that, and whether all numbers were finite."""
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            with in_precision(self.precision, images.device):
                ground, logits, features = loss.run(net, self.view(inputs, step), depth)
            logits = logits.float()
            value = loss(ground.float(), labels, self.mechanism)
            (gradient,) = torch.autograd.grad(value.sum(), inputs)
        done, asked = self.stops(net, features.detach().float(), logits.detach(), labels)
        return gradient, done, asked, are_finite(logits, value, gradient)

    def _best(self, net: MultiExitNetwork, labels: Tensor, runs: list[Run]) -> Run:
        """Of several runs, each image's with the highest mean of the criterion; all of them are paid for."""
        loss = get_loss(self.loss)
        assert isinstance(loss, Placed)  # no other has several
        mean = Average(criterion=loss.criterion)
        adversarial, steps, macs, stuck = (torch.stack(part) for part in zip(*runs, strict=True))
        with torch.no_grad():
            best = torch.stack([mean(net(x), labels, self.mechanism) for x in adversarial]).argmax(dim=0)
        chosen = adversarial[best, torch.arange(len(labels), device=labels.device)]
        # Stuck: in no run was there a gradient, and in some a step.
        total, moved = steps.sum(dim=0), ((steps > 0) & ~stuck).any(dim=0)
        return chosen, total, macs.sum(dim=0) + len(runs) * net.macs[-1].to(labels.device), (total > 0) & ~moved


@dataclass(frozen=True, kw_only=True)
class Iterative(Attack):
    """Base of the attacks that take several steps. Settings of ``Attack``, and:

    Args:
        steps: number of gradient steps.
        step_size: by default ``eps / 4``.
    """

    steps: int = 10  # type: ignore[misc] # a field here
    step_size: float | None = None

    @property
    def rate(self) -> float:
        return self.eps / 4 if self.step_size is None else self.step_size
