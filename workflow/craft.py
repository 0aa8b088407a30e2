"""Make the records of a run that are missing, or that stand on something else than is here; a few workers share the steps.

A step is one source network in one campaign, see ``dynlib.craft``. Each worker has one thread, so that any number of them write
the same records: two runs of one thread are faster than one of two, then the other. A GPU has one worker.
"""

import argparse
import json
import signal
import sys
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dynlib import craft, data, profiles, records
from dynlib.campaigns import Campaign
from dynlib.datasets import DATASETS
from dynlib.devices import is_cpu
from dynlib.files import CHECKPOINTS, home, profile_of, there
from dynlib.networks.checkpoints import CheckpointError, read_card
from dynlib.networks.identity import Network
from dynlib.profiles import Profile


class Step(NamedTuple):
    campaign: Campaign
    source: Network

    def files(self, results: Path) -> list[Path]:
        """Its records below a run's results."""
        return [records.path(results / self.campaign.name, kind, self.source) for kind in records.SCHEMAS]


def here(dataset: str, images: dict[str, int]) -> bool:
    """Whether so many images of each split are here, complete or in the package's sample. Raises PermissionError."""
    sampled = all(DATASETS[dataset].bundled(split, n) for split, n in images.items())
    return sampled or there(data.folder() / f"{dataset}.npz")


def measurable(profile: Profile, campaign: Campaign, dataset: str) -> bool:
    """Whether the images of a campaign are here, or will be fetched because the profile trains on them."""
    return profile.recipe is not None or here(dataset, campaign.images)


def steps(profile: Profile, *only: str) -> list[Step]:
    """The steps whose images are here; or ``only`` one of them, by the names of its campaign and its source."""
    return [
        Step(campaign, source)
        for campaign in profile.campaigns.values()
        for source in campaign.sources
        if measurable(profile, campaign, source.dataset) and only in ((), (campaign.name, source.id))
    ]


def stands_on(profile: Profile, step: Step) -> dict[str, Any] | None:
    """What the records of a step stand on, as they say it themselves; None where a network or the device is not here yet."""
    try:
        return json.loads(json.dumps(craft.provenance(profile.name, *step, profile.device)))
    except (CheckpointError, ValueError):
        return None


def done(profile: Profile, step: Step, results: Path) -> bool:
    """Whether the records of a step are there and stand on what is here."""
    wanted = stands_on(profile, step)
    try:
        found = [records.about(file) for file in step.files(results)]
    except records.RecordsError:
        return False
    return all({**about, "device_seconds": None} == {**wanted, "device_seconds": None} for about in found)


def work(profile: str, left: list[tuple[str, Network]], results: Path, taken) -> None:
    """Take the next step until none is left, or whoever started this has died.

    ``taken`` counts the steps that somebody has taken.
    """
    torch.set_num_threads(1)  # Snakemake sets MKL_NUM_THREADS and its like to what the whole step may use
    known = profiles.load(profile)
    while parent_process().is_alive():
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if number >= len(left):
            return
        name, source = left[number]
        try:
            craft.write(profile, known.campaigns[name], source, known.device, results / name)
        except (ValueError, ModuleNotFoundError, OSError, data.DataError, CheckpointError, records.RecordsError) as error:
            taken.value = len(left)  # the others end with what they are at
            sys.exit(f"error: {error}")


def macs(step: Step) -> int:
    """How long a step takes, roughly: in MACs of the static network."""
    static = read_card(step.source.static.path(CHECKPOINTS))["macs"][-1]
    return static * len(step.campaign.attacks_of(step.source)) * sum(step.campaign.images.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.craft", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("step", nargs="*", help="campaign and source of the only step to make (default: all)")
    parser.add_argument("--cores", type=int, default=1)
    given = parser.parse_args()
    profile, results = profiles.load(profile_of(given.run)), home(given.run) / "results"
    left = [step for step in steps(profile, *given.step) if not done(profile, step, results)]
    # The longest first, so that the last to end has little left while the others are idle.
    named = [(step.campaign.name, step.source) for step in sorted(left, key=macs, reverse=True)]
    context = get_context("spawn")
    taken, number = context.Value("i", 0), min(given.cores, len(left)) if is_cpu(profile.device) else 1
    workers = [context.Process(target=work, args=(profile.name, named, results, taken)) for _ in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    killed = {-worker.exitcode for worker in workers if worker.exitcode < 0}
    if killed:
        names = " and ".join(signal.Signals(number).name for number in killed)
        sys.exit(f"error: a worker was ended by {names}; if memory was short, fewer --cores need less")
    if any(worker.exitcode for worker in workers):
        sys.exit(1)


if __name__ == "__main__":
    main()
