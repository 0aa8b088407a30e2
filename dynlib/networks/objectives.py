"""What trainings minimise; the joint loss follows Shallow-Deep Networks (Kaya, Hong and Dumitras, ICML 2019)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def joint_loss(logits: Tensor, labels: Tensor, progress: float, exits: Sequence[int]) -> Tensor:
    """Cross-entropy of the final exit plus each early exit's, weighted by a coefficient that grows with ``progress``.

    From ``progress`` 1 on, the coefficients of the usual exits are 0.15, 0.30, 0.45 ...; ``exits`` says which of them there are,
    from 0. Without any this is a static network's plain loss.
    """
    final = F.cross_entropy(logits[-1], labels)
    ends = [0.15 * (k + 1) for k in exits]
    early = zip(ends, logits[:-1], strict=True)
    return final + sum(min(end, 0.01 + progress * end) * F.cross_entropy(exit, labels) for end, exit in early)


def exits_loss(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """The early exits' cross-entropies, summed."""
    return sum((F.cross_entropy(exit, labels) for exit in logits[:-1]), logits.new_zeros(()))


def gates_loss(logits: Tensor, labels: Tensor, cost: Tensor, target: float, weight: float) -> Tensor:
    """Cross-entropy plus a price of missing the cost that is wanted (Veit and Belongie, ECCV 2018, where each block has a target).

    Args:
        logits: ``[1, batch, classes]``.
        labels: int64 ``[batch]``.
        cost: of each image, as a share of a run with all gates open, ``[batch]``.
        target: of the batch's mean cost.
        weight: of the squared distance from it.
    """
    return F.cross_entropy(logits[-1], labels) + weight * (cost.mean() - target).square()
