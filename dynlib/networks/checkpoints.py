"""Shipped networks: weights as safetensors and one card each, a JSON file that says how they came to be and what they do."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parsed
from safetensors.torch import save
from torch import Tensor

from dynlib.files import CHECKPOINTS, CLONE, DENIED, atomic, digest, sha256, unread
from dynlib.networks.exits import MultiExitNetwork, build
from dynlib.networks.gated import gated
from dynlib.networks.identity import Network

LARGE = 800_000  # parameters beyond which weights are stored in 8 bits
SCALE = ".scale"
CHEAPEST = "at most 1 point lost"  # goal of a threshold, against the final exit


class CheckpointError(RuntimeError):
    """A checkpoint that is missing or damaged; the message is one line and names the file."""


def new(network: Network) -> MultiExitNetwork:
    """An untrained network."""
    net = build(network.model, network.dataset, network.exit_after)
    return gated(net) if network.has_gates else net


def load(model: str, dataset: str, kind: str, seed: int = 0, folder: Path = CHECKPOINTS) -> MultiExitNetwork:
    """A trained network in evaluation mode, float32, on the CPU; its ``card`` attribute holds what the card says.

    Args:
        model: name in ``dynlib.networks.backbones.MODELS``.
        dataset: name in ``DATASETS``.
        kind: such as ``"sdnn"``, ``"dynn"`` or ``"ic_only"``.
        seed: of the training.
        folder: where the checkpoints lie.
    Raises:
        ValueError: unknown model, dataset or kind.
        CheckpointError: no such checkpoint, or weights that are not those of the card.
    """
    return load_network(Network.of(model, dataset, kind, seed), folder)


def load_network(network: Network, folder: Path = CHECKPOINTS) -> MultiExitNetwork:
    """``load`` by the network's identity; result and errors as there."""
    path = network.path(folder)
    card = read_card(path)
    try:
        found = sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path} {unread(error)}") from None
    if found != card["weights_sha256"]:
        raise CheckpointError(f"{path} is damaged: its digest is not the one on its card")
    state = read_weights(path)
    if network.trained == "heads":
        static = load_network(network.static, folder)
        if card["backbone_sha256"] != static.card["weights_sha256"]:
            raise CheckpointError(f"{path} was trained on another backbone than {static.card['network']}: train it again")
        state |= {f"backbone.{name}": tensor for name, tensor in static.backbone.state_dict().items()}
    net = new(network)
    net.load_state_dict(state)
    net.card = card
    # Channels last: attacks are half as fast again on a CPU.
    return net.eval().to(memory_format=torch.channels_last)


def read_card(path: Path) -> dict[str, Any]:
    """The card that belongs to a weights file."""
    card = path.with_suffix(".json")
    try:
        found: dict[str, Any] = json.loads(card.read_text())
        if found.pop("card_sha256", expected := card_digest(found)) != expected:
            raise CheckpointError(f"{card} is damaged: its digest is another than it says")
        return found
    except PermissionError:
        raise CheckpointError(f"{card} {DENIED}") from None
    except (OSError, ValueError):
        missing = "is missing" if not path.exists() else "has no readable card"
        raise CheckpointError(f"{path} {missing}{CLONE or ': train it with `python -m dynlib train --help`'}") from None


def read_weights(path: Path) -> dict[str, Tensor]:
    """What ``write_weights`` wrote, in float32."""
    try:
        stored = parsed(path.read_bytes())  # load_file takes a file that may not be read for a missing one
    except PermissionError:
        raise CheckpointError(f"{path} {DENIED}") from None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None
    if not all(tensor.isfinite().all() for tensor in stored.values()):
        raise CheckpointError(f"{path} has weights that are not finite: train it again")
    scales = {name.removesuffix(SCALE): stored.pop(name) for name in list(stored) if name.endswith(SCALE)}
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in stored.items()}
    return state | {name: state[name].float() * scale for name, scale in scales.items()}


def write_weights(state: dict[str, Tensor], path: Path) -> None:
    """A network's state, made small: weight matrices and kernels in half precision or, in large networks, in 8 bits.

    Those have one scale for each output channel. The few vectors, batch-norm statistics among them, stay as they are.
    """
    large, stored = sum(tensor.numel() for tensor in state.values()) > LARGE, {}
    for name, tensor in state.items():
        if tensor.dim() < 2:
            stored[name] = tensor
        elif large:
            scale = tensor.flatten(1).abs().amax(dim=1).clamp_min(1e-12).view(-1, *[1] * (tensor.dim() - 1)) / 127
            stored |= {name: (tensor / scale).round().to(torch.int8), name + SCALE: scale}
        else:
            stored[name] = tensor.half()
    with atomic(path) as temporary:
        temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in stored.items()}))


def write_card(path: Path, card: dict[str, Any]) -> None:
    """The card of a weights file that has been written, the digests of both added."""
    card = {**card, "weights_sha256": sha256(path)}
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({**card, "card_sha256": card_digest(card)}, indent=1) + "\n")


def card_digest(card: dict[str, Any]) -> str:
    """Of what a card says, however it is set out. Cards of older trainings have none."""
    content = {key: value for key, value in card.items() if key != "card_sha256"}
    return digest([json.dumps(content, sort_keys=True).encode()])


def table(folder: Path = CHECKPOINTS) -> str:
    """All cards as one page of Markdown."""
    lines = [
        "# The shipped networks",
        "",
        "Rendered from the cards beside it by `python -m dynlib cards`; do not edit. Accuracies in percent on the whole test",
        f"set. The threshold is the lowest one on validation images at which there is {CHEAPEST} against the final exit, the most",
        "confident exit answering where none is confident. Calibration is the expected calibration error in percent.",
        "",
        "| network | recipe | accuracy at each exit | calibration at each exit | threshold: accuracy, MACs | MB | minutes, on |",
        "| --- | --- | --- | --- | --- | ---: | --- |",
    ]
    for path in sorted(folder.glob("*.safetensors")):
        card = read_card(path)
        point = card["operating_points"].get("most_confident", {}).get(CHEAPEST)
        cost = f"{point['threshold']}: {point['accuracy']:.1f}, {point['macs']:.0f} %" if point else ""
        if "run_macs" in card:
            cost = f"gates: {card['test_accuracy'][-1]:.1f}, {card['run_macs']:.0f} %"
        cells = (
            f"[{card['network']}]({card['network']}.json)",
            f"{card['recipe']}, {card['settings']['epochs']} epochs",
            " ".join(f"{accuracy:.1f}" for accuracy in card["test_accuracy"]),
            " ".join(f"{error:.1f}" for error in card["calibration_error"]),
            cost,
            f"{path.stat().st_size / 1e6:.1f}",
            f"{card['minutes']:.0f}, {card['hardware']}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m dynlib cards", description="Render the cards into one table.").parse_args(arguments)
    path = CHECKPOINTS / "README.md"
    with atomic(path) as temporary:
        temporary.write_text(table())
    print(path)
