"""What the README shows must run, and what it says in figures must be so."""

import re
import shutil

import pytest
import torch

from dynlib import profiles
from dynlib.datasets import DATASETS
from dynlib.files import ROOT
from dynlib.mechanisms import ConfidenceExit
from dynlib.profiles import PROFILES
from dynlib.report.report import README

EXTEND = ROOT / "docs" / "extend.md"


def blocks(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_readme_s_block_runs():
    (block,) = blocks(README)
    exec(block, names := {})
    assert names["result"].reached.any()
    assert names["decision"].label.shape == (100,)


def test_the_page_on_extending_runs():
    names = {}
    for block in blocks(EXTEND):
        assert len(block.splitlines()) < 20
        exec(block, names)
    assert names["decision"].label.shape == (100,)
    assert names["accuracy"] > 0.7
    assert names["cost"].shape == (100,)  # the new mechanism's
    assert (names["cost"] < names["net"].macs[-1]).any()
    assert (names["weaker"].adversarial - names["test"].inputs[:10]).abs().amax() == pytest.approx(8 / 255, abs=1e-4)
    assert names["logits"].shape == (3, 100, 10)  # the new network's
    assert torch.isfinite(names["logits"]).all()
    assert names["result"].adversarial.shape == (10, 3, 32, 32)  # of the network's adapter
    assert set(names["shares"].tolist()) <= {0.25, 0.5, 1.0}


def test_the_profile_on_extending_is_one(tmp_path):
    (block,) = blocks(EXTEND, "yaml")
    shutil.copytree(PROFILES, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mine.yaml").write_text(block)
    mine, quick = profiles.load("mine", tmp_path), profiles.load("quick")
    assert mine.mechanism == ConfidenceExit(0.8) != quick.mechanism
    assert mine.campaigns["transfer"].images["test"] > quick.campaigns["transfer"].images["test"]


def test_numbers_in_the_text_are_those_of_the_code():
    text = README.read_text()
    cifar10 = DATASETS["cifar10"]
    assert f"The first {cifar10.samples['test'].size:,} test images of CIFAR-10" in text
    assert f"the first {cifar10.samples['validation'].size:,} of its validation images" in text
    assert f"on {50_000 - cifar10.validation:,} images: {cifar10.validation:,} of the training images are held out" in text
    assert f"the threshold ({ConfidenceExit().threshold})" in text


def test_links_lead_somewhere():
    for page in (README, *(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
        assert links
        assert [link for link in links if not (page.parent / link).exists()] == []
