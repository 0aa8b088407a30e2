"""The loop that all L-infinity attacks share; each attack overrides a hook or two."""

import warnings
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dynlib.attacks.goals import get_goal
from dynlib.attacks.losses import Average, Loss, get_loss
from dynlib.attacks.tools import check_ball, check_batch, check_finite, checked_seed, derived_seed
from dynlib.mechanisms import Answers, ConfidenceExit, Mechanism
from dynlib.networks.exits import MultiExitNetwork, evaluating


class AttackResult(NamedTuple):
    """What an attack made of a batch.

    ``adversarial`` float32 ``[batch, 3, side, side]`` in [0, 1]; ``reached`` bool ``[batch]``: the returned image reaches the
    attack's goal, found out anew in float32; ``steps`` int64 ``[batch]``: gradient steps made; ``macs`` int64 ``[batch]``:
    multiply-accumulates of the attack's forward and backward passes, and of finding out which exit a clean image takes where the
    loss asks. A backward pass to the image counts as much as its forward pass, which holds to within 1 %. The last check is not
    counted. ``stuck`` bool ``[batch]``: steps were made, and at each of them the gradient was zero on every pixel. Such an image
    was not attacked at all, and says nothing about robustness.
    """

    adversarial: Tensor
    reached: Tensor
    steps: Tensor
    macs: Tensor
    stuck: Tensor


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
    seed: int = 0

    steps: ClassVar[int] = 1
    own_labels: ClassVar[bool] = False  # whether the labels are the final exit's own answers, not the true ones

    def __post_init__(self) -> None:
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
        if self.asks and not (self.early_stop and self.goal == "misclassify"):
            raise ValueError("asks: only an attack that stops early, with the goal 'misclassify', has a question to ask")
        object.__setattr__(self, "seed", checked_seed(self.seed))

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
        goal, complete, asked = get_goal(self.goal), len(logits) == net.n_exits, torch.zeros_like(labels)
        if not self.early_stop or (goal.needs_all_exits and not complete):
            return torch.zeros_like(labels, dtype=torch.bool), asked
        seen = Answers.of(logits)
        _, left = self.mechanism.answering(seen)
        done = (left | complete) & goal.reached(logits, labels, self.mechanism)
        if self.asks and not complete and not left.all():
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
            result = self._once(net, images, labels)
            for restart in range(1, self.restarts):
                again = torch.arange(len(labels), device=labels.device)
                if self.early_stop:
                    again = again[~result.reached]
                if len(again) == 0:
                    break
                other = replace(self, seed=derived_seed(self.seed, restart))._once(net, images[again], labels[again])
                result = _merged(result, other, again)
        check_ball(result.adversarial, images, self.eps)
        return warned(result)

    def _once(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """The attack from one start."""
        runs = [self._run(net, images, labels, loss) for loss in get_loss(self.loss).candidates(net)]
        adversarial, steps, macs, stuck = runs[0] if len(runs) == 1 else self._best(net, labels, runs)
        return AttackResult(adversarial, reaches(self, net, adversarial, labels), steps, macs, stuck)

    def _run(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        depth, macs = loss.depth(net, self.mechanism, images)
        pass_macs = 2 * net.macs.to(images.device)[depth]
        adversarial, memory = self.start(images), torch.zeros_like(images)
        steps, pulled = torch.zeros_like(labels), torch.zeros_like(labels, dtype=torch.bool)
        active = torch.arange(len(images), device=images.device)
        for step in range(self.steps):
            gradient, done, asked = self._gradient(net, adversarial[active], labels[active], depth[active], loss, step)
            macs[active] += pass_macs[active] + asked
            active, gradient = active[~done], gradient[~done]
            if len(active) == 0:
                break
            memory[active] = self.accumulate(memory[active], gradient)
            adversarial[active] = self.project(self.step(adversarial[active], memory[active]), images[active])
            steps[active] += 1
            pulled[active] |= gradient.flatten(1).any(dim=1)
        return adversarial, steps, macs, (steps > 0) & ~pulled

    def _gradient(
        self, net: MultiExitNetwork, x: Tensor, labels: Tensor, depth: Tensor, loss: Loss, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss's gradient, which images are done, and the MACs of asking that.

        Images of one depth go together, so that no pass runs too deep.
        """
        gradient, done, asked = torch.empty_like(x), torch.empty_like(labels, dtype=torch.bool), torch.zeros_like(labels)
        for d in depth.unique().tolist():
            group = depth == d
            with torch.enable_grad():
                inputs = x[group].detach().requires_grad_()
                features, each = self.view(inputs, step), []
                for k in range(d + 1):
                    features = net.segment(k, features)
                    each.append(net.classify(k, features))
                logits = torch.stack(each)
                value = loss(logits, labels[group], self.mechanism)
                (gradient[group],) = torch.autograd.grad(value.sum(), inputs)
            check_finite(logits=logits, loss=value, gradient=gradient[group])
            done[group], asked[group] = self.stops(net, features.detach(), logits.detach(), labels[group])
        return gradient, done, asked

    def _best(
        self, net: MultiExitNetwork, labels: Tensor, runs: list[tuple[Tensor, Tensor, Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of several runs, each image's with the highest mean cross-entropy; all of them are paid for."""
        adversarial, steps, macs, stuck = (torch.stack(part) for part in zip(*runs, strict=True))
        with torch.no_grad():
            best = torch.stack([Average()(net(x), labels, self.mechanism) for x in adversarial]).argmax(dim=0)
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


def reaches(attack: Any, net: MultiExitNetwork, adversarial: Tensor, labels: Tensor) -> Tensor:
    """Whether images reach the attack's goal, in float32 whatever precision the attack was made in: bool ``[batch]``."""
    with torch.autocast(adversarial.device.type, enabled=False):
        return get_goal(attack.goal).holds(net, adversarial, labels, attack.mechanism)


def warned(result: AttackResult) -> AttackResult:
    """The result; warns once if images were stuck."""
    if result.stuck.any():
        text = f"{int(result.stuck.sum())} of {len(result.stuck)} images: the gradient was zero on every pixel at every step"
        warnings.warn(f"{text}; this is no robustness", stacklevel=3)
    return result


def _merged(first: AttackResult, other: AttackResult, again: Tensor) -> AttackResult:
    """The result of one more start, made of the images with indices ``again``, merged into that of the starts before."""
    adversarial, reached, steps, macs, stuck = (part.clone() for part in first)
    won = other.reached & ~first.reached[again]
    adversarial[again[won]] = other.adversarial[won]
    reached[again] |= other.reached
    moved = ((first.steps > 0) & ~first.stuck)[again] | ((other.steps > 0) & ~other.stuck)
    steps[again] += other.steps
    macs[again] += other.macs
    stuck[again] = (steps[again] > 0) & ~moved
    return AttackResult(adversarial, reached, steps, macs, stuck)
