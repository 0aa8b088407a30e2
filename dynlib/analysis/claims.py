"""The claims: what is measured for each, and its rule. What becomes of them in a run.

The rules were committed before the numbers that they judge; the choices in them are made on validation images. How much a design
or an exit rule costs, and how accurate it is when clean, is counted on all clean validation images of a run, not only on those that
were attacked; that counting is younger than the numbers of VGG-16, whose networks were measured before.
"""

import re

import pandas as pd

from dynlib.analysis import readings
from dynlib.analysis.claim import CELLS, Claim
from dynlib.files import home, unread
from dynlib.records import RecordsError

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
            "The transfer rate from DyNN to SDNN minus the rate from SDNN to DyNN is {value}",
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
            "With the loss that is cheapest on validation images, fooling a DyNN takes {value} times the computation of fooling "
            "its SDNN",
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
            "A design chosen on validation images, at most 1 point less accurate there and no more expensive, changes the DyNN's "
            "robust accuracy against attacks made on a static network by {value}",
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
            "Attacks built to make only the network as deployed err, while its final exit stays right, have a success rate that "
            "differs from that of plain attacks by {value}",
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
            "Against such an attack by someone who knows the design, a design chosen on validation images changes the share of "
            "images that are still classified correctly by {value}",
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
            "The exit rule that is most robust on validation images (it may be confidence itself), set to the same cost as "
            "confidence, changes robust accuracy by {value}",
            "06_mechanisms",
            readings.rules,
            ours=True,
        ),
        Claim(
            "B2",
            "An attack on speed takes away more than half of what early exits save.",
            "Main reading: jointly trained DyNNs, attacked themselves by PGD that pushes every early exit to the uniform "
            "distribution, at C1's radius. Of each test image, whatever its answer: half of what the clean image saves of a full"
            f" run, less what the attacked image still saves. {_JUDGED}",
            "half of the computation saved on clean images, less what is saved under attack, as a share of a full run",
            "Half of what early exits save on clean images, minus what they still save under an attack by someone who "
            "has the DyNN, is {value} of a full run",
            "07_slowdown",
            readings.speeds,
            ours=True,
        ),
        Claim(
            "B3",
            "A cheap defence of the mechanism holds better against an attacker who knows it than full runs of a share of the images"
            " do at the same cost.",
            "Main reading: jointly trained DyNNs, attacked themselves at C1's radius; each image meets the worst for it of all "
            "attacks there are, those made for a defence included. Defences: the final exit answers where no exit is confident; "
            "the same with a threshold of 0.99; with two exits in a row that must agree; with one early exit left out at random. "
            "Full runs: the final exit alone answers a random share of the images, so large that clean validation images cost as "
            "much. Of the defences the one that is furthest ahead of its full runs on validation images, at most 1 point less "
            "accurate there; the chance that an image is answered correctly, on the mean of all test images, less that with the "
            f"full runs. {_JUDGED}",
            "robust accuracy with the chosen cheap defence less that with full runs that cost the same",
            "Against an attacker who knows it, a cheap defence chosen on validation images changes robust accuracy by {value}, "
            "compared with full runs of as many images as it pays for",
            "08_defences",
            readings.protections,
            ours=True,
        ),
    )
}


def compute(run: str) -> dict[str, pd.DataFrame]:
    """All claims from a run's records: ``claims``, their readings, and ``trainings``, the main ones training by training."""
    return {
        "claims": pd.concat([claim.readings(run) for claim in CLAIMS.values()], ignore_index=True),
        "trainings": pd.concat([claim.trainings(run) for claim in CLAIMS.values()], ignore_index=True),
    }


def read(run: str, table: str = "claims") -> pd.DataFrame:
    """One of the tables of ``compute`` that the workflow has made for a run.

    Raises:
        RecordsError: it has not, or it may not be read.
    """
    path = home(run) / "results" / f"{table}.csv"
    try:
        return pd.read_csv(path)
    except OSError as error:
        raise RecordsError(f"{path} {unread(error)}") from None


def compared(readings: pd.DataFrame) -> pd.DataFrame:
    """For each claim how its other readings end beside the main one: a row each, of the rows of ``read``.

    The rule makes ``ruled`` of the main reading, and the same of ``same`` of the ``others``; ``flipped`` lists the rest. Only those
    count that were measured on as many cells as the main one; ``fewer`` is the number of the others. Left out is a line that varies
    the radius and names only the one that the main reading has.
    """
    found = []
    for claim, rows in readings.groupby("claim", sort=False):
        radii = {*re.findall(r"[\d.]+/255", rows.reading.iloc[0])}
        repeats = (rows.group == "radius") & rows.reading.map(lambda reading, radii=radii: radii == {reading})
        ruled, others = rows.ruled.iloc[0], rows[~repeats].iloc[1:]
        whole = others.cells >= rows.cells.iloc[0]
        fewer, others = int((~whole).sum()), others[whole]
        flipped = [f"{row.ruled} with {row.group}: {row.reading}" for row in others.itertuples() if row.ruled != ruled]
        same = len(others) - len(flipped)
        found.append({"claim": claim, "ruled": ruled, "same": same, "others": len(others), "fewer": fewer, "flipped": flipped})
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
