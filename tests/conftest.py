import pytest
import torch
from torch import nn

import dynlib
from dynlib import MultiExitNetwork, data
from dynlib.networks.backbones import Backbone


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
