"""Shipped networks: weights as safetensors and one card each, a JSON file that says how they came to be and what they do."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dynlib.data import DIGESTS
from dynlib.exits import MultiExitNetwork, build
from dynlib.files import CHECKPOINTS, atomic, sha256
from dynlib.models import MODELS


class Kind(NamedTuple):
    """How figures show a kind of network."""

    display: str
    colour: str
    marker: str


# sdnn: the static network. dynn: backbone and exits trained jointly. ic_only: exits trained on the frozen backbone of the sdnn.
KINDS = {"sdnn": Kind("SDNN", "black", "o"), "dynn": Kind("DyNN", "C0", "s"), "ic_only": Kind("DyNN, exits only", "C1", "^")}


class CheckpointError(RuntimeError):
    """A checkpoint that is missing or damaged; the message is one line and names the file."""


def network_id(model: str, dataset: str, kind: str) -> str:
    """For example ``"cifar10-resnet56-dynn"``.

    Raises:
        ValueError: unknown model, dataset or kind.
    """
    for name, value, known in (("model", model, MODELS), ("dataset", dataset, DIGESTS), ("kind", kind, KINDS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
    return f"{dataset}-{model}-{kind}"


def new(model: str, dataset: str, kind: str) -> MultiExitNetwork:
    """An untrained network of one kind."""
    network_id(model, dataset, kind)
    return build(model, dataset, () if kind == "sdnn" else None)


def load(model: str, dataset: str, kind: str, folder: Path = CHECKPOINTS) -> MultiExitNetwork:
    """A trained network in evaluation mode, float32, on the CPU; its ``card`` attribute holds what the card says.

    Raises:
        ValueError: unknown model, dataset or kind.
        CheckpointError: no such checkpoint, or weights that are not those of the card.
    """
    path = folder / f"{network_id(model, dataset, kind)}.safetensors"
    card = read_card(path)
    if sha256(path) != card["weights_sha256"]:
        raise CheckpointError(f"{path} is damaged: its digest is not the one on its card")
    net = new(model, dataset, kind)
    net.load_state_dict(read_weights(path))
    net.card = card
    return net.eval()


def load_id(name: str, folder: Path = CHECKPOINTS) -> MultiExitNetwork:
    """``load`` by network id, for example ``"cifar10-resnet56-dynn"``."""
    dataset, _, rest = name.partition("-")
    model, _, kind = rest.partition("-")
    return load(model, dataset, kind, folder)


def read_card(path: Path) -> dict:
    """The card that belongs to a weights file."""
    try:
        return json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError):
        missing = "is missing" if not path.exists() else "has no readable card"
        raise CheckpointError(f"{path} {missing}: train it with `python -m dynlib.training --help`") from None


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A network's state in float32."""
    try:
        return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged: {error}") from None


def write_weights(net: MultiExitNetwork, path: Path) -> None:
    """Weight matrices and kernels in half precision; the few vectors, batch-norm statistics among them, in full."""
    state = {name: t.half() if t.dim() > 1 else t for name, t in net.state_dict().items()}
    with atomic(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)


def write_card(path: Path, card: dict) -> None:
    """The card of a weights file that has been written, its digest added."""
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({**card, "weights_sha256": sha256(path)}, indent=1) + "\n")
