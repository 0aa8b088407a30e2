"""What the README shows must run, and what it says in figures must be so."""

import re

import pytest
import torch

from dynlib.datasets import DATASETS
from dynlib.mechanisms import ConfidenceExit
from dynlib.report.report import README


def test_python_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 5
    names = {}
    for block in blocks:
        assert len(block.splitlines()) < 20
        exec(block, names)
    assert names["decision"].label.shape == (100,)
    assert names["accuracy"] > 0.7
    assert names["cost"].shape == (100,)  # the new mechanism's
    assert (names["cost"] < names["net"].macs[-1]).any()
    assert (names["weaker"].adversarial - names["test"].inputs[:10]).abs().amax() == pytest.approx(8 / 255, abs=1e-4)
    assert names["logits"].shape == (3, 100, 10)  # the new network's
    assert torch.isfinite(names["logits"]).all()


def test_numbers_in_the_text_are_those_of_the_code():
    text = README.read_text()
    cifar10 = DATASETS["cifar10"]
    assert f"The first {cifar10.samples['test'].size:,} test images of CIFAR-10" in text
    assert f"the first {cifar10.samples['validation'].size:,} of its validation images" in text
    assert f"on {50_000 - cifar10.validation:,} images: {cifar10.validation:,} of the training images are held out" in text
    assert f"the threshold ({ConfidenceExit().threshold})" in text


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README.read_text())
    assert len(links) > 5
    assert [link for link in links if not (README.parent / link).exists()] == []
