"""Whether the shipped weights do what their cards say, measured anew on the whole test set."""

import argparse
import sys
from pathlib import Path
from typing import Any

from dynlib.behaviour import describe
from dynlib.data import DataError
from dynlib.files import CHECKPOINTS, listed
from dynlib.networks.checkpoints import CheckpointError, load_network
from dynlib.networks.identity import Network

TOLERANCE = 0.2  # points: what another processor's rounding can do


def shipped(folder: Path = CHECKPOINTS) -> list[Network]:
    """All networks of a folder, in the order of tables. Raises PermissionError where it may not be read."""
    return sorted((Network.parse(path.stem) for path in listed(folder, "*.safetensors")), key=lambda network: network.rank)


def measure(network: Network, folder: Path = CHECKPOINTS) -> tuple[dict[str, Any], float]:
    """What ``describe`` finds now at the card's thresholds, and the largest difference from the card in points.

    The thresholds are not chosen anew: one image that another processor's rounding moves can move a choice by a step, and what
    the network does there by more than that image.

    Raises:
        CheckpointError: a missing or damaged network.
        DataError: the data set is missing.
    """
    net = load_network(network, folder)
    points = net.card["operating_points"]
    found = describe(net, {f: {goal: point and point["threshold"] for goal, point in goals.items()} for f, goals in points.items()})
    return found, max(abs(one - other) for one, other in zip(_numbers(found), _numbers(net.card), strict=True))


def _numbers(card: dict[str, Any]) -> list[float]:
    """All that a card says in points."""
    points = [point for goals in card["operating_points"].values() for point in goals.values() if point]
    exits = [value for key in ("validation_accuracy", "test_accuracy", "calibration_error") for value in card[key]]
    return exits + [point[key] for point in points for key in ("accuracy", "macs")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib check-networks", description=__doc__)
    parser.add_argument("networks", nargs="*", type=Network.parse, help="ids (default: all that are shipped)")
    wrong = []
    print(f"{'network':<34}{'largest difference (points)':>28}  test accuracy of each exit (%)")
    try:
        networks = parser.parse_args(arguments).networks or shipped()
    except OSError as error:
        sys.exit(f"error: {error}")
    for network in networks:
        try:
            found, difference = measure(network)
        except (CheckpointError, DataError) as error:
            sys.exit(f"error: {error}")
        wrong += [network.id] if difference > TOLERANCE else []
        print(
            f"{network.id:<34}{difference:>28.2f}  {' '.join(f'{accuracy:.1f}' for accuracy in found['test_accuracy'])}", flush=True
        )
    if wrong:
        sys.exit(f"error: more than {TOLERANCE} points from the card: {', '.join(wrong)}")
