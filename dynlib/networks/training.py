"""Training: static networks, dynamic networks jointly, and exits on a frozen backbone. Also a command.

    python -m dynlib train --model resnet56 --dataset cifar10 --kind dynn --recipe short
    python -m dynlib train --all

Every epoch ends with a checkpoint; the same command resumes from it and ends with the same weights as an uninterrupted run.
Schedules and joint loss follow Shallow-Deep Networks (Kaya, Hong and Dumitras, ICML 2019).
"""

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dynlib import data
from dynlib.behaviour import accuracies, describe
from dynlib.files import CHECKPOINTS, atomic, code_version
from dynlib.networks import checkpoints, recipes
from dynlib.networks.backbones import MODELS
from dynlib.networks.checkpoints import KINDS, RETRAINED, RETRAINED_ON, CheckpointError
from dynlib.networks.exits import MultiExitNetwork, build
from dynlib.networks.recipes import RECIPES


class TrainingError(RuntimeError):
    """A training that cannot go on; the message is one line."""


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
    return sum(F.cross_entropy(exit, labels) for exit in logits[:-1])


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random 32x32 crop after zero padding by 4 and a random flip of each image: uint8 ``[batch, 3, 32, 32]`` in and out."""
    n, side, device = len(images), images.shape[-1], images.device
    top, left = torch.randint(0, 9, (2, n, 1), generator=generator).to(device)
    flip = torch.rand(n, 1, generator=generator).to(device) < 0.5
    steps = torch.arange(side, device=device)
    rows, columns = top + steps, left + torch.where(flip, steps.flip(0), steps)
    image, channel = torch.arange(n, device=device).view(n, 1, 1, 1), torch.arange(3, device=device).view(1, 3, 1, 1)
    return F.pad(images, (4, 4, 4, 4))[image, channel, rows.view(n, 1, side, 1), columns.view(n, 1, 1, side)]


class Training:
    """One training run, epoch by epoch.

    Args:
        model, dataset, kind: see ``dynlib.networks.checkpoints``.
        recipe: a name in ``RECIPES``.
        seed: of the initial weights, the order of the images, their augmentation and dropout.
        device: a torch device.
        folder: where checkpoints go; the running state goes into its subfolder ``training``.
    Raises:
        ValueError: unknown name.
        DataError, CheckpointError: the data or, for kind ``ic_only``, the static network is missing; or a state is damaged.
    """

    def __init__(
        self, model: str, dataset: str, kind: str, recipe: str, seed: int, device: str = "cpu", folder: Path = CHECKPOINTS
    ):
        self.id = checkpoints.network_id(model, dataset, kind)
        self.model, self.dataset, self.kind, self.seed, self.device, self.folder = model, dataset, kind, seed, device, folder
        self.frozen = kind == "ic_only"
        self.recipe_name = recipe
        self.recipe = recipes.find(recipe, model, dataset, kind)
        self.loss = exits_loss if self.frozen else partial(joint_loss, exits=checkpoints.exits(model, kind))
        self.images, self.labels = (t.to(device) for t in data.load(dataset, "train", self.recipe.images))
        torch.manual_seed(seed)
        net = checkpoints.new(model, dataset, kind)
        if self.frozen:
            static = checkpoints.load(model, dataset, "sdnn", folder)
            self.backbone_sha256 = static.card["weights_sha256"]
            net.backbone.load_state_dict(static.backbone.state_dict())
            net.backbone.requires_grad_(False)
        self.net = net.to(device, memory_format=torch.channels_last)
        self.optimiser = self._new_optimiser(self.net)
        self.history: list[dict] = []
        self.state_path = folder / "training" / f"{self.id}-{recipe}-{seed}.safetensors"
        if self.state_path.exists():
            self._resume()
        else:
            self.bfloat16 = self._bfloat16_is_faster()

    def run(self) -> Path:
        """Train what is left, then write weights and card; returns the weights' path."""
        while len(self.history) < self.recipe.epochs:
            self.history.append(self._epoch(len(self.history)))
            self._save_state()
            print(self.id, *(f"{key} {value}" for key, value in self.history[-1].items()), sep="  ", flush=True)
        return self._ship()

    def _epoch(self, epoch: int) -> dict:
        start, recipe, steps = time.perf_counter(), self.recipe, math.ceil(len(self.labels) / self.recipe.batch)
        # All randomness of an epoch comes from its number, so a resumed run needs no generator's state.
        torch.manual_seed(10_000 * self.seed + epoch)
        generator = torch.Generator().manual_seed(10_000 * self.seed + epoch)
        order = torch.randperm(len(self.labels), generator=generator)
        total = torch.zeros((), device=self.device)
        self.net.train()
        for step, chosen in enumerate(order.split(recipe.batch)):
            rate = recipe.learning_rate * recipe.schedule((epoch + step / steps) / recipe.epochs)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            chosen = chosen.to(self.device)
            images = augment(self.images[chosen], generator)
            total += len(chosen) * self._step(
                self.net, self.optimiser, images, self.labels[chosen], epoch / recipe.epochs / recipe.ramp
            )
            if sys.stderr.isatty():
                print(f"\r{self.id} epoch {epoch + 1}/{recipe.epochs} step {step + 1}/{steps}", end="\r", file=sys.stderr)
        if not torch.isfinite(total):
            raise TrainingError(f"{self.id}: the loss diverged in epoch {epoch + 1}, at learning rate {rate:.3g}")
        accuracy = self._accuracies("validation")
        seconds = time.perf_counter() - start
        loss = total.item() / len(self.labels)
        return {"epoch": epoch + 1, "loss": round(loss, 4), "validation_accuracy": accuracy, "seconds": round(seconds, 1)}

    def _step(
        self, net: MultiExitNetwork, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor, progress: float
    ) -> Tensor:
        if self.frozen:
            net.backbone.eval()  # its batch-norm statistics are frozen, too
        inputs = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.bfloat16):
            logits = net(inputs)
        loss = self.loss(logits.float(), labels, progress)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), self.recipe.clip)
        optimiser.step()
        return loss.detach()

    def _new_optimiser(self, net: MultiExitNetwork) -> torch.optim.Optimizer:
        trained = [p for p in net.parameters() if p.requires_grad]
        if self.recipe.optimiser == "adam":
            return torch.optim.Adam(trained, self.recipe.learning_rate)
        decay = self.recipe.weight_decay or (5e-4 if self.model == "vgg16" else 1e-4)
        return torch.optim.SGD(trained, self.recipe.learning_rate, momentum=0.9, weight_decay=decay)

    def _bfloat16_is_faster(self) -> bool:
        """Whether this machine trains this network faster in mixed precision: a few steps of each on a copy."""
        seconds = {}
        for self.bfloat16 in (False, True):
            net = deepcopy(self.net).train()
            optimiser = self._new_optimiser(net)
            for step in range(4):
                if step == 1:  # the first one warms up
                    start = time.perf_counter()
                size = self.recipe.batch
                self._step(net, optimiser, self.images[:size], self.labels[:size], 0.0).item()
            seconds[self.bfloat16] = time.perf_counter() - start
        return seconds[True] < seconds[False]

    def _accuracies(self, split: str) -> list[float]:
        return accuracies(self.net.eval(), *data.load(self.dataset, split))

    def _save_state(self) -> None:
        state = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for number, buffers in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{number}.{name}": tensor for name, tensor in buffers.items()}
        about = {"recipe": self.recipe.describe(), "bfloat16": self.bfloat16, "history": self.history}
        with atomic(self.state_path) as temporary:
            save_file({name: t.contiguous() for name, t in state.items()}, temporary, {"about": json.dumps(about)})
        with atomic(self.state_path.with_suffix(".csv")) as temporary, open(temporary, "w", newline="") as file:
            log = csv.DictWriter(file, self.history[0])
            log.writeheader()
            log.writerows(self.history)

    def _resume(self) -> None:
        try:
            with safe_open(self.state_path, "pt", self.device) as file:
                about = json.loads(file.metadata()["about"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.state_path} is damaged ({error}): delete it to start over") from None
        if about["recipe"] != self.recipe.describe():
            raise CheckpointError(f"{self.state_path} comes from another recipe: delete it to start over")
        self.history, self.bfloat16 = about["history"], about["bfloat16"]
        self.net.load_state_dict({name.removeprefix("net."): t for name, t in state.items() if name.startswith("net.")})
        buffers: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".")
                buffers.setdefault(int(number), {})[key] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": buffers})

    def _ship(self) -> Path:
        path, trained = self.folder / f"{self.id}.safetensors", self._accuracies("test")
        state = self.net.state_dict()
        # The heads on a frozen backbone are shipped without it.
        checkpoints.write_weights({n: t for n, t in state.items() if n.startswith("exits." if self.frozen else "")}, path)
        self.net.load_state_dict(state | checkpoints.read_weights(path))  # what is measured is what is shipped: rounded weights
        cuda = torch.device(self.device).type == "cuda"
        threads = torch.get_num_threads()
        cpu = f"{threads} CPU thread{'s' if threads > 1 else ''} ({torch.backends.cpu.get_cpu_capability()})"
        card = {
            "network": self.id,
            "parameters": sum(parameter.numel() for parameter in self.net.parameters()),
            "recipe": self.recipe_name,
            "settings": self.recipe.describe(),
            "seed": self.seed,
            "precision": "bfloat16, mixed" if self.bfloat16 else "float32",
            "data_digests": data.DIGESTS[self.dataset],
            **({"backbone_sha256": self.backbone_sha256} if self.frozen else {}),
            "test_accuracy_before_rounding": trained,
            **describe(self.net),
            "hardware": torch.cuda.get_device_name(self.device) if cuda else cpu,
            "minutes": round(sum(row["seconds"] for row in self.history) / 60, 1),
            "torch": torch.__version__,
            "code": code_version(),
        }
        checkpoints.write_card(path, card)
        return path


