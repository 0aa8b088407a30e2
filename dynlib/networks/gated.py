"""Block skipping: gates let each image pass by the blocks that it does not need (SkipNet, Wang et al., ECCV 2018).

The gates are those of ConvNet-AIG (Veit and Belongie, ECCV 2018): they look at the mean of each channel, and are trained with
noise, through the hard decision as if it were a soft one.
"""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynlib.networks.backbones import Backbone, skippable
from dynlib.networks.exits import MultiExitNetwork, checked_exits
from dynlib.networks.guards import check_images, evaluating

HIDDEN = 16
OPEN = 2.0  # logit at which gates begin


class Gate(nn.Sequential):
    """From a block's input ``[batch, channels, side, side]`` to one logit an image, ``[batch, 1]``; at first ``OPEN`` for all."""

    def __init__(self, channels: int):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        nn.init.zeros_(self[-1].weight)  # type: ignore[arg-type] # of a Linear
        nn.init.constant_(self[-1].bias, OPEN)  # type: ignore[arg-type]


class GatedNetwork(MultiExitNetwork):
    """A network of one exit, with a gate at each block that has an identity shortcut: a closed one passes the input through.

    In evaluation mode a gate is open where its logit is at least 0, for each image on its own, and a block is computed only for
    images whose gate is open. Gradients are those of the blocks that were run. In training all blocks are computed, decisions
    are made under logistic noise of scale ``noise``, and have the gradient of a soft gate.

    Args:
        backbone: the static network underneath.
        dataset: name in ``DATASETS``.
    Raises:
        ValueError: unknown dataset, or no block has an identity shortcut.
    """

    noise: float = 1.0

    def __init__(self, backbone: Backbone, dataset: str):
        super().__init__(backbone, dataset)
        like = self._black()
        with torch.device(like.device):
            # An identity shortcut means that a block's channels are those of its input.
            gates = {str(n): Gate(block.conv1.in_channels) for n, block in enumerate(backbone.blocks) if skippable(block)}
        if not gates:
            raise ValueError("no block of the backbone has an identity shortcut, which a gate could skip")
        self.gating = nn.ModuleDict(gates).to(like.dtype)

    def walk(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the head sees, ``[batch, ...]``, the gates' logits, and which of them were open: ``[gates, batch]`` each.

        Open is bool in evaluation mode; in training it is 0 or 1 as float32, with a gradient.
        """
        training, logits, opened = self.training, [], []
        x = self.backbone.stem(self.normalise(images))
        for block, gate in self._gated():
            if gate is None:
                x = block(x)
                continue
            logit = gate(x)[:, 0].float()
            if training:
                open = self._decided(logit)
                weight = open.to(x.dtype)[:, None, None, None]
                x = weight * block(x) + (1 - weight) * x
            else:
                open = logit >= 0
                passed, x = x, x.clone()
                x[open] = block(passed[open])
            logits.append(logit)
            opened.append(open)
        return x, torch.stack(logits), torch.stack(opened)

    def _gated(self) -> list[tuple[nn.Module, nn.Module | None]]:
        """The blocks, each with its gate if it has one."""
        gates = dict(self.gating.items())
        return [(block, gates.get(str(number))) for number, block in enumerate(self.backbone.blocks)]

    def _decided(self, logit: Tensor) -> Tensor:
        """Decisions under noise: 1 where open, else 0, with the gradient of a sigmoid (Jang, Gu and Poole, ICLR 2017)."""
        soft = (logit + self.noise * torch.rand_like(logit).logit(1e-6)).sigmoid()
        return (soft >= 0.5).float() + (soft - soft.detach())

    def segment(self, k: int, x: Tensor) -> Tensor:
        return self.walk(x)[0]  # there is only one

    def gates(self, images: Tensor) -> Tensor:
        """Logits of the gates, ``[gates, batch]``, for images ``[batch, *shape]`` in [0, 1]; errors as of ``forward``."""
        check_images(self, images)
        return self.walk(images)[1]

    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[1, batch, classes]`` and the multiply-accumulates run for each image, gates included, ``[batch]``.

        They are int64; in training mode float32, what would have been run, with a gradient to the gates. Images and errors as of
        ``forward``.
        """
        check_images(self, images)
        features, _, opened = self.walk(images)
        macs = super().macs.to(opened.device)
        return self.classify(0, features)[None], macs[0] + (opened * macs[1:, None]).sum(dim=0)

    @property
    def macs(self) -> Tensor:
        """Multiply-accumulates of one image with all gates open: ``[1]``."""
        return super().macs.sum(dim=0, keepdim=True)

    @property
    def block_macs(self) -> Tensor:
        """Multiply-accumulates of each block that may be skipped, ``[gates]``."""
        return super().macs[1:]

    def _count(self) -> Tensor:
        """Of what always runs, gates included, and of each block that may be skipped: ``[1 + gates]``."""
        with evaluating(self), torch.no_grad():
            x, always = _costed(self.backbone.stem, self._black())
            skipped = []
            for block, gate in self._gated():
                always += _costed(gate, x)[1] if gate is not None else 0
                x, macs = _costed(block, x)
                if gate is None:
                    always += macs
                else:
                    skipped.append(macs)
            always += _costed(self.backbone.head, x)[1]
        return torch.tensor([always, *skipped])

    def with_exits(self, keep: tuple[int, ...]) -> "GatedNetwork":  # type: ignore[override]
        """The network itself: its one exit is the only choice, else ValueError."""
        checked_exits(keep, self.n_exits)
        return self


def _costed(module: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """The module's output, and its multiply-accumulates."""
    with FlopCounterMode(display=False) as counter:
        x = module(x)
    return x, counter.get_total_flops() // 2  # the counter takes a multiply-accumulate for two operations


def gated(net: MultiExitNetwork) -> GatedNetwork:
    """An untrained network with gates on the backbone of a static one, which it shares. Raises ValueError as the class does."""
    with torch.inference_mode(False):  # whose tensors could never be attacked
        return GatedNetwork(net.backbone, net.dataset)
