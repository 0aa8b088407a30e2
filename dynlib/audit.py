"""An audit of anyone's network: how it answers to clean images, and under attacks on accuracy, early exits and speed."""

import importlib
import os
import sys
import warnings
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from dynlib.adapter import FromLogits
from dynlib.attacks import PGD, Attack, EarlyPGD
from dynlib.attacks.tools import check_batch
from dynlib.mechanisms import Answers, ConfidenceExit
from dynlib.progress import progress

BATCH = 50
CLEAN, FINAL, ANSWERING, SURFACE, SPEED = "none", "PGD, final exit", "PGD, exit answering", "Early PGD", "slowdown"


class AuditError(Exception):
    """What cannot be audited; the message is one line."""


def attacks(eps: float, mechanism: ConfidenceExit) -> dict[str, Attack]:
    """The attacks of one radius, by the names that the report gives them."""
    return {
        FINAL: PGD(eps=eps, mechanism=mechanism, loss="final", steps=20),
        ANSWERING: PGD(eps=eps, mechanism=mechanism, loss="answering", steps=20),
        SURFACE: EarlyPGD(eps=eps, mechanism=mechanism, steps=20),
        SPEED: PGD(eps=eps, mechanism=mechanism, loss="uniform", goal="slow_down", steps=30, early_stop=True),
    }


@torch.no_grad()
def answers(net: FromLogits, images: Tensor) -> Answers:
    """What all exits answer, ``[exits, n]``. Raises ValueError for a logit that is not finite."""
    return Answers.of(torch.cat([net(part) for part in images.split(BATCH)], dim=1))


def measure(net: FromLogits, images: Tensor, labels: Tensor, mechanism: ConfidenceExit, radii: list[float]) -> pd.DataFrame:
    """A row for each attack and radius, in 255ths there, the first of no attack.

    Of each image ``[n]``: ``final`` and ``deployed``, whether the final exit and the network as deployed answer correctly;
    ``only_deployed``, whether only the latter errs. ``left``: how many exits were run before the last one. ``cost``: a share of a
    full run. ``stuck`` counts images whose gradient was always zero.

    Raises:
        ValueError: images or labels that the network does not take, or logits that are not finite.
    """

    def row(attack: str, radius: float, seen: Answers, stuck: int = 0) -> dict[str, object]:
        decision, final = mechanism.decide(seen, net.macs), seen.label[-1] == labels
        deployed = decision.label == labels
        numbers = {"final": final, "deployed": deployed, "only_deployed": final & ~deployed}
        numbers |= {"cost": decision.cost / net.macs[-1].double(), "left": torch.searchsorted(net.macs, decision.cost)}
        return {"attack": attack, "radius": radius, "stuck": stuck} | {name: values.numpy() for name, values in numbers.items()}

    clean = answers(net, images)
    check_batch(net, images, labels)
    rows, plan = [row(CLEAN, 0, clean)], [(255 * eps, *item) for eps in radii for item in attacks(eps, mechanism).items()]
    for radius, name, attack in progress(plan, "attacks"):
        wanted = clean.label[-1] if attack.own_labels else labels
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of images that are stuck: the report counts them
            parts = [attack(net, *batch) for batch in zip(images.split(BATCH), wanted.split(BATCH), strict=True)]
        shown = torch.cat([part.adversarial for part in parts])
        rows.append(row(name, radius, answers(net, shown), sum(int(part.stuck.sum()) for part in parts)))
    return pd.DataFrame(rows)


def load_module(named: str) -> torch.nn.Module:
    """What the function of ``module:function`` returns."""
    module, _, function = named.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), function)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise AuditError(f"{named!r} is not module:function: {error}") from None
    if not isinstance(made := make(), torch.nn.Module):
        raise AuditError(f"{named} returns {type(made).__name__}, not a torch.nn.Module")
    return made


def load_data(path: Path, n: int) -> tuple[Tensor, Tensor]:
    """Up to ``n`` images ``[n, channels, height, width]`` in [0, 1] and labels ``[n]``, drawn from a file with a fixed seed."""
    try:
        with np.load(path) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise AuditError(f"{path}: need an .npz file with arrays images and labels ({error})") from None
    if n < 1:
        raise AuditError(f"{n} images: need at least 1")
    if len(images) == 0 or labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise AuditError(f"{path}: images {images.shape}, labels {labels.dtype} {labels.shape}: need an integer for each image")
    drawn = np.sort(np.random.default_rng(0).permutation(len(images))[:n])
    pictures = torch.from_numpy(images[drawn]).float() / (255 if images.dtype == np.uint8 else 1)
    return pictures, torch.from_numpy(labels[drawn].astype(np.int64))
