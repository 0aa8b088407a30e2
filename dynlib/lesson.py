"""The checks of the lesson's six exercises.

Each check takes a learner's function, prints one line (done or not, right or not, and a hint), and returns the function that the
lesson goes on with: the learner's where it is right, the library's own otherwise.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from dynlib.attacks import PGD
from dynlib.attacks.losses import EarlyVariant
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks.exits import internal_classifier

POOLED = 4  # side of the feature maps that an exit head classifies
Answer = Callable[..., Any]  # a function of a learner, or the one that it is compared with
TWO_POINTS = 0.02 + 1e-9  # of accuracy; shares of images are rarely exact


class NotDoneError(Exception):
    """The function returns nothing: it is as the lesson left it, or its ``return`` is missing."""


def exercise(number: int, library: Answer) -> Callable[[Callable[[Answer], str | None]], Callable[[Answer], Answer]]:
    """Makes a check of a function from an answer to what is wrong with it, or None; ``library`` is a right answer."""

    def decorate(fault: Callable[[Answer], str | None]) -> Callable[[Answer], Answer]:
        @wraps(fault)
        def check(answer: Answer) -> Answer:
            def asked(*given: Any) -> Any:
                found = answer(*given)
                if found is None or found is ...:
                    raise NotDoneError
                return found

            try:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)  # an answer may draw numbers, such as a head's weights
                    hint = fault(asked)
            except NotDoneError:
                print(f"exercise {number}: not done yet (it returns nothing); until then the lesson goes on with the library's own")
                return library
            except Exception as error:  # whatever a learner's function dies of, the lesson goes on
                hint = f"it stops with {type(error).__name__}: {error}"
            print(f"exercise {number}: {f'not right yet: {hint}' if hint else 'right'}")
            return library if hint else answer

        return check

    return decorate


def _rule(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    mechanism, answers = ConfidenceExit(threshold), Answers.of(logits)
    return mechanism.answer(answers), mechanism.answering(answers)[0]


def _step(loss: Callable[[Tensor], Tensor], adversarial: Tensor, images: Tensor, eps: float, step_size: float) -> Tensor:
    attack, here = PGD(eps=eps, step_size=step_size), adversarial.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(here).sum(), here)
    return attack.project(attack.step(adversarial, gradient), images)


def _transfer(source: Tensor, target: Tensor, attacked: Tensor, labels: Tensor) -> tuple[int, int]:
    counts = (source == labels) & (target == labels)
    return int((counts & (attacked != labels)).sum()), int(counts.sum())


def _early_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return EarlyVariant("log-probability", "equal")(logits, labels, ConfidenceExit())


def _choice(table: pd.DataFrame, start: pd.Series) -> pd.Series:
    allowed = table[(table.clean >= start.clean - TWO_POINTS) & (table.macs <= start.macs)]
    return allowed.loc[allowed.robust.idxmax()]


@exercise(1, internal_classifier)
def check_exit_head(answer: Callable[[int, int, int], nn.Module]) -> str | None:
    """Exercise 1: from channels, side and classes to a module, feature maps ``[batch, channels, side, side]`` to logits."""
    for channels, side, classes in ((16, 32, 10), (32, 16, 10), (64, 8, 100)):
        head = answer(channels, side, classes)
        if not isinstance(head, nn.Module):
            return "return the module itself, such as nn.Sequential(...), not what it makes of something"
        maps = torch.rand(6, channels, side, side, generator=torch.Generator().manual_seed(0), requires_grad=True)
        logits, weights = head.eval()(maps), sum(p.numel() for p in head.parameters() if p.requires_grad)
        if logits.shape != (6, classes):
            return f"for 6 images and {classes} classes the head gives {list(logits.shape)}, not [6, {classes}]"
        if (logits >= 0).all() or logits.logsumexp(dim=-1).abs().max() < 1e-4:
            return "logits are raw scores of either sign: no ReLU, softmax or log-softmax at the end"
        if not 0 < weights <= (POOLED**2 + 1) * channels * classes:
            return f"{weights} weights for {channels} maps of {side}x{side}: pool these to {POOLED}x{POOLED}, whatever their side"
        if not torch.allclose(head(maps[:1]), logits[:1], atol=1e-5):
            return "an image's logits depend on the other images of the batch: flatten all axes but the first"
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), maps)
        if not gradient.abs().amax(dim=(0, 2, 3)).all() or torch.allclose(head(maps.flip(1)), logits, atol=1e-5):
            return "not every channel plays its own part: pool over the two axes of space, not over channels"
    return None


@exercise(2, _rule)
def check_exit_rule(answer: Callable[[Tensor, float], tuple[Tensor, Tensor]]) -> str | None:
    """Exercise 2: from logits ``[exits, batch, classes]`` and a threshold to the label and the answering exit, ``[batch]`` each."""
    threshold, random = 0.6, torch.Generator().manual_seed(0)
    scale = torch.linspace(0.2, 4, 60)[:, None]  # from images of which no exit is sure to those of which all are
    logits = scale * torch.randn(5, 60, 10, generator=random) + 3 * torch.randn(5, 60, 1, generator=random)
    confidence = logits.softmax(dim=-1).amax(dim=-1)
    found = answer(logits, threshold)
    if len(found) != 2 or any(getattr(part, "shape", None) != (60,) for part in found):
        return "return two tensors of shape [batch]: the labels, and the exits that gave them"
    wrong = [mine != right for mine, right in zip(found, _rule(logits, threshold), strict=True)]
    if (wrong[1] & (confidence >= threshold).any(dim=0)).any():
        if found[1].equal(confidence.argmax(dim=0)):
            return "the most confident exit answers; it should be the first that is confident enough"
        return "wrong exits: confidence is the largest softmax probability over the classes, which are the last axis"
    if wrong[1].any():
        return "where no exit reaches the threshold, the most confident one answers"
    if wrong[0].any():
        return "the exits are right, the labels are not those that these exits give"
    sure = torch.tensor([[[0.0, 0.0]], [[5.0, 0.0]]])  # its first exit has a confidence of one half
    if answer(sure, 0.5)[1].tolist() != [0]:
        return "an image whose confidence equals the threshold leaves, too"
    return None


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
        return "the result drags the graph of its gradient along: detach() it"
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


@exercise(6, _choice)
def check_choice(answer: Callable[[pd.DataFrame, pd.Series], pd.Series]) -> str | None:
    """Exercise 6: from a table of designs and the default among them to the row that is chosen."""
    rows = {
        20: (0.82, 0.60, 50e6, "it is more than 2 points less accurate than the default"),
        30: (0.80, 0.50, 60e6, "it is more than 2 points less accurate than the default"),
        40: (0.85, 0.30, 70e6, "it is the default; others may lose up to 2 points, which is 0.02 of a share"),
        10: (0.86, 0.55, 90e6, "it costs more than the default"),
        60: (0.95, 0.20, 65e6, "it is the most accurate one; look for the most robust one"),
        70: (0.84, 0.35, 20e6, "it is a cheap one; look for the most robust one"),
        50: (0.84, 0.40, 60e6, "another one is more robust; to be more accurate or cheaper than the default is no fault"),
        80: (0.90, 0.45, 69e6, ""),
    }
    table = pd.DataFrame.from_dict({k: row[:3] for k, row in rows.items()}, "index", columns=["clean", "robust", "macs"])
    for best, given in ((80, table), (50, table.drop(80))):  # the best is more accurate than the default, then it is less
        found = answer(given, table.loc[40])
        if not (isinstance(found, pd.Series) and found.name in given.index):
            return "return one row of the table, such as table.loc[label]"
        if found.name != best:
            return f"the design that you choose is not the best: {rows[found.name][3]}"
    return None
