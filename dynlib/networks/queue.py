"""The command that trains: one network, or a list of them, worked off in processes.

    python -m dynlib train cifar10-resnet56-dynn-seed1 --recipe cpu
    python -m dynlib train --queue FILE --recipe cpu

Killed anywhere, the same command goes on after the last whole epoch.
"""

import argparse
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

import torch

from dynlib import data
from dynlib.files import CHECKPOINTS
from dynlib.networks import checkpoints, recipes
from dynlib.networks.checkpoints import CheckpointError
from dynlib.networks.identity import Network
from dynlib.networks.training import TrainingError, train


def lacking(network: Network, recipe: str, folder: Path = CHECKPOINTS) -> bool:
    """Whether there is no such network, or only one by a lesser recipe."""
    path = network.path(folder)
    return not path.exists() or recipes.rank(recipe) < recipes.rank(checkpoints.read_card(path)["recipe"])


def read_queue(path: Path, recipe: str, folder: Path = CHECKPOINTS) -> list[Network]:
    """The networks that a file asks for, an id a line, less those that are there; ``#`` starts a comment.

    Raises:
        ValueError: naming the line that is not an id or comes twice, or one whose static network is neither there nor above it.
    """
    queue: list[Network] = []
    seen: set[Network] = set()
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not (id := line.partition("#")[0].strip()):
            continue
        try:
            network = Network.parse(id)
            backbone = network.static
            if network in seen:
                raise ValueError(f"{network} is there twice")
            if network.from_static and backbone not in seen and not backbone.path(folder).exists():
                raise ValueError(f"{network} needs {backbone} first")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        seen.add(network)
        queue += [network] if lacking(network, recipe, folder) else []
    return queue


def train_queue(queue: list[Network], recipe: str, device: str, jobs: int, folder: Path = CHECKPOINTS) -> None:
    """Train networks in this order, ``jobs`` at a time; what starts from a static network waits for it."""
    # Each with its share of the processor: two trainings of one thread are faster than one of two, then the other.
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = list(queue)
    running: dict[Future[Path], Network] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        while waiting or running:
            unfinished = {*waiting, *running.values()}
            ready = [n for n in waiting if not n.from_static or n.static not in unfinished]
            for network in ready[: jobs - len(running)]:
                waiting.remove(network)
                running[pool.submit(train, network, recipe, device, folder)] = network
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                del running[done]
                print(done.result(), flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m dynlib train", description="Train networks and ship each with its card.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("network", nargs="?", help="an id such as cifar10-resnet56-dynn or cifar10-resnet56-sdnn-seed1")
    what.add_argument("--queue", type=Path, help="a file with an id a line: those that are missing, or there by a lesser recipe")
    parser.add_argument("--recipe", default="full", choices=recipes.RECIPES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--jobs", type=int, default=2, help="with --queue: how many to train at a time (default: 2)")
    given = parser.parse_args(arguments)
    try:
        if given.queue:
            train_queue(read_queue(given.queue, given.recipe), given.recipe, given.device, given.jobs)
        else:
            print(train(Network.parse(given.network), given.recipe, given.device))
    except (ValueError, OSError, data.DataError, CheckpointError, TrainingError) as error:
        sys.exit(f"error: {error}")
    except RuntimeError as error:  # torch has a class of its own for a GPU's memory only
        if "memory" not in str(error):
            raise
        sys.exit(f"error: too little memory for the recipe's batch: {str(error).splitlines()[0]}")
