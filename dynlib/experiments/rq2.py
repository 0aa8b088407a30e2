"""RQ2: which design choices protect against examples made on the static model?"""

import torch
from torch import Tensor

from dynlib.experiments.common import BATCH, grid, load_images, load_networks
from dynlib.networks.exits import MultiExitNetwork
from dynlib.packing import pack
from dynlib.progress import progress


def exit_design(
    source: str, targets: list[str], *, n_images: int, attacks: list[dict], seed: int, device: str
) -> dict[str, Tensor]:
    """RQ2: what every exit of dynamic networks predicts for examples made on a static one, for any design to be read from.

    Args:
        source, targets, n_images, seed, device: as for ``transferability``.
        attacks: the arguments of ``grid`` for each of them, with the loss ``"final"``: the source has no other exit.
    Returns:
        For each target, attack and radius in 255ths its logits, packed (see ``dynlib.packing``), as ``"target/attack/radius/..."``;
        and ``labels`` ``[n]``.
    Raises:
        ValueError, DataError, CheckpointError: as above, or an attack twice at one radius.
    """
    nets = load_networks((source, *targets), device)
    images, labels = load_images(nets[source].dataset, n_images, device)
    batches, stored = list(zip(images.split(BATCH), labels.split(BATCH), strict=True)), {}
    runs = [(f"{attack.name}/{round(attack.eps * 255)}", attack) for spec in attacks for attack in grid(**spec, seed=seed)]
    if len(dict(runs)) < len(runs):
        raise ValueError(f"an attack is asked for twice at one radius: {', '.join(name for name, _ in runs)}")
    for name, attack in progress(runs, f"examples of {source}"):
        adversarial = torch.cat([attack(nets[source], x, y).adversarial for x, y in batches])
        for target in targets:
            stored |= _outputs(f"{target}/{name}", nets[target], adversarial)
    return {**stored, "labels": labels.cpu()}


def retrained(source: str, targets: list[str], *, n_images: int, attacks: list[dict], seed: int, device: str) -> dict[str, Tensor]:
    """RQ2: the same for networks that were trained for their design, and as attack ``"none"`` what they predict for clean images.

    Arguments, result and errors as for ``exit_design``.
    """
    found = exit_design(source, targets, n_images=n_images, attacks=attacks, seed=seed, device=device)
    for target, net in load_networks(targets, device).items():
        images, _ = load_images(net.dataset, n_images, device)
        found |= _outputs(f"{target}/none/0", net, images)
    return found


@torch.no_grad()
def _outputs(name: str, net: MultiExitNetwork, images: Tensor) -> dict[str, Tensor]:
    packed = pack(torch.cat([net(x) for x in images.split(BATCH)], dim=1))
    return {f"{name}/{part}": tensor for part, tensor in packed.items()}
