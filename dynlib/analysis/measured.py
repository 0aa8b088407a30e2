"""What a run has measured, as tables with a row for each source, attack and target; per-image columns hold arrays ``[n]``."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from dynlib import profiles, records
from dynlib.campaigns import build
from dynlib.files import CHECKPOINTS, home, profile_of
from dynlib.mechanisms import Answers, ConfidenceExit, Mechanism
from dynlib.mechanisms.base import shares
from dynlib.networks.checkpoints import CHEAPEST, read_card
from dynlib.networks.identity import Network
from dynlib.profiles import Profile
from dynlib.records import COST, FIXED_POINT, RecordsError

Rule = Callable[[Network], Mechanism]
PARTS = ("dataset", "model", "exits", "trained", "regime", "seed")


class Seen(NamedTuple):
    """What the exits of a target answer to the examples of an attack on a source; ``truth`` int64 ``[n]`` are the true labels."""

    source: Network
    target: Network
    attack: str
    truth: Tensor
    answers: Answers


class Records:
    """The records of one campaign, checked against the profile that they are to be of.

    Args:
        profile: a profile.
        campaign: name of one of its campaigns.
        folder: the records of all campaigns.
    """

    def __init__(self, profile: Profile, campaign: str, folder: Path):
        if campaign not in profile.campaigns:
            raise RecordsError(f"profile {profile.name} has no campaign {campaign!r}: it has {', '.join(profile.campaigns)}")
        self.profile, self.campaign, self.folder = profile, profile.campaigns[campaign], folder / campaign
        self.expected = {"profile": profile.name, "campaign": campaign, "settings": self.campaign.settings}

    @property
    def mechanism(self) -> Mechanism:
        """Of the networks as deployed."""
        return self.campaign.mechanism

    @cached_property
    def attacks(self) -> pd.DataFrame:
        """The attacks by ``name``: a column for each setting, and ``eps_255``, the radius in 255ths (0: no ball)."""
        table = pd.DataFrame.from_dict(self.campaign.settings["attacks"], orient="index").rename_axis("name")
        usual = {"loss": "", "eps": 0.0, "goal": "", "seed": 0, "early_stop": False, "alpha": np.nan}
        table = table.assign(**{key: table[key].fillna(value) if key in table else value for key, value in usual.items()})
        goals = {
            planned.name: planned.attack.goal for source in self.campaign.sources for planned in self.campaign.attacks_of(source)
        }
        return table.assign(eps_255=(255 * table.eps).round(2), goal=table.index.map(goals))

    def planned_mechanism(self, attack: str) -> Mechanism:
        """The mechanism that an attack expects."""
        return build("mechanism", self.campaign.settings["attacks"][attack]["mechanism"], attack)

    def seen(self, split: str = "test") -> Iterator[Seen]:
        """All that targets answered, source by source."""
        truths = {(row.source, row.attack): row.truth for row in self.examples(split).itertuples()}
        for _, table in records.read(self.folder, "answers", self.expected):
            for key, rows in _blocks(
                table, ("split", "attack", *(f"{side}_{part}" for side in ("source", "target") for part in PARTS))
            ):
                source, target = (Network(*(key[f"{side}_{part}"] for part in PARTS)) for side in ("source", "target"))
                if key["split"] != split:
                    continue
                yield Seen(source, target, key["attack"], torch.from_numpy(truths[source, key["attack"]]), kept_answers(rows))

    @cache  # noqa: B019 (as long-lived as the run that it describes)
    def examples(self, split: str = "test") -> pd.DataFrame:
        """A row for each source and attack, with ``truth`` and the columns of ``examples`` of each image, from ``reached`` on."""
        columns, found = ("truth", "reached", "stuck", "steps", "macs", "l2", "linf"), []
        for _, table in records.read(self.folder, "examples", self.expected):
            for key, rows in _blocks(table, ("split", "attack", *(f"source_{part}" for part in PARTS))):
                if key["split"] == split:
                    source = Network(*(key[f"source_{part}"] for part in PARTS))
                    found.append({"source": source, "attack": key["attack"], **{name: rows[name] for name in columns}})
        if not found:
            raise RecordsError(f"{self.folder} holds no {split} images")
        return pd.DataFrame(found).astype({"truth": object}).assign(truth=lambda t: [truth.astype(np.int64) for truth in t.truth])

    @cache  # noqa: B019
    def shown(self, split: str = "test", mechanism: Mechanism | Rule | None = None) -> pd.DataFrame:
        """A row for each source, target and attack: what targets do, as deployed with a mechanism (by default the profile's).

        ``mechanism`` may be a function that gives each target its own.

        Of each image: ``truth``; ``label`` as deployed; ``exit`` that let it go, from 0, or -1 where none did; ``cost`` in MACs;
        and ``labels`` of all exits, ``[exits, n]``. The settings of the attack are columns, too.
        """
        mechanism = mechanism or self.mechanism
        each = ((seen, mechanism if isinstance(mechanism, Mechanism) else mechanism(seen.target)) for seen in self.seen(split))
        rows = pd.DataFrame([decided(seen, one) for seen, one in each])
        settings = self.attacks.rename(columns={"attack": "method", "mechanism": "attackers_mechanism"})
        return rows.join(settings, on="attack")


def kept_answers(rows: Mapping[str, np.ndarray]) -> Answers:
    """What the exits of a target answer, from the columns of its rows for one attack."""
    told = COST in rows and not np.isnan(rows[COST]).any()  # null becomes NaN
    names, n_exits = ("label", *FIXED_POINT, *([COST] if told else [])), int(rows["exit"].max()) + 1
    stored = {name: torch.from_numpy(rows[name].astype(np.int64)).view(n_exits, -1) for name in names}
    confidence, margin, entropy = (shares(stored[name]) for name in FIXED_POINT)
    return Answers(stored["label"], confidence, margin, entropy, stored.get(COST))


def decided(seen: Seen, mechanism: Mechanism) -> dict[str, Any]:
    """A row of ``Records.shown``."""
    decision = mechanism.decide(seen.answers, costs(seen.target))
    _, left = mechanism.answering(seen.answers)
    return {
        "source": seen.source,
        "target": seen.target,
        "attack": seen.attack,
        "truth": seen.truth.numpy(),
        "label": decision.label.numpy().astype(np.int16),
        "exit": torch.where(left, decision.exit, -1).numpy().astype(np.int8),
        "cost": decision.cost.numpy(),
        "labels": seen.answers.label.numpy().astype(np.int16),
    }


@cache
def costs(network: Network) -> Tensor:
    """Multiply-accumulates up to each exit of a shipped network, int64 ``[exits]``."""
    return torch.tensor(read_card(network.path(CHECKPOINTS))["macs"])


def own_threshold(network: Network) -> Mechanism:
    """Confidence exits at the threshold of the network's card: the lowest that costs at most 1 point on validation images."""
    points = read_card(network.path(CHECKPOINTS))["operating_points"].get("most_confident", {})
    point = points.get(CHEAPEST)
    return ConfidenceExit(point["threshold"]) if point else ConfidenceExit()


@cache
def measured(run: str, campaign: str) -> Records:
    """What a run has measured of a campaign of its profile.

    Raises:
        ProfileError: no such profile.
        RecordsError: no such campaign; on use: records that are missing, damaged, or of other settings, weights or data.
    """
    return Records(profiles.load(profile_of(run)), campaign, home(run) / "results")


def _blocks(table: pa.Table, names: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Runs of rows that agree in the named columns, each with these values and all other columns as arrays."""
    columns, values = {}, {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            values[name], column = column.dictionary.to_pylist(), column.indices
        columns[name] = column.to_numpy(zero_copy_only=False)
    changes = np.logical_or.reduce([np.diff(columns[name]) != 0 for name in names])
    bounds = [0, *(np.flatnonzero(changes) + 1), len(table)]
    for start, stop in pairwise(bounds):
        key = {name: values[name][columns[name][start]] if name in values else columns[name][start].item() for name in names}
        yield key, {name: column[start:stop] for name, column in columns.items() if name not in names}
