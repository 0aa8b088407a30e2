"""Exercises 1 and 2: an early exit, and the rule by which images leave."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dynlib.lesson.exercise import exercise
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.networks.exits import internal_classifier

POOLED = 4  # side of the feature maps that an exit head classifies


def _rule(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    mechanism, answers = ConfidenceExit(threshold), Answers.of(logits)
    return mechanism.answer(answers), mechanism.answering(answers)[0]


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
