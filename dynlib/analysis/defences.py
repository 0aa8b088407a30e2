"""Designs under two attackers at once: one who knows the design, and one who holds only a static network (C3 and C4)."""

from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import design, factors
from dynlib.analysis.choices import ATTACKERS, attacked_by_static, attacked_designs, attacker, chosen_against, static_attacks
from dynlib.networks.identity import Network

OUTCOMES = {"robust": "still right as deployed", "closed": "surface closed"}
STATIC, KNOWING = "static attacker", "attacker who knows the design"
CHOSEN = "chosen on validation images"


def outcome_factors(run: str) -> pd.DataFrame:
    """One choice changed at a time, each design attacked by one who knows it: ``factors.table_of`` by network and outcome."""
    return pd.concat(
        [
            factors.table_of(table.assign(robust=table[column])).assign(network=network, outcome=name)
            for network, table in attacked_designs(run, "test").items()
            for column, name in OUTCOMES.items()
        ],
        ignore_index=True,
    )


def under_both(run: str) -> pd.DataFrame:
    """Gains in the share still right as deployed under both attackers: rows of ``design.pooled_factors`` by data set and attacker.

    Both count the same images, see ``surface.designs_attacked``. Beside one choice at a time there is a factor ``CHOSEN``: each
    network's own design of C4b's main reading. Networks that no separate SDNN's examples were shown to are left out.
    """
    sources = {key[1]: key for key in static_attacks(run) if attacker(*key[:2]) == ATTACKERS[0]}
    found = []
    for network, knowing in attacked_designs(run, "test").items():
        if network not in sources:
            continue
        own = chosen_against(run, network)["design"]
        for who, table in ((KNOWING, knowing), (STATIC, _by_static(run, sources[network], knowing))):
            chosen = _gain_row(table, own)
            rows = pd.concat([factors.table_of(table), pd.DataFrame([chosen])], ignore_index=True)
            found.append(rows.assign(network=network, dataset=network.dataset, attacker=who))
    return factors.pooled(pd.concat(found, ignore_index=True), ["dataset", "attacker"])


def _by_static(run: str, key: tuple[Network, Network, str], knowing: pd.DataFrame) -> pd.DataFrame:
    """The same designs and images under a static network's examples; there may be more of those, the first are used."""
    seen = attacked_by_static(run, "test")[key]

    def still(row: Any) -> np.ndarray:
        n = len(row.robust)
        right = (design.evaluate(seen.target, seen.answers.images(slice(n)), row.design).label == seen.truth[:n]).numpy()
        return np.where(np.isnan(row.robust), np.nan, right.astype(float))

    return knowing.assign(robust=[still(row) for row in knowing.itertuples()])


def _gain_row(table: pd.DataFrame, chosen: design.Design) -> dict[str, Any]:
    """The chosen design as a row of ``factors.table_of``."""
    gained, row = design.gain(table, chosen), table[table.design == chosen].iloc[0]
    about = {"factor": CHOSEN, "level": "chosen", "clean": row.clean.mean(), "macs": row.macs, "robust": np.nanmean(row.robust)}
    same = abs(gained["lost"]) <= design.ONE_POINT
    return {
        **about,
        **{name: gained[name] for name in ("n", "gain", "lost", "added", "per_image")},
        "equal": same,
        "default": False,
    }


def both_gains(pooled: pd.DataFrame) -> pd.DataFrame:
    """The two attackers of ``under_both`` in one row for each data set, factor and level.

    Gains ``static`` and ``knowing``, with the intervals ``static_low`` to ``static_high`` and ``low`` to ``high``, and the shares
    still right, ``static_share`` and ``knowing_share``. ``lost``, ``added``, ``equal``, ``default``, ``cells`` and ``n`` are of
    the design.
    """
    key = ["dataset", "factor", "level"]
    knowing, static = (pooled[pooled.attacker == who].drop(columns="attacker") for who in (KNOWING, STATIC))
    names = {"gain": "static", "low": "static_low", "high": "static_high", "robust": "static_share"}
    return knowing.rename(columns={"gain": "knowing", "robust": "knowing_share"}).merge(
        static[[*key, *names]].rename(columns=names), on=key, validate="one_to_one"
    )


def trades(both: pd.DataFrame) -> str:
    """In a sentence: how many designs gain under one attacker, and how many of these lose under the other; of ``both_gains``."""
    designs = both[~both.default & (both.factor != CHOSEN)]
    up, lost, won = designs.low > 0, designs.static_high < 0, designs.static_low > 0
    at_no_cost = up & (designs.added <= 0)
    return (
        f"of {len(designs)} designs, each counted once a data set, {up.sum()} gain under the {KNOWING} (95 % interval clear of 0); "
        f"of these, under the {STATIC} {(up & won).sum()} gain and {(up & lost).sum()} lose, and {at_no_cost.sum()} cost no more "
        "than the default"
    )
