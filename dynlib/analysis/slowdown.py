"""Beyond the paper: attacks on speed, that keep a network from leaving early (B2)."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from dynlib.analysis import choices, design, stats
from dynlib.analysis.measured import Rule, Seen, costs, measured
from dynlib.analysis.stats import Training
from dynlib.mechanisms import Mechanism
from dynlib.networks.identity import Network, beside

CAMPAIGN, GOAL = "slowdown", "slow_down"
OWN, ACROSS = "itself", "another architecture"


def efficacy(cost: np.ndarray) -> float:
    """What early exits save, in [0, 1], from the cost of each image as a share of a full run, ``[n]``.

    The area under the share of images that have been answered over the share of the full cost (Hong et al., ICLR 2021). As that
    curve is a staircase, its area is 1 less the mean cost.
    """
    return 1 - float(np.mean(cost))


def shares_of_cost(network: Network, seen: Seen, mechanism: Mechanism) -> tuple[Tensor, Tensor]:
    """Cost of each image as a share of a full run, and whether it is answered correctly; ``[n]`` each."""
    macs = costs(network)
    decision = mechanism.decide(seen.answers, macs)
    return decision.cost.double() / macs[-1], decision.label == seen.truth


@cache
def seen_by_dynamic(run: str, split: str = "test") -> list[Seen]:
    """What dynamic networks answer to examples that are to slow a network down."""
    records = measured(run, CAMPAIGN)
    return [seen for seen in records.seen(split) if records.attacks.goal[seen.attack] == GOAL and not seen.target.is_static]


def effects(run: str, mechanism: Mechanism | Rule | None = None) -> pd.DataFrame:
    """What the attacks do to the networks that are shown their examples: a row for each source, ``network`` and radius.

    ``who``: whether the network itself was attacked, or another architecture. ``clean`` and ``attacked`` are efficacies, ``right``
    and ``still_right`` accuracies as deployed before and after; ``taken`` is the share of the saving that is taken away. Of each
    image ``[n]``: ``cost`` and ``clean_cost`` as shares of a full run, and ``per_image``, whose mean is ``taken``.

    Args:
        run: whose records.
        mechanism: of the network, or a function that gives each its own; by default the profile's.
    """
    records, found = measured(run, CAMPAIGN), []
    mechanism, fits = mechanism or records.mechanism, beside(records.profile.networks)
    for seen in seen_by_dynamic(run):
        network, n = seen.target, len(seen.truth)
        own = seen.source == network
        both_joint = seen.source.trained == network.trained == "joint"
        if not own and (seen.source.model == network.model or not both_joint or not fits(seen.source, network)):
            continue
        rule = mechanism if isinstance(mechanism, Mechanism) else mechanism(network)
        quiet = choices.clean_answers(run, "test")[network]
        calm = Seen(network, network, "", quiet.truth[:n], quiet.answers.images(slice(n)))
        (before, right), (after, still_right) = (shares_of_cost(network, one, rule) for one in (calm, seen))
        clean, attacked = efficacy(before.numpy()), efficacy(after.numpy())
        found.append(
            {"source": seen.source, "network": network, "who": OWN if own else ACROSS, "n": n}
            | {"dataset": network.dataset, "model": network.model, "eps_255": records.attacks.eps_255[seen.attack]}
            | {"clean": clean, "attacked": attacked, "taken": 1 - attacked / clean if clean else np.nan}
            | {"right": right.double().mean().item(), "still_right": still_right.double().mean().item()}
            | {"cost": after.numpy(), "clean_cost": before.numpy(), "per_image": (after - before).numpy() / max(clean, 1e-9)}
        )
    return pd.DataFrame(found)


def answered(table: pd.DataFrame, grid: np.ndarray) -> pd.DataFrame:
    """The curve that efficacy is the area under: the share of images that have been answered for so much of a full run.

    Args:
        table: rows of ``effects`` of the networks on themselves.
        grid: shares of a full run, ``[points]``.
    Returns:
        A row for each data set, radius (0: clean) and point, ``value`` with its interval, the mean over the networks.
    """
    found = []
    for dataset, rows in table.groupby("dataset", sort=False):
        first = rows.drop_duplicates("network")
        curves = {0.0: zip(first.network, first.clean_cost, strict=True)}
        curves |= {eps: zip(same.network, same.cost, strict=True) for eps, same in rows.groupby("eps_255")}
        for eps, costs_of in curves.items():
            points = stats.pooled_curve(
                [stats.of((cost[:, None] <= grid + 1e-9).astype(float), network) for network, cost in costs_of]
            )
            found += [
                {"dataset": dataset, "eps_255": eps, "cost": share, "n": rows.n.min(), "value": value, "low": low, "high": high}
                for share, value, low, high in zip(grid, *points, strict=True)
            ]
    return pd.DataFrame(found)


# What an attacker wants, and the campaign and the loss by which PGD pursues it.
PURSUITS = {
    "to be wrong": ("transfer", "average"),
    "to be slow": (CAMPAIGN, "uniform"),
    "to be both": (CAMPAIGN, "slow_and_wrong"),
}


def pursued(run: str, eps: dict[str, float]) -> pd.DataFrame:
    """What becomes of jointly trained networks that PGD wants to be wrong, slow, or both: a row for each ``network`` and aim.

    ``wanted`` names the aim, of clean images ``"clean"``. Of each image ``[n]``, whatever it was when clean: ``wrong``; ``slow``,
    if the whole network was run; ``both``; and ``cost`` as a share of a full run.

    Args:
        run: whose records.
        eps: for each data set the radius in 255ths.
    """
    found: list[tuple[Network, str, Any]] = []
    for wanted, (campaign, loss) in PURSUITS.items():
        records = measured(run, campaign)
        for row in records.shown().itertuples():
            network, made = row.target, (row.method, row.loss, row.seed, row.eps_255)
            usual = ("pgd", loss, records.profile.seed, eps[network.dataset])
            if row.source == network and network.kind == "dynn" and made == usual:
                found.append((network, wanted, row))
    attacked = {network: len(row.truth) for network, _, row in found}
    quiet = [(row.target, "clean", row) for row in measured(run, "clean").shown().itertuples() if row.target in attacked]
    rows = []
    for network, wanted, row in quiet + found:
        n, full = attacked[network], costs(network)[-1].item()
        wrong, slow = (row.label != row.truth)[:n], (row.cost == full)[:n]
        each = {"wrong": wrong, "slow": slow, "both": wrong & slow, "cost": row.cost[:n] / full}
        rows.append({"network": network, "dataset": network.dataset, "wanted": wanted, "n": n, **each})
    return pd.DataFrame(rows)


def beyond_half(
    run: str, eps: dict[str, float], who: str = OWN, trained: str = "joint", mechanism: Mechanism | Rule | None = None
) -> list[Training]:
    """B2's quantity for each network, on each image ``[n]``: half of what the clean image saves, less what the attacked one does.

    Several sources are averaged. Above 0, on the mean, more than half of the saving is gone.
    """
    table, found = effects(run, mechanism), []
    if table.empty:
        return []
    here = table[(table.who == who) & (table.eps_255 == table.dataset.map(eps))]
    for network, rows in here.groupby("network", sort=False):
        if network.trained == trained and network.exits == "all":
            after = np.mean(np.stack(list(rows.cost)), axis=0)
            found.append(stats.of(0.5 * (1 - rows.clean_cost.iloc[0]) - (1 - after), network))
    return found


def designs(run: str, eps: dict[str, float]) -> pd.DataFrame:
    """All designs of each jointly trained network under both attackers: a row for each ``network`` and ``design``.

    ``robust``: the share still right under PGD by a separate SDNN at C3's radius; ``efficacy``: what is left of the saving under
    the attack on speed, which does not know the design; ``saving``: what clean images save, all as shares; ``clean``: accuracy.
    ``near``: at most 1 point less accurate than the default; ``pareto``: one of those, and none of them dominates it in the first
    three.
    """
    records, found = measured(run, CAMPAIGN), []
    slowed = {
        seen.target: seen
        for seen in seen_by_dynamic(run)
        if seen.source == seen.target and records.attacks.eps_255[seen.attack] == eps[seen.target.dataset]
    }
    for source, network, attack in choices.static_attacks(run):
        if network not in slowed or choices.attacker(source, network) != choices.ATTACKERS[0]:
            continue
        table, full = choices.static_space(run, source, network, attack, "test"), costs(network)[-1].item()
        decisions = design.evaluate_all(network, slowed[network].answers, list(table.design))
        left = [1 - decision.cost.double().mean().item() / full for decision in decisions]
        numbers = {name: [np.mean(values) for values in table[name]] for name in ("clean", "robust")}
        rows = table[["design", "default"]].assign(**numbers, efficacy=left, saving=1 - table.macs / full)
        near = rows.clean >= rows.clean[rows.default].iloc[0] - design.ONE_POINT
        front = pd.Series(False, index=rows.index)
        front[near] = design.undominated(rows.loc[near, ["robust", "efficacy", "saving"]].to_numpy())
        found.append(rows.assign(network=network, dataset=network.dataset, model=network.model, near=near, pareto=front))
    return pd.concat(found, ignore_index=True)


def of_equal_accuracy(table: pd.DataFrame, best: str) -> pd.DataFrame:
    """Of each network the design with most of the column ``best``, of those that are ``near``."""
    near = table[table.near]
    return near.loc[near.groupby("network", sort=False)[best].idxmax()]
