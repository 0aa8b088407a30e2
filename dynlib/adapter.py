"""Anyone's network: whatever returns the logits of its exits becomes one that attacks and mechanisms take."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import check_images, evaluating

MILLIONTHS = 1_000_000  # of a full run: what given costs are counted in, as costs of images are whole numbers


class FromLogits(MultiExitNetwork):
    """A module that returns the logits of its exits, as a network.

    It cannot be stopped half way: segment 0 runs it whole, and segments hand on the logits of all exits. Decisions and costs are
    those of a network that stops; time is not.

    Args:
        module: from images to a list of logits ``[batch, classes]`` from the first exit to the last, to one tensor
            ``[exits, batch, classes]``, or to an object whose ``logits`` are one of these. It runs all exits for every image.
        examples: some images that it takes, float ``[n, channels, height, width]`` in [0, 1]; it is tried on the first two.
        costs: of leaving at each exit, increasing, in any unit. By default exit k of n costs the share k / n of the module's
            multiply-accumulates, which torch's FlopCounterMode counts.
        normalise: applied to images first, such as ``torchvision.transforms.Normalize``, where the module does not do so itself.
    Raises:
        ValueError: costs or examples are not as above, or the module returns something else, or no gradient to the images.
    """

    _example: Tensor

    def __init__(
        self, module: nn.Module, examples: Tensor, costs: Sequence[float] | None = None, normalise: nn.Module | None = None
    ) -> None:
        nn.Module.__init__(self)  # past the base's, which is about a backbone
        if not isinstance(examples, Tensor) or not examples.is_floating_point() or examples.dim() != 4 or len(examples) == 0:
            what = f"{examples.dtype} {list(examples.shape)}" if isinstance(examples, Tensor) else f"a {type(examples).__name__}"
            raise ValueError(f"images are {what}: need some, [n, channels, height, width], as floats")
        self.module, self.normalise = module, normalise or nn.Identity()  # type: ignore[assignment] # any will do
        self.normalise.train(module.training)
        with torch.inference_mode(False):
            self.register_buffer("_example", examples[:2].detach().clone(), persistent=False)
        check_images(self, examples)
        with evaluating(self):
            self._exits, self._classes = self._tried(self._example.clone())
        self._costs = None if costs is None else self._given(costs)
        self._counted = [], torch.empty(0)
        _ = self.macs  # raises where there are none

    @property
    def n_exits(self) -> int:
        return self._exits

    @property
    def n_classes(self) -> int:
        return self._classes

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self._example.shape[1:])  # type: ignore[return-value] # checked

    @property
    def dtype(self) -> torch.dtype:
        return self._example.dtype

    def segment(self, k: int, x: Tensor) -> Tensor:
        """Logits ``[batch, exits, classes]``: from images for ``k = 0``, else those that are handed on."""
        if k > 0:
            return x
        logits = self._logits(x)
        if logits.shape[::2] != (self.n_exits, self.n_classes):
            raise ValueError(f"the module returned logits {list(logits.shape)}, at first of {self.n_exits} exits: it must run all")
        return logits.transpose(0, 1)

    def classify(self, k: int, features: Tensor) -> Tensor:
        return features[:, k]

    def with_exits(self, keep: Sequence[int]) -> NoReturn:
        raise NotImplementedError("the module runs all its exits: give one that returns the logits of fewer")

    def _logits(self, images: Tensor) -> Tensor:
        """What the module returns, as one tensor ``[exits, batch, classes]``."""
        out = self.module(self.normalise(images))
        out = getattr(out, "logits", out)
        several = isinstance(out, list | tuple) or (isinstance(out, Tensor) and out.dim() == 3)
        each = list(out) if several else [out]
        kinds = sorted({f"{one.dtype} {list(one.shape)}" if isinstance(one, Tensor) else type(one).__name__ for one in each})
        first = each[0] if len(kinds) == 1 else None
        if not isinstance(first, Tensor) or first.dim() != 2 or len(first) != len(images) or not first.is_floating_point():
            found = " and ".join(kinds) or "nothing"
            raise ValueError(f"the module returns {found} for {len(images)} images: need a list of float logits [batch, classes]")
        if len(each) == 1:
            raise ValueError("the module returns logits of one exit: a static network, which has nothing to leave early")
        return torch.stack(each)

    def _tried(self, images: Tensor) -> tuple[int, int]:
        """Numbers of exits and classes, once logits are finite and those of each exit have a gradient to the images."""
        with torch.enable_grad():
            logits = self._logits(images.requires_grad_())
            if not logits.isfinite().all():
                raise ValueError("a logit is not finite: the module's weights are damaged, or it needs other images")
            for k, one in enumerate(logits.square().sum(dim=(1, 2)), start=1):  # squares, as probabilities have a constant sum
                slope = torch.autograd.grad(one, images, retain_graph=True, allow_unused=True)[0] if one.requires_grad else None
                if slope is None or not slope.any():
                    raise ValueError(f"exit {k} has no gradient to the images: the module detaches it, or rounds")
        return logits.shape[0], logits.shape[2]

    def _count(self) -> Tensor:
        if self._costs is not None:
            return self._costs
        with evaluating(self), torch.no_grad(), FlopCounterMode(display=False) as counter:
            self._logits(self._example[:1])
        full = counter.get_total_flops() // 2  # the counter takes a multiply-accumulate for two operations
        if full < self.n_exits:
            raise ValueError("torch counts no multiply-accumulates in the module: give the costs of its exits")
        return torch.arange(1, self.n_exits + 1) * full // self.n_exits

    def _given(self, costs: Sequence[float]) -> Tensor:
        given = torch.as_tensor(costs, dtype=torch.float64).cpu()
        whole = (MILLIONTHS * given / given[-1:]).round()
        if len(given) != self.n_exits or not whole.diff(prepend=torch.zeros(1)).gt(0).all() or not given.isfinite().all():
            raise ValueError(f"costs {list(costs)}: need {self.n_exits} positive numbers, increasing, one for each exit")
        return whole.long()
