"""Attacks of other libraries in the protocol of this one: they attack the network as deployed, and their result is checked here.

The libraries are installed with the tests' packages, and imported where an attack is called.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dynlib.attacks.result import AttackResult
from dynlib.attacks.tools import check_batch, check_seed, reaches
from dynlib.mechanisms import ConfidenceExit, Deployed, Mechanism
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import evaluating
from dynlib.settings import settle


class Counting(Deployed):
    """Counts what it is asked: images that were run, and those of them that were differentiated.

    ``pushed`` and ``pulled``, bool ``[batch]``: images at which a gradient was taken, and at which one was not zero on every
    pixel. Whatever lies within ``eps`` of an image of the batch is taken for it.
    """

    def __init__(self, net: MultiExitNetwork, mechanism: Mechanism, batch: Tensor, eps: float):
        super().__init__(net, mechanism)
        self.batch, self.eps = batch.flatten(1), eps
        self.forward_passes = self.backward_passes = 0
        self.pushed, self.pulled = torch.zeros(2, len(batch), dtype=torch.bool, device=batch.device)

    def forward(self, images: Tensor) -> Tensor:
        self.forward_passes += len(images)
        shown = images.clamp(0, 1)  # a library may leave the range by a rounding error
        if shown.requires_grad:
            self.backward_passes += len(images)
            shown.register_hook(partial(self._note, shown.detach()))
        return super().forward(shown)

    def _note(self, shown: Tensor, gradient: Tensor) -> None:
        near = torch.cdist(shown.flatten(1), self.batch, p=torch.inf) <= self.eps + 1e-4
        self.pushed |= near.any(dim=0)
        self.pulled |= (near & gradient.flatten(1).any(dim=1)[:, None]).any(dim=0)


@dataclass(frozen=True, kw_only=True)
class External:
    """Base of the adapters: an attack inside an L-infinity ball that ``craft`` takes from another library.

    The library decides which image costs what, so ``steps`` (gradients) and ``macs`` of the result are the batch's, evenly shared.

    Args:
        eps: radius of the ball, in (0, 1].
        mechanism: the exit rule of the network as deployed.
        seed: of what the attack draws.
    Raises:
        ValueError: a setting out of range.
    """

    name: ClassVar[str]
    display: ClassVar[str]
    marker: ClassVar[str]
    goal: ClassVar[str] = "misclassify"
    own_labels: ClassVar[bool] = False

    eps: float = 8 / 255
    mechanism: Mechanism = field(default_factory=ConfidenceExit)
    seed: int = 0

    def __post_init__(self) -> None:
        settle(self)
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps {self.eps} is outside (0, 1]; images lie in [0, 1]")
        check_seed(self.seed)

    def made(self) -> Any:
        """What the library makes its attack of. Raises ModuleNotFoundError, or ValueError where it has no such attack."""
        raise NotImplementedError

    def craft(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images, from a classifier, images ``[batch, 3, side, side]`` in [0, 1] and labels ``[batch]``."""
        raise NotImplementedError

    def __call__(self, net: MultiExitNetwork, images: Tensor, labels: Tensor) -> AttackResult:
        """Attack a batch; arguments, result and errors as for ``Attack``. The generators of torch are left as they were.

        Raises:
            ModuleNotFoundError: the library is not installed.
        """
        with evaluating(net):
            images, labels = check_batch(net, images, labels)
            images = images.contiguous()  # a library may draw its noise in the order of memory
            device = images.device
            module = Counting(net, self.mechanism, images, self.eps)
            with without_gradients(net), torch.random.fork_rng([device] if device.type != "cpu" else [], device_type=device.type):
                torch.manual_seed(self.seed)
                found = self.craft(module, images, labels).detach()
            adversarial = (images + (found - images).clamp(-self.eps, self.eps)).clamp(0, 1)
            reached = reaches(self, net, adversarial, labels)
        passes = module.forward_passes + module.backward_passes
        steps = torch.full_like(labels, round(module.backward_passes / len(labels)))
        macs = torch.full_like(labels, round(passes / len(labels) * net.macs[-1].item()))
        return AttackResult(adversarial, reached, steps, macs, module.pushed & ~module.pulled).warned()


@dataclass(frozen=True, kw_only=True)
class Foolbox(External):
    """An attack of foolbox (Rauber, Zimmermann, Bethge and Brendel, JOSS 2020). Settings of ``External``, and:

    Args:
        method: name of a class in ``foolbox.attacks``, such as ``"LinfPGD"``.
        settings: its arguments.
    Raises:
        ValueError: on use, or of ``made``: there is no such attack or setting.
    """

    name, display, marker = "foolbox", "foolbox", "X"

    method: str = "LinfPGD"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def made(self) -> Any:
        try:
            return getattr(library("foolbox").attacks, self.method)(**self.settings)
        except (AttributeError, TypeError) as error:
            raise ValueError(f"foolbox has no attack {self.method!r} with these settings: {error}") from None

    def craft(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        foolbox = library("foolbox")
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device=images.device)
        return self.made()(model, images, foolbox.criteria.Misclassification(labels), epsilons=self.eps)[1]


@dataclass(frozen=True, kw_only=True)
class AutoAttack(External):
    """AutoAttack (Croce and Hein, ICML 2020), by PyPI's pyautoattack. Settings of ``External``, and:

    Args:
        attacks: some of its parts, such as ``("apgd-ce", "apgd-t")``; by default its standard version.
    Raises:
        ValueError: it has no such part.
    """

    name, display, marker = "autoattack", "AutoAttack", "*"

    attacks: tuple[str, ...] = ()

    PARTS: ClassVar[tuple[str, ...]] = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [part for part in self.attacks if part not in self.PARTS]:
            raise ValueError(f"AutoAttack has no part {unknown[0]!r}: choose of {', '.join(self.PARTS)}")

    def made(self) -> Any:
        return library("pyautoattack").AutoAttack

    def craft(self, module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        version = {"version": "custom", "attacks": list(self.attacks)} if self.attacks else {"version": "standard"}
        attack = self.made()(module, eps=self.eps, seed=self.seed, device=images.device, **version)
        adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=len(images))
        return adversarial


@contextmanager
def without_gradients(net: nn.Module) -> Iterator[None]:
    """For the block the weights need no gradient: libraries call ``backward``, which would leave one in each of them."""
    needed = [p for p in net.parameters() if p.requires_grad]
    for p in needed:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in needed:
            p.requires_grad_()


def library(name: str) -> ModuleType:
    """Raises ModuleNotFoundError, in one line, where a library is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{name} is not installed: it comes with the tests' packages, `pip install -e .[test]`") from None
