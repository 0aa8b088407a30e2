"""Exercises 3, 4, 5 and 7: a step of an attack, how many images it fools, and losses that only dynamic networks are open to."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dynlib.attacks import PGD
from dynlib.attacks.losses import EarlyVariant, Uniform
from dynlib.lesson.exercise import exercise
from dynlib.mechanisms import ConfidenceExit


def _step(loss: Callable[[Tensor], Tensor], adversarial: Tensor, images: Tensor, eps: float, step_size: float) -> Tensor:
    attack, here = PGD(eps=eps, step_size=step_size), adversarial.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(here).sum(), here)
    return attack.project(attack.step(adversarial, gradient), images)


def _transfer(source: Tensor, target: Tensor, attacked: Tensor, labels: Tensor) -> tuple[int, int]:
    counts = (source == labels) & (target == labels)
    return int((counts & (attacked != labels)).sum()), int(counts.sum())


def _early_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return EarlyVariant("log-probability", "equal")(logits, labels, ConfidenceExit())


def _slow_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return Uniform()(logits[:-1], labels, ConfidenceExit())


@exercise(3, _step)
def check_attack_step(answer: Callable[..., Tensor]) -> str | None:
    """Exercise 3: from a loss (images to ``[batch]``), adversarial images, images, ``eps`` and ``step_size`` to the next ones."""
    random, eps, step_size = torch.Generator().manual_seed(0), 0.1, 0.04
    images = (1.4 * torch.rand(4, 3, 8, 8, generator=random) - 0.2).clamp(0, 1)  # many pixels are black or white
    adversarial = (images + eps * (2 * torch.rand(images.shape, generator=random) - 1)).clamp(0, 1)
    given = adversarial.clone(), images.clone()

    def loss(x: Tensor) -> Tensor:
        return (40 * x).sin().sum(dim=(1, 2, 3))

    found, expected = answer(loss, adversarial, images, eps, step_size), _step(loss, *given, eps, step_size)
    if not (isinstance(found, Tensor) and found.shape == images.shape):
        return "return the images after the step, as many as before"
    if found.requires_grad:
        return "the result still has the graph of its gradient: detach() it"
    if not (adversarial.equal(given[0]) and images.equal(given[1])):
        return "the step writes into the images that it was given: work on a copy"
    if found.min() < 0 or found.max() > 1:
        return "some pixels are outside [0, 1], so this is no image: clamp them"
    if (found - images).abs().max() > eps + 1e-5:
        return "some pixels are further than eps from the image: the ball is around images, not around adversarial"
    if torch.allclose(found, expected, atol=1e-5):
        return None
    if ((found - adversarial) * (expected - adversarial)).mean() < 0:
        return "this goes downhill, where the loss is lower: the attacker climbs"
    if torch.allclose(found, _step(lambda x: loss(x + images - adversarial), adversarial, images, eps, step_size), atol=1e-5):
        return "take the gradient where you are, at adversarial, not at images"
    return "in range and in the ball, but elsewhere: add step_size times the sign of the gradient to adversarial, then project"


@exercise(4, _transfer)
def check_transfer(answer: Callable[..., tuple[int, int]]) -> str | None:
    """Exercise 4: from answers of source, target and attacked target, and labels, to how many images are fooled, of how many."""
    for seed in range(3):
        given = torch.randint(3, (4, 90), generator=torch.Generator().manual_seed(seed))
        (fooled, n), (source, target, _, labels) = _transfer(*given), given
        found = answer(*given)
        if not isinstance(found, tuple) or len(found) != 2:
            return "return two numbers: how many images are fooled, and how many count"
        mine = tuple(int(part) for part in found)
        if mine[1] != n:
            known = {90: "every image", int((source == labels).sum()): "what the source gets right"}
            known[int((target == labels).sum())] = "what the target gets right"
            counted = known.get(mine[1], f"{mine[1]} images where it should be {n}")
            return f"you count {counted}; count the images that source and target both classify correctly when clean"
        if mine[0] == n - fooled:
            return "these are the images that are still right; fooled are those that the target now misclassifies"
        if mine[0] != fooled:
            return "fooled are, among the images that count, those that the target now answers otherwise than the label"
    return None


@exercise(5, _early_loss)
def check_early_loss(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    """Exercise 5: from logits ``[exits, batch, classes]`` and labels to what the attacker maximises, ``[batch]``."""
    random, final = torch.Generator().manual_seed(0), 3
    others, labels = torch.randn(final + 1, 8, 10, generator=random), torch.randint(10, (8,), generator=random)
    index = labels.expand(final + 1, -1)[..., None]

    def turned(*exits: int) -> Tensor:
        """Logits by which these exits have left the label; at all others it leads."""
        lead = torch.tensor([-3.0 if k in exits else 1.0 for k in range(final + 1)])[:, None, None]
        return others.scatter(-1, index, others.scatter(-1, index, -torch.inf).amax(dim=-1, keepdim=True) + lead)

    def pull(*exits: int) -> Tensor:
        """Where these exits have left the label: the gradient at each exit's logit of the label, ``[exits, batch]``."""
        logits = turned(*exits).requires_grad_()
        (gradient,) = torch.autograd.grad(answer(logits, labels).sum(), logits)
        return gradient.gather(-1, index)[..., 0]

    early, clean = range(final), answer(turned().requires_grad_(), labels)
    goal, every = (answer(turned(*exits), labels) for exits in (early, (*early, final)))
    if getattr(clean, "shape", None) != labels.shape:
        return f"one number for each image: {list(labels.shape)}, not {list(getattr(clean, 'shape', []))}"
    if not torch.allclose(answer(turned(*early)[:, :3], labels[:3]), goal[:3], atol=1e-4):
        return "an image's loss depends on the other images of the batch: check the axes"
    if not torch.allclose(answer(turned(*early) + torch.arange(4.0)[:, None, None] ** 2, labels), goal, atol=1e-3):
        return "a number added to all logits of an exit changes your loss but no answer: softmax over classes, the last axis"
    if not clean.requires_grad:
        return "no gradient flows through this: argmax and comparisons have none, probabilities do"
    if (goal < clean).all():
        return "it is lower when the goal is reached: the attacker climbs, so turn the sign"
    if not (goal > clean).all():
        return "it is no higher when every early exit has left the label"
    if not (goal > every + 1e-6).all():
        return "it is as high when the final exit has left the label, too: the final exit must keep it"
    for k in early:
        if not (goal > answer(turned(*(other for other in early if other != k)), labels)).all():
            return f"exit {k + 1} of {final} early ones plays no part: all of them must leave the label"
    # A loss may lack a gradient where its goal is reached, or given up, but may not pull the wrong way.
    kept, lost = pull(), pull(final)
    if (torch.minimum(kept, lost)[final] < 0).any() or not (kept + lost)[final].all():
        return "nothing pulls the final exit back to the label once it has left: use its label, and let the gradient flow"
    if not (kept[:final] < 0).any(dim=0).all():
        return "no gradient pulls the early exits off the label"
    return None


