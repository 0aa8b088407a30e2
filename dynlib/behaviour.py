"""How a dynamic network behaves, from the answers of its exits: accuracy, calibration, cost, and thresholds chosen by them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dynlib import data
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit, Mechanism
from dynlib.mechanisms.base import run_all
from dynlib.networks.checkpoints import CHEAPEST
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import check_labels

THRESHOLDS = tuple(round(0.50 + 0.01 * i, 2) for i in range(50))  # 0.50, 0.51 ... 0.99
BUDGETS = (0.25, 0.50, 0.75)


class OperatingPoint(NamedTuple):
    """A network as deployed: its accuracy in [0, 1] and mean cost as a share of the MACs of a run through all exits."""

    accuracy: float
    macs: float


def calibration_error(answers: Answers, truth: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error of each exit, in [0, 1]: ``[exits]``.

    Bins of equal width over the confidence, weighted by their images (Guo et al., ICML 2017).
    """
    gap = (answers.label == truth).double() - answers.confidence
    place = (answers.confidence * bins).ceil().long().clamp(1, bins) - 1
    sums = torch.zeros(len(gap), bins, dtype=gap.dtype).scatter_add_(1, place, gap)
    return sums.abs().sum(dim=1) / len(truth)


def operate(answers: Answers, truth: Tensor, macs: Tensor, mechanism: Mechanism) -> OperatingPoint:
    """A mechanism on a network's answers to ``n`` images; ``macs`` ``[exits]`` are the costs of leaving at each exit."""
    decision = mechanism.decide(answers, macs)
    accuracy = (decision.label == truth).double().mean()
    return OperatingPoint(accuracy.item(), (decision.cost.double().mean() / macs[-1]).item())


def choose_thresholds(answers: Answers, truth: Tensor, macs: Tensor, fall_back: str) -> dict[str, float | None]:
    """Thresholds for some goals, from validation images; None where no threshold reaches one.

    For ``CHEAPEST`` the lowest of ``THRESHOLDS`` at which accuracy is at most 1 point below the final exit's; for each of
    ``BUDGETS`` the highest of 0.01, 0.02 ... 0.99 at which the mean cost keeps to that share of the full cost.
    """
    enough = (answers.label[-1] == truth).double().mean().item() - 0.01
    points = {t / 100: operate(answers, truth, macs, ConfidenceExit(t / 100, fall_back)) for t in range(1, 100)}
    return {
        CHEAPEST: next((t for t in THRESHOLDS if points[t].accuracy >= enough), None),
        **{
            f"{100 * budget:.0f} % of the MACs": max((t for t, point in points.items() if point.macs <= budget), default=None)
            for budget in BUDGETS
        },
    }


@torch.no_grad()
def all_answers(net: MultiExitNetwork, images: Tensor, batch: int = 500) -> Answers:
    """What every exit answers to uint8 images ``[n, channels, height, width]``, on the CPU. Raises ValueError for other images."""
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}: need bytes, torch.uint8, from 0 to 255")
    device = next(net.parameters()).device
    logits, costs = zip(*(run_all(net, part.to(device, net.dtype) / 255) for part in images.split(batch)), strict=True)
    told = None if costs[0] is None else torch.cat(costs, dim=1).cpu()
    return Answers.of(torch.cat([part.cpu() for part in logits], dim=1), told)


def accuracies(net: MultiExitNetwork, images: Tensor, truth: Tensor) -> list[float]:
    """Accuracy of each exit in percent, on images as for ``all_answers``. Raises ValueError for other images or labels."""
    check_labels(truth, len(images), net.n_classes)
    return right(all_answers(net, images), truth)


def right(answers: Answers, truth: Tensor) -> list[float]:
    """Accuracy of each exit in percent, from answers and true labels ``[n]``."""
    return percent((answers.label == truth).double().mean(dim=1))


def run_macs(answers: Answers, macs: Tensor) -> dict[str, float]:
    """As ``run_macs`` the mean cost in percent of the full one, ``macs[-1]``; nothing where answers do not tell theirs."""
    return {} if answers.cost is None else {"run_macs": round(100 * (answers.cost[-1].double().mean() / macs[-1]).item(), 2)}


def percent(shares: Tensor) -> list[float]:
    return [round(100 * share, 2) for share in shares.tolist()]


def describe(net: MultiExitNetwork, thresholds: dict[str, dict[str, float | None]] | None = None) -> dict[str, Any]:
    """What a network does, for its card: per exit, and at thresholds.

    Everything measured is in percent and on the whole test set, except for ``validation_accuracy``.

    Args:
        net: in evaluation mode.
        thresholds: by fall-back and goal; without them they are chosen on validation images (``choose_thresholds``).
    """
    (images, truth), macs = data.load(net.dataset, "validation"), net.macs
    answers = all_answers(net, images)
    validation = right(answers, truth)
    if thresholds is None:
        thresholds = {f: choose_thresholds(answers, truth, macs, f) for f in FALL_BACKS} if net.n_exits > 1 else {}
    images, truth = data.load(net.dataset, "test")
    answers = all_answers(net, images)

    def operating_point(threshold: float | None, fall_back: str) -> dict[str, Any] | None:
        if threshold is None:
            return None
        point = operate(answers, truth, macs, ConfidenceExit(threshold, fall_back))
        return {"threshold": threshold, "accuracy": round(100 * point.accuracy, 2), "macs": round(100 * point.macs, 2)}

    return {
        "validation_accuracy": validation,
        "test_accuracy": right(answers, truth),
        "calibration_error": percent(calibration_error(answers, truth)),
        "macs": macs.tolist(),
        **run_macs(answers, macs),
        "operating_points": {f: {goal: operating_point(t, f) for goal, t in chosen.items()} for f, chosen in thresholds.items()},
    }
