"""The claims: what is measured for each, in how many ways it can be read, and the rule that turns a reading into a verdict.

A claim has *readings*; the first is the main one, which its verdict is about, and the rest say how much the verdict depends on it.
The rules were committed before the numbers that they judge; the choices in them are made on validation images.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dynlib.analysis import cost, readings, stats
from dynlib.analysis.readings import MAIN, Reading
from dynlib.analysis.stats import Training
from dynlib.datasets import DATASETS
from dynlib.files import home
from dynlib.records import RecordsError

CELLS = 6  # three models on two data sets


@dataclass(frozen=True)
class Claim:
    """A claim of the paper in our words, or one of ``ours``, and the rule for its verdict.

    ``metric`` is what the rule is about, ``found`` says it in plain words with ``{value}`` for its value, and ``read`` gives its
    readings from the records of a run. ``ratio``: the metric is one,
    and below 1 is as claimed; else above 0 is. ``reported`` is the paper's own value: None until someone who has its tables fills
    it in.
    """

    id: str
    sentence: str
    rule: str
    metric: str
    found: str
    notebook: str
    read: Callable[[str], Iterator[Reading]]
    ratio: bool = False
    ours: bool = False
    reported: str | None = None

    def readings(self, run: str) -> pd.DataFrame:
        """A row for each reading, the main one first: ``group`` says what differs from that, ``reading`` how.

        ``value`` is pooled over ``cells`` cells with its 95 % interval, ``above`` of them lie on the claim's side, ``images`` is
        their smallest number; ``ruled`` is the rule's verdict on these cells, be they six or fewer, and ``by_dataset`` the value of
        each data set.

        Raises:
            RecordsError: the main reading was not measured.
        """
        rows = [self._row(*reading) for reading in self.read(run) if reading[2]]
        if not rows or rows[0]["group"] != MAIN:
            raise RecordsError(f"{self.id}: the main reading was not measured in the run {run!r}")
        return pd.DataFrame(rows)

    def _row(self, group: str, reading: str, measured: list[Training]) -> dict[str, Any]:
        value_of = cost.of_sums if self.ratio else np.nanmean
        names = pd.MultiIndex.from_tuples(one.cell[-1].cell for one in measured)
        values = pd.Series([value_of(one.values) for one in measured], index=names)
        each = values.groupby(level=[0, 1], sort=False).mean()  # over the trainings of a cell
        value, (low, high) = each.mean(), self._interval(measured)
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
            "images": min(_counted(one.values) for one in measured),
            "ruled": ruled(agree, *bounds),
            "by_dataset": ", ".join(names),
        }

    def _interval(self, measured: list[Training]) -> tuple[Any, ...]:
        return stats.bootstrap(measured, cost.log_ratio) if self.ratio else stats.pooled_mean(measured)[1:]

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
    """The number of images that count: those of a mean that are not NaN, those of a ratio on which something was spent."""
    return int((~np.isnan(values)).sum() if values.ndim == 1 else (values != 0).any(axis=1).sum())


_JUDGED = (
    "Supported: the 95 % interval, pooled over the six cells (3 models x 2 data sets), lies on the claim's side, and at least"
    " 5 of 6 cells do. Contradicted: the mirror case. Partly: the interval does, but fewer cells. Else not supported. Open "
    "until all six cells are measured."
)
CLAIMS = {
    claim.id: claim
    for claim in (
        Claim(
            "C1",
            "Adversarial examples transfer better from the DyNN to the SDNN than from the SDNN to the DyNN.",
            "Main reading: same architecture, PGD with the average loss. The radius, of 1, 2, 4 and 8/255, is the one at "
            "which the mean of both directions over the cells of a data set is nearest to 50 % on validation images. "
            f"Difference of the two rates on the test images that both classify correctly as deployed. {_JUDGED}",
            "difference of transfer rates, DyNN to SDNN less SDNN to DyNN",
            "Examples made on the DyNN fool the SDNN {value} more often than the other way round",
            "01_transferability",
            readings.transfers,
        ),
        Claim(
            "C2",
            "Adversarial examples are cheaper to generate with a DyNN than with an SDNN.",
            "Main reading: a walk in steps of 0.5/255 inside 8/255, at most 50, that ends once the network as deployed errs; "
            "asking it is paid for. Of the losses on the DyNN the one that is cheapest on validation images. Ratio of DyNN to"
            f" SDNN of the MACs per success, geometric mean over the cells; the claim's side is below 1. {_JUDGED}",
            "MACs per successful white-box example, DyNN over SDNN",
            "To fool a DyNN takes {value} times the computation that it takes to fool its SDNN",
            "02_efficiency",
            readings.walks,
            ratio=True,
        ),
        Claim(
            "C3",
            "Design choices can raise a DyNN's robustness against attacks made on the static model.",
            "Main reading: the attacker has a separately trained SDNN of the same architecture and uses PGD; the DyNN is "
            "jointly trained. The radius is the one at which the default design's robust accuracy on validation images is "
            "nearest to 30 % on the mean of a data set's cells. Of all designs (exits, threshold, fall-back) the most robust "
            "on validation images that is at most 1 point less accurate than the default there and costs at most as much; its"
            f" robust accuracy on test images less the default's. {_JUDGED}",
            "robust accuracy of the chosen design less the default's",
            "A design chosen with care, no less accurate and no dearer, changes the DyNN's robust accuracy against "
            "such attacks by {value}",
            "03_exit_design",
            readings.designs,
        ),
        Claim(
            "C4a",
            "The mechanism opens a new attack surface: attacks that make only the network as deployed err.",
            "Main reading: jointly trained DyNNs at C1's radius, on images that are classified correctly as deployed and at "
            "the final exit. Surface: the network as deployed errs, its final exit does not. The best, image by image, of the"
            f" attacks with this goal less the best of the plain ones. {_JUDGED}",
            "share of images on which only the network as deployed errs, attacks with that goal less plain ones",
            "Attacks that aim at it make only the network as deployed err, unseen by its final exit, on {value} more "
            "images than plain attacks do",
            "04_early_attack",
            readings.surfaces,
        ),
        Claim(
            "C4b",
            "Design choices can raise a DyNN's robustness against the attack that the mechanism makes possible.",
            "Main reading: Early PGD by an attacker who knows the design, on jointly trained DyNNs. Of the designs the one is"
            " chosen on validation images that keeps most answers right as deployed, at most 1 point less accurate than the "
            f"default and at most as costly; the share still right as deployed on test images less the default's. {_JUDGED}",
            "share still right as deployed, chosen design less the default",
            "Against that attack such a design changes the share of images that are still classified correctly by {value}",
            "05_attack_design",
            readings.defences,
        ),
        Claim(
            "B1",
            "At the same clean cost, another exit rule than confidence is more robust against attacks made on the static model.",
            "Main reading: every rule is set on validation images so that clean images cost half of a full run, and the final "
            "exit answers where no exit lets an image go. Attacker and radius as in C3. Of confidence, entropy, patience and "
            "thresholds per exit the rule that is most robust on validation images, at most 1 point less accurate than "
            f"confidence there; its robust accuracy on test images less that of confidence. {_JUDGED}",
            "robust accuracy of the chosen exit rule less that of confidence at the same cost",
            "Another exit rule at the same cost changes robust accuracy by {value}",
            "06_mechanisms",
            readings.rules,
            ours=True,
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


def compared(readings: pd.DataFrame) -> pd.DataFrame:
    """For each claim how its other readings end beside the main one: a row each, of the rows of ``read``.

    The rule makes ``ruled`` of the main reading, and the same of ``same`` of the ``others``; ``flipped`` lists the rest.
    Left out is a line that varies the radius and names only the one that the main reading has.
    """
    found = []
    for claim, rows in readings.groupby("claim", sort=False):
        radii = {*re.findall(r"[\d.]+/255", rows.reading.iloc[0])}
        repeats = (rows.group == "radius") & rows.reading.map(lambda reading, radii=radii: radii == {reading})
        ruled, others = rows.ruled.iloc[0], rows[~repeats].iloc[1:]
        flipped = [f"{row.ruled} with {row.group}: {row.reading}" for row in others.itertuples() if row.ruled != ruled]
        same = len(others) - len(flipped)
        found.append({"claim": claim, "ruled": ruled, "same": same, "others": len(others), "flipped": flipped})
    return pd.DataFrame(found)


def opposed(readings: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``read`` whose interval lies wholly on the other side of no effect than that of the claim's main reading."""
    none = readings.claim.map(lambda claim: 1.0 if CLAIMS[claim].ratio else 0.0)
    side = (readings.low > none).astype(int) - (readings.high < none)
    return readings[side * side.groupby(readings.claim).transform("first") < 0]


def tell(run: str, id: str) -> None:
    """Print a claim, its rule, what was seen and the verdict."""
    claim, table = CLAIMS[id], read(run)
    main = table[table.claim == id].iloc[0]
    for name, text in (("claim", claim.sentence), ("rule", claim.rule), ("reading", main.reading), ("seen", claim.seen(main))):
        print(f"{name:<8} {text}")
    print(f"verdict  {claim.verdict(main)} ({main.cells} of {CELLS} cells, {main.images} images or more)")
