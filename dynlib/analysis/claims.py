"""The paper's claims: what is measured for each, in how many ways it can be read, and the rule that turns a reading into a verdict.

A claim has *readings*; the first is the main one, which its verdict is about, and the rest say how much the verdict depends on it.
The rules were committed before the numbers that they judge; the choices in them are made on validation images.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from dynlib.analysis import cost, design, stats, surface, transfer
from dynlib.analysis.measured import Seen, measured, own_threshold
from dynlib.attacks import ATTACKS
from dynlib.attacks.losses import get_loss
from dynlib.datasets import DATASETS
from dynlib.files import home
from dynlib.mechanisms import ConfidenceExit, Mechanism
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

CELLS = 6  # three models on two data sets
MAIN = "main reading"
THRESHOLDS = (0.5, 0.7, 0.99)  # of the networks as deployed, beside the profile's
Cell = tuple[Network, np.ndarray]  # a dynamic network and a value of each image ``[n]``, or columns ``[n, 4]`` of a ratio


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, in our words, and the rule for its verdict.

    ``metric`` is what the rule is about, and ``read`` gives its readings from the records of a run. ``ratio``: the metric is one, and
    below 1 is as claimed; else above 0 is. ``reported`` is the paper's own value: None until someone who has its tables fills it in.
    """

    id: str
    sentence: str
    rule: str
    metric: str
    notebook: str
    read: Callable[[str], Iterable[tuple[str, str, list[Cell]]]]
    ratio: bool = False
    reported: str | None = None

    def readings(self, run: str) -> pd.DataFrame:
        """A row for each reading, the main one first: ``group`` says what differs from that, ``reading`` how.

        ``value`` is pooled over ``cells`` cells with its 95 % interval, ``above`` of them lie on the claim's side, ``images`` is their
        smallest number; ``ruled`` is the rule's verdict on these cells, be they six or fewer, and ``by_dataset`` the value of each
        data set.

        Raises:
            RecordsError: the main reading was not measured.
        """
        rows = [self._row(*reading) for reading in self.read(run) if reading[2]]
        if not rows or rows[0]["group"] != MAIN:
            raise RecordsError(f"{self.id}: the main reading was not measured in the run {run!r}")
        return pd.DataFrame(rows)

    def _row(self, group: str, reading: str, cells: list[Cell]) -> dict:
        values = pd.Series(
            [self._pooled([one]) for one in cells], index=pd.MultiIndex.from_tuples(network.cell for network, _ in cells)
        )
        each = values.groupby(level=[0, 1], sort=False).mean()  # over the trainings of a cell
        value, (low, high) = each.mean(), self._interval(cells)
        agree = -each if self.ratio else each
        bounds = (-high, -low) if self.ratio else (low, high)
        shown = np.exp if self.ratio else lambda number: number
        names = [f"{DATASETS[name].display} {self.text(shown(v))}" for name, v in each.groupby(level=0, sort=False).mean().items()]
        return {
            "claim": self.id,
            "group": group,
            "reading": reading,
            "cells": len(each),
            "above": int((agree > 0).sum()),
            "value": shown(value),
            "low": shown(low),
            "high": shown(high),
            "images": min(_counted(values) for _, values in cells),
            "ruled": ruled(agree, *bounds),
            "by_dataset": ", ".join(names),
        }

    def _pooled(self, cells: list[Cell]) -> float:
        if self.ratio:
            return float(np.mean([cost.log_ratio(columns.sum(axis=0)) for _, columns in cells]))
        return float(np.mean([np.nanmean(values) for _, values in cells]))

    def _interval(self, cells: list[Cell]) -> tuple[float, float]:
        named = [(network.dataset, values) for network, values in cells]
        return stats.bootstrap(named, cost.log_ratio) if self.ratio else stats.pooled_mean(named)[1:]

    def text(self, value: float) -> str:
        """A value as people read it: a factor, or points."""
        return f"{value:.2f}" if self.ratio else f"{100 * value:+.1f} points"

    def seen(self, row: pd.Series) -> str:
        """A reading as a sentence."""
        numbers = f"[{row.low:.2f}, {row.high:.2f}]" if self.ratio else f"[{100 * row.low:+.1f}, {100 * row.high:+.1f}]"
        side = "below 1" if self.ratio else "above 0"
        return f"{self.text(row.value)} {numbers}, {side} in {row.above} of {row.cells} cells; {row.by_dataset}"

    def verdict(self, row: pd.Series) -> str:
        """Of a reading; open until all cells are measured."""
        return row.ruled if row.cells >= CELLS else "open"


