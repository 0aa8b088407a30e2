"""PGD on the static networks: this library's beside foolbox's, a textbook's loop and the bare gradients."""

from collections.abc import Callable
from statistics import median

import foolbox
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import dynlib
from benchmarks.rounds import MODELS, Scale, Table, against, interleaved, ratios, shown
from dynlib import data
from dynlib.attacks import PGD
from dynlib.networks.backbones import MODELS as BACKBONES
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.folding import folded

EPS, STEPS = 8 / 255, 10
OF_TEXTBOOK = {"resnet56": 0.75, "mobilenet": 0.75, "vgg16": 0.95}  # goals
OF_FOOLBOX, OF_BARE = 0.60, 1.03
BASE = "bare gradients"


def gradient(module: nn.Module, images: Tensor, labels: Tensor, bfloat16: bool = False) -> Tensor:
    inputs = images.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = module(inputs)
    return torch.autograd.grad(F.cross_entropy(logits.float(), labels, reduction="sum"), inputs)[0]


def textbook(module: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """PGD as a course would write it."""
    adversarial = (images + EPS * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(STEPS):
        adversarial = adversarial + EPS / 4 * gradient(module, adversarial, labels).sign()
        adversarial = (images + (adversarial - images).clamp(-EPS, EPS)).clamp(0, 1)
    return adversarial


def runs(net: MultiExitNetwork, images: Tensor, labels: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed; whoever runs ``folded`` networks does so because this library attacks them like that."""
    quick = folded(net)

    def bare(module: nn.Module, **settings: bool) -> Callable[[], object]:
        return lambda: [gradient(module, images, labels, **settings) for _ in range(STEPS)]

    def ours(**settings: object) -> Callable[[], object]:
        return lambda: PGD(eps=EPS, steps=STEPS, loss="final", **settings)(quick, images, labels)

    model = foolbox.PyTorchModel(net.as_static(), bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.LinfPGD(steps=STEPS, rel_stepsize=0.25)
    return {
        BASE: bare(net.as_static()),
        "bare gradients, folded": bare(quick.as_static()),
        "bare gradients, folded, bfloat16": bare(quick.as_static(), bfloat16=True),
        "last check": torch.no_grad()(lambda: quick(images)),
        "ours": ours(),
        "ours, early stop": ours(early_stop=True),
        "ours, bfloat16": ours(precision="bfloat16"),
        "textbook loop": lambda: textbook(net.as_static(), images, labels),
        "foolbox": lambda: theirs(model, images, labels, epsilons=EPS),
    }


def tables(scale: Scale) -> list[Table]:
    test, times, goals = data.load("cifar10", "test", scale.batch), [], []
    for model in MODELS:
        name, net = BACKBONES[model].display, dynlib.load(model, "cifar10", "sdnn")
        seconds = interleaved(runs(net, test.inputs, test.labels), scale.rounds)
        times += [(name, run, f"{median(one):.3f}", shown(ratios(seconds, [run], [BASE]))) for run, one in seconds.items()]
        goals += [
            (name, f"{over} / {' + '.join(under)}", *against(ratios(seconds, [over], under), goal))
            for over, under, goal in (
                ("ours", ["textbook loop"], OF_TEXTBOOK[model]),
                ("ours", ["foolbox"], OF_FOOLBOX),
                ("ours", ["bare gradients, folded", "last check"], OF_BARE),
                ("ours, bfloat16", ["bare gradients, folded, bfloat16", "last check"], OF_BARE),
            )
        ]
    text = (
        f"PGD with {STEPS} steps and a radius of {255 * EPS:g}/255 on the static networks of CIFAR-10, {scale.batch} images."
        f" *Bare gradients* are {STEPS} gradients and nothing else. *Ours* are attacks on the folded network, as `craft` makes"
        " them; they end with a pass that finds out what was reached, the *last check*. foolbox is called as in its guide; it"
        " attacks the network as it is, and so does the *textbook loop*, which is `textbook` in `benchmarks/attacks.py`."
    )
    columns = ("network", "run", "seconds", "ratio to the bare gradients")
    return [
        Table("Attacks: time", text, columns, times),
        Table("Attacks: goals", "Ratios of the times above.", ("network", "ratio", "measured", "goal", "met"), goals),
    ]
