"""What the experiments share: the attacks of a profile, and what a network makes of images, as a record.

Records are rows with one character per image, so they stay small and can be read by eye: ``correct`` 1 where the network as
deployed answers correctly, ``final`` 1 where its final exit does, ``exit`` the exit that answers, ``depth`` the deepest one run.
"""

import csv
import json
import platform
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from torch import Tensor

from dynlib import data
from dynlib.attacks import ATTACKS, Attack, CarliniWagner, Iterative
from dynlib.datasets import DATASETS
from dynlib.files import CHECKPOINTS, atomic, code_version
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.mechanisms.base import depths
from dynlib.networks import checkpoints
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.identity import Network

BATCH = 50
Record = dict[str, str | int | float]


def load_networks(names: Iterable[str], device: str) -> dict[str, MultiExitNetwork]:
    """Shipped networks by id, each once.

    Raises:
        ValueError: they are not all for one data set.
        CheckpointError: one is missing or damaged.
    """
    networks = [Network.parse(name) for name in dict.fromkeys(names)]
    if len({network.dataset for network in networks}) > 1:
        raise ValueError(f"networks {', '.join(map(str, networks))} are not all for one data set")
    return {network.id: checkpoints.load_network(network).to(device) for network in networks}


def load_images(dataset: str, n: int, device: str) -> tuple[Tensor, Tensor]:
    """The first ``n`` test images, float32 ``[n, 3, side, side]`` in [0, 1], and their labels ``[n]``."""
    split = data.load(dataset, "test", n)
    return split.inputs.to(device), split.labels.to(device)


def grid(
    *,
    name: str,
    losses: list[str],
    eps_255: list[int] | None = None,
    steps: int | None = None,
    confidence: float | None = None,
    seeds: list[int] | None = None,
    threshold: float = ConfidenceExit.threshold,
    seed: int,
) -> list[Attack | CarliniWagner]:
    """One attack with every loss, radius and seed.

    Args:
        name: in ``ATTACKS``.
        losses: names, see ``dynlib.attacks.losses``.
        eps_255: radii in 255ths, 1 to 255, for an attack inside a ball.
        steps: gradient steps, for an attack that iterates.
        confidence: for C&W, which has no ball.
        seeds: of the random starts, by default ``seed`` alone.
        threshold: of the confidence exits that the attacker expects, where the loss asks for it.
        seed: as for ``transferability``.
    Raises:
        ValueError: unknown name, or a value out of range.
    """
    if name not in ATTACKS:
        raise ValueError(f"unknown attack {name!r}: choose one of {', '.join(ATTACKS)}")
    attack, mechanism = ATTACKS[name], ConfidenceExit(threshold)
    in_ball = issubclass(attack, Attack)
    needed = {"eps_255": in_ball, "steps": not in_ball or issubclass(attack, Iterative), "confidence": not in_ball}
    for setting, value in {"eps_255": eps_255, "steps": steps, "confidence": confidence}.items():
        if (value is not None) != needed[setting]:
            raise ValueError(f"{name} {'needs' if needed[setting] else 'takes no'} {setting}")
    more = {"mechanism": mechanism, **({"steps": steps} if steps else {})}
    if not in_ball:
        return [attack(loss=loss, confidence=confidence, **more) for loss in losses]
    return [attack(eps=eps / 255, loss=loss, seed=n, **more) for loss, eps, n in product(losses, eps_255, seeds or [seed])]


@torch.no_grad()
def observe(
    what: Record, source: str, target: str, net: MultiExitNetwork, thresholds: list[float], images: Tensor, labels: Tensor
) -> list[Record]:
    """What a target makes of each image: a record for each threshold, or one where it has a single exit."""
    answers, rows = Answers.of(torch.cat([net(x) for x in images.split(BATCH)], dim=1)), []
    for threshold in thresholds if net.n_exits > 1 else thresholds[:1]:
        decision = ConfidenceExit(threshold).decide(answers, net.macs)
        columns = {
            "correct": decision.label == labels,
            "final": answers.label[-1] == labels,
            "exit": decision.exit,
            "depth": depths(net.macs, decision.cost),
        }
        texts = {name: digits(column) for name, column in columns.items()}
        rows.append({"source": source, "target": target, **what, "threshold": threshold if net.n_exits > 1 else "", **texts})
    return rows


def digits(column: Tensor) -> str:
    """One character per image."""
    return "".join(str(int(value)) for value in column)


def provenance(settings: dict, networks: list[str], seconds: float) -> dict:
    """What a result stands on: settings, weights, data, code, packages, device and time."""
    device = torch.device(settings["device"])
    gpu = device.type == "cuda"
    return {
        "settings": settings,
        "weights": {name: checkpoints.read_card(Network.parse(name).path(CHECKPOINTS))["weights_sha256"] for name in networks},
        "data": DATASETS[Network.parse(networks[0]).dataset].digests["test"],
        "code": code_version(),
        "packages": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "device": torch.cuda.get_device_name(device) if gpu else f"CPU core ({torch.backends.cpu.get_cpu_capability()})",
        "device_seconds": round(seconds * (1 if gpu else torch.get_num_threads()), 1),
    }


def write(result: list[Record] | dict[str, Tensor], about: dict, path: Path) -> None:
    """Rows as CSV or tensors as safetensors, and beside them, in JSON, what they stand on."""
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n")
    with atomic(path) as temporary:
        if isinstance(result, dict):
            save_file(result, temporary)
            return
        with open(temporary, "w", newline="") as file:
            table = csv.DictWriter(file, result[0])
            table.writeheader()
            table.writerows(result)