def ruled(cells: pd.Series, low: float, high: float) -> str:
    """The verdict on any number of cells, of which 5 in 6 have to agree; above 0 is what the claim says."""
    needed = 5 / CELLS * len(cells)
    if low > 0:
        return "supported" if (cells > 0).sum() >= needed else "partly"
    return "contradicted" if high < 0 and (cells < 0).sum() >= needed else "not supported"


def _counted(values: np.ndarray) -> int:
    return int((~np.isnan(values)).sum()) if values.ndim == 1 else len(values)


# C1


def transfers(run: str) -> Iterable[tuple[str, str, list[Cell]]]:
    """C1: differences of transfer rates, over losses, radii, attacks, thresholds, random starts and the way exits were trained."""
    records, clean = measured(run, "transfer"), measured(run, "clean")
    radius, profile = transfer.sensitive_radius(records, clean), records.profile

    def table(mechanism: Mechanism | Callable[[Network], Mechanism] | None = None, final: bool = False) -> pd.DataFrame:
        right = transfer.right_when_clean(clean, mechanism=mechanism, final=final)
        found = transfer.directions(records.shown(mechanism=mechanism), right, final)
        return found[found.network.map(lambda network: network.exits == "all")]

    def cells(found: pd.DataFrame, eps: dict[str, float] = radius, trained: str = "joint", **wanted) -> list[Cell]:
        """The rows with these values, by default the main reading's."""
        wanted = {"method": "pgd", "loss": "average", "seed": profile.seed, **wanted}
        here = found[np.logical_and.reduce([found[key] == value for key, value in wanted.items()])]
        rows = (row for row in here.itertuples() if row.network.trained == trained and row.eps_255 == eps[row.network.dataset])
        return [(row.network, row.per_image) for row in rows]

    usual = table()
    radii = ", ".join(f"{value:g}/255 on {DATASETS[name].display}" for name, value in radius.items())
    yield MAIN, f"PGD, average loss, {radii}", cells(usual)
    for loss in dict.fromkeys(usual.loss[usual.method == "pgd"]):
        if loss != "average":
            yield "loss", get_loss(loss).display, cells(usual, loss=loss)
    for eps in sorted(set(usual.eps_255) - {0}):
        yield "radius", f"{eps:g}/255", cells(usual, dict.fromkeys(radius, eps))
    for method in dict.fromkeys(usual.method):
        if method != "pgd":
            yield "attack", ATTACKS[method].display, cells(usual, method=method)
    for threshold in THRESHOLDS:
        yield "threshold", f"{threshold:g}", cells(table(ConfidenceExit(threshold)))
    yield "threshold", "each network's own", cells(table(own_threshold))
    yield "threshold", "none, final exit", cells(table(final=True))
    for seed in sorted(set(usual.seed) - {profile.seed}):
        yield "random start", f"seed {seed}", cells(usual, seed=seed)
    yield "training", "exits only", cells(usual, trained="heads")


# C2


def walks(run: str) -> Iterable[tuple[str, str, list[Cell]]]:
    """C2: costs of a success on the DyNN over those on the SDNN, over losses and currencies."""
    records, clean = measured(run, "cost"), measured(run, "clean")
    walked, best = cost.walks(records, clean), cost.cheapest_loss(records, clean)
    for spent, currency in cost.SPENT.items():
        table = cost.ratios(walked, spent)
        for loss in sorted(dict.fromkeys(table.loss), key=lambda loss: loss != best):  # the main reading first
            rows = [(row.network, row.columns) for row in table[table.loss == loss].itertuples()]
            display = get_loss(loss).display
            if spent == "macs":
                yield (MAIN, f"{currency}, loss of the {display}", rows) if loss == best else ("loss", display, rows)
            else:
                yield "currency", f"{currency}, {display}", rows


