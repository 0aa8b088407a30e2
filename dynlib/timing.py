"""Time and MACs of dynamic inference, beside a run through the static network of the same cell."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from dynlib import data, profiles
from dynlib.devices import check_device, is_cpu
from dynlib.files import atomic
from dynlib.mechanisms import Mechanism
from dynlib.networks import checkpoints
from dynlib.networks.folding import folded
from dynlib.networks.identity import Network
from dynlib.profiles import Timing


@torch.no_grad()
def measure(network: Network, settings: Timing, mechanism: Mechanism, device: str) -> pd.DataFrame:
    """A dynamic network and the static one of its cell take turns on the same images.

    Args:
        network: the dynamic one.
        settings: numbers of test images and rounds, batch sizes.
        mechanism: of the network as deployed.
        device: a torch device.
    Returns:
        A row for each batch size: the ratio of the times, dynamic over static, as the median of the rounds, with the smallest and
        the largest as ``low`` and ``high``; and the ratio of the MACs.
    Raises:
        DataError, CheckpointError: data or a network missing or damaged.
        ValueError: a device that is not here.
    """
    check_device(device)
    pair = (network, network.static)
    net, static = (folded(checkpoints.load_network(one)).to(device) for one in pair)
    images = data.load(network.dataset, "test", settings.images).inputs.to(device)

    def seconds(run: Callable[[Tensor], object], batch: int) -> float:
        start = time.perf_counter()
        for part in images.split(batch):
            run(part)
        if not is_cpu(images.device):
            torch.accelerator.synchronize(images.device)
        return time.perf_counter() - start

    macs, rows = (mechanism.run(net, images).cost.cpu().double().mean() / static.macs[-1]).item(), []
    for batch in settings.batches:
        rounds = [
            seconds(lambda part: mechanism.run(net, part), batch) / seconds(static, batch) for _ in range(settings.rounds + 1)
        ]
        ratios = pd.Series(rounds[1:])  # the first one warms up
        rows.append((network.id, batch, ratios.median(), ratios.min(), ratios.max(), macs))
    return pd.DataFrame(rows, columns=["network", "batch", "time_ratio", "low", "high", "macs_ratio"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib time", description="Time the dynamic networks of a profile.")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--out", required=True, type=Path, help="CSV file")
    parser.add_argument("networks", nargs="+", type=Network.parse, help="ids of dynamic networks")
    given = parser.parse_args(arguments)
    try:
        profile = profiles.load(given.profile)
        tables = [measure(network, profile.timing, profile.mechanism, profile.device) for network in given.networks]
        with atomic(given.out) as temporary:
            pd.concat(tables).to_csv(temporary, index=False, float_format="%.4f")
    except (ValueError, OSError, data.DataError, checkpoints.CheckpointError) as error:
        sys.exit(f"error: {error}")
