"""The loop that all L-infinity attacks share; each attack overrides a hook or two."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dynlib.attacks.losses import Average, Loss, get_loss
from dynlib.mechanisms import Answers, ConfidenceExit, Mechanism
from dynlib.networks.exits import IMAGE_SHAPE, MultiExitNetwork


class AttackResult(NamedTuple):
    """What an attack made of a batch.

    ``adversarial`` float32 ``[batch, 3, 32, 32]`` in [0, 1]; ``success`` bool ``[batch]``: the network as deployed answers wrongly;
    ``steps`` int64 ``[batch]``: gradient steps made; ``macs`` int64 ``[batch]``: multiply-accumulates of the attack's forward and
    backward passes, and of finding out which exit a clean image takes where the loss asks. A backward pass to the image counts as
    much as its forward pass, which holds to within 1 %.
    """

    adversarial: Tensor
    success: Tensor
    steps: Tensor
    macs: Tensor


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Untargeted gradient ascent on a loss inside an L-infinity ball. ``attack(net, images, labels)`` runs it.

    Args:
        eps: radius of the ball, in (0, 1].
        loss: name of a loss over the network's exits, see ``dynlib.attacks.losses``.
        mechanism: the exit rule of the network as deployed.
        early_stop: whether an image leaves the batch once the exits that are run show a wrong answer.
        seed: of the random start, if there is one. Each image has its own stream, derived from its content.
    Raises:
        ValueError: a setting out of range.
    """

    name: ClassVar[str]
    display: ClassVar[str]
    marker: ClassVar[str]

    eps: float = 8 / 255
    loss: str = "average"
    mechanism: Mechanism = field(default_factory=ConfidenceExit)
    early_stop: bool = False
    seed: int = 0

    steps: ClassVar[int] = 1

    def __post_init__(self):
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps {self.eps} is outside (0, 1]; images lie in [0, 1]")
        if self.steps < 1:
            raise ValueError(f"steps {self.steps}: need at least 1")
        if not self.rate > 0:
            raise ValueError(f"step size {self.rate}: need a positive number")
        get_loss(self.loss)

    # The hooks.

    @property
    def rate(self) -> float:
        """Step size, in the units of the images."""
        return self.eps

    def start(self, images: Tensor) -> Tensor:
        return images.clone()

    def view(self, adversarial: Tensor, step: int) -> Tensor:
        """What the network is shown in place of the images, ``[batch, 3, 32, 32]``; gradients flow through it."""
        return adversarial

    def accumulate(self, memory: Tensor, gradient: Tensor) -> Tensor:
        """What the step follows, from what it followed before (at first zeros) and the new gradient."""
        return gradient

    def step(self, adversarial: Tensor, direction: Tensor) -> Tensor:
        return adversarial + self.rate * direction.sign()

    def project(self, adversarial: Tensor, images: Tensor) -> Tensor:
        return (images + (adversarial - images).clamp(-self.eps, self.eps)).clamp(0, 1)

    def stops(self, logits: Tensor, labels: Tensor, complete: bool) -> Tensor:
        """Images that are done, bool ``[batch]``, seen by the exits run; ``complete`` says whether that is all of them."""
        if not self.early_stop:
            return torch.zeros_like(labels, dtype=torch.bool)
        answers = Answers.of(logits)
        exit, left = self.mechanism.answering(answers)
        return (left | complete) & (answers.label.gather(0, exit[None])[0] != labels)

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """Attack a batch.

        Args:
            net: on the images' device; its mode and gradients are left as they were.
            images: float32 ``[batch, 3, 32, 32]`` in [0, 1].
            labels: int64 ``[batch]``.
        Raises:
            ValueError: wrong shape, type or range.
        """
        check_batch(net, images, labels)
        with evaluating(net):
            runs = [self._run(net, images, labels, loss) for loss in get_loss(self.loss).candidates(net)]
            adversarial, steps, macs = runs[0] if len(runs) == 1 else self._best(net, labels, runs)
            success = self.mechanism.run(net, adversarial).label != labels
        check_ball(adversarial, images, self.eps)
        return AttackResult(adversarial, success, steps, macs)

    def _run(self, net: MultiExitNetwork, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        depth, macs = loss.depth(net, self.mechanism, images)
        pass_macs = 2 * net.macs.to(images.device)[depth]
        adversarial, memory = self.start(images), torch.zeros_like(images)
        steps = torch.zeros_like(labels)
        active = torch.arange(len(images), device=images.device)
        for step in range(self.steps):
            gradient, done = self._gradient(net, adversarial[active], labels[active], depth[active], loss, step)
            macs[active] += pass_macs[active]
            active, gradient = active[~done], gradient[~done]
            if len(active) == 0:
                break
            memory[active] = self.accumulate(memory[active], gradient)
            adversarial[active] = self.project(self.step(adversarial[active], memory[active]), images[active])
            steps[active] += 1
        return adversarial, steps, macs

    def _gradient(
        self, net: MultiExitNetwork, x: Tensor, labels: Tensor, depth: Tensor, loss: Loss, step: int
    ) -> tuple[Tensor, Tensor]:
        """The loss's gradient, and which images are done. Images of one depth go together, so that no pass runs too deep."""
        gradient, done = torch.empty_like(x), torch.empty_like(labels, dtype=torch.bool)
        for d in depth.unique().tolist():
            group = depth == d
            with torch.enable_grad():
                inputs = x[group].detach().requires_grad_()
                logits = net(self.view(inputs, step), d)
                (gradient[group],) = torch.autograd.grad(loss(logits, labels[group], self.mechanism).sum(), inputs)
            done[group] = self.stops(logits.detach(), labels[group], complete=d == net.n_exits - 1)
        return gradient, done

    def _best(self, net: MultiExitNetwork, labels: Tensor, runs: list) -> tuple[Tensor, Tensor, Tensor]:
        """Of several runs, each image's with the highest mean cross-entropy; all of them are paid for."""
        adversarial, steps, macs = (torch.stack(part) for part in zip(*runs, strict=True))
        with torch.no_grad():
            best = torch.stack([Average()(net(x), labels, self.mechanism) for x in adversarial]).argmax(dim=0)
        chosen = adversarial[best, torch.arange(len(labels), device=labels.device)]
        return chosen, steps.sum(dim=0), macs.sum(dim=0) + len(runs) * net.macs[-1].to(labels.device)


@dataclass(frozen=True, kw_only=True)
class Iterative(Attack):
    """Base of the attacks that take several steps. Settings of ``Attack``, and:

    Args:
        steps: number of gradient steps.
        step_size: by default ``eps / 4``.
    """

    steps: int = 10
    step_size: float | None = None

    @property
    def rate(self) -> float:
        return self.eps / 4 if self.step_size is None else self.step_size


def check_batch(net: MultiExitNetwork, images: Tensor, labels: Tensor) -> None:
    """Raises ValueError where images or labels are not what a network takes."""
    if images.dim() != 4 or tuple(images.shape[1:]) != IMAGE_SHAPE or images.dtype != torch.float32:
        raise ValueError(f"images are {images.dtype} {list(images.shape)}: need float32 [batch, 3, 32, 32]")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}: need int64 [{len(images)}]")
    if len(images) == 0:
        raise ValueError("an empty batch")
    if not (images.min() >= 0 and images.max() <= 1):  # False for NaN, too
        raise ValueError("images are outside [0, 1] or not numbers")
    if labels.min() < 0 or labels.max() >= net.n_classes:
        raise ValueError(f"labels are outside 0 to {net.n_classes - 1}")