# C3


@cache
def attacked_by_static(run: str, split: str) -> dict[tuple[Network, Network, str], Seen]:
    """What dynamic networks answer to examples of static ones, by source, target and attack; only with all exits."""
    found = measured(run, "transfer").seen(split)
    return {(s.source, s.target, s.attack): s for s in found if s.source.is_static and s.target.exits == "all"}


@cache
def clean_answers(run: str, split: str) -> dict[Network, Seen]:
    """What networks answer to clean images."""
    return {seen.target: seen for seen in measured(run, "clean").seen(split)}


ATTACKERS = ("a separate SDNN", "the SDNN under it", "another architecture")


def attacker(static: Network, dynamic: Network) -> str:
    """What the static network that examples were made on is to the dynamic one that they are shown to."""
    if static.model != dynamic.model:
        return "another architecture"
    return "the SDNN under it" if dynamic.trained == "heads" else "a separate SDNN"


def design_radius(run: str) -> dict[str, float]:
    """For each data set the radius, in 255ths, of C3's main reading.

    The one at which PGD by a separate SDNN leaves the default design's robust accuracy nearest to 30 % on validation images, on the
    mean of the cells.

    Raises:
        RecordsError: nothing of that kind was measured.
    """
    records, found = measured(run, "transfer"), []
    for (source, target, name), seen in attacked_by_static(run, "validation").items():
        about = records.attacks.loc[name]
        if about.attack == "pgd" and about.seed == records.profile.seed and attacker(source, target) == "a separate SDNN":
            robust = (records.mechanism.answer(seen.answers) == seen.truth).double().mean().item()
            found.append((target.dataset, about.eps_255, robust))
    if not found:
        raise RecordsError("C3: no validation images were attacked by PGD on a static network")
    table = (
        pd.DataFrame(found, columns=["dataset", "eps", "robust"])
        .groupby(["dataset", "eps"], sort=False)
        .robust.mean()
        .reset_index()
    )
    return {name: rows.eps.iloc[(rows.robust - 0.3).abs().argmin()].item() for name, rows in table.groupby("dataset", sort=False)}


@cache
def static_space(run: str, source: Network, target: Network, attack: str, split: str) -> pd.DataFrame:
    """All designs of a network under one attack by a static one, see ``design.space``."""
    attacked, clean = attacked_by_static(run, split), clean_answers(run, split)
    return design.space(clean[target], attacked[source, target, attack], measured(run, "transfer").mechanism)


def chosen_design(run: str, source: Network, target: Network, attack: str, cost_limit: bool = True, vary: str = "") -> dict:
    """The design that is chosen on validation images, and what it gains on test images, see ``design.gain``."""
    validation, test = (static_space(run, source, target, attack, split) for split in ("validation", "test"))
    if vary:
        validation = validation[
            [_varies(found, validation[validation.default].design.iloc[0], vary) for found in validation.design]
        ]
    return design.gain(test, design.choose(validation, cost_limit))


VARY = {
    "exits": lambda one, start: one.mechanism == start.mechanism,
    "threshold": lambda one, start: one.exits == start.exits and one.mechanism.fall_back_to == start.mechanism.fall_back_to,
    "fall-back": lambda one, start: one.exits == start.exits and one.mechanism.threshold == start.mechanism.threshold,
}


def _varies(one: design.Design, start: design.Design, what: str) -> bool:
    """Whether a design differs from the default in one choice only."""
    return VARY[what](one, start)


