"""Beyond the paper: a network that skips blocks, beside the one with early exits and the static one under both."""

import numpy as np
import pandas as pd
import torch

from dynlib import data
from dynlib.analysis import choices, slowdown, stats, transfer
from dynlib.analysis.measured import costs, measured
from dynlib.networks.checkpoints import load_network
from dynlib.networks.gated import GatedNetwork
from dynlib.networks.identity import Network

CAMPAIGN = "skipping"
STATIC, EXITS, GATES = "static", "early exits", "gates"


def how(network: Network) -> str:
    """How a network saves computation, if it does."""
    return STATIC if network.is_static else GATES if network.has_gates else EXITS


def at_rest(run: str) -> pd.DataFrame:
    """Clean test images: a row for each network, with ``accuracy``, its interval, and ``cost``, the mean share of a static run."""
    records, found = measured(run, CAMPAIGN), []
    for network in records.campaign.sources:
        seen = choices.clean_answers(run, "test")[network]
        decision = records.mechanism.decide(seen.answers, costs(network))
        cost = decision.cost.double().mean().item() / costs(network.static)[-1].item()
        accuracy = stats.rate((decision.label == seen.truth).numpy()).columns("accuracy")
        found.append({"network": network, "how": how(network), "n": len(seen.truth), **accuracy, "cost": cost})
    return pd.DataFrame(found)


def fooled(run: str) -> pd.DataFrame:
    """Who fools whom by PGD: rows of ``transfer.outcomes``, with ``source_how``, ``target_how``, and ``rate`` with its interval."""
    records, clean = measured(run, CAMPAIGN), measured(run, "clean")
    shown = records.shown()
    table = transfer.outcomes(shown[shown.goal != slowdown.GOAL], transfer.right_when_clean(clean))
    table = table.assign(**{f"{side}_how": table[side].map(how) for side in ("source", "target")})
    rates = [stats.mean(values).columns("rate") for values in table.per_image]
    return table.join(pd.DataFrame(rates)).assign(n=[int((~np.isnan(values)).sum()) for values in table.per_image])


def gate_use(run: str, n: int) -> pd.DataFrame:
    """Of the first ``n`` clean test images the share ``open`` at each gate, and its block's ``cost`` as a share of a full run."""
    (network,) = (one for one in measured(run, CAMPAIGN).campaign.sources if one.has_gates)
    net = load_network(network)
    assert isinstance(net, GatedNetwork)
    with torch.no_grad():
        opened = (net.gates(data.load(network.dataset, "test", n).inputs) >= 0).double().mean(dim=1)
    return pd.DataFrame({"open": opened.numpy(), "cost": (net.block_macs / net.macs[-1]).numpy()})


def saved(run: str) -> pd.DataFrame:
    """What is left of the saving under an attack on speed by someone who has the network, and at radius 0 when clean.

    A row for each network that saves something and radius ``eps_255``: ``saving``, the mean share of a full run that the first
    test images save, with its interval. Exits are pushed to the uniform distribution, gates opened.
    """
    records, effects, found = measured(run, CAMPAIGN), slowdown.effects(run), []
    shown = records.shown()
    opened = shown[(shown.goal == slowdown.GOAL) & (shown.source == shown.target)]
    for row in opened.itertuples():
        full, n = costs(row.target)[-1].item(), len(row.truth)
        calm = choices.clean_answers(run, "test")[row.target].answers.images(slice(n))
        clean = records.mechanism.decide(calm, costs(row.target)).cost.numpy() / full
        found += [(row.target, 0.0, clean), (row.target, row.eps_255, row.cost / full)]
    sources = {network for network in records.campaign.sources if how(network) == EXITS}
    for row in effects[(effects.who == slowdown.OWN) & effects.network.isin(sources)].itertuples():
        found += [(row.network, 0.0, row.clean_cost), (row.network, row.eps_255, row.cost)]
    table = pd.DataFrame(found, columns=["network", "eps_255", "cost"]).drop_duplicates(["network", "eps_255"])
    savings = pd.DataFrame([stats.mean(1 - cost).columns("saving") | {"n": len(cost)} for cost in table.cost], index=table.index)
    return table.drop(columns="cost").join(savings).assign(how=table.network.map(how)).sort_values(["how", "eps_255"])