@exercise(7, _slow_loss)
def check_slow_loss(answer: Callable[[Tensor, Tensor], Tensor]) -> str | None:
    """Exercise 7: from logits ``[exits, batch, classes]`` and labels to what the attacker maximises, ``[batch]``."""
    random, final = torch.Generator().manual_seed(0), 3
    labels, sure_of = torch.randint(10, (2, 8), generator=random)
    near = 0.1 * torch.randn(final + 1, 8, 10, generator=random)  # at no exit does a class stand out

    def sure(*exits: int) -> Tensor:
        """Logits by which these exits are sure of a class, rarely the label."""
        lead = torch.tensor([8.0 if k in exits else 0.0 for k in range(final + 1)])[:, None]
        return near + lead[..., None] * F.one_hot(sure_of, 10)

    early, logits = range(final), sure(*range(final + 1)).requires_grad_()
    quick, slow = answer(logits, labels), answer(near, labels)
    if getattr(quick, "shape", None) != labels.shape:
        return f"one number for each image: {list(labels.shape)}, not {list(getattr(quick, 'shape', []))}"
    if not torch.allclose(answer(near[:, :3], labels[:3]), slow[:3], atol=1e-4):
        return "an image's loss depends on the other images of the batch: check the axes"
    if not torch.allclose(answer(near + torch.arange(4.0)[:, None, None] ** 2, labels), slow, atol=1e-3):
        return "a number added to all logits of an exit changes your loss but no confidence: softmax over classes, the last axis"
    if not quick.requires_grad:
        return "no gradient flows through this: argmax and comparisons have none, probabilities do"
    if not torch.allclose(answer(near, (labels + 1) % 10), slow, atol=1e-4):
        return "it depends on the labels; an exit that is sure of a wrong class lets the image go, too"
    if (slow < quick).all():
        return "it is lower when no exit is sure: the attacker climbs, so turn the sign"
    if not torch.allclose(answer(sure(final), labels), slow, atol=1e-4):
        return "the final exit has a part in it; an image that gets there has paid for the whole network already"
    for k in early:
        if not (slow > answer(sure(k), labels) + 1e-6).all():
            return f"exit {k + 1} of {final} early ones plays no part: an image leaves at any exit that is sure"
    (gradient,) = torch.autograd.grad(quick.sum(), logits)
    if not (gradient.gather(-1, sure_of.expand(final + 1, -1)[..., None])[:final] < 0).all():
        return "no gradient pulls the early exits away from what they are sure of"
    return None