def designs(run: str) -> Iterable[tuple[str, str, list[Cell]]]:
    """C3: robust accuracy of the chosen design less the default's, over limits, choices, attackers, radii, attacks and starts."""
    records, radius = measured(run, "transfer"), design_radius(run)

    def cells(
        who: str = ATTACKERS[0], eps: dict[str, float] = radius, method: str = "pgd", seed: int = records.profile.seed, **how
    ) -> list[Cell]:
        found = []
        for source, target, name in attacked_by_static(run, "test"):
            about = records.attacks.loc[name]
            if (attacker(source, target), about.attack, about.eps_255, about.seed) == (who, method, eps[target.dataset], seed):
                found.append((target, chosen_design(run, source, target, name, **how)["per_image"]))
        return found

    radii = ", ".join(f"{value:g}/255 on {DATASETS[name].display}" for name, value in radius.items())
    yield MAIN, f"a separate SDNN, PGD, {radii}", cells()
    yield "limit", "of accuracy only, not of cost", cells(cost_limit=False)
    for choice in VARY:
        yield "choice", f"only the {choice}", cells(vary=choice)
    for who in ATTACKERS[1:]:
        yield "attacker", who, cells(who)
    for eps in sorted(set(records.attacks.eps_255[records.attacks.attack == "pgd"])):
        yield "radius", f"{eps:g}/255", cells(eps=dict.fromkeys(radius, eps))
    for method in dict.fromkeys(records.attacks.attack):
        if method != "pgd":
            yield "attack", ATTACKS[method].display, cells(method=method)
    for seed in sorted(set(records.attacks.seed) - {records.profile.seed}):
        yield "random start", f"seed {seed}", cells(seed=seed)


# C4


def surfaces(run: str) -> Iterable[tuple[str, str, list[Cell]]]:
    """C4, surface: what attacks with the goal open beyond the plain ones, over radii, random starts and training."""
    clean, records = measured(run, "clean"), measured(run, "surface")
    shown, counts, seed = surface.on_itself(run), surface.counted(clean), records.profile.seed
    radius = transfer.sensitive_radius(measured(run, "transfer"), clean)

    def cells(eps: dict[str, float] = radius, trained: str = "joint", seed: int = seed) -> list[Cell]:
        found = []
        for dataset, value in eps.items():
            here = shown[[n.dataset == dataset and n.trained == trained and n.exits == "all" for n in shown.source]]
            found += [(row.network, row.per_image) for row in surface.surface_gains(here, counts, value, seed).itertuples()]
        return found

    radii = ", ".join(f"{value:g}/255 on {DATASETS[name].display}" for name, value in radius.items())
    yield MAIN, f"jointly trained, {radii}", cells()
    # Radii at which there are as many plain attacks, so that the best of them means the same.
    plain = shown[shown.goal == surface.PLAIN].groupby("eps_255").loss.agg(set)
    whole = max(plain, key=len)
    for eps in sorted(set(shown.eps_255[shown.goal == surface.GOAL]) & set(plain.index[plain == whole])):
        yield "radius", f"{eps:g}/255", cells(dict.fromkeys(radius, eps))
    for other in sorted(set(shown.seed[shown.goal == surface.GOAL]) - {seed}):
        yield "random start", f"seed {other}", cells(seed=other)
    yield "training", "exits only", cells(trained="heads")


@cache
def attacked_designs(run: str, split: str) -> dict[Network, pd.DataFrame]:
    """See ``surface.designs_attacked``."""
    return surface.designs_attacked(measured(run, "designs"), measured(run, "clean"), split)


def chosen_against(run: str, network: Network, outcome: str = "robust", cost_limit: bool = True) -> dict:
    """The design against the Early Attack that is chosen on validation images, and what it gains on test images.

    ``outcome``: ``"robust"``, still right as deployed, or ``"closed"``, the surface is.
    """
    validation, test = (attacked_designs(run, split)[network] for split in ("validation", "test"))
    validation, test = (table.assign(robust=table[outcome]) for table in (validation, test))
    return design.gain(test, design.choose(validation, cost_limit))


def defences(run: str) -> Iterable[tuple[str, str, list[Cell]]]:
    """C4, designs: what the chosen design gains against an attacker who knows it, over outcomes and limits."""

    def cells(**how) -> list[Cell]:
        return [(network, chosen_against(run, network, **how)["per_image"]) for network in attacked_designs(run, "test")]

    yield MAIN, "still right as deployed", cells()
    yield "outcome", "surface closed", cells(outcome="closed")
    yield "limit", "of accuracy only, not of cost", cells(cost_limit=False)
    yield "outcome and limit", "surface closed, of accuracy only", cells(outcome="closed", cost_limit=False)


