"""Devices have their own names in records and on cards, and one that is not here is named before anything starts."""

import sys

import pytest
import torch

from dynlib import craft, devices
from dynlib.attacks import PGD
from dynlib.campaigns import Campaign, Planned
from dynlib.mechanisms import ConfidenceExit
from dynlib.networks.identity import Network
from dynlib.networks.training import Training
from workflow import run
from workflow.craft import Step, stands_on

NETWORK = Network("cifar10", "resnet56")
CAMPAIGN = Campaign("made", (NETWORK,), {NETWORK: (NETWORK,)}, (Planned(PGD()),), {"test": 1}, ConfidenceExit())
HERE = {"cpu", *([torch.accelerator.current_accelerator().type] if torch.accelerator.is_available() else [])}
ABSENT = sorted({"cuda", "mps", "xpu", "cuda:9", "meta", "gpu", ""} - HERE)


@pytest.mark.parametrize("device", ABSENT)
def test_a_device_that_is_not_here_is_named_in_one_line(device):
    uses = [
        lambda: devices.hardware(device),
        lambda: craft.provenance("mine", CAMPAIGN, NETWORK, device),
        lambda: Training(NETWORK, "tiny", device),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=rf"^device '{device}' cannot be used here: [^\n]{{5,200}}$"):
            use()


@pytest.mark.parametrize("device", sorted(HERE))
def test_a_device_that_is_here_is_not_refused(device):
    devices.check_device(device)
    assert devices.hardware(device).startswith("CPU core") == (device == "cpu")


@pytest.mark.parametrize(("device", "name"), [("mps", "Apple GPU"), ("cuda", "H200"), ("cuda:1", "H200"), ("xpu", "xpu device")])
def test_a_gpu_is_never_recorded_as_a_processor(monkeypatch, device, name):
    class Module:
        get_device_name = staticmethod(lambda device: "H200")

    monkeypatch.setattr(devices, "check_device", lambda device: None)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: Module if kind == "cuda" else object)
    assert craft.provenance("mine", CAMPAIGN, NETWORK, device)["device"].startswith(name)
    assert not devices.is_cpu(device)


def test_a_run_on_a_device_that_is_not_here_ends_before_it_starts(monkeypatch, tmp_path):
    profile = run.profiles.load("smoke")
    elsewhere = profile.__class__(**{**vars(profile), "device": ABSENT[-1]})
    monkeypatch.setattr(run.profiles, "load", lambda name: elsewhere)
    monkeypatch.setattr(sys, "argv", ["run", "--profile", "smoke", "--cores", "1"])
    monkeypatch.setattr(run.subprocess, "run", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(SystemExit, match=r"^error: device .* cannot be used here"):
        run.main()
    assert stands_on(elsewhere, Step(next(iter(profile.campaigns.values())), profile.networks[0])) is None  # a dry run goes on
