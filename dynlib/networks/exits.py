"""Internal classifiers and the network that carries them.

A static network is a multi-exit network with one exit, so everything downstream is written once, for logits of shape
``[exits, batch, classes]``.
"""

from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynlib.datasets import DATASETS, get_dataset
from dynlib.networks.backbones import MODELS, Backbone
from dynlib.networks.guards import InStep, check_images, check_logits, evaluating, parts, without_prefix


class Normalise(nn.Module):
    """``(x - mean) / std`` per channel: the network's first layer, so that every image outside it lies in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class MixedPool(nn.Module):
    """``a * max + (1 - a) * average`` pooling with one learnable ``a``."""

    def __init__(self, kernel: int):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5))
        self.max, self.average = nn.MaxPool2d(kernel), nn.AvgPool2d(kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.a * self.max(x) + (1 - self.a) * self.average(x)


def internal_classifier(channels: int, side: int, classes: int) -> nn.Sequential:
    """The exit head of Shallow-Deep Networks: mixed pooling to about 4x4 (none below 4x4), then one linear layer."""
    kernel = max(side // 4, 1)
    side = side // kernel
    pool = MixedPool(kernel) if kernel > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Flatten(), nn.Linear(channels * side * side, classes))


class MultiExitNetwork(InStep):
    """A backbone with an internal classifier after each block of ``exit_after``, and its own head as the final exit.

    Args:
        backbone: the static network underneath.
        dataset: name in ``DATASETS``; sets the shape of images, the number of classes and the normalisation.
        exit_after: 1-based block numbers, strictly increasing, all before the last block; empty for a static network.
        exits: the internal classifiers, by default new ones.
    Raises:
        ValueError: unknown dataset, or ``exit_after`` out of range or out of order.
    """

    card: dict[str, Any]  # of a network that was loaded

    def __init__(self, backbone: Backbone, dataset: str, exit_after: Sequence[int] = (), exits: nn.ModuleList | None = None):
        super().__init__()
        entry = get_dataset(dataset)
        exit_after, last = tuple(exit_after), len(backbone.blocks)
        if list(exit_after) != sorted({*exit_after} & {*range(1, last)}):
            raise ValueError(f"exits after blocks {exit_after}: need increasing numbers from 1 to {last - 1}")
        self.dataset, self.exit_after, self.backbone = dataset, exit_after, backbone
        self._counted: tuple[list[Any], Tensor] = ([], torch.empty(0))  # what ``macs`` were counted on, and they
        # Exit k is reached from exit k - 1 through segment k: these blocks, half open and 0-based.
        self._bounds = list(zip((0, *exit_after), (*exit_after, last), strict=True))
        black = self._black()
        with torch.device(black.device):  # where the backbone is
            self.normalise = Normalise(entry.mean, entry.std)
            if exits is None:
                exits = nn.ModuleList(internal_classifier(*shape, entry.classes) for shape in self._feature_shapes())
            self.exits = exits
        if black.dtype != torch.get_default_dtype():
            self.to(black.dtype)

    def _feature_shapes(self) -> list[tuple[int, int]]:
        """Channels and side of the feature map at each early exit, found by running a black image."""
        shapes = []
        with evaluating(self.backbone), torch.no_grad():
            x = self.backbone.stem(self._black())
            for number, block in enumerate(self.backbone.blocks, start=1):
                x = block(x)
                if number in self.exit_after:
                    shapes.append((x.shape[1], x.shape[2]))
        return shapes

    def _black(self) -> Tensor:
        """A black image, of the weights' type and on their device."""
        like = next(self.parameters(), torch.empty(0))
        return torch.zeros(1, *self.shape, dtype=like.dtype, device=like.device)

    @property
    def n_exits(self) -> int:
        return len(self._bounds)

    @property
    def n_classes(self) -> int:
        return DATASETS[self.dataset].classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that it takes."""
        return DATASETS[self.dataset].shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the images that it takes: that of its weights."""
        return next(self.parameters(), torch.empty(0)).dtype

    def segment(self, k: int, x: Tensor) -> Tensor:
        """Features at exit ``k`` from those at exit ``k - 1``; for ``k = 0`` from images ``[batch, *shape]`` in [0, 1]."""
        if k == 0:
            x = self.backbone.stem(self.normalise(x))
        for block in self.backbone.blocks[slice(*self._bounds[k])]:
            x = block(x)
        return x

    def classify(self, k: int, features: Tensor) -> Tensor:
        """Logits ``[batch, classes]`` of exit ``k`` from its features."""
        head = self.backbone.head if k == self.n_exits - 1 else self.exits[k]
        return head(features)

    def forward(self, images: Tensor, depth: int | None = None) -> Tensor:
        """Logits ``[exits, batch, classes]`` of images ``[batch, *shape]`` in [0, 1].

        Args:
            images: of the weights' type.
            depth: index of the deepest exit to run; nothing beyond it is computed. By default all.
        Raises:
            ValueError: images of another type, shape or range, or no such exit.
        """
        check_images(self, images)
        if depth is not None and not (hasattr(depth, "__index__") and 0 <= depth < self.n_exits):
            raise ValueError(f"depth {depth}: need the index of an exit, 0 to {self.n_exits - 1}")
        x, logits = images, []
        for k in range(self.n_exits if depth is None else depth + 1):
            x = self.segment(k, x)
            logits.append(self.classify(k, x))
        return torch.stack(logits)

    @property
    def macs(self) -> Tensor:
        """Multiply-accumulates of one image up to and including each exit, earlier exits' heads included: ``[exits]``.

        They are counted once, and again when a module or a weight has been replaced.
        """
        made_of = [piece for part in parts(self) for piece in (part, *part._parameters.values())]
        if list(map(id, made_of)) != list(map(id, self._counted[0])):
            self._counted = made_of, self._count()
        return self._counted[1]

    def _count(self) -> Tensor:
        costs, image = [], self._black()
        for depth in range(self.n_exits):
            with evaluating(self), torch.no_grad(), FlopCounterMode(display=False) as counter:
                self(image, depth)
            costs.append(counter.get_total_flops() // 2)  # the counter takes a multiply-accumulate for two operations
        return torch.tensor(costs)

    @property
    def head_macs(self) -> Tensor:
        """Multiply-accumulates of each internal classifier alone: ``[exits - 1]``."""
        return torch.tensor([head[-1].weight.numel() for head in self.exits], dtype=torch.int64)  # type: ignore[index] # Sequential

    def with_exits(self, keep: Sequence[int]) -> "MultiExitNetwork":
        """The network that has only some of the exits; it shares its weights with this one.

        Args:
            keep: indices of exits, increasing, the final one last.
        Raises:
            ValueError: no exit, an unknown one, out of order, or without the final one.
        """
        keep = checked_exits(keep, self.n_exits)
        exits = nn.ModuleList(self.exits[k] for k in keep[:-1])
        exits.training = self.exits.training
        pruned = MultiExitNetwork(self.backbone, self.dataset, [self.exit_after[k] for k in keep[:-1]], exits)
        pruned.normalise = self.normalise
        return pruned

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As of any module; the state may come from a network inside ``DataParallel``, ``torch.compile`` or a wrapper."""
        return super().load_state_dict(without_prefix(state_dict, next(iter(self.state_dict()), "")), *args, **kwargs)

    def as_static(self, exit: int = -1) -> nn.Module:
        """One exit as an ordinary classifier, images to logits ``[batch, classes]``, for any attack library.

        Raises:
            ValueError: no such exit.
        """
        if not (hasattr(exit, "__index__") and -self.n_exits <= exit < self.n_exits):
            raise ValueError(f"exit {exit}: the network has {self.n_exits}")
        return _SingleExit(self, range(self.n_exits)[exit])


def checked_exits(keep: Sequence[int], n_exits: int) -> tuple[int, ...]:
    """The indices of some of a network's exits.

    Raises:
        ValueError: no exit, an unknown one, out of order, or without the final one.
    """
    try:
        keep = tuple(index(k) for k in keep)
    except TypeError:
        raise ValueError(f"exits {keep}: need whole numbers") from None
    if not keep:
        raise ValueError("no exits: keep at least the final one")
    if list(keep) != sorted({*keep} & {*range(n_exits)}) or keep[-1] != n_exits - 1:
        raise ValueError(f"exits {keep}: need increasing numbers from 0 to {n_exits - 1}, the final exit {n_exits - 1} last")
    return keep


class _SingleExit(InStep):
    def __init__(self, net: MultiExitNetwork, exit: int):
        super().__init__()
        self.net, self.exit = net, exit

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images, self.exit)[-1]
        check_logits(logits)
        return logits


def build(model: str, dataset: str, exit_after: Sequence[int] | None = None) -> MultiExitNetwork:
    """An untrained network.

    Args:
        model: name in ``dynlib.networks.backbones.MODELS``.
        dataset: name in ``DATASETS``.
        exit_after: blocks followed by an exit, ``()`` for a static network; by default the paper's exits.
    Raises:
        ValueError: unknown name, or impossible exits.
    """
    for what, name, known in (("dataset", dataset, DATASETS), ("model", model, MODELS)):
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(known)}")
    with torch.inference_mode(False):  # whose tensors could never be attacked
        backbone = MODELS[model].build(DATASETS[dataset].classes)
        return MultiExitNetwork(backbone, dataset, MODELS[model].exit_after if exit_after is None else exit_after)
