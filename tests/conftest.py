import os
import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
from torch import nn

import dynlib
from dynlib import MultiExitNetwork, data
from dynlib.files import ROOT
from dynlib.networks.backbones import Backbone
from dynlib.networks.training import Training


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="do all faults of tests/faults, which takes long")


def pytest_configure(config):
    config.addinivalue_line("markers", "fault(kind, outcome, quick, all): see tests/faults")


@pytest.fixture
def times(request, record_property):
    """How often a test is to do its fault; a test that passes has done it so often."""
    mark = request.node.get_closest_marker("fault").kwargs
    number = mark["all" if request.config.getoption("all") else "quick"]
    if not number:
        pytest.skip("takes long: needs --all")
    record_property("faults", (mark["kind"], number))
    return number


def pytest_terminal_summary(terminalreporter):
    done = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "faults":
                done[value[0]] += value[1]
    if done:
        terminalreporter.section("faults done and withstood")
        for kind, number in sorted(done.items()):
            terminalreporter.write_line(f"{number:7,} {kind}")
        terminalreporter.write_line(f"{done.total():7,} in all")


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.path.name not in ("test_workflow.py", "test_checkpoints.py"))


@pytest.fixture(scope="session")
def sdnn():
    return dynlib.load("resnet56", "cifar10", "sdnn")


@pytest.fixture(scope="session")
def dynn():
    return dynlib.load("resnet56", "cifar10", "dynn")


@pytest.fixture(scope="session")
def sample():
    """256 test images and their labels."""
    test = data.load("cifar10", "test", 256)
    return test.inputs, test.labels


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    return dynlib.build("mobilenet", "cifar10").eval()


@pytest.fixture
def workshop(monkeypatch, tmp_path):
    """A folder for tiny trainings; images of the bundled sample play all splits."""
    sample = data.load("cifar10", "test", 400)
    parts = {"train": slice(0, 256), "validation": slice(256, 320), "test": slice(320, 400)}

    def load(dataset, split, n=None):
        return data.Split(sample.images[parts[split]], sample.labels[parts[split]])

    monkeypatch.setattr(data, "load", load)
    return tmp_path


def needs_full_data(dataset="cifar10"):
    """Skips a test where the complete data set is not there."""
    return pytest.mark.skipif(not (data.folder() / f"{dataset}.npz").exists(), reason=f"needs the complete {dataset}")


def small_network(exits=2):
    """A network of three small blocks that runs in a millisecond, for tests that ask nothing of accuracy."""
    torch.manual_seed(0)
    plan = [(3, 8, 2), (8, 8, 2), (8, 16, 2)]
    blocks = [nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.ReLU()) for i, o, stride in plan]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return MultiExitNetwork(Backbone(nn.Identity(), blocks, head), "cifar10", (1, 2)[: exits - 1]).eval()


# In the place of an interpreter: it makes environments of itself, and notes what it is asked to install.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *"-m venv"*)
    mkdir -p "${@: -1}/bin"
    [ -z "${NO_PIP:-}" ] || exit 1
    cp "$0" "${@: -1}/bin/python" ;;
  *"pip install"*) echo "${@:6}" >>"$NOTES"; [ -z "${NO_NETWORK:-}" ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A folder of an awkward name with what run_all.sh needs, and a function that starts it there, or where it was renamed to."""
    folder = tmp_path / "für {alle} Fälle"
    (folder / "workflow" / "profiles").mkdir(parents=True)
    (folder / "workflow" / "profiles" / "quick.yaml").touch()
    for name in ("run_all.sh", "requirements.lock", "requirements.lock.sha256"):
        shutil.copy(ROOT / name, folder)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def start(folder=folder, shell="bash", **changes):
        """Whether it succeeds, and what it installs."""
        notes = tmp_path / "notes"
        notes.write_text("")
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "NOTES": str(notes), "CDPATH": "/", "PIP_TARGET": "/"}
        done = subprocess.run([shell, "run_all.sh", "setup"], cwd=folder, env=environment | changes, capture_output=True, text=True)
        return done.returncode == 0, notes.read_text().splitlines()

    start.folder = folder
    return start


@contextmanager
def killed_in_epoch(monkeypatch, number):
    """A training inside dies in this epoch, from 1; that none dies is an error."""
    epoch = Training._epoch

    def dies(self, k):
        if k == number - 1:
            raise KeyboardInterrupt
        return epoch(self, k)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_epoch", dies)
        with pytest.raises(KeyboardInterrupt):
            yield
