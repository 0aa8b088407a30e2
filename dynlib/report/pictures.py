"""The pictures of the site's page *Fool a network*: what attacks add to a few images of a sample, on one sheet that is committed.

Records keep answers and no pictures, so the attacks are made once more. The sheet says what it was made from, and is made anew
where that has changed.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from dynlib import craft, data
from dynlib.analysis.measured import Seen, measured
from dynlib.datasets import DATASETS
from dynlib.files import CHECKPOINTS, ROOT, atomic
from dynlib.networks import checkpoints
from dynlib.networks.folding import folded

SHEET = ROOT / "docs" / "play" / "pictures.png"
GREY = 128  # a pixel that the attack leaves alone; others are as many 255ths above or below


class Made(NamedTuple):
    """An attack in the records of a campaign, and what a target answered to it."""

    campaign: str
    seen: Seen


def chosen(dataset: str, n: int) -> Tensor:
    """The first test image of each class, of the first ``n``: indices in the order of classes."""
    labels = data.load(dataset, "test", n).labels
    return torch.cat([torch.nonzero(labels == k)[:1, 0] for k in range(DATASETS[dataset].classes)])


def sheet(run: str, attacks: list[Made], images: Tensor) -> bytes:
    """The committed sheet as PNG: a row for each attack, a column for each image; made anew if it was made from something else."""
    wanted = stands_on(run, attacks, images)
    try:
        with Image.open(SHEET) as found:
            fresh = json.loads(found.info["about"]) == wanted
    except (OSError, KeyError, ValueError):
        fresh = False
    if not fresh:
        _write(torch.stack([added(run, made, images) for made in attacks]), wanted)
    return SHEET.read_bytes()


def stands_on(run: str, attacks: list[Made], images: Tensor) -> dict[str, Any]:
    """What a sheet is made from: its images, and row by row the attack's settings and the weights of the network attacked."""
    rows = []
    for campaign, seen in attacks:
        settings = measured(run, campaign).campaign.settings["attacks"][seen.attack]
        weights = checkpoints.read_card(seen.source.path(CHECKPOINTS))["weights_sha256"]
        rows.append({"source": seen.source.id, "weights": weights, "settings": settings})
    return {"images": images.tolist(), "rows": rows}


def added(run: str, made: Made, images: Tensor) -> Tensor:
    """What an attack adds to test images, in 255ths above ``GREY``, rounded: int64 ``[n, 3, side, side]``."""
    source = made.seen.source
    found = data.load(source.dataset, "test", int(images.max()) + 1)
    x, labels = found.inputs[images], found.labels[images]
    planned = next(one for one in measured(run, made.campaign).campaign.attacks_of(source) if one.name == made.seen.attack)
    net = folded(checkpoints.load_network(source))
    if planned.attack.own_labels:
        labels = craft.net_answers(net, x).label[-1]
    return GREY + (255 * (craft.attacked(net, source, planned, x, labels).adversarial - x)).round().long()


def _write(pictures: Tensor, about: dict[str, Any]) -> None:
    """``pictures`` are ``[rows, images, 3, side, side]``."""
    rows, n, _, side, _ = pictures.shape
    pixels = pictures.permute(0, 3, 1, 4, 2).reshape(rows * side, n * side, 3)
    info = PngInfo()
    info.add_text("about", json.dumps(about))
    with atomic(SHEET) as temporary:
        Image.fromarray(pixels.numpy().astype(np.uint8)).save(temporary, optimize=True, pnginfo=info)
