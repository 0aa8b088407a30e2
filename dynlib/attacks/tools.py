"""What attacks share beside their loop: checks of what goes in and comes out, seeds and noise, and the space of C&W."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from dynlib.attacks.goals import get_goal
from dynlib.networks.exits import MultiExitNetwork
from dynlib.networks.guards import check_images, check_labels

PRECISIONS = ("float32", "bfloat16")  # that gradients may be made in


def check_batch(net: MultiExitNetwork, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels, detached, and usable for gradients also where they were made in inference mode.

    Raises:
        ValueError: they are not what a network takes.
    """
    if getattr(net, "dtype", torch.float32) != torch.float32:
        raise ValueError(f"attacks are made in float32, and the network takes {net.dtype}: call its float()")
    check_images(net, images)
    check_labels(labels, len(images), net.n_classes)
    if len(images) == 0:
        raise ValueError("an empty batch")
    images, labels = (x.clone() if x.is_inference() else x.detach() for x in (images, labels))
    return images, labels


def are_finite(logits: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
    """Whether all numbers of each are finite, bool ``[3]``, for ``check_finite``; nothing is waited for."""
    return torch.stack([tensor.detach().isfinite().all() for tensor in (logits, loss, gradient)])


def check_finite(finite: Tensor) -> None:
    """Raises ValueError for the first of logits, loss and gradient that is not finite, see ``are_finite``."""
    for name, sound in zip(("logits", "loss", "gradient"), finite.tolist(), strict=True):
        if not sound:
            raise ValueError(f"the {name} of the attack has numbers that are not finite: are the network's weights sound?")


def checked_precision(precision: str) -> None:
    """Raises ValueError for a precision that attacks do not have."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")


def in_precision(precision: str, device: torch.device) -> torch.autocast:
    """For the block, networks run in a precision of ``PRECISIONS``, whatever surrounds it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that some generator cannot take."""
    if not -(2**31) <= seed < 2**32:
        raise ValueError(f"seed {seed} is outside -2^31 to 2^32")


def derived_seed(seed: int, restart: int) -> int:
    """The seed of a further start, in [0, 2^32)."""
    return int.from_bytes(hashlib.sha256(f"{seed} {restart}".encode()).digest()[:4], "big")


def reaches(attack: Any, net: MultiExitNetwork, adversarial: Tensor, labels: Tensor) -> Tensor:
    """Whether images reach the attack's goal, in float32 whatever precision the attack was made in: bool ``[batch]``."""
    with torch.autocast(adversarial.device.type, enabled=False):
        return get_goal(attack.goal).holds(net, adversarial, labels, attack.mechanism)


def check_ball(adversarial: Tensor, images: Tensor, eps: float) -> None:
    """Raises RuntimeError where an attack has left its ball or the range of images: a bug in the attack."""
    if not ((adversarial - images).abs().max() <= eps + 1e-6 and adversarial.min() >= 0 and adversarial.max() <= 1):
        raise RuntimeError("the attack left its ball or the range of images")


def uniform_noise(images: Tensor, seed: int) -> Tensor:
    """Uniform in [-1, 1), from a generator per image that is seeded by the image's content: the batch has no part in it."""
    noise = torch.empty(images.shape)  # not empty_like: numbers are drawn in memory order, which must not matter
    for out, image in zip(noise, images.cpu(), strict=True):
        digest = hashlib.sha256(seed.to_bytes(8, "big", signed=True) + image.contiguous().numpy().tobytes()).digest()
        out.uniform_(-1, 1, generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
    return noise.to(images.device)


def to_tanh_space(images: Tensor) -> Tensor:
    """The w whose images ``(tanh(w) + 1) / 2`` are: finite, as it is taken a hair inside the range of images."""
    return (2 * images - 1).clamp(-1 + 1e-6, 1 - 1e-6).atanh()


def from_tanh_space(w: Tensor) -> Tensor:
    """Images in [0, 1], whatever w is."""
    return (w.tanh() + 1) / 2
