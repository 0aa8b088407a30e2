"""What a run would cost on CPU cores, extrapolated from what is published: a table in docs/cluster.md.

The seconds of a step stand in its records' metadata, the minutes of a training on its network's card. Seconds are taken to grow
with the number of images and with the steps of the attacks, minutes with the number of epochs.
"""

import re

import pandas as pd

from dynlib import profiles, records
from dynlib.campaigns import Campaign
from dynlib.files import CHECKPOINTS, PUBLISHED, ROOT, home
from dynlib.networks import recipes
from dynlib.networks.checkpoints import read_card
from dynlib.networks.identity import Network
from dynlib.profiles import Profile
from dynlib.report.report import fill, write
from workflow.craft import Step

PAGE, LARGE = ROOT / "docs" / "cluster.md", "paper"


def size(campaign: Campaign, source: Network) -> int:
    """Images times steps of the attacks that are made on them; one that has no steps counts as one step."""
    length = [getattr(a, "iterations", getattr(a, "steps", 1)) for a in (p.attack for p in campaign.attacks_of(source))]
    return sum(campaign.images.values()) * sum(length)


def crafting(step: Step) -> float:
    """CPU seconds of a step."""
    measured = profiles.load(PUBLISHED).campaigns[step.campaign.name]
    seconds = records.about(records.path(home(PUBLISHED) / "results" / measured.name, "examples", step.source))["device_seconds"]
    return seconds * size(step.campaign, step.source) / size(measured, step.source)


def training(network: Network, recipe: str) -> float:
    """CPU seconds of training a network by a recipe.

    Raises:
        ValueError: its card has the minutes of something else than CPU threads.
    """
    card = read_card(network.path(CHECKPOINTS))
    threads = re.match(r"(\d+) CPU thread", card["hardware"])
    if not threads:
        raise ValueError(f"{network} was trained on {card['hardware']}: what a CPU takes is not known")
    return 60 * card["minutes"] * int(threads[1]) * recipes.find(recipe, network).epochs / card["settings"]["epochs"]


def jobs(profile: Profile) -> pd.DataFrame:
    """A row for each training and each step of crafting, whatever images are here: part, model and CPU hours."""
    steps = [Step(campaign, source) for campaign in profile.campaigns.values() for source in campaign.sources]
    crafted = [(step.campaign.name, step.source.model, crafting(step)) for step in steps]
    trained = [("training", n.model, training(n, profile.recipe)) for n in profile.networks] if profile.recipe else []
    table = pd.DataFrame(trained + crafted, columns=["part", "model", "hours"])
    return table.assign(hours=table.hours / 3600)


def table(profile: Profile) -> str:
    """CPU hours by part and model, in Markdown."""
    rows = jobs(profile)
    models = list(dict.fromkeys(rows.model))
    lines = [f"| part | jobs | {' | '.join(models)} | CPU hours | longest job |", f"| --- |{' ---: |' * (len(models) + 3)}"]
    for part, of in [*rows.groupby("part", sort=False), ("**all**", rows)]:
        hours = [of.hours[of.model == model].sum() for model in models] + [of.hours.sum(), of.hours.max()]
        lines.append(f"| {part} | {len(of)} | {' | '.join(f'{one:,.0f}' if one >= 10 else f'{one:.1f}' for one in hours)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    write(PAGE, fill(PAGE.read_text(), "cost", table(profiles.load(LARGE)), "workflow.cost"))
