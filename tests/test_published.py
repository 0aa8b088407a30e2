"""What is published is what the committed records say, and the records are what the networks do."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

import dynlib
from dynlib import data
from dynlib.analysis import claims, transfer
from dynlib.analysis.claims import CLAIMS
from dynlib.analysis.measured import measured
from dynlib.attacks.tools import uniform_noise
from dynlib.files import PUBLISHED, home
from dynlib.networks.identity import Network
from dynlib.report.report import README, figure_names, index, rendered

DYNN = Network("cifar10", "resnet56", seed=1)


def test_readings_are_those_of_the_records():
    for name, found in claims.compute(PUBLISHED).items():
        stored, numbers = claims.read(PUBLISHED, name), [key for key in ("value", "low", "high") if key in found]
        pd.testing.assert_frame_equal(found.drop(columns=numbers), stored.drop(columns=numbers))
        np.testing.assert_allclose(found[numbers], stored[numbers], rtol=1e-4, atol=1e-9)


def test_every_claim_is_judged_on_six_cells():
    stored = claims.read(PUBLISHED)
    for id, claim in CLAIMS.items():
        assert claim.verdict(stored[stored.claim == id].iloc[0]) != "open"


def test_pages_are_up_to_date():
    assert rendered(README.read_text()) == README.read_text()
    notebooks = list(measured(PUBLISHED, "clean").profile.notebooks)
    assert index(notebooks) == (home(PUBLISHED) / "figures" / "README.md").read_text()
    made = {path.stem for path in (home(PUBLISHED) / "figures").glob("fig*")}
    assert made <= set(figure_names(notebooks))
    assert len(made) > 35


def plain_pgd(net, images, labels, eps, steps):
    """PGD on the last exit, as in a textbook."""
    adversarial = (images + (eps * uniform_noise(images, 0)).clamp(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_()
        F.cross_entropy(net(adversarial)[-1], labels, reduction="sum").backward()
        moved = adversarial + eps / 4 * adversarial.grad.sign()
        adversarial = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return adversarial.detach()


def test_a_transfer_rate_by_another_path():
    """From the SDNN to the DyNN, image by image: attack, exit rule and rate written out."""
    sdnn, dynn = (dynlib.load("resnet56", "cifar10", kind, seed=1) for kind in ("sdnn", "dynn"))
    n, clean, records = 60, measured(PUBLISHED, "clean"), measured(PUBLISHED, "transfer")
    radius = transfer.sensitive_radius(records, clean)["cifar10"]
    test = data.load("cifar10", "test", n)
    adversarial = plain_pgd(sdnn, test.inputs, test.labels, radius / 255, steps=10)
    with torch.no_grad():
        confidence, labels = dynn(adversarial).softmax(dim=-1).max(dim=-1)
    sure = confidence >= 0.9
    exit = torch.where(sure.any(dim=0), sure.int().argmax(dim=0), confidence.argmax(dim=0))
    answer = labels.gather(0, exit[None])[0]

    shown = records.shown()
    wanted = (shown.target == DYNN) & (shown.source == DYNN.sibling(exits="none")) & (shown.method == "pgd")
    (row,) = shown[wanted & (shown.eps_255 == radius) & (shown.seed == 0)].itertuples()
    # Another processor may round a few images to the other side.
    assert (row.label[:n] == answer.numpy()).mean() > 0.94
    assert (row.exit[:n] == torch.where(sure.any(dim=0), exit, -1).numpy()).mean() > 0.9
    rates = transfer.rates(shown[wanted & (shown.eps_255 == radius) & (shown.seed == 0)], transfer.right_when_clean(clean))
    right = transfer.right_when_clean(clean)
    counts = right[DYNN][:n] & right[DYNN.sibling(exits="none")][:n]
    ours = (answer != test.labels).numpy()[counts].mean()
    assert ours == pytest.approx(rates.rate.iloc[0], abs=0.15)  # 60 of the images


def test_clean_answers_are_those_of_the_networks():
    (row,) = (r for r in measured(PUBLISHED, "clean").shown().itertuples() if r.target == DYNN)
    test = data.load("cifar10", "test", 200)
    decision = dynlib.ConfidenceExit(0.9).run(dynlib.load("resnet56", "cifar10", "dynn", seed=1), test.inputs)
    assert (row.label[:200] == decision.label.numpy()).mean() > 0.99
    assert (row.cost[:200] == decision.cost.numpy()).mean() > 0.97
