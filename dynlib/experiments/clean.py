"""Networks on clean images: what their exits say, and how long they take."""

import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from dynlib import data
from dynlib.behaviour import all_logits
from dynlib.experiments.common import BATCH, Record, load_images, load_networks
from dynlib.mechanisms import ConfidenceExit
from dynlib.packing import pack


@torch.no_grad()
def outputs(network: str, targets: list[str], *, n_images: int, device: str) -> dict[str, Tensor]:
    """What every exit of a network predicts for the first test images.

    Args:
        network: network id.
        targets: none; there is nothing to compare with.
        n_images: the first n test images.
        device: a torch device.
    Returns:
        The logits of all exits, packed (see ``dynlib.packing``), and the images' ``labels`` ``[n]``.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    net = load_networks([network], device)[network]
    split = data.load(net.dataset, "test", n_images)
    return {**pack(all_logits(net, split.images)), "labels": split.labels}


@torch.no_grad()
def timing(
    network: str, targets: list[str], *, n_images: int, batches: list[int], rounds: int, threshold: float, device: str
) -> list[Record]:
    """Time and MACs of dynamic inference, beside a run through a static network: they take turns on the same images.

    Args:
        network: id of the dynamic network.
        targets: ids of static networks.
        n_images: the first n test images.
        batches: batch sizes.
        rounds: how often each is measured, after one round that is not.
        threshold: of the confidence exits, in (0, 1).
        device: a torch device.
    Returns:
        A row for each batch size, round and static network: milliseconds an image, and the ratio of the MACs.
    Raises:
        ValueError, DataError, CheckpointError: as above.
    """
    nets = load_networks((network, *targets), device)
    net, mechanism, rows = nets[network], ConfidenceExit(threshold), []
    images, _ = load_images(net.dataset, n_images, device)

    def milliseconds(run: Callable[[Tensor], object], batch: int) -> float:
        start = time.perf_counter()
        for part in images.split(batch):
            run(part)
        if images.is_cuda:
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start) / n_images

    cost = torch.cat([mechanism.run(net, part).cost for part in images.split(BATCH)]).cpu()
    for target, batch, number in product(targets, batches, range(rounds + 1)):
        static = nets[target]
        seconds = {
            "dynamic_ms": milliseconds(lambda part: mechanism.run(net, part), batch),
            "static_ms": milliseconds(static, batch),
        }
        if number > 0:  # the first one warms up
            macs_ratio = (cost.double().mean() / static.macs[-1]).item()
            rows.append({"source": network, "target": target, "batch": batch, **seconds, "macs_ratio": macs_ratio})
    return rows
