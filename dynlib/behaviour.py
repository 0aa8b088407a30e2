"""How a dynamic network behaves, from the logits of its exits: accuracy, calibration, cost, and thresholds chosen by them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dynlib import data
from dynlib.mechanisms import FALL_BACKS, Answers, ConfidenceExit, Mechanism
from dynlib.networks.checkpoints import CHEAPEST
from dynlib.networks.exits import MultiExitNetwork

THRESHOLDS = tuple(round(0.50 + 0.01 * i, 2) for i in range(50))  # 0.50, 0.51 ... 0.99
BUDGETS = (0.25, 0.50, 0.75)


class OperatingPoint(NamedTuple):
    """A network as deployed: its accuracy in [0, 1] and mean cost as a share of the MACs of a run through all exits."""

    accuracy: float
    macs: float


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Which exits answer which images correctly: bool ``[exits, n]`` from logits ``[exits, n, classes]`` and labels ``[n]``."""
    return logits.argmax(dim=-1) == labels


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    """Expected calibration error of each exit, in [0, 1]: ``[exits]``.

    Bins of equal width over the confidence, weighted by their images (Guo et al., ICML 2017).
    """
    confidence = logits.softmax(dim=-1).amax(dim=-1)
    gap = right(logits, labels).double() - confidence
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    sums = torch.zeros(len(logits), bins, dtype=gap.dtype).scatter_add_(1, place, gap)
    return sums.abs().sum(dim=1) / len(labels)


def operate(logits: Tensor, labels: Tensor, macs: Tensor, mechanism: Mechanism) -> OperatingPoint:
    """A mechanism on a network's logits.

    Args:
        logits: ``[exits, n, classes]``.
        labels: ``[n]``.
        macs: cost of leaving at each exit, ``[exits]``.
        mechanism: of the network as deployed.
    """
    decision = mechanism.decide(Answers.of(logits), macs)
    accuracy = (decision.label == labels).double().mean()
    return OperatingPoint(accuracy.item(), (decision.cost.double().mean() / macs[-1]).item())


def sweep(
    logits: Tensor, labels: Tensor, macs: Tensor, fall_back: str, thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, OperatingPoint]:
    """What confidence exits do at each threshold; arguments as for ``operate``."""
    return {t: operate(logits, labels, macs, ConfidenceExit(t, fall_back)) for t in thresholds}


def choose_thresholds(logits: Tensor, labels: Tensor, macs: Tensor, fall_back: str) -> dict[str, float | None]:
    """Thresholds for some goals, from validation images; None where no threshold reaches one.

    For ``CHEAPEST`` the lowest of ``THRESHOLDS`` at which accuracy is at most 1 point below the final exit's; for each of
    ``BUDGETS`` the highest of 0.01, 0.02 ... 0.99 at which the mean cost keeps to that share of the full cost.
    """
    enough = right(logits, labels)[-1].double().mean().item() - 0.01
    points = sweep(logits, labels, macs, fall_back, tuple(round(0.01 * i, 2) for i in range(1, 100)))
    return {
        CHEAPEST: next((t for t in THRESHOLDS if points[t].accuracy >= enough), None),
        **{
            f"{100 * budget:.0f} % of the MACs": max((t for t, point in points.items() if point.macs <= budget), default=None)
            for budget in BUDGETS
        },
    }


@torch.no_grad()
def all_logits(net: MultiExitNetwork, images: Tensor, batch: int = 500) -> Tensor:
    """Logits ``[exits, n, classes]`` of uint8 images ``[n, 3, side, side]``, float32, on the CPU."""
    device = next(net.parameters()).device
    return torch.cat([net(part.to(device).float() / 255).cpu() for part in images.split(batch)], dim=1)


def accuracies(net: MultiExitNetwork, images: Tensor, labels: Tensor) -> list[float]:
    """Accuracy of each exit in percent."""
    return percent(right(all_logits(net, images), labels).double().mean(dim=1))


def percent(shares: Tensor) -> list[float]:
    return [round(100 * share, 2) for share in shares.tolist()]


def describe(net: MultiExitNetwork) -> dict:
    """What a network does, for its card: per exit, and at thresholds chosen on validation images.

    Everything measured is in percent and on the whole test set, but for ``validation_accuracy``.
    """
    (images, labels), macs = data.load(net.dataset, "validation"), net.macs
    logits = all_logits(net, images)
    validation = percent(right(logits, labels).double().mean(dim=1))
    goals = {f: choose_thresholds(logits, labels, macs, f) for f in FALL_BACKS} if net.n_exits > 1 else {}
    images, labels = data.load(net.dataset, "test")
    logits = all_logits(net, images)

    def operating_point(threshold: float | None, fall_back: str) -> dict | None:
        if threshold is None:
            return None
        point = operate(logits, labels, macs, ConfidenceExit(threshold, fall_back))
        return {"threshold": threshold, "accuracy": round(100 * point.accuracy, 2), "macs": round(100 * point.macs, 2)}

    return {
        "validation_accuracy": validation,
        "test_accuracy": percent(right(logits, labels).double().mean(dim=1)),
        "calibration_error": percent(calibration_error(logits, labels)),
        "macs": macs.tolist(),
        "operating_points": {f: {goal: operating_point(t, f) for goal, t in chosen.items()} for f, chosen in goals.items()},
    }
