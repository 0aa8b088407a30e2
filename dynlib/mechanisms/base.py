"""What exits answer, what a mechanism decides from it, and how the network as deployed is run."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.gated import GatedNetwork
from dynlib.networks.guards import check_images, check_logits
from dynlib.settings import settle

STEPS = 65535  # of a share of 1


@dataclass(frozen=True)
class Answers:
    """What exits answer: all that a mechanism may look at, ``[exits, n]`` each.

    ``label`` int64. In [0, 1], float32: ``confidence``, the largest softmax probability; ``margin``, that less the second largest;
    ``entropy`` of the softmax, as a share of the largest possible one. They are rounded to 65535ths, as records keep them, so that
    a decision from records is the one that the network makes.

    ``cost`` int64: the multiply-accumulates run for each answer, of a network that counts them for each image.
    """

    label: Tensor
    confidence: Tensor
    margin: Tensor
    entropy: Tensor
    cost: Tensor | None = None

    @classmethod
    def of(cls, logits: Tensor, cost: Tensor | None = None) -> Self:
        """From logits ``[exits, n, classes]``, and what each answer cost, ``[exits, n]``, where the network tells.

        Raises:
            ValueError: a logit that is not a number, or infinite.
        """
        check_logits(logits)
        logits = logits.detach().float()
        p = logits.softmax(dim=-1)
        confidence, label = p.max(dim=-1)
        second = p.topk(2, dim=-1).values[..., 1]
        entropy = -torch.special.xlogy(p, p).sum(dim=-1) / math.log(p.shape[-1])
        measures = confidence, confidence - second, entropy
        confidence, margin, entropy = (shares((x.clamp(0, 1) * STEPS).round()) for x in measures)
        return cls(label, confidence, margin, entropy, cost)

    def __len__(self) -> int:
        return len(self.label)

    def exits(self, keep: Any) -> Self:
        """The answers of some exits: a slice, or a list of indices."""
        return self.each(lambda part: part[keep])

    def images(self, keep: Tensor | slice) -> Self:
        """The answers for some images: a mask, indices, or a slice."""
        return self.each(lambda part: part[:, keep])

    def joined(self, later: Self) -> Self:
        """These exits, then later ones."""
        parts = {name: (part, getattr(later, name)) for name, part in vars(self).items() if part is not None}
        return replace(self, **{name: torch.cat(pair) for name, pair in parts.items()})

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The answers with all parts that there are changed alike."""
        return replace(self, **{name: change(part) for name, part in vars(self).items() if part is not None})


