"""RQ2: which design choices protect against examples made on the static model?"""

import torch
from torch import Tensor

from dynlib.attacks import PGD
from dynlib.experiments.common import BATCH, load_images, load_networks
from dynlib.packing import pack
from dynlib.progress import progress


def exit_design(
    source: str, targets: list[str], *, n_images: int, eps_255: list[int], steps: int, seed: int, device: str
) -> dict[str, Tensor]:
    """RQ2: what every exit of dynamic networks says of PGD examples made on a static one, for any design to be read from.

    Args:
        source, targets, n_images, seed, device: as for ``transferability``.
        eps_255: radii in 255ths.
        steps: gradient steps.
    Returns:
        For each target and radius its logits, packed (see ``dynlib.packing``), as ``"target/radius/..."``; and ``labels`` ``[n]``.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    nets = load_networks((source, *targets), device)
    images, labels = load_images(nets[source].dataset, n_images, device)
    batches, stored = list(zip(images.split(BATCH), labels.split(BATCH), strict=True)), {}
    runs = [(eps, PGD(eps=eps / 255, loss="final", steps=steps, seed=seed)) for eps in eps_255]
    for eps, attack in progress(runs, f"examples of {source}"):
        adversarial = [attack(nets[source], x, y).adversarial for x, y in batches]
        for target in targets:
            with torch.no_grad():
                packed = pack(torch.cat([nets[target](x) for x in adversarial], dim=1))
            stored |= {f"{target}/{eps}/{part}": tensor for part, tensor in packed.items()}
    return {**stored, "labels": labels.cpu()}


@torch.no_grad()
def retrained(
    source: str, targets: list[str], *, n_images: int, eps_255: list[int], steps: int, seed: int, device: str
) -> dict[str, Tensor]:
    """RQ2: the same for networks that were trained for their design, and under radius 0 what they say of clean images.

    Arguments, result and errors as for ``exit_design``.
    """
    found = exit_design(source, targets, n_images=n_images, eps_255=eps_255, steps=steps, seed=seed, device=device)
    for target, net in load_networks(targets, device).items():
        images, _ = load_images(net.dataset, n_images, device)
        packed = pack(torch.cat([net(x) for x in images.split(BATCH)], dim=1))
        found |= {f"{target}/0/{part}": tensor for part, tensor in packed.items()}
    return found