def missing(recipe: str, folder: Path = CHECKPOINTS) -> list[tuple[str, str, str]]:
    """The networks of which there is none, or only one by a lesser recipe: (model, dataset, kind), cheapest first."""

    def lacks(network: tuple[str, str, str]) -> bool:
        path = folder / f"{checkpoints.network_id(*network)}.safetensors"
        ranks = list(RECIPES)  # the best first
        return not path.exists() or ranks.index(recipe) < ranks.index(checkpoints.read_card(path)["recipe"])

    cheapest_first = sorted(MODELS, key=lambda model: build(model, "cifar10", ()).macs[-1])
    designs = [(*RETRAINED_ON, kind) for kind in RETRAINED]
    return [network for network in [*product(cheapest_first, data.DIGESTS, KINDS), *designs] if lacks(network)]


def train_all(recipe: str, seed: int, device: str, jobs: int) -> None:
    """Train what is missing, ``jobs`` networks at a time; heads on a frozen backbone come once there is one."""
    for heads in (False, True):
        wave = [network for network in missing(recipe) if (network[-1] == "ic_only") == heads]
        # Each with its share of the processor: two trainings of one thread are faster than one of two, then the other.
        threads = max(1, torch.get_num_threads() // jobs)
        with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
            for trained in [pool.submit(train, *network, recipe, seed, device) for network in wave]:
                print(trained.result(), flush=True)


def train(model: str, dataset: str, kind: str, recipe: str, seed: int, device: str) -> Path:
    """Train one network and ship it; returns the weights' path."""
    return Training(model, dataset, kind, recipe, seed, device).run()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib train", description="Train networks and ship each with its card.")
    parser.add_argument("--all", action="store_true", help="every network that is missing, or there by a lesser recipe only")
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--dataset", choices=data.DIGESTS)
    parser.add_argument("--kind", choices=[*KINDS, *RETRAINED])
    parser.add_argument("--recipe", default="full", choices=RECIPES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=1, help="with --all: how many to train at a time (default: 1)")
    given = parser.parse_args(arguments)
    network = (given.model, given.dataset, given.kind)
    if any(network) == given.all or (None in network and not given.all):
        parser.error("need either --all, or --model, --dataset and --kind")
    try:
        if given.all:
            train_all(given.recipe, given.seed, given.device, given.jobs)
        else:
            print(train(*network, given.recipe, given.seed, given.device))
    except (ValueError, OSError, data.DataError, CheckpointError, TrainingError) as error:
        sys.exit(f"error: {error}")
    except RuntimeError as error:  # torch has a class of its own for a GPU's memory only
        if "memory" not in str(error):
            raise
        sys.exit(f"error: too little memory for the recipe's batch: {str(error).splitlines()[0]}")
