"""RQ2: which design choices protect against examples made on the static model?"""

import torch
from torch import Tensor

from dynlib.attacks import PGD
from dynlib.experiments.common import BATCH, load_images, load_networks
from dynlib.progress import progress


def exit_design(
    source: str, targets: list[str], *, n_images: int, eps_255: int, steps: int, seed: int, device: str
) -> dict[str, Tensor]:
    """RQ2: what every exit of dynamic networks says of PGD examples made on a static one, for any design to be read from.

    Args:
        source, targets, n_images, seed, device: as for ``transferability``.
        eps_255: radius in 255ths.
        steps: gradient steps.
    Returns:
        For each target its logits ``[exits, n, classes]`` in half precision, and ``labels`` ``[n]``.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    nets = load_networks((source, *targets), device)
    images, labels = load_images(nets[source].dataset, n_images, device)
    attack, parts = PGD(eps=eps_255 / 255, loss="final", steps=steps, seed=seed), []
    for x, y in progress(list(zip(images.split(BATCH), labels.split(BATCH), strict=True)), f"examples of {source}"):
        parts.append(attack(nets[source], x, y).adversarial)
    with torch.no_grad():
        logits = {t: torch.cat([nets[t](x) for x in parts], dim=1).half().cpu() for t in targets}
    return {**logits, "labels": labels.cpu()}
