"""The one experiment: examples are crafted on a source and shown to targets, and what every exit answers is kept.

Which attacks, sources and targets there are, a campaign of the profile says. All else is read from the records.
"""

import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from dynlib import data, records
from dynlib.attacks import AttackResult
from dynlib.campaigns import Campaign, Planned
from dynlib.datasets import DATASETS
from dynlib.devices import hardware, is_cpu
from dynlib.files import CHECKPOINTS, code_version
from dynlib.mechanisms import Answers
from dynlib.mechanisms.base import run_all
from dynlib.networks import checkpoints
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.folding import folded
from dynlib.networks.identity import Network, early_exits
from dynlib.progress import progress

BATCH = 100
Block = dict[str, Any]


def craft(campaign: Campaign, source: Network, device: str = "cpu") -> Iterator[tuple[str, Block]]:
    """Make a campaign's attacks on one source and show the examples to its targets.

    Args:
        campaign: of a profile.
        source: one of its sources.
        device: a torch device.
    Returns:
        Blocks of records, each with its kind, see ``dynlib.records``: of each split and attack one of ``examples``, and for each
        target one of ``answers``, exit by exit.
    Raises:
        ValueError: a setting that the network does not allow.
        DataError, CheckpointError: data or a network missing or damaged.
    """
    networks = {source: None, **dict.fromkeys(campaign.targets[source])}
    nets = {network: folded(checkpoints.load_network(network)).to(device) for network in networks}
    for split, n in campaign.images.items():
        images = data.load(source.dataset, split, n)
        x, truth = images.inputs.to(device), images.labels.to(device)
        own = torch.cat([net_answers(nets[source], part).label[-1] for part in x.split(BATCH)])
        for planned in progress(campaign.attacks_of(source), f"{campaign.name}, {split}, {source}"):
            made = attacked(nets[source], source, planned, x, own if planned.attack.own_labels else truth)
            row = {**records.parts("source", source), "attack": planned.name, "split": split, "image": numpy.arange(n)}
            yield "examples", {**row, "truth": truth.cpu().numpy(), **_spent(made, x)}
            for target in campaign.targets[source]:
                parts = [net_answers(nets[target], part) for part in made.adversarial.split(BATCH)]
                yield "answers", {**row, **records.parts("target", target), **_answered(parts)}


def attacked(net: MultiExitNetwork, network: Network, planned: Planned, images: Tensor, labels: Tensor) -> AttackResult:
    """The examples that an attack makes on a network, or on a design of it, batch by batch."""
    if planned.exits != "all":
        net = net.with_exits((*early_exits(planned.exits, len(network.exit_indices)), net.n_exits - 1))
    parts = [planned.attack(net, x, y) for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)]
    return AttackResult(*(torch.cat(column) for column in zip(*parts, strict=True)))


@torch.no_grad()
def net_answers(net: MultiExitNetwork, images: Tensor) -> Answers:
    """What every exit answers."""
    return Answers.of(*run_all(net, images))


def _spent(made: AttackResult, images: Tensor) -> Block:
    moved = (made.adversarial - images).flatten(1)
    columns = {"reached": made.reached, "stuck": made.stuck, "steps": made.steps, "macs": made.macs}
    columns |= {"l2": moved.norm(dim=1), "linf": moved.abs().amax(dim=1)}
    return {name: column.cpu().numpy() for name, column in columns.items()}


def _answered(parts: list[Answers]) -> Block:
    """The answers ``[exits, n]`` as columns, exit by exit."""
    known = [name for name, part in vars(parts[0]).items() if part is not None]
    columns = {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in known}
    exits, n = columns["label"].shape
    flat = {name: column.flatten().cpu().numpy() for name, column in columns.items()}
    return {"exit": numpy.repeat(numpy.arange(exits), n), "image": numpy.tile(numpy.arange(n), exits), **flat}


def provenance(profile: str, campaign: Campaign, source: Network, device: str) -> dict[str, Any]:
    """What records stand on: settings, weights, data, code, packages and device, which must be here: else ValueError."""
    networks = {source: None, **dict.fromkeys(campaign.targets[source])}
    return {
        "profile": profile,
        "campaign": campaign.name,
        "settings": campaign.settings,
        "weights": {n.id: checkpoints.read_card(n.path(CHECKPOINTS))["weights_sha256"] for n in networks},
        "data": dict(DATASETS[source.dataset].digests),
        "code": code_version(),
        "packages": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "device": hardware(device),
    }


def write(profile: str, campaign: Campaign, source: Network, device: str, folder: Path) -> None:
    """Craft, and write the records of both kinds into a folder; errors as for ``craft``."""
    start = time.perf_counter()
    blocks: dict[str, list[dict[str, Any]]] = {kind: [] for kind in records.SCHEMAS}
    for kind, block in craft(campaign, source, device):
        blocks[kind].append(block)
    about = provenance(profile, campaign, source, device)
    threads = torch.get_num_threads() if is_cpu(device) else 1
    about["device_seconds"] = round((time.perf_counter() - start) * threads, 1)
    for kind, rows in blocks.items():
        records.write(folder, kind, source, rows, about)
