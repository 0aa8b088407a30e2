"""How much stronger attacks find: what is counted, and on which images."""

import numpy as np
import pandas as pd
import pytest

from dynlib.analysis import strength
from dynlib.analysis.measured import measured
from dynlib.attacks import PGD, AutoAttack
from dynlib.networks.identity import Network
from dynlib.records import RecordsError

DYNN = Network("cifar10", "resnet56", seed=1)
SDNN = DYNN.static


def test_titles():
    strong = PGD(steps=50, restarts=5, loss="answering")
    assert strength.title(strong, DYNN) == "PGD-50, 5 starts, exit answering"
    assert strength.title(PGD(), SDNN) == "PGD-10"
    assert strength.title(AutoAttack(), DYNN) == "AutoAttack"


def row(source, per_image, attack=strength.TOGETHER):
    return {"source": source, "attack": attack, "per_image": np.array(per_image, float)}


def test_what_is_missed_is_compared_on_images_that_count_for_both():
    table = pd.DataFrame([row(SDNN, [0, 1, np.nan, 0]), row(DYNN, [1, 1, 1, np.nan]), row(DYNN, [0, 0, 0, 0], "PGD-10")])
    found = strength.missed(table)
    assert found["sdnn"].value == pytest.approx(1 / 3)
    assert found["dynn"].value == 1
    assert found["difference"].value == pytest.approx(1 / 2)
    with pytest.raises(RecordsError, match="strength"):
        strength.missed(table[table.source == DYNN])


def test_a_published_share_by_another_path():
    """Image by image, from the answers of all exits."""
    table = strength.turned(measured("published", "strength"), measured("published", "clean"))
    clean = next(seen for seen in measured("published", "clean").seen() if seen.target == DYNN)
    seen = [one for one in measured("published", "strength").seen() if one.target == DYNN]

    def answer(answers, image):
        sure = [k for k, confidence in enumerate(answers.confidence[:, image].tolist()) if confidence >= 0.9]
        return int(answers.label[sure[0] if sure else answers.confidence[:, image].argmax(), image])

    right = [image for image in range(len(seen[0].truth)) if answer(clean.answers, image) == clean.truth[image]]
    lost = [any(answer(one.answers, image) != one.truth[image] for one in seen) for image in right]
    found = table[(table.source == DYNN) & (table.attack == strength.TOGETHER)].iloc[0]
    assert (found.n, found.rate) == (len(right), pytest.approx(np.mean(lost)))
    assert len(seen) == 6
    assert found.value > 0
