"""Outputs of many classes, stored small: the largest log-probabilities of each exit and image, and whose they are."""

import torch
from torch import Tensor

LARGEST = 5


def pack(logits: Tensor) -> dict[str, Tensor]:
    """From logits ``[exits, n, classes]``, at most 256 classes: ``largest`` half and ``classes`` uint8 ``[exits, n, LARGEST]``."""
    largest, classes = logits.log_softmax(dim=-1).topk(LARGEST)
    return {"largest": largest.half().cpu(), "classes": classes.to(torch.uint8).cpu()}


def unpack(largest: Tensor, classes: Tensor, n_classes: int) -> Tensor:
    """Log-probabilities ``[exits, n, n_classes]``: those that were stored, and the others sharing evenly what these leave."""
    largest = largest.float()
    rest = (1 - largest.exp().sum(dim=-1, keepdim=True)) / (n_classes - LARGEST)
    # Rounding may leave nothing, or for classes far behind more than the last one stored has.
    others = rest.clamp(min=torch.finfo(torch.float32).tiny).log().minimum(largest[..., -1:])
    return others.repeat(1, 1, n_classes).scatter(-1, classes.long(), largest)