@torch.no_grad()
def run_all(net: MultiExitNetwork, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits of all exits, and what the answers cost where the network tells, as ``Answers.of`` takes them."""
    if not isinstance(net, GatedNetwork):
        return net(images), None
    logits, macs = net.run(images)
    return logits, macs[None]


def shares(steps: Tensor) -> Tensor:
    """From whole numbers 0 to ``STEPS`` to shares in [0, 1], float32: the one way, as thresholds are compared with them."""
    return steps.float() / STEPS


class Decision(NamedTuple):
    """What a dynamic network as deployed does with each image; int64 ``[n]`` each.

    ``label`` is the answer, ``exit`` the exit that gave it, ``cost`` the multiply-accumulates that were run for it.
    """

    label: Tensor
    exit: Tensor
    cost: Tensor


class Mechanism:
    """Base of all exit mechanisms: an image leaves at the first exit that says so, else ``fall_back`` chooses among all exits.

    ``name`` is what profiles and records call it. ``memoryless``: ``leaves`` looks at the last exit alone.
    """

    name: ClassVar[str]
    memoryless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self)  # where it is a dataclass

    def leaves(self, seen: Answers) -> Tensor:
        """Which images leave at the last exit of ``seen``, which holds the exits seen so far: bool ``[n]``."""
        raise NotImplementedError

    def fall_back(self, answers: Answers) -> Tensor:
        """The exit that answers for images that no exit let go, from the answers of all exits: int64 ``[n]``."""
        raise NotImplementedError

    def check(self, n_exits: int) -> None:
        """Raises ValueError where the mechanism is not made for a network of so many exits, the final one included."""

    def answering(self, answers: Answers) -> tuple[Tensor, Tensor]:
        """The exit that answers each image, int64 ``[n]``, and whether an exit let it go, bool ``[n]``."""
        if self.memoryless:
            leaves = self.leaves(answers.exits(None))  # all exits at once, as if they were one, the last
        else:
            leaves = torch.stack([self.leaves(answers.exits(slice(k + 1))) for k in range(len(answers))])
        left = leaves.any(dim=0)
        return torch.where(left, leaves.int().argmax(dim=0), self.fall_back(answers)), left

    def answer(self, answers: Answers) -> Tensor:
        """What the network as deployed answers, int64 ``[n]``."""
        exit, _ = self.answering(answers)
        return answers.label.gather(0, exit[None])[0]

    def decide(self, answers: Answers, costs: Tensor) -> Decision:
        """The decisions, from the answers of all exits.

        Args:
            answers: of ``n`` images.
            costs: multiply-accumulates up to and including each exit, ``[exits]``. Where the answers say
                what they cost, that counts instead. Who answers if no exit let an image go has run the whole network.
        Raises:
            ValueError: another number of costs than of exits, or a mechanism that is not made for so many exits.
        """
        self.check(len(answers))
        if len(costs) != len(answers):
            raise ValueError(f"{len(costs)} costs for {len(answers)} exits: need one for each")
        exit, left = self.answering(answers)
        label = answers.label.gather(0, exit[None])[0]
        ran = torch.where(left, exit, len(answers) - 1)
        cost = costs.to(exit.device)[ran] if answers.cost is None else answers.cost.gather(0, ran[None])[0]
        return Decision(label, exit, cost)

    @torch.no_grad()
    def run(self, net: MultiExitNetwork, images: Tensor) -> Decision:
        """The same decisions, computed as deployed: images that have left are computed no further.

        A network with gates has skipped blocks before its one exit answers. A mechanism that skips otherwise overrides this.

        Args:
            net: a network in evaluation mode.
            images: float ``[n, channels, height, width]`` in [0, 1], of the network's shape.
        Raises:
            ValueError: images of another type, shape or range, a network any part of which is in training mode, or a logit that
                is not finite.
        """
        check_images(net, images)
        if net.training:
            raise ValueError("a network in training mode depends on its batch, and changes: call eval() first")
        self.check(net.n_exits)
        if isinstance(net, GatedNetwork):
            return self.decide(Answers.of(*run_all(net, images)), net.macs)
        return self.resume(net, images, None)

    @torch.no_grad()
    def resume(self, net: MultiExitNetwork, features: Tensor, seen: Answers | None) -> Decision:
        """The decisions on images that no exit has let go so far, and nothing computed twice.

        Args:
            net: in evaluation mode.
            features: of the last exit that was seen, ``[n, ...]``; the images where there was none.
            seen: the answers of the exits seen.
        """
        waiting, last, macs = torch.arange(len(features), device=features.device), net.n_exits - 1, net.macs
        order, decisions = [], []
        for k in range(len(seen) if seen else 0, net.n_exits):
            features = net.segment(k, features)
            now = Answers.of(net.classify(k, features)[None])
            seen = now if seen is None else seen.joined(now)
            if k == last:
                order.append(waiting)
                decisions.append(self.decide(seen, macs))
                break
            leaves = self.leaves(seen)
            if not leaves.any():
                continue  # nothing to part
            here = now.images(leaves).label[0]
            order.append(waiting[leaves])
            decisions.append(Decision(here, torch.full_like(here, k), torch.full_like(here, int(macs[k]))))
            if leaves.all():
                break
            waiting, features, seen = waiting[~leaves], features[~leaves], seen.images(~leaves)
        back = torch.cat(order).argsort()
        return Decision(*(torch.cat(column)[back] for column in zip(*decisions, strict=True)))
