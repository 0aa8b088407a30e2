"""How much stronger attacks find beside the usual one: by more steps, more starts, another loss, another library's attack."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dynlib.analysis import stats
from dynlib.analysis.measured import Records
from dynlib.analysis.transfer import common, fooled, right_when_clean, with_cell
from dynlib.attacks import PGD, AnyAttack
from dynlib.attacks.losses import get_loss
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

TOGETHER = "all together"


def title(attack: AnyAttack, source: Network) -> str:
    """What tables and figures call an attack, for example ``"PGD-50, 5 starts, average"``; a static network has but one loss."""
    if not isinstance(attack, PGD):
        return attack.display
    starts = [f"{attack.restarts} starts"] if attack.restarts > 1 else []
    loss = [] if source.is_static else [get_loss(attack.loss).display]
    return ", ".join([f"{attack.display}-{attack.steps}", *starts, *loss])


def turned(strength: Records, clean: Records) -> pd.DataFrame:
    """A row for each network, ``source``, and each attack on it; the last counts what any of them turns.

    ``rate`` is the share of images whose answer as deployed an attack turns, with its Wilson interval, of the ``n`` that are
    classified correctly when clean. ``per_image`` ``[n]`` is what an attack turns more than the usual one, the campaign's first: 1,
    0 or -1, NaN where an image does not count. ``value`` is its mean, with its interval.

    Raises:
        RecordsError: a network that classifies no image correctly.
    """
    right, found = right_when_clean(clean), []
    for source, rows in strength.shown().groupby("source", sort=False):
        names = {planned.name: title(planned.attack, source) for planned in strength.campaign.attacks_of(source)}
        wrong = dict(zip(rows.attack.map(names), fooled(rows), strict=True))
        wrong[TOGETHER] = np.logical_or.reduce(list(wrong.values()))
        usual = next(iter(wrong.values()))
        counts = common(right, source, source, len(usual))
        for attack, turns in wrong.items():
            more = np.where(counts, turns.astype(float) - usual, np.nan)
            about = {"source": source, "attack": attack, "n": counts.sum(), "per_image": more}
            found.append(about | stats.rate(turns[counts]).columns("rate", "rate_") | stats.mean(more).columns("value"))
    return with_cell(pd.DataFrame(found), "source")


def missed(table: pd.DataFrame) -> Mapping[str, stats.Estimate]:
    """What the usual attack misses of all that is found, on the mean of cells: of each kind, and of DyNNs less that of SDNNs.

    The difference is on images that both networks of a cell classify correctly when clean.

    Raises:
        RecordsError: no cell has both kinds.
    """
    rows = table[table.attack == TOGETHER]
    static = {row.source: row.per_image for row in rows.itertuples() if row.source.is_static}
    pairs = [(row.source, row.per_image) for row in rows.itertuples() if row.source.static in static and not row.source.is_static]
    if not pairs:
        raise RecordsError("strength: no dynamic network was attacked beside its static one")
    return {
        "sdnn": stats.pooled_mean([stats.of(static[source.static], source.static) for source, _ in pairs]),
        "dynn": stats.pooled_mean([stats.of(values, source) for source, values in pairs]),
        "difference": stats.pooled_mean([stats.of(values - static[source.static], source) for source, values in pairs]),
    }