_JUDGED = (
    "Supported: the 95 % interval, pooled over the six cells (3 models x 2 data sets), lies on the claim's side, and at least 5 of 6 "
    "cells do. Contradicted: the mirror case. Partly: the interval does, but fewer cells. Else not supported. Open until all six "
    "cells are measured."
)
CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "C1",
            "Adversarial examples transfer better from the DyNN to the SDNN than from the SDNN to the DyNN.",
            "Main reading: same architecture, PGD with the average loss. The radius, of 1, 2, 4 and 8/255, is the one at which the mean "
            "of both directions over the cells of a data set is nearest to 50 % on validation images. Difference of the two rates on "
            f"the test images that both classify correctly as deployed. {_JUDGED}",
            "difference of transfer rates, DyNN to SDNN less SDNN to DyNN",
            "01_transferability",
            transfers,
        ),
        Claim(
            "C2",
            "Adversarial examples are cheaper to generate with a DyNN than with an SDNN.",
            "Main reading: a walk in steps of 0.5/255 inside 8/255, at most 50, that ends once the network as deployed errs; asking it "
            "is paid for. Of the losses on the DyNN the one that is cheapest on validation images. Ratio of DyNN to SDNN of the MACs "
            f"per success, geometric mean over the cells; the claim's side is below 1. {_JUDGED}",
            "MACs per successful white-box example, DyNN over SDNN",
            "02_efficiency",
            walks,
            ratio=True,
        ),
        Claim(
            "C3",
            "Design choices can raise a DyNN's robustness against attacks made on the static model.",
            "Main reading: the attacker has a separately trained SDNN of the same architecture and uses PGD; the DyNN is jointly "
            "trained. The radius is the one at which the default design's robust accuracy on validation images is nearest to 30 % on "
            "the mean of a data set's cells. Of all designs (exits, threshold, fall-back) the most robust on validation images that "
            "is at most 1 point less accurate than the default there and costs at most as much; its robust accuracy on test images "
            f"less the default's. {_JUDGED}",
            "robust accuracy of the chosen design less the default's",
            "03_exit_design",
            designs,
        ),
        Claim(
            "C4a",
            "The mechanism opens a new attack surface: attacks that make only the network as deployed err.",
            "Main reading: jointly trained DyNNs at C1's radius, on images that are classified correctly as deployed and at the final "
            "exit. Surface: the network as deployed errs, its final exit does not. The best, image by image, of the attacks with this "
            f"goal less the best of the plain ones. {_JUDGED}",
            "share of images on which only the network as deployed errs, attacks with that goal less plain ones",
            "04_early_attack",
            surfaces,
        ),
        Claim(
            "C4b",
            "Design choices can raise a DyNN's robustness against the attack that the mechanism makes possible.",
            "Main reading: Early PGD by an attacker who knows the design, on jointly trained DyNNs. Of the designs the one is chosen on "
            "validation images that keeps most answers right as deployed, at most 1 point less accurate than the default and at most as "
            f"costly; the share still right as deployed on test images less the default's. {_JUDGED}",
            "share still right as deployed, chosen design less the default",
            "05_attack_design",
            defences,
        ),
    )
}


def compute(run: str) -> pd.DataFrame:
    """The readings of all claims from a run's records."""
    return pd.concat([claim.readings(run) for claim in CLAIMS.values()], ignore_index=True)


def read(run: str) -> pd.DataFrame:
    """The readings of all claims that the workflow has computed for a run.

    Raises:
        RecordsError: it has not.
    """
    path = home(run) / "results" / "claims.csv"
    if not path.exists():
        raise RecordsError(f"{path} is missing: run again")
    return pd.read_csv(path)


def tell(run: str, id: str) -> None:
    """Print a claim, its rule, what was seen and the verdict."""
    claim, table = CLAIMS[id], read(run)
    main = table[table.claim == id].iloc[0]
    for name, text in (("claim", claim.sentence), ("rule", claim.rule), ("reading", main.reading), ("seen", claim.seen(main))):
        print(f"{name:<8} {text}")
    print(f"verdict  {claim.verdict(main)} ({main.cells} of {CELLS} cells, {main.images} images or more)")
