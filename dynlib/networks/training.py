"""Training: static and dynamic networks, exits on a frozen backbone, gates on a trained one; on clean images or against attacks.

Every epoch ends with a checkpoint; the same training started again resumes from it and ends with the same weights as an
uninterrupted run.
"""

import csv
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from dynlib import data
from dynlib.behaviour import accuracies, all_answers, describe, right, run_macs
from dynlib.datasets import DATASETS
from dynlib.devices import check_device, hardware, is_cpu
from dynlib.files import CHECKPOINTS, DENIED, atomic, code_version, digest
from dynlib.networks import checkpoints, recipes
from dynlib.networks.checkpoints import CheckpointError
from dynlib.networks.gated import GatedNetwork
from dynlib.networks.identity import Network
from dynlib.networks.objectives import exits_loss, gates_loss, joint_loss
from dynlib.networks.optimisers import optimiser


class TrainingError(RuntimeError):
    """A training that cannot go on; the message is one line."""


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """A random crop after zero padding by 4, and a random flip of each image: uint8 ``[batch, 3, side, side]`` in and out."""
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
        network: which one; its seed is that of the initial weights, the order of the images, their augmentation and dropout.
        recipe: a name in ``RECIPES``.
        device: a torch device.
        folder: where checkpoints go; the running state goes into its subfolder ``training``.
    Raises:
        ValueError: unknown recipe, or a device that is not here.
        DataError, CheckpointError: the data or, for heads and gates, the static network is missing; or a state is damaged.
    """

    def __init__(self, network: Network, recipe: str, device: str = "cpu", folder: Path = CHECKPOINTS):
        check_device(device)
        self.network, self.device, self.folder = network, device, folder
        self.frozen = network.trained == "heads"
        self.recipe_name = recipe
        self.recipe = recipes.find(recipe, network)
        self.adversary = recipes.ADVERSARY if network.regime == "adversarial" else None
        self.settings = self.recipe.describe() | ({"adversary": self.adversary} if self.adversary else {})
        self.settings |= {"gates": recipes.GATES} if network.has_gates else {}
        self.loss = exits_loss if self.frozen else partial(joint_loss, exits=network.exit_indices)
        self.images, self.labels = (t.to(device) for t in data.load(network.dataset, "train", self.recipe.images))
        torch.manual_seed(network.seed)
        net = checkpoints.new(network)
        if network.from_static:
            static = checkpoints.load_network(network.static, folder)
            self.backbone_sha256 = static.card["weights_sha256"]
            net.backbone.load_state_dict(static.backbone.state_dict())
            net.backbone.requires_grad_(not self.frozen)
        self.net = net.to(device).to(memory_format=torch.channels_last)
        self.optimiser = optimiser(self.recipe.optimiser, self.net, self.recipe.learning_rate, self.recipe.weight_decay)
        self.history: list[dict[str, Any]] = []
        self.state_path = folder / "training" / f"{network}-{recipe}.safetensors"
        self._resume()

    def run(self) -> Path:
        """Train what is left, then write weights and card; returns the weights' path."""
        while len(self.history) < self.recipe.epochs:
            self.history.append(self._epoch(len(self.history)))
            self._save_state()
            print(self.network, *(f"{key} {value}" for key, value in self.history[-1].items()), sep="  ", flush=True)
        return self._ship()

    def _epoch(self, epoch: int) -> dict[str, Any]:
        start, recipe, steps = time.perf_counter(), self.recipe, math.ceil(len(self.labels) / self.recipe.batch)
        # All randomness of an epoch comes from its number, so a resumed run needs no generator's state.
        torch.manual_seed(10_000 * self.network.seed + epoch)
        generator = torch.Generator().manual_seed(10_000 * self.network.seed + epoch)
        order = torch.randperm(len(self.labels), generator=generator)
        total, progress = torch.zeros((), device=self.device), epoch / recipe.epochs / recipe.ramp
        if isinstance(self.net, GatedNetwork):
            self.net.noise = max(0.0, 1 - progress)  # in the end, gates decide as in evaluation mode
        self.net.train()
        if self.frozen:
            self.net.backbone.eval()  # its batch-norm statistics are frozen, too
        for step, chosen in enumerate(order.split(recipe.batch)):
            rate = recipe.learning_rate * recipe.schedule((epoch + step / steps) / recipe.epochs)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            chosen = chosen.to(self.device)
            images, labels = augment(self.images[chosen], generator), self.labels[chosen]
            inputs = (images.float() / 255).contiguous(memory_format=torch.channels_last)
            if self.adversary:
                inputs = self._attacked(inputs, labels, **self.adversary)
            total += len(chosen) * self._step(inputs, labels, progress)
            if sys.stderr.isatty():
                print(f"\r{self.network} epoch {epoch + 1}/{recipe.epochs} step {step + 1}/{steps}", end="\r", file=sys.stderr)
        if not torch.isfinite(total):
            raise TrainingError(f"{self.network}: the loss diverged in epoch {epoch + 1}, at learning rate {rate:.3g}")
        images, truth = data.load(self.network.dataset, "validation")
        answers = all_answers(self.net.eval(), images)
        measured = {"validation_accuracy": right(answers, truth), **run_macs(answers, self.net.macs)}
        seconds = time.perf_counter() - start
        return {"epoch": epoch + 1, "loss": round(total.item() / len(self.labels), 4), **measured, "seconds": round(seconds, 1)}

    def _precision(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16")

    def _logits(self, inputs: Tensor) -> Tensor:
        with self._precision():
            logits: Tensor = self.net(inputs)
        return logits.float()

    def _loss(self, inputs: Tensor, labels: Tensor, progress: float) -> Tensor:
        if not isinstance(self.net, GatedNetwork):
            return self.loss(self._logits(inputs), labels, progress)
        with self._precision():
            logits, macs = self.net.run(inputs)
        return gates_loss(logits.float(), labels, macs / self.net.macs.to(macs.device), **recipes.GATES)

    def _attacked(self, inputs: Tensor, labels: Tensor, eps: float, step_size: float) -> Tensor:
        """Examples against the network as it is now, in training mode."""
        start = (inputs + eps * (2 * torch.rand_like(inputs) - 1)).clamp(0, 1).requires_grad_()
        mean = torch.stack([F.cross_entropy(exit, labels) for exit in self._logits(start)]).mean()
        (gradient,) = torch.autograd.grad(mean, start)
        moved = (start.detach() + step_size * gradient.sign() - inputs).clamp(-eps, eps)
        return (inputs + moved).clamp(0, 1)

    def _step(self, inputs: Tensor, labels: Tensor, progress: float) -> Tensor:
        loss = self._loss(inputs, labels, progress)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        self.optimiser.step()
        return loss.detach()

    def _save_state(self) -> None:
        state = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for number, buffers in self.optimiser.state_dict()["state"].items():
            state |= {f"optimiser.{number}.{name}": tensor for name, tensor in buffers.items()}
        about = json.dumps({"recipe": self.settings, "history": self.history})
        with atomic(self.state_path) as temporary:
            said = {"about": about, "sha256": _digest(about, state)}
            temporary.write_bytes(save({name: t.contiguous() for name, t in state.items()}, said))
        with atomic(self.state_path.with_suffix(".csv")) as temporary, open(temporary, "w", newline="") as file:
            log = csv.DictWriter(file, self.history[0])
            log.writeheader()
            log.writerows(self.history)

    def _resume(self) -> None:
        """Go on from the running state, if there is one."""
        try:
            self.state_path.open("rb").close()  # safe_open takes a file that may not be read for a missing one
            with safe_open(self.state_path, "pt", self.device) as file:
                said = file.metadata()
                about = json.loads(said["about"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
            if said.get("sha256", expected := _digest(said["about"], state)) != expected:
                raise ValueError("wrong digest")
        except FileNotFoundError:
            return
        except PermissionError:
            raise CheckpointError(f"{self.state_path} {DENIED}") from None
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.state_path} is damaged ({error}): delete it to start over") from None
        if about["recipe"] != self.settings:
            raise CheckpointError(f"{self.state_path} comes from another recipe: delete it to start over")
        self.history = about["history"]
        self.net.load_state_dict({name.removeprefix("net."): t for name, t in state.items() if name.startswith("net.")})
        buffers: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".")
                buffers.setdefault(int(number), {})[key] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": buffers})

    def _ship(self) -> Path:
        trained = accuracies(self.net.eval(), *data.load(self.network.dataset, "test"))
        path, state = self.network.path(self.folder), self.net.state_dict()
        # The heads on a frozen backbone are shipped without it.
        checkpoints.write_weights({n: t for n, t in state.items() if n.startswith("exits." if self.frozen else "")}, path)
        self.net.load_state_dict(state | checkpoints.read_weights(path))  # what is measured is what is shipped: rounded weights
        threads = torch.get_num_threads()
        cpu = f"{threads} CPU thread{'s' if threads > 1 else ''} ({torch.backends.cpu.get_cpu_capability()})"
        card = {
            "network": self.network.id,
            "parameters": sum(parameter.numel() for parameter in self.net.parameters()),
            "recipe": self.recipe_name,
            "settings": self.settings,
            "seed": self.network.seed,
            "curve": [[row["loss"], row["validation_accuracy"][-1]] for row in self.history],
            "data_digests": DATASETS[self.network.dataset].digests,
            **({"backbone_sha256": self.backbone_sha256} if self.network.from_static else {}),
            "test_accuracy_before_rounding": trained,
            **describe(self.net),
            "hardware": cpu if is_cpu(self.device) else hardware(self.device),
            "minutes": round(sum(row["seconds"] for row in self.history) / 60, 1),
            "torch": torch.__version__,
            "code": code_version(),
        }
        checkpoints.write_card(path, card)
        return path


def _digest(about: str, state: dict[str, Tensor]) -> str:
    """Of a running state, whatever the order of its tensors."""
    named = ((name, tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()) for name, tensor in sorted(state.items()))
    return digest([about.encode(), *(part for name, content in named for part in (name.encode(), content.data))])


def train(network: Network, recipe: str, device: str, folder: Path = CHECKPOINTS) -> Path:
    """Train one network and ship it; returns the weights' path."""
    return Training(network, recipe, device, folder).run()