def check_ball(adversarial: Tensor, images: Tensor, eps: float) -> None:
    """Raises RuntimeError where an attack has left its ball or the range of images: a bug in the attack."""
    if not ((adversarial - images).abs().max() <= eps + 1e-6 and adversarial.min() >= 0 and adversarial.max() <= 1):
        raise RuntimeError("the attack left its ball or the range of images")


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode for the block; then every module's mode as it was."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def uniform_noise(images: Tensor, seed: int) -> Tensor:
    """Uniform in [-1, 1), from a generator per image that is seeded by the image's content: the batch has no part in it."""
    noise = torch.empty_like(images, device="cpu")
    for out, image in zip(noise, images.cpu(), strict=True):
        digest = hashlib.sha256(seed.to_bytes(8, "big", signed=True) + image.contiguous().numpy().tobytes()).digest()
        out.uniform_(-1, 1, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
    return noise.to(images.device)


def to_tanh_space(images: Tensor) -> Tensor:
    """The w whose images ``(tanh(w) + 1) / 2`` are: finite, as it is taken a hair inside the range of images."""
    return (2 * images - 1).clamp(-1 + 1e-6, 1 - 1e-6).atanh()


def from_tanh_space(w: Tensor) -> Tensor:
    """Images in [0, 1], whatever w is."""
    return (w.tanh() + 1) / 2
