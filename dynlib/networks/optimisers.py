"""Optimisers by name; Muon steps kernels along directions made orthogonal."""

import torch
from torch import Tensor, nn


def orthogonal(matrix: Tensor, steps: int = 3) -> Tensor:
    """Roughly the nearest matrix with orthonormal rows or columns, by Newton-Schulz steps (Jordan, 2024)."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (2.0315 * square @ square - 4.7750 * square) @ x
    return (x if wide else x.T).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Convolution kernels follow their orthogonalised momentum, all else SGD with Nesterov momentum (Jordan, 2024).

    A kernel is rescaled to norm ``sqrt(outputs)`` before its step, so that a step turns all kernels by as much. It has half the
    learning rate of the rest and no weight decay; vectors have none either.

    Args:
        net: what to train; parameters that need no gradient are left alone.
        rate: learning rate of all but the kernels.
        weight_decay: of matrices.
    """

    def __init__(self, net: nn.Module, rate: float, weight_decay: float):
        # A depthwise kernel is no matrix between channels, so it belongs to the rest.
        kernels = {id(m.weight) for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups == 1}
        trained = [p for p in net.parameters() if p.requires_grad]
        rest = [p for p in trained if id(p) not in kernels]
        groups = [
            {"params": [p for p in trained if id(p) in kernels], "muon": True, "momentum": 0.8, "weight_decay": 0.0},
            {"params": [p for p in rest if p.dim() > 1], "muon": False, "momentum": 0.85, "weight_decay": weight_decay},
            {"params": [p for p in rest if p.dim() < 2], "muon": False, "momentum": 0.85, "weight_decay": 0.0},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": rate})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            momentum, rate = group["momentum"], group["lr"] * (0.5 if group["muon"] else 1)
            for p in group["params"]:
                gradient = p.grad.add(p, alpha=group["weight_decay"])
                memory = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                memory.mul_(momentum).add_(gradient)
                step = gradient.add(memory, alpha=momentum)
                if group["muon"]:
                    p.mul_(len(p) ** 0.5 / p.norm())
                    step = orthogonal(step.reshape(len(p), -1)).reshape(p.shape)
                p.sub_(step, alpha=rate)


def optimiser(name: str, net: nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """An optimiser by name: ``"sgd"`` (momentum 0.9), ``"nesterov"`` (the same, no decay of vectors), ``"muon"`` or ``"adam"``.

    Raises:
        ValueError: unknown name.
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(trained, rate, momentum=0.9, weight_decay=weight_decay)
    if name == "nesterov":
        groups = [{"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay}]
        groups += [{"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0}]
        return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True)
    if name == "muon":
        return Muon(net, rate, weight_decay)
    if name == "adam":
        return torch.optim.Adam(trained, rate)
    raise ValueError(f"unknown optimiser {name!r}: choose one of sgd, nesterov, muon, adam")
